//! Which attachments are sent, and how?

#[cfg(test)]
use serde_json::json;

use super::*;

/// A PNG of so many pixels, as far as its head goes.
fn png(width: u32, height: u32) -> Vec<u8> {
    [b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".as_slice(), &width.to_be_bytes(), &height.to_be_bytes(), b"tail"]
        .concat()
}

fn attachment(kind: Kind, source: Source) -> Attachment {
    Attachment { kind, source, mime_type: None, name: Some("it".into()), detail: None }
}

fn base64(kind: Kind, bytes: &[u8]) -> Attachment {
    attachment(kind, Source::Base64(STANDARD.encode(bytes)))
}

fn url(kind: Kind, url: &str) -> Attachment {
    attachment(kind, Source::Url(url.into()))
}

fn check(attachment: Attachment) -> Result<Checked, Rejected> {
    Settings::default().check(attachment, None)
}

fn model(modalities: serde_json::Value) -> Model {
    let entry = json!({"id": "acme/blind", "pricing": {"prompt": "0", "completion": "0"}, "architecture": {"input_modalities": modalities}});
    Model::read(entry).unwrap()
}

#[test]
fn data_becomes_the_part_for_its_kind() {
    let picture = check(base64(Kind::Image, &png(1024, 1024))).unwrap();
    let expected = json!({"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{}", STANDARD.encode(png(1024, 1024)))}});
    assert_eq!(serde_json::to_value(&picture.part).unwrap(), expected);
    assert_eq!((picture.media.tokens, picture.bytes), (765, Some(28)));
    let document = check(base64(Kind::Pdf, b"%PDF-1.7")).unwrap();
    let expected = json!({"type": "file", "file": {"filename": "it", "file_data": "data:application/pdf;base64,JVBERi0xLjc="}});
    assert_eq!(serde_json::to_value(&document.part).unwrap(), expected);
    let sound = check(base64(Kind::Audio, b"fLaC")).unwrap();
    let expected = json!({"type": "input_audio", "input_audio": {"data": "ZkxhQw==", "format": "flac"}});
    assert_eq!(serde_json::to_value(&sound.part).unwrap(), expected);
    let text = check(attachment(Kind::Text, Source::Bytes("größe".into()))).unwrap();
    assert_eq!(text.part, Part::text("[attached text: it]\ngröße"));
}

#[test]
fn addresses_are_passed_on_if_they_are_https() {
    let picture = check(url(Kind::Image, "https://example.com/a.png?x=1")).unwrap();
    let expected = json!({"type": "image_url", "image_url": {"url": "https://example.com/a.png?x=1"}});
    assert_eq!(serde_json::to_value(&picture.part).unwrap(), expected);
    for wrong in [
        "http://example.com/a.png",
        "file:///etc/passwd",
        "ftp://example.com/a.png",
        "https://me:hush@example.com/a.png",
        "/etc/passwd",
        "https://",
        "",
    ] {
        assert_eq!(check(url(Kind::Image, wrong)), Err(Rejected::Address { name: "it".into() }), "{wrong}");
    }
    assert_eq!(
        check(url(Kind::Audio, "https://example.com/a.mp3")),
        Err(Rejected::NeedsData { name: "it".into() })
    );
}

#[test]
fn data_urls_are_looked_into() {
    let inside =
        |head: &str, bytes: &[u8]| url(Kind::Image, &format!("data:{head},{}", STANDARD.encode(bytes)));
    assert!(check(inside("image/png;base64", &png(1, 1))).is_ok());
    let wrong = check(inside("image/jpeg;base64", &png(1, 1)));
    assert!(matches!(wrong, Err(Rejected::Mislabelled { found: "image/png", .. })), "{wrong:?}");
    assert!(matches!(check(inside("image/png", b"x")), Err(Rejected::Base64 { .. })));
}

#[test]
fn what_it_is_decides_and_not_what_it_is_called() {
    let program = check(base64(Kind::Image, b"MZ\x90"));
    assert!(matches!(program, Err(Rejected::Format { .. })), "{program:?}");
    let document = check(base64(Kind::Image, b"%PDF-1.7")).unwrap_err();
    assert!(document.to_string().contains("application/pdf"), "{document}");
    let said = Attachment { mime_type: Some("image/gif".into()), ..base64(Kind::Image, &png(1, 1)) };
    assert!(matches!(check(said), Err(Rejected::Mislabelled { .. })));
    assert!(matches!(check(base64(Kind::Image, b"<svg/>")), Err(Rejected::Svg { .. })));
    assert!(matches!(check(url(Kind::Image, "https://example.com/a.SVG#x")), Err(Rejected::Svg { .. })));
    let not_base64 = check(attachment(Kind::Image, Source::Base64("%%%".into())));
    assert_eq!(not_base64, Err(Rejected::Base64 { name: "it".into() }));
    let not_text = check(attachment(Kind::Text, Source::Bytes(vec![0xff])));
    assert!(matches!(not_text, Err(Rejected::Format { .. })));
}

#[test]
fn what_is_too_large_is_refused_before_it_is_decoded() {
    let small = Settings { max_size: settings::Size(100), max_pixels: 64 };
    let many = attachment(Kind::Image, Source::Base64("!".repeat(1000)));
    assert!(matches!(small.check(many, None), Err(Rejected::TooLarge { limit: 100, .. })));
    let bytes = attachment(Kind::Pdf, Source::Bytes(vec![b'x'; 101]));
    assert!(matches!(small.check(bytes, None), Err(Rejected::TooLarge { bytes: 101, .. })));
    let wide = small.check(base64(Kind::Image, &png(65, 1)), None);
    assert!(matches!(wide, Err(Rejected::Pixels { width: 65, height: 1, limit: 64, .. })), "{wide:?}");
    assert!(small.check(base64(Kind::Image, &png(64, 64)), None).is_ok());
}

#[test]
fn a_model_is_only_sent_what_it_reads() {
    let settings = Settings::default();
    let blind = model(json!(["text"]));
    let refused = settings.check(base64(Kind::Image, &png(1, 1)), Some(&blind)).unwrap_err();
    assert_eq!(refused.code(), Code::UnsupportedModality);
    assert!(refused.to_string().contains("acme/blind"));
    assert!(settings.check(base64(Kind::Pdf, b"%PDF-"), Some(&blind)).is_ok(), "documents are read to it");
    assert!(settings.check(base64(Kind::Image, &png(1, 1)), Some(&model(json!(null)))).is_ok());
    assert!(settings.check(base64(Kind::Image, &png(1, 1)), Some(&model(json!(["text", "image"])))).is_ok());
}

#[test]
fn names_stand_in_one_line() {
    let odd = Attachment { name: Some("a\nb".repeat(90)), ..base64(Kind::Image, b"x") };
    let message = check(odd).unwrap_err().to_string();
    assert!(!message.contains('\n') && message.len() < 300);
}
