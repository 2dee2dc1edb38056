//! What are conversations, turns, messages and benchmarks called?
//!
//! A prefix that says what it is, and 131 random bits: nobody guesses one, and it tells nothing, not even
//! when it was made.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

use super::Error;

const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LENGTH: usize = 22;

/// The id of what `KIND` stands for; see the names below.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id<const KIND: char>([u8; LENGTH]);

pub type ConversationId = Id<'c'>;
pub type TurnId = Id<'t'>;
pub type MessageId = Id<'m'>;
pub type BenchmarkId = Id<'b'>;
/// Of calls that belong together in the ledger.
pub type RunId = Id<'r'>;

impl<const KIND: char> Id<KIND> {
    const PREFIX: &'static str = match KIND {
        'c' => "cnv_",
        't' => "trn_",
        'm' => "msg_",
        'b' => "bmk_",
        'r' => "run_",
        _ => panic!("an id of nothing"), // While compiling.
    };

    /// One that nothing has yet.
    pub fn new() -> Result<Self, Error> {
        let mut letters = [0; LENGTH];
        let mut filled = 0;
        while filled < LENGTH {
            let mut random = [0; 32];
            getrandom::fill(&mut random).map_err(|why| Error::Unavailable(why.to_string()))?;
            // The highest bytes would make some letters likelier than others.
            for byte in random.into_iter().filter(|byte| *byte < 248).take(LENGTH - filled) {
                letters[filled] = LETTERS[usize::from(byte) % LETTERS.len()];
                filled += 1;
            }
        }
        Ok(Self(letters))
    }
}

impl<const KIND: char> fmt::Display for Id<KIND> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        self.0.iter().try_for_each(|letter| fmt::Write::write_char(f, char::from(*letter)))
    }
}

impl<const KIND: char> fmt::Debug for Id<KIND> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const KIND: char> FromStr for Id<KIND> {
    type Err = Error;

    /// What cannot be an id is the id of nothing: `NotFound`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let letters = text.strip_prefix(Self::PREFIX).and_then(|letters| letters.as_bytes().try_into().ok());
        let letters: [u8; LENGTH] = letters.ok_or(Error::NotFound)?;
        if !letters.iter().all(u8::is_ascii_alphanumeric) {
            return Err(Error::NotFound);
        }
        Ok(Self(letters))
    }
}

impl<const KIND: char> Serialize for Id<KIND> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_new_each_time_and_read_back() {
        let ids: Vec<_> = (0..1000).map(|_| MessageId::new().unwrap()).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 1000);
        for id in ids {
            let text = id.to_string();
            assert_eq!((text.len(), &text[..4]), (26, "msg_"));
            assert_eq!(text.parse::<MessageId>().unwrap(), id);
            assert!(text.parse::<TurnId>().is_err(), "an id of one kind is none of another");
        }
    }

    #[test]
    fn what_cannot_be_an_id_is_not_found() {
        for text in
            ["", "cnv_", "cnv_0123456789", "cnv_012345678901234567890!", "cnv_0123456789012345678901x"]
        {
            assert!(matches!(text.parse::<ConversationId>(), Err(Error::NotFound)), "{text}");
        }
    }
}
