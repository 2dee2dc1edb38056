//! How does a file get into a message?

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

/// What is larger is refused here already, since no gateway takes it.
const LARGEST: u64 = 64 << 20;

/// A file as the tool `chat` takes it.
#[derive(Debug)]
pub struct Attachment(pub Value);

impl Attachment {
    pub fn read(file: &Path) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{} cannot be attached: {why}", file.display());
        let about = fs::metadata(file).map_err(|why| wrong(&why))?;
        if !about.is_file() {
            return Err(wrong(&"it is no file"));
        }
        if about.len() > LARGEST {
            return Err(wrong(&format_args!("it is over {} MiB", LARGEST >> 20)));
        }
        let bytes = fs::read(file).map_err(|why| wrong(&why))?;
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let kind = kind(&name, &bytes).ok_or_else(|| {
            wrong(&"it is no picture, PDF, recording, video or text; its name should end like .png, .pdf, .mp3, .mp4 or .txt")
        })?;
        Ok(Self(json!({ "kind": kind, "name": name, "data": STANDARD.encode(bytes) })))
    }
}

/// By the name, since that is what people go by; what is in the file is looked at by the gateway.
fn kind(name: &str, bytes: &[u8]) -> Option<&'static str> {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase()).unwrap_or_default();
    match ending.as_str() {
        "png" | "jpg" | "jpeg" | "webp" | "gif" => Some("image"),
        "pdf" => Some("pdf"),
        "wav" | "mp3" | "flac" | "ogg" | "m4a" => Some("audio"),
        "mp4" | "webm" => Some("video"),
        _ => std::str::from_utf8(bytes).is_ok().then_some("text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_its_name_says_and_else_text_if_it_is_one() {
        assert_eq!(kind("a.PNG", b""), Some("image"));
        assert_eq!(kind("notes.md", "über".as_bytes()), Some("text"));
        assert_eq!(kind("Makefile", b"all:"), Some("text"));
        assert_eq!(kind("program", b"\xff\x00"), None);
    }

    #[test]
    fn what_cannot_be_attached_is_told_by_name() {
        let why = Attachment::read(Path::new("/no/such/file.png")).unwrap_err();
        assert!(why.starts_with("/no/such/file.png cannot be attached: "), "{why}");
        let why = Attachment::read(Path::new("/")).unwrap_err();
        assert!(why.ends_with("it is no file"), "{why}");
    }
}
