//! How are durations, sizes and secrets written in `routes.toml`?
//!
//! The kinds of value that several parts' settings share. Each reads what people write, prints
//! it back the same way, and refuses the rest in a sentence that says what would be right.

use std::{borrow::Cow, fmt, path::PathBuf, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::weaken;

/// Does a name fit a pattern, in which `*` stands for any letters?
pub fn fits(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<_> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

/// A length of time: `"500ms"`, `"30s"`, `"10m"`, `"2h"`, `"1d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration(pub time::Duration);

impl Duration {
    pub const fn seconds(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }
}

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl TryFrom<String> for Duration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no length of time; write a number and a unit, such as \"30s\", \"10m\" or \"2h\""
            )
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == text[digits..].trim()).ok_or_else(wrong)?;
        Ok(Self(time::Duration::from_millis(number.saturating_mul(*unit))))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (unit, size) = UNITS.iter().rev().find(|(_, size)| ms.is_multiple_of(*size)).unwrap_or(&UNITS[0]);
        write!(f, "{}{unit}", ms / size)
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^[0-9]+ ?(ms|s|m|h|d)$",
            "description": "A length of time: a number and ms, s, m, h or d."
        })
    }
}

/// An amount of memory: `"512 KiB"`, `"4 MiB"`, or a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub usize);

const SIZES: [(&str, usize); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is no amount of memory; write a number and a unit, such as \"512 KiB\" or \"4 MiB\""
            )
        };
        let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: usize = text[..digits].parse().map_err(|_| wrong())?;
        let (_, unit) = SIZES.iter().find(|(name, _)| *name == text[digits..].trim()).ok_or_else(wrong)?;
        Ok(Self(number.saturating_mul(*unit)))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) =
            SIZES.iter().rev().find(|(_, size)| self.0.is_multiple_of(*size)).unwrap_or(&SIZES[0]);
        write!(f, "{} {unit}", self.0 / size)
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string", "pattern": "^[0-9]+ ?(B|KiB|MiB|GiB)$",
            "description": "An amount of memory: a number and B, KiB, MiB or GiB."
        })
    }
}

/// A text that may be secret: written as it is, or as where to find it:
/// `{ env = "NAME" }` or `{ file = "path" }`, each with an optional `prefix` put before it.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "write a text, { env = \"NAME\" } or { file = \"path\" }")]
pub enum Text {
    Plain(String),
    Env(FromEnv),
    File(FromFile),
}

#[derive(Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromEnv {
    /// The environment variable that holds the secret.
    pub env: String,
    /// Put before it, for instance `"Bearer "`.
    #[serde(default)]
    pub prefix: String,
}

#[derive(Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromFile {
    /// The file that holds the secret; a line end at its end is left off.
    pub file: PathBuf,
    /// Put before it, for instance `"Bearer "`.
    #[serde(default)]
    pub prefix: String,
}

impl Text {
    /// The text itself, or why it cannot be had.
    pub fn resolve(&self) -> Result<Resolved, String> {
        let (prefix, secret) = match self {
            Self::Plain(text) => return Ok(Resolved { text: text.clone(), secret: None }),
            Self::Env(FromEnv { env, prefix }) => {
                let value = std::env::var(env);
                (
                    prefix,
                    value.map_err(|_| {
                        format!("the environment variable {env} is not set; set it, or leave the entry out")
                    })?,
                )
            }
            Self::File(FromFile { file, prefix }) => {
                let text = std::fs::read_to_string(file);
                let text = text
                    .map_err(|why| format!("the secret's file {} cannot be read: {why}", file.display()))?;
                (prefix, text.trim_end_matches(['\r', '\n']).to_owned())
            }
        };
        Ok(Resolved { text: format!("{prefix}{secret}"), secret: Some(secret) })
    }
}

/// Never shows more than where the secret is.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) if weaken::is("secrets-shown") => f.write_str(text),
            Self::Plain(_) => f.write_str("…"),
            Self::Env(FromEnv { env, .. }) => write!(f, "env {env}"),
            Self::File(FromFile { file, .. }) => write!(f, "file {}", file.display()),
        }
    }
}

/// A text with its secret put in.
#[derive(Clone, PartialEq, Eq)]
pub struct Resolved {
    pub text: String,
    /// The part that must not be seen anywhere else; none for a text written as it is.
    pub secret: Option<String>,
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if weaken::is("secrets-shown") { &self.text } else { "…" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_read_back_as_they_are_written() {
        for text in ["500ms", "30s", "10m", "2h", "1d", "90s"] {
            assert_eq!(Duration::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["", "30", "s", "1.5h", "5 years", "-1s"] {
            assert!(Duration::try_from(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_of_memory_read_back_as_they_are_written() {
        for text in ["1 B", "512 KiB", "4 MiB", "2 GiB"] {
            assert_eq!(Size::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        assert!(Size::try_from("4 MB".to_owned()).is_err());
    }

    #[test]
    fn a_secret_is_not_shown() {
        let text = Text::Plain("hush".into());
        assert_eq!(format!("{text:?} {:?}", text.resolve().unwrap()), "… …");
    }
}
