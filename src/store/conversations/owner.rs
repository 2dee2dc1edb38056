//! Whose is a conversation?
//!
//! The database knows owners by digests that are made with a secret: whoever steals it learns no names.

use aws_lc_rs::hmac;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};

/// Whom a request was verified for. The subject alone names nobody: two issuers can have the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Principal {
    pub tenant: String,
    pub issuer: String,
    pub subject: String,
    /// May read what others of the tenant have shared.
    pub reads_shared: bool,
}

/// Makes digests that only this store makes.
#[derive(Clone)]
pub(super) struct Pepper(hmac::Key);

impl std::fmt::Debug for Pepper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pepper") // It holds a key.
    }
}

impl Pepper {
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The owner's digest, in hexadecimal. A separator within a part is written otherwise, or the tenant `a`
    /// with the issuer `b␟c` would be the tenant `a␟b` with the issuer `c`.
    pub fn owner(&self, principal: &Principal) -> String {
        let Principal { tenant, issuer, subject, reads_shared: _ } = principal;
        let parts = [tenant, issuer, subject]
            .map(|part| part.replace('\u{1e}', "\u{1e}0").replace('\u{1f}', "\u{1e}1"));
        hex(self.sign(parts.join("\u{1f}").as_bytes()).as_ref())
    }

    /// A digest for one purpose, of one owner.
    pub fn digest(&self, purpose: &str, owner: &str, of: &[u8]) -> Vec<u8> {
        let text = [purpose.as_bytes(), b"\0", owner.as_bytes(), b"\0", of].concat();
        self.sign(&text).as_ref().to_vec()
    }

    /// What the upstream may know an owner or a conversation as.
    pub fn alias(&self, of: &str) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.digest("upstream", "", of.as_bytes()))
    }

    fn sign(&self, text: &[u8]) -> hmac::Tag {
        hmac::sign(&self.0, text)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // To a string, which does not fail.
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(tenant: &str, issuer: &str, subject: &str) -> Principal {
        let [tenant, issuer, subject] = [tenant, issuer, subject].map(str::to_owned);
        Principal { tenant, issuer, subject, reads_shared: false }
    }

    #[test]
    fn owners_differ_where_any_part_does_and_are_the_same_where_none_does() {
        let pepper = Pepper::new(b"pepper");
        let all = [
            principal("a", "b", "c"),
            principal("a", "c", "b"),
            principal("a", "b\u{1f}c", ""),
            principal("a\u{1f}b", "c", ""),
            principal("a", "b\u{1f}", "c"),
            principal("a", "b", "\u{1f}c"),
            principal("a", "b", "\u{1e}1c"),
            principal("", "a", "b\u{1f}c"),
        ];
        let owners: Vec<_> = all.iter().map(|one| pepper.owner(one)).collect();
        for (n, owner) in owners.iter().enumerate() {
            assert_eq!(owner.len(), 64);
            assert_eq!(owners.iter().position(|other| other == owner), Some(n));
        }
        let shared = Principal { reads_shared: true, ..all[0].clone() };
        assert_eq!(pepper.owner(&shared), owners[0], "what one may do is not who one is");
        assert_ne!(Pepper::new(b"other").owner(&all[0]), owners[0]);
    }

    #[test]
    fn an_owner_is_the_hmac_of_tenant_issuer_and_subject() {
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"pepper"), b"a\x1fb\x1fc");
        assert_eq!(Pepper::new(b"pepper").owner(&principal("a", "b", "c")), hex(expected.as_ref()));
    }
}
