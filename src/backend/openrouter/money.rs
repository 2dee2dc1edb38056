//! How is money counted without losing any?
//!
//! OpenRouter writes prices as decimal texts in dollars per token, some of them below a billionth,
//! and costs as JSON numbers. Floating point would make a cent out of nothing in a million rows, so
//! everything is an integer: what is spent in nano-dollars ([`Money`]), and prices and their
//! products in units of 10⁻¹⁸ dollars ([`Price`], [`Amount`]), rounded once, at the end.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Sub},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Digits behind the point of [`Money`].
const NANO: u32 = 9;
/// Digits behind the point of [`Price`] and [`Amount`].
const FINE: u32 = 18;
/// The unit of [`Money`] in that of [`Amount`].
const FINE_PER_NANO: i128 = 10_i128.pow(FINE - NANO);
/// No exponent of a number that means money is larger.
const LARGEST_EXPONENT: i32 = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no decimal number of dollars; write it like \"0.0000015\"")]
pub struct NotMoney;

/// US dollars, in billionths. Sums stay at the ends of what an `i64` holds rather than wrap around.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(i64);

impl Money {
    pub const ZERO: Self = Self(0);

    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    pub const fn nanos(self) -> i64 {
        self.0
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Money {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::ZERO, Add::add)
    }
}

impl FromStr for Money {
    type Err = NotMoney;

    /// Rounded to the nearest billionth.
    fn from_str(text: &str) -> Result<Self, NotMoney> {
        let nanos = decimal(text, NANO, Round::Nearest)?;
        i64::try_from(nanos).map(Self).map_err(|_| NotMoney)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0.into(), NANO)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}

/// Takes what is written, a text or a number. A number's shortest decimal form is what was written,
/// for it has no more digits than fit.
struct Written;

impl de::Visitor<'_> for Written {
    type Value = Money;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an amount of dollars")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Money, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Money, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Money, E> {
        self.visit_str(&number.to_string())
    }
}

/// What one token, picture or request costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Price(i128);

impl Price {
    pub const FREE: Self = Self(0);

    /// Of one unit, as OpenRouter writes it. Negative means that it varies, which is no price.
    pub fn parse(text: &str) -> Option<Self> {
        decimal(text, FINE, Round::Up).ok().filter(|price| *price >= 0).map(Self)
    }

    /// Of one unit, from what a million of them cost, as people write it.
    pub fn per_million(text: &str) -> Option<Self> {
        let digits = decimal(text, FINE - 6, Round::Up).ok()?;
        Some(Self(digits)).filter(|price| price.0 >= 0)
    }

    pub fn is_free(self) -> bool {
        self.0 == 0
    }

    /// What so many units cost.
    pub fn times(self, units: u64) -> Amount {
        Amount(self.0.saturating_mul(units.into()))
    }

    /// What a million units cost, as people compare prices.
    pub fn of_a_million(self) -> Money {
        self.times(1_000_000).round_up()
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, self.0, FINE)
    }
}

impl Serialize for Price {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A sum of prices times units, before it is rounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

impl Amount {
    /// Up, so that nothing that costs is free.
    pub fn round_up(self) -> Money {
        let nanos = self.0.div_euclid(FINE_PER_NANO) + i128::from(self.0.rem_euclid(FINE_PER_NANO) != 0);
        Money(i64::try_from(nanos).unwrap_or(i64::MAX))
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Nearest,
    Up,
}

/// A decimal number, in units of 10 to the power of −`places`.
fn decimal(text: &str, places: u32, round: Round) -> Result<i128, NotMoney> {
    let (negative, text) = match text.trim().strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text.trim()),
    };
    let (number, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.strip_prefix('+').unwrap_or(exponent).parse().map_err(|_| NotMoney)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && fraction.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return Err(NotMoney);
    }
    if exponent.abs() > LARGEST_EXPONENT || number.len() > 100 {
        return Err(NotMoney);
    }
    // How many of the digits stand before the place at which is rounded.
    let kept = whole.len() as i64 + i64::from(exponent) + i64::from(places);
    let mut units: i128 = 0;
    let mut rest = Rest::default();
    for (at, digit) in whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').enumerate() {
        if (at as i64) < kept {
            units =
                units.checked_mul(10).and_then(|units| units.checked_add(digit.into())).ok_or(NotMoney)?;
        } else {
            rest.nearest |= at as i64 == kept && digit >= 5;
            rest.any |= digit != 0;
        }
    }
    let digits = (whole.len() + fraction.len()) as i64;
    for _ in digits..kept {
        units = units.checked_mul(10).ok_or(NotMoney)?;
    }
    let up = match round {
        Round::Nearest => rest.nearest,
        Round::Up => rest.any,
    };
    let units = units + i128::from(up);
    Ok(if negative { -units } else { units })
}

/// What is lost by rounding.
#[derive(Default)]
struct Rest {
    nearest: bool,
    any: bool,
}

fn show(f: &mut fmt::Formatter<'_>, units: i128, places: u32) -> fmt::Result {
    let scale = 10_u128.pow(places);
    let sign = if units < 0 { "-" } else { "" };
    let (whole, fraction) = (units.unsigned_abs() / scale, units.unsigned_abs() % scale);
    let fraction = format!("{fraction:0width$}", width = places as usize);
    match fraction.trim_end_matches('0') {
        "" => write!(f, "{sign}{whole}"),
        fraction => write!(f, "{sign}{whole}.{fraction}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn money(text: &str, nanos: i64) {
        assert_eq!(text.parse(), Ok(Money(nanos)), "{text}");
    }

    #[test]
    fn decimal_texts_are_taken_as_they_stand() {
        money("0", 0);
        money("1", 1_000_000_000);
        money("0.0000855", 85_500);
        money("8.55e-5", 85_500);
        money("1.6E-7", 160);
        money("1e2", 100_000_000_000);
        money("-1", -1_000_000_000);
        money(".5", 500_000_000);
        money("0.0000000004", 0);
        money("0.0000000005", 1);
        for text in ["", ".", "-", "1,5", "NaN", "inf", "0x1", "1e", "1e999999999", "--1", "1 2"] {
            assert_eq!(text.parse::<Money>(), Err(NotMoney), "{text}");
        }
    }

    #[test]
    fn numbers_and_texts_in_json_mean_the_same() {
        for json in ["0.0000855", "8.55e-5", "\"0.0000855\""] {
            assert_eq!(serde_json::from_str::<Money>(json).unwrap(), Money(85_500), "{json}");
        }
        assert_eq!(serde_json::from_str::<Money>("3").unwrap(), Money(3_000_000_000));
        assert_eq!(serde_json::to_string(&Money(85_500)).unwrap(), "\"0.0000855\"");
    }

    #[test]
    fn a_price_below_a_billionth_is_one() {
        let price = Price::parse("0.00000000015").unwrap();
        assert_eq!(price.times(2).round_up(), Money(1));
        assert_eq!(price.times(20_000_000_000).round_up(), Money(3_000_000_000));
        assert_eq!(price.to_string(), "0.00000000015");
        assert_eq!(price.of_a_million().to_string(), "0.00015");
    }

    #[test]
    fn a_negative_price_is_none() {
        assert_eq!(Price::parse("-1"), None);
        assert_eq!(Price::parse("free"), None);
        assert_eq!(Price::parse("0"), Some(Price::FREE));
        assert_eq!(Price::per_million("1.5"), Price::parse("0.0000015"));
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(nanos in any::<i64>()) {
            prop_assert_eq!(Money(nanos).to_string().parse(), Ok(Money(nanos)));
        }

        #[test]
        fn sums_are_exact(rows in proptest::collection::vec(0_i64..1_000_000_000_000, 0..2000)) {
            let sum: Money = rows.iter().map(|nanos| Money(*nanos)).sum();
            prop_assert_eq!(sum, Money(rows.iter().sum()));
            let again: Money = rows.iter().map(|nanos| Money(*nanos).to_string().parse::<Money>().unwrap()).sum();
            prop_assert_eq!(sum, again);
        }

        #[test]
        fn a_price_times_tokens_is_exact(digits in 0_u64..1_000_000_000, tokens in 0_u64..2_000_000) {
            // In units of 10⁻¹², of which a thousand are a billionth.
            let price = Price::parse(&format!("0.{digits:012}")).unwrap();
            let exact = i128::from(digits) * i128::from(tokens);
            prop_assert_eq!(i128::from(price.times(tokens).round_up().nanos()), (exact + 999) / 1000);
        }

        #[test]
        fn no_text_is_too_much(text in ".{0,40}", places in 0_u32..19) {
            let _ = decimal(&text, places, Round::Up);
        }
    }

    #[test]
    fn a_million_rows_lose_nothing() {
        let row: Money = "0.0000000030".parse().unwrap();
        let sum: Money = std::iter::repeat_n(row, 1_000_000).sum();
        assert_eq!(sum.to_string(), "0.003");
    }
}
