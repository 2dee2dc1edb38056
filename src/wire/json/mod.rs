//! Is this text JSON, and one that every parser reads alike?
//!
//! A gateway decides by what it reads and forwards what it was given, so a text that two
//! parsers read differently is a way around every decision. Hence one strict pass over each
//! message, from clients and backends alike: RFC 8259 to the letter, UTF-8 only, no byte order
//! mark, no lone surrogates, no key twice in an object, and bounds on depth and size.
//! Numbers are checked for grammar only and keep their spelling: a thousand digits go through.
//!
//! The pass remembers where the members of the two outermost levels stand ([`Member`]), and
//! those of a `_meta` on the second, which is all that routing needs; nothing is copied.
//! [`members`] walks an object deeper down.

use std::{borrow::Cow, fmt};

mod scan;
mod string;

use scan::Scan;

/// How large a text may be in ways that its length does not say.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Arrays and objects inside one another.
    pub depth: usize,
    /// Values of any kind, containers and members alike.
    pub nodes: usize,
    /// Bytes in one object key, as written.
    pub key_bytes: usize,
}

impl Limits {
    /// For what a client sends.
    pub const REQUEST: Self = Self { depth: 64, nodes: 100_000, key_bytes: 1024 };
    /// For what a backend sends: catalogs and results are larger than calls.
    pub const REPLY: Self = Self { depth: 64, nodes: 2_000_000, key_bytes: 1024 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::REQUEST
    }
}

/// Why a text was refused, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub what: &'static str,
    pub at: usize,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for Fault {}

/// A stretch of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

impl Span {
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(self) -> usize {
        self.end - self.start
    }

    pub fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start..self.end]
    }
}

/// One member of an object: where its key (without quotes) and its value stand.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// 1 for members of the outermost object, 2 for members of objects in it, 3 for members of
    /// a `_meta` in one of these.
    pub depth: u8,
    /// The key is written without escapes.
    pub plain: bool,
    pub key: Span,
    pub value: Span,
}

impl Member {
    /// Is its key written just like this?
    #[inline(always)]
    pub fn is(&self, name: &str, text: &[u8]) -> bool {
        self.key.len() == name.len() && self.key.of(text) == name.as_bytes()
    }

    /// Does its key stand for this, however it is written?
    #[inline]
    pub fn stands_for(&self, name: &str, text: &[u8]) -> bool {
        if self.plain { self.is(name, text) } else { self.key_in(text) == name }
    }

    pub fn key_in<'a>(&self, text: &'a [u8]) -> Cow<'a, str> {
        let key = self.key.of(text);
        match std::str::from_utf8(key) {
            Ok(key) if self.plain => Cow::Borrowed(key),
            _ => unescape(key),
        }
    }
}

/// The members that were asked for, each object's members after the member it is in.
pub type Members = Vec<Member>;

/// Checks a whole text.
pub fn check(text: &[u8], limits: &Limits) -> Result<(), Fault> {
    Scan::new(text, limits, 0).whole().map(drop)
}

/// Checks a whole text and tells where the members of its two outermost levels are, and those
/// of each `_meta` on the second.
pub fn outline(text: &[u8], limits: &Limits) -> Result<Members, Fault> {
    Scan::new(text, limits, 2).whole()
}

/// The members of an object in a text that was checked before.
///
/// Anything else than an object has none.
pub fn members(object: &[u8]) -> Members {
    if object == b"{}" {
        return Members::new();
    }
    Scan::new(object, &CHECKED, 1).whole().unwrap_or_default()
}

/// The elements of an array that stands in a text, by their places in that text.
pub fn within(text: &[u8], array: Span) -> Vec<Span> {
    let shift = |span: Span| Span { start: span.start + array.start, end: span.end + array.start };
    elements(array.of(text)).into_iter().map(shift).collect()
}

/// A member of an object that stands in a text, by its place in that text.
pub fn member_of(text: &[u8], object: Span, name: &str) -> Option<Span> {
    let inner = object.of(text);
    let found = members(inner).into_iter().find(|member| member.is(name, inner))?;
    Some(Span { start: found.value.start + object.start, end: found.value.end + object.start })
}

/// The value of one member of an object in a text that was checked before, however its key is
/// written.
pub fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    members(object)
        .into_iter()
        .find(|member| member.stands_for(name, object))
        .map(|member| member.value.of(object))
}

/// The elements of an array in a text that was checked before.
///
/// Anything else than an array has none.
pub fn elements(array: &[u8]) -> Vec<Span> {
    let mut scan = Scan::new(array, &CHECKED, 0);
    let mut found = Vec::new();
    if scan.token() != b'[' {
        return found;
    }
    scan.at += 1;
    loop {
        match scan.token() {
            b',' => scan.at += 1,
            b']' => return found,
            _ => {
                let start = scan.at;
                if scan.value().is_err() {
                    return found;
                }
                found.push(Span { start, end: scan.at });
            }
        }
    }
}

/// What was checked is not counted again.
const CHECKED: Limits = Limits { depth: usize::MAX, nodes: usize::MAX, key_bytes: usize::MAX };

/// The text of a JSON string value (with its quotes), if it is one.
pub fn string(value: &[u8]) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    Some(unescape(inner))
}

/// The same as bytes, which for most costs nothing.
pub fn text(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    let escaped = inner.contains(&b'\\');
    Some(if escaped { unescape(inner).into_owned().into_bytes().into() } else { Cow::Borrowed(inner) })
}

/// Is this JSON string value (with its quotes) that text?
pub fn is_string(value: &[u8], text: &str) -> bool {
    let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    inner.is_some_and(|inner| {
        let escaped = inner.contains(&b'\\');
        if escaped { unescape(inner) == text } else { inner == text.as_bytes() }
    })
}

/// Does a text stand in JSON as it is?
pub fn is_plain(text: &str) -> bool {
    !text.bytes().any(|b| b < b' ' || b == b'"' || b == b'\\')
}

/// A string as JSON, quotes included.
pub fn quoted(text: &str) -> String {
    if !is_plain(text) {
        return serde_json::to_string(text).expect("a string is always JSON");
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    quoted.push_str(text);
    quoted.push('"');
    quoted
}

/// The characters that the inside of a checked JSON string stands for.
fn unescape(inner: &[u8]) -> Cow<'_, str> {
    if !inner.contains(&b'\\') {
        return std::str::from_utf8(inner).map_or_else(|_| String::from_utf8_lossy(inner), Cow::Borrowed);
    }
    let mut quoted = Vec::with_capacity(inner.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(inner);
    quoted.push(b'"');
    Cow::Owned(serde_json::from_slice(&quoted).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn fine(text: &str) -> bool {
        check(text.as_bytes(), &Limits::REQUEST).is_ok()
    }

    #[test]
    fn what_json_allows_passes() {
        for text in [
            "0",
            "-0",
            "-0.5e+10",
            "1E400",
            "\"\"",
            "\"\\u00e9\\uD83D\\uDE00\"",
            "[]",
            "{}",
            " [ 1 , 2 ] ",
            "{\"a\":{},\"b\":[[]]}",
            "\"ü\"",
            "null",
        ] {
            assert!(fine(text), "{text}");
        }
    }

    #[test]
    fn what_json_forbids_does_not() {
        for text in [
            "",
            " ",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\"}",
            "{\"a\" 1}",
            "[1}",
            "{]",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud800\\u0041\"",
            "\"\n\"",
            "\"",
            "tru",
            "nul",
            "[",
            "{\"a\":",
            "1 1",
            "\u{feff}1",
            "{,}",
            "[1,,2]",
            "{\"a\":1 \"b\":2}",
        ] {
            assert!(!fine(text), "{text}");
        }
    }

    #[test]
    fn a_key_may_stand_once_in_an_object_however_it_is_spelled() {
        assert!(!fine(r#"{"a":1,"a":2}"#));
        assert!(!fine(r#"{"a":1,"\u0061":2}"#));
        assert!(!fine(r#"{"x":{"a":1,"b":2,"a":3}}"#));
        assert!(fine(r#"{"a":{"a":1},"b":{"a":1}}"#));
        let many = |last: &str| {
            let keys: Vec<_> = (0..200).map(|n| format!("\"k{n}\":{{\"k{n}\":1}}")).collect();
            format!("{{{},{last}:1}}", keys.join(","))
        };
        assert!(fine(&many("\"k200\"")));
        assert!(!fine(&many("\"k199\"")));
        assert!(!fine(&many("\"\\u006b1\"")));
    }

    #[test]
    fn depth_and_nodes_are_bounded() {
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(fine(&nested(64)));
        assert!(!fine(&nested(65)));
        assert!(!fine(&"[".repeat(1_000_000)));
        assert!(!fine(&format!("[{}1]", "1,".repeat(100_000))));
    }

    #[test]
    fn the_two_outermost_levels_are_outlined() {
        let text = br#"{ "id" : 7, "params" : {"name":"x", "arguments":{"deep":1}} }"#;
        let found = outline(text, &Limits::REQUEST).unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|m| {
                (m.depth, m.key_in(text).into_owned(), String::from_utf8_lossy(m.value.of(text)).into_owned())
            })
            .collect();
        let expected = [
            (1, "id", "7"),
            (1, "params", r#"{"name":"x", "arguments":{"deep":1}}"#),
            (2, "name", "\"x\""),
            (2, "arguments", r#"{"deep":1}"#),
        ];
        assert_eq!(seen.len(), expected.len());
        for (seen, (depth, key, value)) in seen.iter().zip(expected) {
            assert_eq!((seen.0, seen.1.as_str(), seen.2.as_str()), (depth, key, value));
        }
    }

    #[test]
    fn the_elements_of_an_array_are_found() {
        let text = br#" [ {"a":[1,2]} , 3,"x" ] "#;
        let found: Vec<_> = elements(text).into_iter().map(|span| span.of(text)).collect();
        assert_eq!(found, [&br#"{"a":[1,2]}"#[..], b"3", b"\"x\""]);
    }

    #[test]
    fn a_string_is_compared_with_what_it_stands_for() {
        assert!(is_string(br#""a b""#, "a b") && is_string(br#""\u0061 b""#, "a b"));
        assert!(!is_string(br#""a\\b""#, r"a\\b") && !is_string(b"a", "a") && !is_string(b"\"a\"", "b"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(".{0,6}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_a_library_writes_is_accepted(value in any_json()) {
            prop_assert!(check(value.to_string().as_bytes(), &Limits::REQUEST).is_ok());
        }

        #[test]
        fn a_quoted_string_is_what_a_library_writes(text in ".*") {
            prop_assert_eq!(quoted(&text), serde_json::to_string(&text).unwrap());
        }

        #[test]
        fn whatever_is_accepted_a_library_reads(text in "[\\[\\]{}\",:\\\\u0-9a-f.eE+ -]{0,24}") {
            if check(text.as_bytes(), &Limits::REQUEST).is_ok() {
                prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
            }
        }
    }
}
