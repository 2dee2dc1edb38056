//! How is an API key held so that nobody sees it?

use std::fmt;

use http::HeaderValue;
use zeroize::Zeroizing;

/// A key of OpenRouter's. It is wiped from memory when it is dropped and never printed.
#[derive(Clone)]
pub struct Key(Zeroizing<String>);

impl Key {
    /// A key as it was given, or what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("this is no API key; one looks like sk-or-v1-… and has no spaces".into());
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// What proves it to OpenRouter.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", self.0.as_str()));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Tells keys apart without saying them.
    pub(super) fn fingerprint(&self) -> u64 {
        use std::hash::BuildHasher as _;
        foldhash::fast::FixedState::default().hash_one(self.0.as_str())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sk-or-…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown() {
        let key = Key::new(" sk-or-v1-hush\n").unwrap();
        assert_eq!(format!("{key:?}"), "sk-or-…");
        assert_eq!(format!("{:?}", key.header().unwrap()), "Sensitive");
        assert_eq!(key.header().unwrap().as_bytes(), b"Bearer sk-or-v1-hush");
    }

    #[test]
    fn what_is_no_key_is_said_so() {
        for text in ["", " ", "two words", "tab\there", "ä"] {
            assert!(Key::new(text).is_err(), "{text:?}");
        }
    }
}
