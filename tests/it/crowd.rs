//! Many clients, and servers to share between them: what the batteries are made of.
//!
//! Both sides are written for speed, with no HTTP library and as little JSON as possible, so that a
//! battery tests the gateway and not itself. Every call has a marker of its own, and everything that a
//! server says about a call carries it.

#![allow(dead_code, reason = "a battery uses the part of the crowd that it needs")]

pub mod client;
pub mod http1;
pub mod server;

use memchr::memmem;

/// What stands between two texts.
pub fn between<'a>(text: &'a [u8], before: &str, after: &str) -> Option<&'a [u8]> {
    let begin = memmem::find(text, before.as_bytes())? + before.len();
    let length = memmem::find(&text[begin..], after.as_bytes())?;
    Some(&text[begin..begin + length])
}

/// The number after a text.
pub fn number_after(text: &[u8], before: &str) -> Option<u64> {
    let begin = memmem::find(text, before.as_bytes())? + before.len();
    let digits = text[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[begin..begin + digits]).ok()?.parse().ok()
}

pub fn has(text: &[u8], part: &str) -> bool {
    memmem::find(text, part.as_bytes()).is_some()
}

/// A number that looks like chance, and is the same every time.
pub fn scatter(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
