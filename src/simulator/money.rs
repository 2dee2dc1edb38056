//! How is money counted, so that a sum of prices is exact?

use std::{fmt, iter::Sum, ops::AddAssign};

use serde_json::Value;

/// An amount in millionths of a millionth of a dollar. Every price of the catalogue is a whole number of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(pub i128);

const ONE: i128 = 1_000_000_000_000;

impl Money {
    pub const ZERO: Self = Self(0);

    pub const fn dollars(dollars: i128) -> Self {
        Self(dollars * ONE)
    }

    pub fn times(self, count: u64) -> Self {
        Self(self.0 * i128::from(count))
    }

    pub fn less(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }

    /// Dollars for a million of what this is the price of, for comparing with bounds that people write.
    pub fn per_million(self) -> f64 {
        self.times(1_000_000).to_string().parse().unwrap_or(f64::NAN)
    }

    /// The JSON number nearest to it, which is written as the same decimal.
    pub fn json(self) -> Value {
        self.to_string().parse::<f64>().map_or(Value::Null, Value::from)
    }
}

/// A plain decimal: no exponent, no zeros at its end.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, amount) = if self.0 < 0 { ("-", -self.0) } else { ("", self.0) };
        let (whole, part) = (amount / ONE, amount % ONE);
        if part == 0 {
            return write!(f, "{sign}{whole}");
        }
        let digits = format!("{part:012}");
        write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, |sum, amount| Self(sum.0 + amount.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_decimals() {
        for (amount, text, json) in [
            (Money::ZERO, "0", "0.0"),
            (Money::dollars(2), "2", "2.0"),
            (Money(1_500_000), "0.0000015", "1.5e-6"),
            (Money(85_500_000), "0.0000855", "8.55e-5"),
            (Money(-1_500_000_000_000), "-1.5", "-1.5"),
            (Money(1), "0.000000000001", "1e-12"),
        ] {
            assert_eq!(amount.to_string(), text);
            assert_eq!(amount.json().to_string().parse::<f64>().unwrap(), json.parse::<f64>().unwrap());
        }
    }

    #[test]
    fn ten_million_cheap_tokens_are_summed_exactly() {
        let sum: Money = (0..1000).map(|_| Money(100_003).times(10_000)).sum();
        assert_eq!(sum.to_string(), "1.00003");
    }
}
