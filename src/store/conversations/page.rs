//! How is a long list read piece by piece?
//!
//! A cursor is the place of the last item in the list's order, not a count: what is added or removed meanwhile
//! makes nothing come twice and nothing go missing.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

use super::Error;

/// Where to go on. A text without meaning to whoever holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub String);

/// A piece of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub next: Option<Cursor>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    NewestFirst,
    OldestFirst,
}

impl Cursor {
    /// Behind the item with this key, and this number among those with the same.
    pub(super) fn behind(list: &str, key: i64, number: i64) -> Self {
        Self(BASE64_URL_SAFE_NO_PAD.encode(format!("{list} {key} {number}")))
    }

    /// The key and the number, of a cursor of this list.
    pub(super) fn place(&self, list: &str) -> Result<(i64, i64), Error> {
        let text = BASE64_URL_SAFE_NO_PAD.decode(&self.0).ok().and_then(|text| String::from_utf8(text).ok());
        let place = text.as_deref().and_then(|text| {
            let (key, number) = text.strip_prefix(list)?.strip_prefix(' ')?.split_once(' ')?;
            Some((key.parse().ok()?, number.parse().ok()?))
        });
        place.ok_or(Error::Cursor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_of_its_list_only() {
        let cursor = Cursor::behind("updated", -5, i64::MAX);
        assert_eq!(cursor.place("updated"), Ok((-5, i64::MAX)));
        assert_eq!(cursor.place("created"), Err(Error::Cursor));
        for text in ["", "x", "!!", "dXBkYXRlZCAx"] {
            assert_eq!(Cursor(text.into()).place("updated"), Err(Error::Cursor), "{text}");
        }
    }
}
