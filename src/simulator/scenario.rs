//! What can go wrong, and how is it asked for?
//!
//! A scenario is a fault or an oddity with parameters. The first of these that names one decides:
//!
//! 1. a rule that the control plane has queued (`POST /__sim/script`),
//! 2. the header `x-sim-scenario: midstream;after=5`,
//! 3. the model `sim/midstream`,
//! 4. `[[sim:midstream after=5]]` in the last message of the user.
//!
//! The last one goes through anything that passes messages on, so a fault of a model can be had by
//! whoever only knows how to chat.

use std::collections::BTreeMap;

use super::{random::Random, refusal::Refusal};

/// Every scenario, with what happens.
pub const SCENARIOS: &[(&str, &str)] = &[
    ("429", "429 with Retry-After: `after` seconds (1); good again after `times` tries (1)"),
    ("429-nohdr", "429 without Retry-After"),
    ("429-daily", "429: the free requests of the day are used up"),
    ("429-capacity", "429: all providers are at capacity, with other models to take"),
    ("400-model", "400: no valid model id"),
    ("404-noendpoint", "404: no endpoints for the model"),
    ("400-context", "400: longer than the model's window"),
    ("402", "402: no credits"),
    ("402-afford", "402: only `tokens` (3919) can be afforded"),
    ("402-inflight", "402: other requests use the budget; good again after `times` tries (1)"),
    ("403-moderation", "403: the input was flagged"),
    ("403-guardrail", "403: a guardrail's pattern was found"),
    ("403-budget", "403: the key's budget is spent"),
    ("408", "408, for the first `times` tries (always)"),
    ("413", "413, likewise"),
    ("422", "422, likewise"),
    ("500", "500, likewise"),
    ("502", "502, likewise"),
    ("503", "503 with Retry-After: 1, likewise"),
    ("504", "504, likewise"),
    ("524", "524, likewise"),
    ("529", "529, likewise"),
    ("html-502", "502 with a page of HTML"),
    ("ok-error", "200 with an error instead of an answer"),
    ("choice-error", "200 with an error beside half an answer"),
    ("bad-json", "200 with broken JSON"),
    ("empty-body", "200 with nothing"),
    ("wrong-type", "200 as text/plain"),
    ("huge-body", "200 with 64 MiB"),
    ("slow-headers", "nothing at all for `ms` (1000)"),
    ("slow-first", "only comments for `ms` (1000)"),
    ("slow-tokens", "`ms` (100) between tokens"),
    ("stall", "stops for ever `after` tokens (3); with `comments=off` in silence"),
    ("midstream", "an error `after` tokens (3), with `code` (502) and `type`"),
    ("midstream-string", "the same, its code a text"),
    ("midstream-bare", "the same, as nothing but an error"),
    ("truncate", "ends cleanly `after` tokens (3), with neither reason nor [DONE]"),
    ("truncate-tool", "ends inside a tool's arguments"),
    ("truncate-utf8", "ends inside a character, `after` tokens (3)"),
    ("reset", "the connection breaks `after` tokens (3)"),
    ("bad-chunk", "one event that is no JSON `after` tokens (3), then goes on"),
    ("no-done", "no [DONE]"),
    ("no-usage", "no usage"),
    ("usage-empty", "usage with no choices"),
    ("double-usage", "usage twice"),
    ("late-usage", "usage after [DONE]"),
    ("empty", "no tokens at all"),
    ("empty-reasoning", "all tokens spent on reasoning"),
    ("null-content", "content that is null"),
    ("length", "ends for its length, after half"),
    ("content-filter", "ends at the content filter, after half"),
    ("refusal", "the model refuses"),
    ("tool-garbage", "a tool call with arguments that are no JSON"),
    ("dup-role", "the role alone, before each token"),
    ("reorder-index", "a second choice in between, and members in another order"),
    ("unknown-fields", "members that nobody knows"),
    ("null-everything", "null wherever it may be"),
    ("debug-chunk", "the first event has no choices and a `debug`"),
    ("crlf", "lines end in CR LF"),
    ("split", "every byte is a write of its own"),
    ("multi", "many events in one write"),
    ("pad", "a comment of 64 KiB"),
    ("flaky", "any of several faults with the probability `p` (0.3)"),
];

/// What `flaky` may come to.
const FLAKY: [&str; 8] = ["429", "502", "503", "midstream", "truncate", "reset", "empty", "bad-json"];

/// A fault or oddity, with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    pub name: &'static str,
    parameters: BTreeMap<String, String>,
}

/// The scenario of this name.
pub fn known(name: &str) -> Option<&'static str> {
    SCENARIOS.iter().map(|(known, _)| *known).find(|known| *known == name)
}

impl Scenario {
    pub fn new(name: &str, parameters: BTreeMap<String, String>) -> Result<Self, Refusal> {
        match known(name) {
            Some(name) => Ok(Self { name, parameters }),
            None => {
                let known: Vec<_> = SCENARIOS.iter().map(|(name, _)| *name).collect();
                let known = known.join(", ");
                Err(Refusal::invalid(format!("the simulator has no scenario {name:?}; it has {known}")))
            }
        }
    }

    /// `name;key=value;key=value`, as the header has it.
    pub fn header(text: &str) -> Result<Self, Refusal> {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let pairs = parts.filter_map(|part| part.split_once('='));
        Self::new(name, pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect())
    }

    pub fn text(&self, parameter: &str) -> Option<&str> {
        self.parameters.get(parameter).map(String::as_str)
    }

    /// A number, or `usual` where there is none.
    pub fn number(&self, parameter: &str, usual: u64) -> u64 {
        self.text(parameter).and_then(|text| text.parse().ok()).unwrap_or(usual)
    }

    /// For how many tries of the same request it holds.
    pub fn times(&self) -> Option<u64> {
        let usual = matches!(self.name, "429" | "402-inflight").then_some(1);
        self.text("times").and_then(|text| text.parse().ok()).or(usual)
    }

    /// `flaky` becomes one of the others, or nothing.
    pub fn drawn(self, random: &mut Random) -> Option<Self> {
        if self.name != "flaky" {
            return Some(self);
        }
        let chance: f64 = self.text("p").and_then(|text| text.parse().ok()).unwrap_or(0.3);
        let drawn = f64::from(u32::try_from(random.below(1_000_000)).unwrap_or(0)) / 1_000_000.0;
        let name = random.pick(&FLAKY);
        (drawn < chance).then_some(Self { name, parameters: self.parameters })
    }
}

/// `[[sim:name …]]` in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    pub name: String,
    pub parameters: BTreeMap<String, String>,
    /// All that stands after the name, as it is.
    pub rest: String,
}

impl Directive {
    /// All directives of a text.
    pub fn all(text: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut left = text;
        while let Some((_, after)) = left.split_once("[[sim:") {
            let length = after.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-'));
            let (name, after) = after.split_at(length.unwrap_or(after.len()));
            let (rest, after) = split_rest(after);
            let (name, rest) = (name.to_owned(), rest.trim().to_owned());
            found.push(Self { name, parameters: parameters(&rest), rest });
            left = after;
        }
        found
    }
}

/// What belongs to a directive, and what follows it. The end does not count inside quotes or braces.
fn split_rest(text: &str) -> (&str, &str) {
    let (mut quoted, mut escaped, mut depth) = (false, false, 0_usize);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' if !quoted => depth += 1,
            '}' if !quoted => depth = depth.saturating_sub(1),
            ']' if !quoted && depth == 0 && text[at..].starts_with("]]") => {
                return (&text[..at], &text[at + 2..]);
            }
            _ => {}
        }
    }
    (text, "")
}

/// `key=value` and `key="value with blanks"`, the latter written as JSON writes a text.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = text.trim_start();
    while let Some((key, after)) = left.split_once('=') {
        let key = key.split_whitespace().next_back().unwrap_or_default().to_owned();
        if after.starts_with('"') {
            let mut values = serde_json::Deserializer::from_str(after).into_iter::<String>();
            let Some(Ok(value)) = values.next() else { break };
            left = &after[values.byte_offset()..];
            found.insert(key, value);
        } else {
            let end = after.find(char::is_whitespace).unwrap_or(after.len());
            found.insert(key, after[..end].to_owned());
            left = &after[end..];
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, name: &str, pairs: &[(&str, &str)]) {
        let found = Directive::all(text);
        let pairs: Vec<_> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(found[0].name, name);
        assert_eq!(found[0].parameters.clone().into_iter().collect::<Vec<_>>(), pairs);
    }

    #[test]
    fn directives_are_found_with_their_parameters() {
        check(
            "please [[sim:midstream after=5 code=503]] now",
            "midstream",
            &[("after", "5"), ("code", "503")],
        );
        check(r#"[[sim:say text="a ]] b \"c\" ü"]] end"#, "say", &[("text", "a ]] b \"c\" ü")]);
        check("[[sim:recall]]", "recall", &[]);
        check("[[sim:recall", "recall", &[]);
        assert!(Directive::all("no [sim:such]] thing").is_empty());
        let two = Directive::all(r#"[[sim:json {"a":[[1]],"b":"]]"}]] [[sim:reset after=2]]"#);
        assert_eq!((two.len(), two[0].rest.as_str()), (2, r#"{"a":[[1]],"b":"]]"}"#));
    }

    #[test]
    fn headers_name_scenarios() {
        let scenario = Scenario::header("429; after=7;times=2").unwrap();
        assert_eq!((scenario.name, scenario.number("after", 1), scenario.times()), ("429", 7, Some(2)));
        let no = Scenario::header("such").unwrap_err();
        assert!(no.body.to_string().contains("midstream"));
    }

    #[test]
    fn a_flaky_scenario_comes_to_nothing_about_as_often_as_it_should() {
        let mut random = Random::new(1, "flaky");
        let flaky = Scenario::header("flaky;p=0.3").unwrap();
        let faults = (0..1000).filter(|_| flaky.clone().drawn(&mut random).is_some()).count();
        assert!((200..400).contains(&faults), "{faults}");
    }
}
