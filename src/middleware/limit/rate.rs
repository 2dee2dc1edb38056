//! How is a limit written, and for whom is it counted apart?
//!
//! `600/min`, `60/min burst 10`, `30/min per caller`, `60/min burst 10 per ip`: a number, a unit of
//! time, how many may come at once, and for whom it is counted. Nothing else, and always in this
//! order, so that a limit reads the same wherever it stands.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The fastest that can be told apart: one in a microsecond.
const FASTEST: Duration = Duration::from_micros(1);
/// The most at once: more would be no limit, and the sums below would overflow.
const MOST_AT_ONCE: u32 = 100_000;
/// So many at once where nothing is said: a tenth of what is allowed in all, but not less than this.
const FEW: u32 = 10;

const UNITS: [(&str, u64); 4] = [("s", 1), ("min", 60), ("h", 3600), ("day", 86_400)];

/// A limit as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate {
    pub per: Per,
    pub count: u32,
    /// In seconds.
    pub window: u64,
    pub burst: u32,
    /// The burst was written.
    said: bool,
}

/// For whom it is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Per {
    /// All of whom it speaks share it.
    All,
    Caller,
    /// Strangers, by their address; of IPv6 by its first 64 bits.
    Ip,
}

impl Rate {
    /// So many in so many seconds, with the burst that is usual for it.
    pub const fn new(count: u32, window: u64, per: Per) -> Self {
        let tenth = count / 10;
        let usual = if tenth > FEW { tenth } else { FEW };
        let burst = if usual > count { count } else { usual };
        let burst = if burst > MOST_AT_ONCE { MOST_AT_ONCE } else { burst };
        Self { per, count, window, burst, said: false }
    }

    /// The same, counted apart for others.
    pub fn counted(self, per: Per) -> Self {
        Self { per, ..self }
    }

    /// How long until one more is allowed.
    pub fn period(&self) -> Duration {
        Duration::from_secs(self.window) / self.count
    }

    fn read(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no limit; write a number and s, min, h or day, such as \"600/min\", \
                 \"60/min burst 10\" or \"30/min per caller\""
            )
        };
        let mut words = text.split_whitespace();
        let (count, unit) = words.next().and_then(|word| word.split_once('/')).ok_or_else(wrong)?;
        let number = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse::<u32>().ok()).flatten()
        };
        let count = number(count).ok_or_else(wrong)?;
        let (_, window) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let mut burst = None;
        let mut per = Per::All;
        let mut next = words.next();
        if next == Some("burst") {
            burst = Some(words.next().and_then(number).ok_or_else(wrong)?);
            next = words.next();
        }
        if let Some(word) = next {
            per = match (word, words.next()) {
                ("per", Some("caller")) => Per::Caller,
                ("per", Some("ip")) => Per::Ip,
                ("in", Some("all")) => Per::All,
                _ => return Err(wrong()),
            };
        }
        if words.next().is_some() {
            return Err(wrong());
        }
        if count == 0 || burst == Some(0) {
            return Err(format!(
                "{text:?} would refuse every call; write one at least, such as \"1/{unit}\""
            ));
        }
        let usual = Self::new(count, *window, per);
        if usual.period() < FASTEST {
            return Err(format!("{text:?} is more than a million a second; write \"none\" for no limit"));
        }
        if burst.is_some_and(|burst| burst > MOST_AT_ONCE) {
            return Err(format!("the burst of {text:?} is over {MOST_AT_ONCE}; write \"none\" for no limit"));
        }
        Ok(Self { burst: burst.unwrap_or(usual.burst), said: burst.is_some(), ..usual })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.iter().find(|(_, seconds)| *seconds == self.window).map_or("s", |(name, _)| name);
        write!(f, "{}/{unit}", self.count)?;
        if self.said {
            write!(f, " burst {}", self.burst)?;
        }
        f.write_str(match self.per {
            Per::All => "",
            Per::Caller => " per caller",
            Per::Ip => " per ip",
        })
    }
}

/// One limit, several that must all be kept, or `"none"`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates(pub Vec<Rate>);

impl Rates {
    fn read(text: &str) -> Result<Self, String> {
        if text.trim() == "none" {
            return Ok(Self::default());
        }
        Rate::read(text).map(|rate| Self(vec![rate]))
    }
}

impl<'de> Deserialize<'de> for Rates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Rates;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a limit such as \"600/min\", or a list of such")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rates, E> {
                Rates::read(text).map_err(E::custom)
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Rates, A::Error> {
                let mut rates = Vec::new();
                while let Some(text) = list.next_element::<Cow<'_, str>>()? {
                    rates.push(Rate::read(&text).map_err(de::Error::custom)?);
                }
                Ok(Rates(rates))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Serialize for Rates {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [] => serializer.serialize_str("none"),
            [rate] => serializer.collect_str(rate),
            several => serializer.collect_seq(several.iter().map(Rate::to_string)),
        }
    }
}

impl JsonSchema for Rates {
    fn schema_name() -> Cow<'static, str> {
        "Rates".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = "^(none|[0-9]+/(s|min|h|day)( +burst +[0-9]+)?( +(per +caller|per +ip|in +all))?)$";
        json_schema!({
            "type": ["string", "array"], "pattern": pattern, "items": { "type": "string", "pattern": pattern },
            "description": "A limit, or several that must all be kept."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: (u32, u64, u32, Per)) {
        let rate = Rate::read(text).unwrap();
        assert_eq!((rate.count, rate.window, rate.burst, rate.per), expected);
        assert_eq!(rate.to_string(), text);
    }

    #[test]
    fn limits_read_back_as_they_are_written() {
        check("600/min", (600, 60, 60, Per::All));
        check("600/min burst 5", (600, 60, 5, Per::All));
        check("60/min per ip", (60, 60, 10, Per::Ip));
        check("30/min burst 3 per caller", (30, 60, 3, Per::Caller));
        check("5/day", (5, 86_400, 5, Per::All));
        check("1/s", (1, 1, 1, Per::All));
        check("100/h", (100, 3600, 10, Per::All));
        assert_eq!(Rate::read("600/min in all").unwrap(), Rate::read("600/min").unwrap());
    }

    #[test]
    fn what_is_no_limit_is_refused_with_what_would_be_right() {
        for text in [
            "",
            "600",
            "600/",
            "/min",
            "600/minute",
            "600 / min",
            "-1/min",
            "+1/min",
            "1.5/min",
            "600/min burst",
            "600/min burst x",
            "600/min 60",
            "600/min per",
            "600/min per session",
            "600/min per caller burst 6",
            "600/min per caller per ip",
            "99999999999/min",
        ] {
            let why = Rates::read(text).unwrap_err();
            assert!(why.contains("600/min"), "{text}: {why}");
        }
        for (text, word) in [
            ("0/min", "every call"),
            ("5/min burst 0", "every call"),
            ("2000000/s", "a million"),
            ("9/s burst 100001", "\"none\""),
        ] {
            let why = Rates::read(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        }
        assert_eq!(Rates::read("none"), Ok(Rates::default()));
    }

    #[test]
    fn several_limits_are_a_list() {
        let rates: Rates = serde_json::from_str(r#"["60/min per ip", "9/s burst 3"]"#).unwrap();
        assert_eq!(rates.0.len(), 2);
        assert_eq!(serde_json::to_string(&rates).unwrap(), r#"["60/min per ip","9/s burst 3"]"#);
        assert!(serde_json::from_str::<Rates>("7").is_err());
    }
}
