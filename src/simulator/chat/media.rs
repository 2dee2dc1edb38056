//! What is in a message besides text?

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::simulator::{random, refusal::Refusal};

/// What a picture counts as, at a glance and looked at closely.
const GLANCE: u64 = 85;
const CLOSE: u64 = 765;

/// A picture, a file, a sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Medium {
    /// `image/png 640x480 12345 bytes sha=…`
    pub seen: String,
    pub tokens: u64,
    /// Of a document: its name, and the hash by which it is known again.
    pub document: Option<(String, String)>,
}

/// What a part of a message is, if it is no text.
pub fn read(part: &Value) -> Result<Option<Medium>, Refusal> {
    let medium = match part["type"].as_str() {
        Some("text") => return Ok(None),
        Some("image_url") => {
            let image = &part["image_url"];
            let address = image.as_str().or_else(|| image["url"].as_str()).unwrap_or_default();
            let tokens = if image["detail"] == "low" { GLANCE } else { CLOSE };
            Medium { tokens, ..read_address(address)? }
        }
        Some("file") => {
            let file = &part["file"];
            let address = file["file_data"].as_str().or_else(|| file["file_id"].as_str()).unwrap_or_default();
            let name = file["filename"].as_str().unwrap_or("document").to_owned();
            let medium = read_address(address)?;
            let hash = random::short(address.as_bytes());
            Medium { document: Some((name, hash)), tokens: CLOSE, ..medium }
        }
        Some("input_audio") => {
            let audio = &part["input_audio"];
            let bytes = decoded(audio["data"].as_str().unwrap_or_default())?;
            let kind = format!("audio/{}", audio["format"].as_str().unwrap_or("wav"));
            Medium { seen: described(&kind, &bytes), tokens: CLOSE, document: None }
        }
        Some("video_url") => {
            Medium { tokens: CLOSE, ..read_address(part["video_url"]["url"].as_str().unwrap_or_default())? }
        }
        _ => return Err(Refusal::invalid(format!("there is no part of the type {}", part["type"]))),
    };
    Ok(Some(medium))
}

/// A `data:` address is looked into; others are only named, since nothing is fetched.
fn read_address(address: &str) -> Result<Medium, Refusal> {
    let seen = match address.strip_prefix("data:") {
        Some(data) => {
            let (kind, text) = data.split_once(";base64,").ok_or_else(broken)?;
            described(kind, &decoded(text)?)
        }
        None => format!("{address} (not fetched)"),
    };
    Ok(Medium { seen, tokens: CLOSE, document: None })
}

fn decoded(text: &str) -> Result<Vec<u8>, Refusal> {
    STANDARD.decode(text.trim()).ok().filter(|bytes| !bytes.is_empty()).ok_or_else(broken)
}

fn broken() -> Refusal {
    let no = Refusal::new(400, "Invalid image: the data is not valid base64");
    no.with(json!({ "provider_name": null, "error_type": "invalid_image" }))
}

fn described(kind: &str, bytes: &[u8]) -> String {
    let size = size(bytes).map_or_else(String::new, |(width, height)| format!(" {width}x{height}"));
    format!("{kind}{size} {} bytes sha={}", bytes.len(), random::short(bytes))
}

/// Width and height of a PNG, GIF or JPEG.
fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let big = |at: usize, length: usize| {
        let digits = bytes.get(at..at + length)?;
        Some(digits.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)))
    };
    let little = |at: usize| Some(u32::from(*bytes.get(at)?) | u32::from(*bytes.get(at + 1)?) << 8);
    if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Some((big(16, 4)?, big(20, 4)?));
    }
    if bytes.starts_with(b"GIF8") {
        return Some((little(6)?, little(8)?));
    }
    if !bytes.starts_with(&[0xFF, 0xD8]) {
        return None;
    }
    // A JPEG is a row of segments, one of which begins a frame.
    let mut at = 2;
    while let (Some(0xFF), Some(kind)) = (bytes.get(at), bytes.get(at + 1)) {
        if (0xC0..=0xCF).contains(kind) && ![0xC4, 0xC8, 0xCC].contains(kind) {
            return Some((big(at + 7, 2)?, big(at + 5, 2)?));
        }
        at += 2 + usize::try_from(big(at + 2, 2)?).ok()?;
    }
    None
}

/// What a document says when it is read, in the form in which it is handed back to be kept.
pub fn parsed(medium: &Medium) -> Option<Value> {
    let (name, hash) = medium.document.as_ref()?;
    let text = format!("The text of {name}: {}", medium.seen);
    let content = json!([{ "type": "text", "text": text }]);
    Some(json!({ "type": "file", "file": { "hash": hash, "name": name, "content": content } }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::images;

    #[test]
    fn pictures_are_measured() {
        assert_eq!(size(&images::png("a")), Some((64, 64)));
        assert_eq!(size(b"GIF89a\x80\x02\xe0\x01rest"), Some((640, 480)));
        let jpeg = [0xFF, 0xD8, 0xFF, 0xE0, 0, 4, 0, 0, 0xFF, 0xC0, 0, 11, 8, 0x01, 0xE0, 0x02, 0x80, 3];
        assert_eq!(size(&jpeg), Some((640, 480)));
        for broken in [&jpeg[..5], b"", b"\x89PNG\r\n\x1a\n", &[0xFF, 0xD8, 0xFF, 0xE0, 0, 0]] {
            assert_eq!(size(broken), None);
        }
    }

    #[test]
    fn what_is_no_base64_is_no_image() {
        let part = |url: &str| json!({ "type": "image_url", "image_url": { "url": url } });
        assert_eq!(read(&part("data:image/png;base64,?")).unwrap_err().status, 400);
        assert_eq!(read(&part("data:image/png,abc")).unwrap_err().status, 400);
        let seen = read(&part("data:image/png;base64,iVBORw0KGgo=")).unwrap().unwrap().seen;
        assert!(seen.starts_with("image/png 8 bytes sha="), "{seen}");
        assert!(read(&part("https://sim.invalid/a.png")).unwrap().unwrap().seen.ends_with("(not fetched)"));
    }
}
