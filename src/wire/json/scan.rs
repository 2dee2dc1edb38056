//! The pass itself: one byte after the other, once.
//!
//! Containers are kept on a list and not on the stack, and keys are compared in place; only an
//! object with very many keys costs a table.

use std::collections::HashSet;

use smallvec::SmallVec;

use super::{Fault, Limits, Member, Members, Span, unescape};

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

/// A pass over one text.
pub struct Scan<'a> {
    text: &'a [u8],
    pub at: usize,
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
    pub fn new(text: &'a [u8], limits: &Limits, record: usize) -> Self {
        Self {
            text,
            at: 0,
            nodes: 0,
            limits: *limits,
            record,
            found: if record > 0 { Members::with_capacity(12) } else { Members::new() },
            keys: SmallVec::new(),
            many: Vec::new(),
        }
    }

    pub fn whole(mut self) -> Result<Members, Fault> {
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

    pub fn byte(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.byte() {
            self.at += 1;
        }
    }

    /// One value with everything in it. Containers are kept on a list, not on the stack, so
    /// that no depth of nesting can overflow it.
    pub fn value(&mut self) -> Result<(), Fault> {
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
