//! Where does a string end, and is everything in it allowed?
//!
//! A result that is large is a long string most often, full of quotes and line ends behind
//! backslashes. So 64 bytes are looked at together: which of them are special is a bit each,
//! and which are escaped follows from these bits without a branch.

use wide::u8x16;

use super::{Fault, scan::Scan};

const BLOCK: usize = 64;

/// The special bytes of a block, a bit each, the first byte's lowest.
struct Special {
    quotes: u64,
    backslashes: u64,
    /// The letter n, which behind a backslash is a line end.
    ns: u64,
    /// Control characters, which a string may not have.
    controls: u64,
    /// Parts of characters outside of ASCII.
    high: u64,
}

impl Special {
    /// In parts as long as every processor compares at once.
    #[inline(always)]
    fn of(block: &[u8; BLOCK]) -> Self {
        let mut special = Self { quotes: 0, backslashes: 0, ns: 0, controls: 0, high: 0 };
        let (parts, _) = block.as_chunks::<16>();
        for (index, part) in parts.iter().enumerate() {
            let part = u8x16::new(*part);
            let bits = |found: u8x16| u64::from(found.to_bitmask()) << (index * 16);
            special.quotes |= bits(part.simd_eq(u8x16::splat(b'"')));
            special.backslashes |= bits(part.simd_eq(u8x16::splat(b'\\')));
            special.ns |= bits(part.simd_eq(u8x16::splat(b'n')));
            special.controls |= bits(part.simd_lt(u8x16::splat(0x20)));
            special.high |= bits(part);
        }
        special
    }
}

/// What is known of a string before its end.
struct Sofar {
    /// The next block's first byte is escaped.
    carry: bool,
    /// Where the second half of a pair of surrogates is, once its first half was read.
    second_half: Option<usize>,
    ascii: bool,
    plain: bool,
}

impl Scan<'_> {
    /// Goes on from a place in a string, which began at `start`, to its end. Is it without
    /// escapes?
    #[inline(never)]
    pub fn rest_of_string(&mut self, start: usize) -> Result<bool, Fault> {
        let mut sofar = Sofar { carry: false, second_half: None, ascii: true, plain: true };
        while !self.block_of_string(&mut sofar)? {}
        if !sofar.ascii
            && let Err(bad) = std::str::from_utf8(&self.text[start..self.at])
        {
            return Err(Fault { what: "a string is not UTF-8", at: start + bad.valid_up_to() });
        }
        self.at += 1;
        Ok(sofar.plain)
    }

    /// One block. Did the string end in it?
    #[inline]
    fn block_of_string(&mut self, sofar: &mut Sofar) -> Result<bool, Fault> {
        // Behind the text are zeros, which no string has in it either.
        let rest = &self.text[self.at..];
        let special = match rest.first_chunk() {
            Some(block) => Special::of(block),
            None => {
                let mut block = [0; BLOCK];
                block[..rest.len()].copy_from_slice(rest);
                Special::of(&block)
            }
        };
        let escaped = escaped(special.backslashes, &mut sofar.carry);
        let end = special.quotes & !escaped;
        let within = (end & end.wrapping_neg()).wrapping_sub(1);
        sofar.plain &= special.backslashes & within == 0;
        sofar.ascii &= special.high & within == 0;
        // Most escapes are one of these three.
        let usual = special.quotes | special.backslashes | special.ns;
        self.escapes(escaped & within & !usual, sofar)?;
        if special.controls & within != 0 {
            self.at += (special.controls & within).trailing_zeros() as usize;
            return Err(self.fault("a string has a control character in it"));
        }
        self.at += if end == 0 { BLOCK } else { end.trailing_zeros() as usize };
        Ok(end != 0)
    }

    /// Are these bytes of the block what may follow a backslash?
    #[inline]
    fn escapes(&mut self, mut escaped: u64, sofar: &mut Sofar) -> Result<(), Fault> {
        while escaped != 0 {
            let at = self.at + escaped.trailing_zeros() as usize;
            escaped &= escaped - 1;
            match self.text.get(at) {
                Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {}
                Some(b'u') => self.unicode(at - 1, sofar)?,
                _ => return Err(Fault { what: "a string has an unknown escape in it", at: at - 1 }),
            }
        }
        Ok(())
    }

    /// `\uXXXX`. A pair of surrogates is one character; half a pair is none.
    fn unicode(&self, at: usize, sofar: &mut Sofar) -> Result<(), Fault> {
        let half = Fault { what: "half a surrogate pair is no character", at };
        match self.unit(at)? {
            0xd800..=0xdbff => match self.unit(at + 6) {
                Ok(0xdc00..=0xdfff) => sofar.second_half = Some(at + 6),
                _ => return Err(half),
            },
            0xdc00..=0xdfff if sofar.second_half != Some(at) => return Err(half),
            _ => {}
        }
        Ok(())
    }

    /// The number in `\uXXXX` at a place.
    fn unit(&self, at: usize) -> Result<u16, Fault> {
        let bad = Fault { what: "a string has an unknown escape in it", at };
        let text = self.text.get(at..at + 6).ok_or(bad)?;
        if !text.starts_with(b"\\u") || !text[2..].iter().all(u8::is_ascii_hexdigit) {
            return Err(bad);
        }
        let digits = std::str::from_utf8(&text[2..]).map_err(|_| bad)?;
        u16::from_str_radix(digits, 16).map_err(|_| bad)
    }
}

/// Which bytes follow a backslash that is not itself escaped?
///
/// Of a row of backslashes every second one is escaped, and what follows the row if their
/// number is odd. Adding a row's first bit to the row carries out of its end: so the parity of
/// begin and end is the parity of the length. (Langdale and Lemire, "Parsing gigabytes of JSON
/// per second", section 3.1.1.)
#[inline]
fn escaped(backslashes: u64, carry: &mut bool) -> u64 {
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let first = u64::from(*carry);
    let backslashes = backslashes & !first;
    let follows = backslashes << 1 | first;
    let odd_begins = backslashes & !EVEN & !follows;
    let (even_rows, over) = odd_begins.overflowing_add(backslashes);
    *carry = over;
    (EVEN ^ (even_rows << 1)) & follows
}

/// How many bytes from here on mean themselves inside a string: visible ASCII without `"` and
/// `\`. Most strings are a few words long, so no more than that are looked at.
#[inline(always)]
pub fn visible(text: &[u8]) -> usize {
    for block in 0..MOST_VISIBLE / 16 {
        let rest = &text[(block * 16).min(text.len())..];
        let special = match rest.first_chunk() {
            Some(block) => special_bytes(*block),
            None => special_bytes_at_end(rest),
        };
        if special != 0 {
            return block * 16 + special.trailing_zeros() as usize;
        }
    }
    MOST_VISIBLE
}

const MOST_VISIBLE: usize = 64;

/// Which bytes do not mean themselves: a bit each, the first byte's lowest.
#[inline(always)]
fn special_bytes(block: [u8; 16]) -> u32 {
    let block = u8x16::new(block);
    let equal = |byte| block.simd_eq(u8x16::splat(byte));
    // The highest bit says it: a comparison sets it, and bytes outside of ASCII have it.
    (equal(b'"') | equal(b'\\') | block.simd_lt(u8x16::splat(0x20)) | block).to_bitmask()
}

/// The same for the last bytes of a text; what follows them is special too.
#[inline(never)]
fn special_bytes_at_end(rest: &[u8]) -> u32 {
    let mut block = [0; 16];
    block[..rest.len()].copy_from_slice(rest);
    special_bytes(block)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::json::{Limits, check};

    proptest! {
        #[test]
        fn the_first_special_byte_is_found(text in proptest::collection::vec(any::<u8>(), 0..40), plain in "[a-z ]{0,80}") {
            let text = [plain.as_bytes(), &text].concat();
            let special = |b: &u8| *b < 0x20 || *b >= 0x80 || *b == b'"' || *b == b'\\';
            let expected = text.iter().position(special).unwrap_or(text.len()).min(MOST_VISIBLE);
            prop_assert_eq!(visible(&text), expected);
        }

        #[test]
        fn long_strings_are_judged_as_a_library_does(
            parts in proptest::collection::vec(
                prop_oneof!["[a-zé]{1,70}", r#"\\{1,5}"#, Just("\"".to_owned()), Just("\\u00e9".to_owned()),
                            Just("\\ud83d\\ude00".to_owned()), Just("\\ud83d".to_owned()), Just("\n".to_owned())],
                0..12,
            ),
        ) {
            let text = format!("\"{}\"", parts.concat());
            let library = serde_json::from_str::<String>(&text).is_ok();
            prop_assert_eq!(check(text.as_bytes(), &Limits::REPLY).is_ok(), library, "{}", text);
        }
    }

    #[test]
    fn rows_of_backslashes_may_cross_blocks() {
        for before in 50..80 {
            for row in 0..70 {
                let text = format!("\"{}{}\"", "x".repeat(before), "\\".repeat(row));
                let expected = row % 2 == 0;
                assert_eq!(check(text.as_bytes(), &Limits::REPLY).is_ok(), expected, "{before} {row}");
            }
        }
    }
}
