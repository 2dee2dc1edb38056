//! Which rule decides about a thing, and what could be done about it?

use super::{
    policy::Side,
    profile::{Entry, Profile},
};
use crate::call::{Explained, Thing, Verdict};

pub fn explain(profile: &Profile, thing: &Thing<'_>) -> Explained {
    let (verdict, last) = profile.decide(thing, None);
    let place = |entry: Entry| (entry.rule + 1, profile.rules[entry.rule].rule.line);
    let rule = last.map(|(entry, _)| place(entry));
    let mut says = Vec::new();
    for entry in profile.entries.iter().filter(|entry| entry.unknown) {
        says.push(format!(
            "The condition of {} cannot be evaluated for this caller, so it allows nothing and denies; the log says why.",
            named(place(*entry))
        ));
    }
    says.push(match (&verdict, last) {
        (Verdict::Allowed, Some((entry, _))) => format!("{} allows it.", capital(&named(place(entry)))),
        (Verdict::Needs(scopes), Some((entry, _))) => format!(
            "{} allows it to tokens with the scopes {}, which this one has not all: it is listed, and a call is \
             answered with what is needed. Have the issuer add them.",
            capital(&named(place(entry))),
            scopes.join(" ")
        ),
        (Verdict::Denied, Some((entry, Side::Deny))) => format!(
            "{} denies it: it is not listed, and a call is answered as if it did not exist. Change `deny` there, or put \
             a rule that allows it before.",
            capital(&named(place(entry)))
        ),
        (Verdict::WithSome, _) => {
            let texts: Vec<_> = conditions(profile, thing).collect();
            format!("With some arguments it is allowed; it is listed, and each call is asked: {}.", texts.join("; "))
        }
        (Verdict::Allowed | Verdict::Needs(_) | Verdict::Denied, _) => {
            let speaking: Vec<_> = profile.entries.iter().map(|entry| named(place(*entry))).collect();
            let speaking = match speaking.as_slice() {
                [] => "No rule speaks of this caller".to_owned(),
                rules => format!("Of the rules that speak of this caller ({}) none speaks of it", rules.join(", ")),
            };
            format!(
                "{speaking}, and where there is any rule the rest is not there. Name it in the `allow` of a rule: {:?}, \
                 for instance.",
                thing.shown
            )
        }
    });
    Explained { verdict, rule, says }
}

/// The conditions on which a call is asked.
fn conditions<'a>(profile: &'a Profile, thing: &'a Thing<'_>) -> impl Iterator<Item = String> + 'a {
    profile.entries.iter().filter_map(|entry| {
        let ready = &profile.rules[entry.rule];
        let (side, condition) = (ready.side(thing)?, ready.condition.as_ref()?);
        let verb = if side == Side::Deny { "denies" } else { "allows" };
        let place = named((entry.rule + 1, ready.rule.line));
        condition.asks_for_arguments().then(|| format!("{place} {verb} it when {}", condition.text))
    })
}

fn named((number, line): (usize, Option<usize>)) -> String {
    line.map_or_else(|| format!("rule {number}"), |line| format!("rule {number} (line {line})"))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}
