//! Where in a list does the next page begin?
//!
//! A cursor holds the name of the last entry given, not a number: the list is in the order of
//! its names, so the next page begins after that name however the list has changed meanwhile,
//! and after a restart too. It is signed over whom and what it was given for, so that no other
//! caller, list or endpoint can use it, and one made up is told from ours.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    call::{Caller, Scope},
    wire::mcp::List,
};

/// The first half of an HMAC-SHA256; a guess has one chance in 2^128.
const SIGNATURE: usize = 16;

/// Makes and reads cursors.
#[derive(Debug)]
pub struct Cursors {
    key: hmac::Key,
}

impl Cursors {
    pub fn new(secret: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// A cursor to what follows the entry of this name.
    pub fn after(&self, last: &str, list: List, scope: &Scope, caller: &Caller) -> String {
        let signature = self.sign(last, list, scope, caller);
        URL_SAFE_NO_PAD.encode([&signature.as_ref()[..SIGNATURE], last.as_bytes()].concat())
    }

    /// The name that a cursor of ours holds; nothing for any other text.
    pub fn read(&self, cursor: &str, list: List, scope: &Scope, caller: &Caller) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (signature, last) = bytes.split_at_checked(SIGNATURE)?;
        let last = std::str::from_utf8(last).ok()?;
        let expected = self.sign(last, list, scope, caller);
        aws_lc_rs::constant_time::verify_slices_are_equal(signature, &expected.as_ref()[..SIGNATURE]).ok()?;
        Some(last.to_owned())
    }

    fn sign(&self, last: &str, list: List, scope: &Scope, caller: &Caller) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        // Each part ends where the next one's length says, so no two contexts read alike.
        for part in [list.member(), &format!("{scope:?}"), &caller.name(), last] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_only_where_it_was_given() {
        let cursors = Cursors::new(&[7; 32]);
        let (all, one) = (Scope::All, Scope::One("a".into()));
        let cursor = cursors.after("files__read", List::Tools, &all, &Caller::Local);
        let read = |cursor: &str, list, scope, caller| cursors.read(cursor, list, scope, caller);
        assert_eq!(read(&cursor, List::Tools, &all, &Caller::Local).as_deref(), Some("files__read"));
        assert_eq!(read(&cursor, List::Prompts, &all, &Caller::Local), None);
        assert_eq!(read(&cursor, List::Tools, &one, &Caller::Local), None);
        assert_eq!(read(&cursor, List::Tools, &all, &Caller::Gateway), None);
        assert_eq!(Cursors::new(&[8; 32]).read(&cursor, List::Tools, &all, &Caller::Local), None);
        for text in ["", "x", "é", &cursor[1..], &format!("{cursor}A")] {
            assert_eq!(read(text, List::Tools, &all, &Caller::Local), None, "{text}");
        }
    }
}
