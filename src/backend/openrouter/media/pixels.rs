//! How many pixels has a picture?
//!
//! From its head alone; nothing is decoded.

use super::Format;

/// Width and height, if they can be read.
pub fn size(format: Format, bytes: &[u8]) -> Option<(u32, u32)> {
    match format {
        Format::Png => Some((big(bytes, 16)?, big(bytes, 20)?)),
        Format::Gif => Some((little16(bytes, 6)?.into(), little16(bytes, 8)?.into())),
        Format::Webp => webp(bytes),
        Format::Jpeg => jpeg(bytes),
        Format::Pdf
        | Format::Wav
        | Format::Mp3
        | Format::Flac
        | Format::Ogg
        | Format::M4a
        | Format::Mp4
        | Format::Webm => None,
    }
}

fn big(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn big16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn little16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn little24(bytes: &[u8], at: usize) -> Option<u32> {
    let three = bytes.get(at..at + 3)?;
    Some(u32::from_le_bytes([three[0], three[1], three[2], 0]))
}

/// One of three forms: lossy, lossless, or extended.
fn webp(bytes: &[u8]) -> Option<(u32, u32)> {
    match bytes.get(12..16)? {
        b"VP8 " => {
            let side = |at| Some(u32::from(little16(bytes, at)? & 0x3fff));
            Some((side(26)?, side(28)?))
        }
        b"VP8L" => {
            let bits = u32::from_le_bytes(bytes.get(21..25)?.try_into().ok()?);
            Some(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
        }
        b"VP8X" => Some((little24(bytes, 24)? + 1, little24(bytes, 27)? + 1)),
        _ => None,
    }
}

/// Goes from segment to segment up to the one that begins the picture.
fn jpeg(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        if *bytes.get(at)? != 0xff {
            return None;
        }
        match *bytes.get(at + 1)? {
            0xff => at += 1, // Filling.
            0x01 | 0xd0..=0xd8 => at += 2,
            0xc4 | 0xc8 | 0xcc => at += 2 + usize::from(big16(bytes, at + 2)?.max(2)),
            0xc0..=0xcf => return Some((big16(bytes, at + 7)?.into(), big16(bytes, at + 5)?.into())),
            0xd9 | 0xda => return None,
            _ => at += 2 + usize::from(big16(bytes, at + 2)?.max(2)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_stand_in_the_head() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x02\x80\0\0\x01\xe0";
        assert_eq!(size(Format::Png, png), Some((640, 480)));
        assert_eq!(size(Format::Gif, b"GIF89a\x80\x02\xe0\x01"), Some((640, 480)));
        let jpeg = b"\xff\xd8\xff\xe0\0\x04xx\xff\xc4\0\x03y\xff\xc2\0\x11\x08\x01\xe0\x02\x80";
        assert_eq!(size(Format::Jpeg, jpeg), Some((640, 480)));
        let webp = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x7f\x02\0\xdf\x01\0";
        assert_eq!(size(Format::Webp, webp), Some((640, 480)));
        let lossy = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01";
        assert_eq!(size(Format::Webp, lossy), Some((640, 480)));
    }

    proptest! {
        #[test]
        fn broken_heads_have_none(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            for format in [Format::Png, Format::Gif, Format::Webp, Format::Jpeg] {
                let _ = size(format, &bytes);
            }
        }
    }
}
