//! The pass itself: one byte after the other, once.
//!
//! Containers are kept on a list and not on the stack, and keys are compared in place; only an
//! object with very many keys costs a table.

use std::collections::HashSet;

use smallvec::SmallVec;

use super::{Fault, Limits, Member, Members, Span, string::visible, unescape};
use crate::weaken;

/// An open container, or what is around the outermost value.
struct Frame {
    /// What ends it: a bracket, or [`END`].
    closing: u8,
    /// All keys of this object are as they look: none has an escape in it.
    plain: bool,
    /// The members of this object are recorded.
    recorded: bool,
    /// The marks of this object's keys; see [`Scan::mark`].
    marks: u64,
    /// Where this object's keys begin in `Scan::keys`.
    keys: usize,
    /// Index of the member this container is the value of, or [`UNRECORDED`].
    member: usize,
}

/// Stands for the index of a member that is not recorded.
const UNRECORDED: usize = usize::MAX;

/// Keys up to which a look through a list beats a hash table.
const FEW_KEYS: usize = 32;

/// Stands for the byte after the last. No JSON text has it outside of a string, where it is
/// refused as a control character.
const END: u8 = 0;

/// A pass over one text.
pub struct Scan<'a> {
    pub text: &'a [u8],
    pub at: usize,
    nodes: usize,
    limits: Limits,
    /// Down to which depth members are recorded.
    record: usize,
    found: Members,
    /// Keys of all open objects, innermost last. Not kept where they were checked before.
    keys: SmallVec<[Span; 24]>,
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
            found: Members::with_capacity(if record > 0 { 12 } else { 0 }),
            keys: SmallVec::new(),
            many: Vec::new(),
        }
    }

    pub fn whole(mut self) -> Result<Members, Fault> {
        self.value()?;
        self.token();
        if self.at < self.text.len() {
            return Err(self.fault("something follows the end of the JSON value"));
        }
        Ok(self.found)
    }

    #[cold]
    pub fn fault(&self, what: &'static str) -> Fault {
        let what = if self.at < self.text.len() { what } else { "the text ends too early" };
        Fault { what, at: self.at }
    }

    /// The next byte, or [`END`].
    #[inline]
    pub fn byte(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(END)
    }

    /// The next byte that is no white space, or [`END`]. Mostly there is none to go over.
    #[inline(always)]
    pub fn token(&mut self) -> u8 {
        let byte = self.byte();
        if byte > b' ' { byte } else { self.after_space() }
    }

    #[inline(never)]
    fn after_space(&mut self) -> u8 {
        while let b' ' | b'\t' | b'\n' | b'\r' = self.byte() {
            self.at += 1;
        }
        self.byte()
    }

    /// One value with everything in it. Containers are kept on a list, not on the stack, so
    /// that no depth of nesting can overflow it.
    pub fn value(&mut self) -> Result<(), Fault> {
        let mut outer: SmallVec<[Frame; 16]> = SmallVec::new();
        let mut depth = 0;
        let mut frame =
            Frame { closing: END, plain: true, recorded: false, marks: 0, keys: 0, member: UNRECORDED };
        loop {
            let mut member = UNRECORDED;
            if frame.closing == b'}' {
                member = self.key(&mut frame, depth)?;
            }
            self.nodes += 1;
            if self.nodes > self.limits.nodes {
                return Err(self.fault("too many values"));
            }
            match self.token() {
                b'"' => drop(self.text_string()?),
                start @ (b'{' | b'[') => {
                    if depth >= self.limits.depth {
                        return Err(self.fault("nested too deeply"));
                    }
                    self.at += 1;
                    let inner = self.frame(start, member, depth);
                    let closing = inner.closing;
                    outer.push(std::mem::replace(&mut frame, inner));
                    depth += 1;
                    if self.token() != closing {
                        continue;
                    }
                    member = UNRECORDED; // Its end is noted when its frame is left.
                }
                _ => self.scalar()?,
            }
            self.finish(member);
            if self.next(&mut frame, &mut outer, &mut depth)? {
                return Ok(());
            }
        }
    }

    /// A container that begins with this bracket, inside as many others.
    #[inline(always)]
    fn frame(&self, start: u8, member: usize, depth: usize) -> Frame {
        let closing = if start == b'{' { b'}' } else { b']' };
        let recorded = depth < self.record || (depth == 2 && self.is_meta(member));
        Frame { closing, plain: true, recorded, marks: 0, keys: self.keys.len(), member }
    }

    /// Is this recorded member's key `_meta`?
    fn is_meta(&self, member: usize) -> bool {
        self.found.get(member).is_some_and(|member| member.is("_meta", self.text))
    }

    /// Goes on to the next value, closing what closes before it. Was the last one the last?
    #[inline(always)]
    fn next(
        &mut self,
        frame: &mut Frame,
        outer: &mut SmallVec<[Frame; 16]>,
        depth: &mut usize,
    ) -> Result<bool, Fault> {
        while frame.closing != END {
            let byte = self.token();
            if byte == b',' {
                self.at += 1;
                return Ok(false);
            }
            if byte != frame.closing {
                return Err(self.fault("a comma or a closing bracket is missing"));
            }
            self.at += 1;
            self.keys.truncate(frame.keys);
            self.finish(frame.member);
            if !self.many.is_empty() {
                self.many.pop_if(|(at, _)| *at == *depth);
            }
            *depth -= 1;
            *frame = outer.pop().expect("around a container is another frame");
        }
        Ok(true)
    }

    /// Notes where the value of a recorded member ended.
    #[inline(always)]
    fn finish(&mut self, member: usize) {
        if let Some(member) = self.found.get_mut(member) {
            member.value.end = self.at;
        }
    }

    /// A key and its colon, in the object at a depth. Returns the index of the member, or
    /// [`UNRECORDED`].
    #[inline(always)]
    fn key(&mut self, frame: &mut Frame, depth: usize) -> Result<usize, Fault> {
        if self.token() != b'"' {
            return Err(self.fault("an object key in quotes is missing"));
        }
        let start = self.at + 1;
        let plain = self.text_string()?;
        let key = Span { start, end: self.at - 1 };
        if key.end - key.start > self.limits.key_bytes {
            return Err(Fault { what: "an object key is too long", at: start });
        }
        frame.plain &= plain;
        if self.limits.nodes != usize::MAX && !weaken::is("json-twice") {
            self.once(key, frame, depth)?; // Else it was checked before.
        }
        if self.token() != b':' {
            return Err(self.fault("a colon is missing after an object key"));
        }
        self.at += 1;
        if !frame.recorded {
            return Ok(UNRECORDED);
        }
        self.token();
        let value = Span { start: self.at, end: self.at };
        let depth = u8::try_from(depth).expect("only the outermost levels are recorded");
        self.found.push(Member { depth, plain, key, value });
        Ok(self.found.len() - 1)
    }

    /// Refuses a key that its object has had before, in any spelling.
    #[inline(always)]
    fn once(&mut self, key: Span, frame: &mut Frame, depth: usize) -> Result<(), Fault> {
        if !frame.plain || self.keys.len() - frame.keys >= FEW_KEYS {
            return self.once_of_many(key, frame, depth);
        }
        let mark = self.mark(key);
        if frame.marks & mark != 0 && self.is_among(key, &self.keys[frame.keys..]) {
            return Err(twice(key));
        }
        frame.marks |= mark;
        self.keys.push(key);
        Ok(())
    }

    /// One bit that equal keys have in common, and different keys of an object mostly have not.
    #[inline(always)]
    fn mark(&self, key: Span) -> u64 {
        // Of an empty key it is the quotes around it that are looked at.
        let (first, last) = (usize::from(self.text[key.start]), usize::from(self.text[key.end - 1]));
        1 << ((first + 5 * last + 11 * key.len()) % 64)
    }

    #[cold]
    fn is_among(&self, key: Span, others: &[Span]) -> bool {
        others.iter().any(|other| other.of(self.text) == key.of(self.text))
    }

    /// The same for an object with many keys, or with keys that are spelled with escapes.
    #[cold]
    fn once_of_many(&mut self, key: Span, frame: &Frame, depth: usize) -> Result<(), Fault> {
        let text = self.text;
        let spelled_out = |key: &Span| unescape(key.of(text)).as_bytes().to_vec();
        if self.many.last().is_none_or(|(at, _)| *at != depth) {
            let before = self.keys[frame.keys..].iter().map(spelled_out);
            self.many.push((depth, before.collect()));
        }
        let seen = self.many.last_mut().map(|(_, seen)| seen);
        if seen.is_some_and(|seen| seen.insert(spelled_out(&key))) { Ok(()) } else { Err(twice(key)) }
    }

    fn scalar(&mut self) -> Result<(), Fault> {
        match self.byte() {
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            0xef if self.at == 0 => Err(self.fault("the text begins with a byte order mark")),
            _ => Err(self.fault("a JSON value is missing")),
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
        let rest = self.text.get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn number(&mut self) -> Result<(), Fault> {
        if self.byte() == b'-' {
            self.at += 1;
        }
        let zero = self.byte() == b'0';
        let whole = self.digits();
        if whole == 0 || (zero && whole > 1) {
            return Err(self.fault("a number is not written as JSON has it"));
        }
        if self.byte() == b'.' {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.fault("a number is not written as JSON has it"));
            }
        }
        if let b'e' | b'E' = self.byte() {
            self.at += 1;
            if let b'+' | b'-' = self.byte() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(self.fault("a number is not written as JSON has it"));
            }
        }
        Ok(())
    }

    /// A string, from quote to quote. Is it without escapes? What is short and plain is read
    /// here, in few enough steps to be inlined.
    #[inline(always)]
    fn text_string(&mut self) -> Result<bool, Fault> {
        let start = self.at + 1;
        self.at = start + visible(&self.text[start..]);
        if self.byte() == b'"' {
            self.at += 1;
            return Ok(true);
        }
        self.rest_of_string(start)
    }
}

#[cold]
fn twice(key: Span) -> Fault {
    Fault { what: "an object has the same key twice", at: key.start }
}
