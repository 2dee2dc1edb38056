//! What are these bytes?
//!
//! By how they begin, which is what readers of such files go by.

use super::Kind;

/// How much of a text is searched for the beginning of a drawing.
const HEAD: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Png,
    Jpeg,
    Gif,
    Webp,
    Pdf,
    Wav,
    Mp3,
    Flac,
    Ogg,
    M4a,
    Mp4,
    Webm,
}

impl Format {
    pub const fn kind(self) -> Kind {
        match self {
            Self::Png | Self::Jpeg | Self::Gif | Self::Webp => Kind::Image,
            Self::Pdf => Kind::Pdf,
            Self::Wav | Self::Mp3 | Self::Flac | Self::Ogg | Self::M4a => Kind::Audio,
            Self::Mp4 | Self::Webm => Kind::Video,
        }
    }

    pub const fn mime(self) -> &'static str {
        self.names().0
    }

    /// As `input_audio.format` has it.
    pub const fn word(self) -> &'static str {
        self.names().1
    }

    /// Its type, the short word for it, and other types that are said of it.
    const fn names(self) -> (&'static str, &'static str, &'static [&'static str]) {
        match self {
            Self::Png => ("image/png", "png", &["image/x-png"]),
            Self::Jpeg => ("image/jpeg", "jpeg", &["image/jpg", "image/pjpeg"]),
            Self::Gif => ("image/gif", "gif", &[]),
            Self::Webp => ("image/webp", "webp", &[]),
            Self::Pdf => ("application/pdf", "pdf", &["application/x-pdf"]),
            Self::Wav => ("audio/wav", "wav", &["audio/x-wav", "audio/wave", "audio/vnd.wave"]),
            Self::Mp3 => ("audio/mpeg", "mp3", &["audio/mp3", "audio/mpeg3"]),
            Self::Flac => ("audio/flac", "flac", &["audio/x-flac"]),
            Self::Ogg => ("audio/ogg", "ogg", &["application/ogg", "audio/opus", "audio/vorbis"]),
            Self::M4a => ("audio/mp4", "m4a", &["audio/m4a", "audio/x-m4a", "audio/aac"]),
            Self::Mp4 => ("video/mp4", "mp4", &["video/quicktime", "video/x-m4v"]),
            Self::Webm => ("video/webm", "webm", &["video/x-matroska"]),
        }
    }

    /// Is this type a name for it? One that says nothing is a name for everything.
    pub fn may_be_called(self, said: &str) -> bool {
        let said = said.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (mime, _, others) = self.names();
        said.is_empty()
            || said == "application/octet-stream"
            || said == mime
            || others.contains(&said.as_str())
    }
}

/// What is taken of a kind.
pub const fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Image => "PNG, JPEG, WebP or GIF",
        Kind::Pdf => "PDF",
        Kind::Audio => "WAV, MP3, FLAC, Ogg or M4A",
        Kind::Video => "MP4 or WebM",
        Kind::Text => "UTF-8",
    }
}

pub fn format(bytes: &[u8]) -> Option<Format> {
    let begins = |magic: &[u8]| bytes.starts_with(magic);
    let at = |place: usize, magic: &[u8]| bytes.get(place..).is_some_and(|rest| rest.starts_with(magic));
    Some(match bytes {
        _ if begins(b"\x89PNG\r\n\x1a\n") => Format::Png,
        _ if begins(b"\xff\xd8\xff") => Format::Jpeg,
        _ if begins(b"GIF87a") || begins(b"GIF89a") => Format::Gif,
        _ if begins(b"RIFF") && at(8, b"WEBP") => Format::Webp,
        _ if begins(b"RIFF") && at(8, b"WAVE") => Format::Wav,
        _ if begins(b"%PDF-") => Format::Pdf,
        _ if begins(b"fLaC") => Format::Flac,
        _ if begins(b"OggS") => Format::Ogg,
        _ if begins(b"ID3") => Format::Mp3,
        // Eleven bits of synchronization, of a version and a layer that there are.
        [0xff, second, ..] if second & 0xe0 == 0xe0 && second & 0x18 != 0x08 && second & 0x06 == 0x02 => {
            Format::Mp3
        }
        _ if at(4, b"ftypM4A") || at(4, b"ftypM4B") => Format::M4a,
        _ if at(4, b"ftyp") => Format::Mp4,
        _ if begins(b"\x1a\x45\xdf\xa3") => Format::Webm,
        _ => return None,
    })
}

/// Is it a drawing that is a program? Also one that is said to be something else.
pub fn is_svg(bytes: &[u8]) -> bool {
    let head = &bytes[..bytes.len().min(HEAD)];
    let head: Vec<u8> = head.iter().filter(|byte| **byte != 0).map(u8::to_ascii_lowercase).collect();
    let begins = head.iter().find(|byte| !byte.is_ascii_whitespace() && **byte < 0x80) == Some(&b'<');
    begins && memchr::memmem::find(&head, b"<svg").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_how_they_begin() {
        for (bytes, expected) in [
            (&b"\x89PNG\r\n\x1a\n\0"[..], Some(Format::Png)),
            (b"\xff\xd8\xff\xe0", Some(Format::Jpeg)),
            (b"GIF89a", Some(Format::Gif)),
            (b"RIFF\0\0\0\0WEBPVP8 ", Some(Format::Webp)),
            (b"RIFF\0\0\0\0WAVEfmt ", Some(Format::Wav)),
            (b"%PDF-1.7", Some(Format::Pdf)),
            (b"ID3\x04", Some(Format::Mp3)),
            (b"\xff\xfb\x90", Some(Format::Mp3)),
            (b"fLaC", Some(Format::Flac)),
            (b"OggS", Some(Format::Ogg)),
            (b"\0\0\0\x20ftypM4A ", Some(Format::M4a)),
            (b"\0\0\0\x20ftypisom", Some(Format::Mp4)),
            (b"\x1a\x45\xdf\xa3", Some(Format::Webm)),
            (b"", None),
            (b"RIFF", None),
            (b"\xff", None),
            (b"MZ", None),
        ] {
            assert_eq!(format(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_drawing_is_found_whatever_stands_before_it() {
        for text in ["<svg/>", "\u{feff}<?xml version='1.0'?>\n<!-- x --><SVG>", " \n<svg xmlns=''>"] {
            assert!(is_svg(text.as_bytes()), "{text}");
        }
        let wide: Vec<u8> = "<svg>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(is_svg(&wide));
        assert!(!is_svg(b"what <svg> means") && !is_svg(b""));
    }

    #[test]
    fn types_have_several_names() {
        assert!(Format::Jpeg.may_be_called("image/JPG; q=1") && Format::Png.may_be_called(""));
        assert!(!Format::Png.may_be_called("image/jpeg"));
    }
}
