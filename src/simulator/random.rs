//! Where does chance come from? From the seed and a name for what is drawn, so it can be had again.

use aws_lc_rs::digest;

/// Numbers that look random and are the same each time.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// `what` keeps draws for one thing from shifting those for another.
    pub fn new(seed: u64, what: &str) -> Self {
        Self(number(&[&seed.to_le_bytes(), what.as_bytes()]))
    }

    /// SplitMix64.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, and 0 if there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    /// One of several, of which there is at least one.
    pub fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }

    /// True so many times in a hundred.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// A number that stands for these texts, one after the other.
pub fn number(parts: &[&[u8]]) -> u64 {
    let digest = sha256(parts);
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The first eight hexadecimal digits of SHA-256.
pub fn short(bytes: &[u8]) -> String {
    format!("{:08x}", number(&[bytes]) >> 32)
}

/// `length` letters and digits.
pub fn base62(parts: &[&[u8]], length: usize) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    sha256(parts)
        .iter()
        .cycle()
        .take(length)
        .map(|byte| char::from(DIGITS[usize::from(*byte) % 62]))
        .collect()
}

pub fn sha256(parts: &[&[u8]]) -> Vec<u8> {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().to_vec()
}
