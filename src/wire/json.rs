//! Is this text JSON, and one that every parser reads alike?
//!
//! A gateway decides by what it reads and forwards what it was given, so a text that two
//! parsers read differently is a way around every decision. Hence one strict pass over each
//! message, from clients and backends alike: RFC 8259 to the letter, UTF-8 only, no byte order
//! mark, no lone surrogates, no key twice in an object, and bounds on depth and size.
//! Numbers are checked for grammar only and keep their spelling: a thousand digits go through.
//!
//! The pass remembers where the members of the two outermost levels stand ([`Member`]), which
//! is all that routing needs; nothing is copied. [`members`] walks an object deeper down.

use std::{borrow::Cow, collections::HashSet, fmt};

use smallvec::SmallVec;

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
    pub fn of(self, text: &[u8]) -> &[u8] {
        &text[self.start..self.end]
    }
}

/// One member of an object: where its key (without quotes) and its value stand.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// 1 for members of the outermost object, 2 for members of objects in it.
    pub depth: u8,
    pub key: Span,
    pub value: Span,
}

impl Member {
    pub fn key_in<'a>(&self, text: &'a [u8]) -> Cow<'a, str> {
        unescape(self.key.of(text))
    }
}

/// The members of the two outermost levels, each object's members after the member it is in.
pub type Members = SmallVec<[Member; 16]>;

/// Checks a whole text.
pub fn check(text: &[u8], limits: &Limits) -> Result<(), Fault> {
    Scan::new(text, limits, 0).whole().map(drop)
}

/// Checks a whole text and tells where the members of its two outermost levels are.
pub fn outline(text: &[u8], limits: &Limits) -> Result<Members, Fault> {
    Scan::new(text, limits, 2).whole()
}

/// The members of an object in a text that was checked before.
///
/// Anything else than an object has none.
pub fn members(object: &[u8]) -> Members {
    Scan::new(object, &CHECKED, 1).whole().unwrap_or_default()
}

/// The elements of an array in a text that was checked before.
///
/// Anything else than an array has none.
pub fn elements(array: &[u8]) -> Vec<Span> {
    let mut scan = Scan::new(array, &CHECKED, 0);
    let mut found = Vec::new();
    scan.space();
    if scan.byte() != Some(b'[') {
        return found;
    }
    scan.at += 1;
    loop {
        scan.space();
        match scan.byte() {
            Some(b',') => scan.at += 1,
            Some(b']') | None => return found,
            Some(_) => {
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

/// A string as JSON, quotes included.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

/// The characters that the inside of a checked JSON string stands for.
fn unescape(inner: &[u8]) -> Cow<'_, str> {
    if !inner.contains(&b'\\') {
        return String::from_utf8_lossy(inner);
    }
    let mut quoted = Vec::with_capacity(inner.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(inner);
    quoted.push(b'"');
    Cow::Owned(serde_json::from_slice(&quoted).unwrap_or_default())
}

/// An open container.
struct Frame {
    is_object: bool,
    /// Where this object's keys begin in `Scan::keys`.
    keys: usize,
    /// Index of the member this container is the value of, where members are recorded.
    member: Option<usize>,
}

/// Keys up to which a look through a list beats a hash table.
const FEW_KEYS: usize = 32;

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    nodes: usize,
    limits: Limits,
    /// Down to which depth members are recorded.
    record: usize,
    found: Members,
    /// Keys of all open objects, innermost last.
    keys: SmallVec<[Span; 64]>,
    /// Keys of objects that outgrew `FEW_KEYS`, by the depth they are open at.
    many: Vec<(usize, HashSet<Vec<u8>>)>,
}

impl<'a> Scan<'a> {
    fn new(text: &'a [u8], limits: &Limits, record: usize) -> Self {
        Self {
            text,
            at: 0,
            nodes: 0,
            limits: *limits,
            record,
            found: Members::new(),
            keys: SmallVec::new(),
            many: Vec::new(),
        }
    }

    fn whole(mut self) -> Result<Members, Fault> {
        self.space();
        self.value()?;
        self.space();
        if self.at < self.text.len() {
            return Err(self.fault("something follows the end of the JSON value"));
        }
        Ok(self.found)
    }

    fn fault(&self, what: &'static str) -> Fault {
        Fault { what, at: self.at }
    }

    fn byte(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    /// One value with everything in it. Containers are kept on a list, not on the stack, so
    /// that no depth of nesting can overflow it.
    fn value(&mut self) -> Result<(), Fault> {
        let mut open: SmallVec<[Frame; 16]> = SmallVec::new();
        let mut member = None;
        loop {
            self.nodes += 1;
            if self.nodes > self.limits.nodes {
                return Err(self.fault("too many values"));
            }
            match self.byte() {
                Some(start @ (b'{' | b'[')) => {
                    if open.len() >= self.limits.depth {
                        return Err(self.fault("nested too deeply"));
                    }
                    self.at += 1;
                    self.space();
                    let is_object = start == b'{';
                    open.push(Frame { is_object, keys: self.keys.len(), member });
                    member = None;
                    if self.byte() == Some(if is_object { b'}' } else { b']' }) {
                        // Empty: falls through to the closing below.
                    } else {
                        if is_object {
                            member = self.key(&open)?;
                        }
                        continue;
                    }
                }
                _ => {
                    self.scalar()?;
                    self.finish(member.take());
                }
            }
            // A value has ended (or an empty container is about to): close what closes here.
            match self.next(&mut open)? {
                Next::Done => return Ok(()),
                Next::Element => {}
                Next::Member => member = self.key(&open)?,
            }
        }
    }

    /// What comes after a value: another one in the same container, or the end of containers.
    fn next(&mut self, open: &mut SmallVec<[Frame; 16]>) -> Result<Next, Fault> {
        loop {
            let Some(frame) = open.last() else { return Ok(Next::Done) };
            self.space();
            let is_object = frame.is_object;
            match self.byte() {
                Some(b',') => {
                    // A comma right after the opening bracket was seen as a missing value.
                    self.at += 1;
                    self.space();
                    return Ok(if is_object { Next::Member } else { Next::Element });
                }
                Some(b'}') if is_object => self.close(open),
                Some(b']') if !is_object => self.close(open),
                Some(_) => return Err(self.fault("a comma or a closing bracket is missing")),
                None => return Err(self.fault("the text ends too early")),
            }
        }
    }

    fn close(&mut self, open: &mut SmallVec<[Frame; 16]>) {
        self.at += 1;
        let depth = open.len();
        if let Some(frame) = open.pop() {
            self.keys.truncate(frame.keys);
            self.many.pop_if(|(at, _)| *at == depth);
            self.finish(frame.member);
        }
    }

    /// Notes where the value of a recorded member ended.
    fn finish(&mut self, member: Option<usize>) {
        if let Some(index) = member {
            self.found[index].value.end = self.at;
        }
    }

    /// A key and its colon. Returns the index of the member, if members are recorded here.
    fn key(&mut self, open: &[Frame]) -> Result<Option<usize>, Fault> {
        if self.byte() != Some(b'"') {
            return Err(self.fault("an object key in quotes is missing"));
        }
        let start = self.at + 1;
        self.text_string()?;
        let key = Span { start, end: self.at - 1 };
        if key.end - key.start > self.limits.key_bytes {
            return Err(Fault { what: "an object key is too long", at: start });
        }
        self.once(key, open)?;
        self.space();
        if self.byte() != Some(b':') {
            return Err(self.fault("a colon is missing after an object key"));
        }
        self.at += 1;
        self.space();
        if open.len() > self.record {
            return Ok(None);
        }
        let value = Span { start: self.at, end: self.at };
        let depth = u8::try_from(open.len()).expect("only the outermost levels are recorded");
        self.found.push(Member { depth, key, value });
        Ok(Some(self.found.len() - 1))
    }

    /// Refuses a key that its object has had before, in any spelling.
    fn once(&mut self, key: Span, open: &[Frame]) -> Result<(), Fault> {
        if self.limits.nodes == usize::MAX {
            return Ok(()); // Checked before.
        }
        let first = open.last().map_or(0, |frame| frame.keys);
        let twice = Fault { what: "an object has the same key twice", at: key.start };
        let depth = open.len();
        if let Some((_, seen)) = self.many.last_mut().filter(|(at, _)| *at == depth) {
            let new = seen.insert(unescape(key.of(self.text)).as_bytes().to_vec());
            return if new { Ok(()) } else { Err(twice) };
        }
        let before = &self.keys[first..];
        let text = self.text;
        let same = |other: &Span| {
            let (one, two) = (key.of(text), other.of(text));
            one == two || ((one.contains(&b'\\') || two.contains(&b'\\')) && unescape(one) == unescape(two))
        };
        if before.iter().any(same) {
            return Err(twice);
        }
        if before.len() >= FEW_KEYS {
            let mut seen: HashSet<_> =
                before.iter().map(|key| unescape(key.of(text)).as_bytes().to_vec()).collect();
            seen.insert(unescape(key.of(text)).as_bytes().to_vec());
            self.many.push((depth, seen));
        } else {
            self.keys.push(key);
        }
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), Fault> {
        match self.byte() {
            Some(b'"') => self.text_string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(0xef) if self.at == 0 => Err(self.fault("the text begins with a byte order mark")),
            Some(_) => Err(self.fault("a JSON value is missing")),
            None => Err(self.fault("the text ends too early")),
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.fault("a JSON value is missing"));
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        self.at - start
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        let zero = self.byte() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || (zero && whole > 1) {
            return Err(self.fault("a number is not written as JSON has it"));
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.fault("a number is not written as JSON has it"));
            }
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.fault("a number is not written as JSON has it"));
            }
        }
        Ok(())
    }

    /// A string, from quote to quote.
    fn text_string(&mut self) -> Result<(), Fault> {
        self.at += 1;
        let start = self.at;
        let mut ascii = true;
        loop {
            // The usual stretch: letters that need no thought.
            let rest = &self.text[self.at..];
            let plain = rest.iter().position(|b| !PLAIN[usize::from(*b)]);
            let Some(plain) = plain else {
                self.at = self.text.len();
                return Err(self.fault("a string has no end"));
            };
            self.at += plain;
            match self.text[self.at] {
                b'"' => break,
                b'\\' => self.escape()?,
                0x80.. => {
                    ascii = false;
                    self.at += 1;
                }
                _ => return Err(self.fault("a string has a control character in it")),
            }
        }
        if !ascii && let Err(bad) = std::str::from_utf8(&self.text[start..self.at]) {
            return Err(Fault { what: "a string is not UTF-8", at: start + bad.valid_up_to() });
        }
        self.at += 1;
        Ok(())
    }

    fn escape(&mut self) -> Result<(), Fault> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let unit = self.unit(self.at)?;
                match unit {
                    // A pair of surrogates is one character; half a pair is none.
                    0xd800..=0xdbff => match self.unit(self.at + 6) {
                        Ok(0xdc00..=0xdfff) => self.at += 12,
                        _ => return Err(self.fault("half a surrogate pair is no character")),
                    },
                    0xdc00..=0xdfff => {
                        return Err(self.fault("half a surrogate pair is no character"));
                    }
                    _ => self.at += 6,
                }
                Ok(())
            }
            _ => Err(self.fault("a string has an unknown escape in it")),
        }
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

enum Next {
    Done,
    Element,
    Member,
}

/// The bytes that mean themselves inside a string.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0x20;
    while byte < 0x80 {
        plain[byte] = byte != b'"' as usize && byte != b'\\' as usize;
        byte += 1;
    }
    plain
};

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
        fn whatever_is_accepted_a_library_reads(text in "[\\[\\]{}\",:\\\\u0-9a-f.eE+ -]{0,24}") {
            if check(text.as_bytes(), &Limits::REQUEST).is_ok() {
                prop_assert!(serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok());
            }
        }
    }
}
