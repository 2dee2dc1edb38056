//! How does a name or an argument stand in an HTTP header (revision 2026-07-28, "Header
//! encoding")?
//!
//! Visible ASCII goes as it is; everything else, and whatever could be mistaken for the
//! encoded form, goes as `=?base64?…?=`.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

const OPEN: &str = "=?base64?";
const CLOSE: &str = "?=";

pub fn encode(value: &str) -> Cow<'_, str> {
    let like_encoded = value.starts_with(OPEN) && value.ends_with(CLOSE);
    let visible = value.bytes().all(|b| (0x20..=0x7e).contains(&b));
    let plain = visible && !value.is_empty() && value.trim_matches(' ') == value && !like_encoded;
    if plain { Cow::Borrowed(value) } else { Cow::Owned(format!("{OPEN}{}{CLOSE}", STANDARD.encode(value))) }
}

/// Does a header without white space around it stand for its own bytes?
pub fn is_plain(field: &[u8]) -> bool {
    field.is_ascii() && !field.starts_with(OPEN.as_bytes())
}

/// The value a header stands for, or nothing if it stands for none.
pub fn decode(field: &[u8]) -> Option<Cow<'_, str>> {
    let field = std::str::from_utf8(field).ok()?.trim_matches([' ', '\t']);
    if !field.bytes().all(|b| b == b'\t' || (0x20..=0x7e).contains(&b)) {
        return None;
    }
    match field.strip_prefix(OPEN).and_then(|rest| rest.strip_suffix(CLOSE)) {
        Some(inner) => String::from_utf8(STANDARD.decode(inner).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(field)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_values_go_as_they_are() {
        assert_eq!(encode("files__read file"), "files__read file");
        assert_eq!(decode(b" files__read \t").unwrap(), "files__read");
    }

    #[test]
    fn everything_else_goes_encoded() {
        assert_eq!(encode("ü"), "=?base64?w7w=?=");
        assert_eq!(encode(""), "=?base64??=");
        assert_eq!(encode(" a"), "=?base64?IGE=?=");
        assert_eq!(encode("=?base64?YQ==?="), "=?base64?PT9iYXNlNjQ/WVE9PT89?=");
    }

    #[test]
    fn what_is_not_canonical_stands_for_nothing() {
        for field in ["=?base64?w7w?=", "=?base64?w7x=?=", "=?base64?/w==?=", "=?base64?!?="] {
            assert_eq!(decode(field.as_bytes()), None, "{field}");
        }
        assert_eq!(decode(b"a\x00b"), None);
        assert_eq!(decode("ü".as_bytes()), None);
        assert_eq!(decode(b"=?BASE64?YQ==?=").unwrap(), "=?BASE64?YQ==?=");
    }

    proptest! {
        #[test]
        fn every_value_comes_back(value in ".*") {
            let encoded = encode(&value).into_owned();
            prop_assert_eq!(decode(encoded.as_bytes()).unwrap(), value);
        }
    }
}
