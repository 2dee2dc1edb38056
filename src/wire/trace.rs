//! Which trace does a request belong to, by the headers it came with?
//!
//! In MCP these things stand in `_meta`, whatever carries the message (2026-07-28, "Reserved
//! keys"; W3C "Trace Context" and "Baggage"). What a header says is put there if the client has
//! not; what the client has written there goes on as it is.

use super::{json, message::Message};

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// As long as a vendor's state and baggage may be by W3C's words.
const LONGEST_STATE: usize = 512;
const LONGEST_BAGGAGE: usize = 8192;

/// Members for `_meta`, with their values as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    span: Vec<(&'static str, String)>,
    baggage: Vec<(&'static str, String)>,
}

impl Trace {
    /// From headers, several of one name joined by commas. One that is not as W3C has it says
    /// nothing.
    pub fn of(header: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let visible = |text: &String| text.bytes().all(|b| (b' '..=b'~').contains(&b));
        let mut trace = Self::default();
        if let Some(parent) = header(PARENT).filter(|text| is_parent(text)) {
            trace.span.push((PARENT, json::quoted(&parent)));
            let state = header(STATE).filter(|text| visible(text) && text.len() <= LONGEST_STATE);
            trace.span.extend(state.map(|state| (STATE, json::quoted(&state))));
        }
        let baggage = header(BAGGAGE).filter(|text| visible(text) && text.len() <= LONGEST_BAGGAGE);
        trace.baggage.extend(baggage.map(|baggage| (BAGGAGE, json::quoted(&baggage))));
        (trace != Self::default()).then_some(trace)
    }

    /// What the message does not say itself.
    pub fn missing_in(&self, message: &Message) -> impl Iterator<Item = (&'static str, &str)> {
        let says = |name: &str| message.meta().any(|member| member.stands_for(name, message.text()));
        // A state belongs to its parent: the two come from one place.
        let span = if says(PARENT) || says(STATE) { &[][..] } else { &self.span[..] };
        let baggage = if says(BAGGAGE) { &[][..] } else { &self.baggage[..] };
        span.iter().chain(baggage).map(|(name, value)| (*name, value.as_str()))
    }
}

/// `00-<32 digits>-<16 digits>-<2 digits>`, or what a later version makes of it.
fn is_parent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut digits = |length: usize| {
        let part = parts.next().filter(|part| part.len() == length)?;
        part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)).then_some(part)
    };
    let (version, trace, span, flags) = (digits(2), digits(32), digits(16), digits(2));
    let is_none = |part: &str| part.bytes().all(|b| b == b'0');
    let known = version.is_some_and(|version| version != "ff" && (version != "00" || text.len() == 55));
    known && flags.is_some() && [trace, span].iter().all(|part| part.is_some_and(|part| !is_none(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[track_caller]
    fn check(parent: &str, state: &str, baggage: &str, expected: &[&str]) {
        let header = |name: &str| {
            let text = match name {
                PARENT => parent,
                STATE => state,
                _ => baggage,
            };
            (!text.is_empty()).then(|| text.to_owned())
        };
        let trace = Trace::of(header).unwrap_or_default();
        let names: Vec<_> = trace.span.iter().chain(&trace.baggage).map(|(name, _)| *name).collect();
        assert_eq!(names, expected, "{parent} {state} {baggage}");
    }

    #[test]
    fn what_is_not_as_w3c_has_it_says_nothing() {
        check(SPAN, "a=1", "k=v", &[PARENT, STATE, BAGGAGE]);
        check("", "a=1", "k=v", &[BAGGAGE]);
        check("", "", "", &[]);
        check(SPAN, &"x".repeat(513), &"y".repeat(8193), &[PARENT]);
        check(SPAN, "\u{7}", "é", &[PARENT]);
        for wrong in [
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            check(wrong, "a=1", "", &[]);
        }
        check("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later", "", "", &[PARENT]);
    }
}
