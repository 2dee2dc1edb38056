//! `[limit]`: what can be said there, and what makes no sense?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    daily,
    rate::Rates,
    rules::{ANONYMOUS, PER_CALLER},
    slots,
};
use crate::{call::Caller, settings::Duration};

/// What holds for callers who come over a network, where nothing else is said.
const AT_ONCE: usize = 1000;
const AT_ONCE_PER_CALLER: usize = 32;
const AT_ONCE_PER_BACKEND: usize = 100;

/// `[limit]`: how often callers may do what. Each limit is written like `"600/min"`, `"60/min burst 10"`
/// or `"30/min per caller"`, with `s`, `min`, `h` or `day`; several that must all be kept are a list, and
/// `"none"` is none. Without `burst` a tenth may come at once, but ten at least. Where identity is not
/// configured nothing is limited but what is written here.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// For each caller. Without it, `"600/min"` for callers with a token.
    pub per_caller: Option<Rates>,
    /// For strangers: `per ip` for each address (of IPv6, for each /64), otherwise for all of them
    /// together. Without it, `"60/min per ip"`.
    pub anonymous: Option<Rates>,
    /// For all callers together.
    pub all: Option<Rates>,
    /// For each caller's lists and other requests by which a client finds its way, which count for no
    /// other limit. Without it, `"1200/min"` for callers over a network.
    pub discovery: Option<Rates>,
    /// For the members of a group: with `per caller` for each of them, in place of `per_caller`,
    /// otherwise for all of them together.
    pub groups: BTreeMap<String, Rates>,
    /// For the calls of a backend.
    pub backends: BTreeMap<String, Rates>,
    /// For the calls of tools, by their names; `*` stands for any letters.
    pub tools: BTreeMap<String, Rates>,
    /// What a call of a tool counts as, by its name, if not as one; of the names that fit, the longest
    /// says it.
    pub costs: BTreeMap<String, u32>,
    /// How many calls may be under way at once, in all; 0 for any number. Without it, 1000 of callers
    /// over a network.
    pub at_once: Option<usize>,
    /// The same for each caller. Without it, 32 of each caller over a network.
    pub at_once_per_caller: Option<usize>,
    /// The same for each backend. Without it, 100 of callers over a network.
    pub at_once_per_backend: Option<usize>,
    /// How many calls may wait until there is room. Callers take turns.
    pub queue: usize,
    /// How long a call may wait.
    pub wait: Duration,
    /// How many calls of each member of a group go when it is his turn, if not one.
    pub shares: BTreeMap<String, u32>,
    /// How many calls each caller may make in a day (UTC).
    pub calls_per_day: Option<u64>,
    /// How many tokens each caller may use in a day, by what backends report.
    pub tokens_per_day: Option<u64>,
    /// How many US dollars each caller may cost in a day, by what backends report.
    pub usd_per_day: Option<f64>,
}

impl Default for Settings {
    /// A queue that evens out a moment, and no more: who waits longer is better told so.
    fn default() -> Self {
        Self {
            per_caller: None,
            anonymous: None,
            all: None,
            discovery: None,
            groups: BTreeMap::new(),
            backends: BTreeMap::new(),
            tools: BTreeMap::new(),
            costs: BTreeMap::new(),
            at_once: None,
            at_once_per_caller: None,
            at_once_per_backend: None,
            queue: 1000,
            wait: Duration::seconds(1),
            shares: BTreeMap::new(),
            calls_per_day: None,
            tokens_per_day: None,
            usd_per_day: None,
        }
    }
}

impl Settings {
    /// What makes no sense, each as what is wrong, `; ` and what would be right.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let patterns = self.tools.keys().map(|name| ("tools", name));
        for (key, name) in patterns.chain(self.costs.keys().map(|name| ("costs", name))) {
            if name.is_empty() {
                faults.push(format!("`{key}` has a name without letters; write one such as \"chat__*\""));
            }
        }
        let usual = [(&self.per_caller, PER_CALLER), (&self.anonymous, ANONYMOUS)];
        let usual = usual.into_iter().filter(|(said, _)| said.is_none()).map(|(_, usual)| usual.burst);
        let said = [&self.per_caller, &self.anonymous, &self.all].into_iter().flatten();
        let said = said.chain(self.groups.values()).chain(self.backends.values()).chain(self.tools.values());
        let least = said.flat_map(|rates| rates.0.iter().map(|rate| rate.burst)).chain(usual).min();
        for (name, cost) in &self.costs {
            if *cost == 0 {
                faults.push(format!("`costs` says that {name} counts as nothing; write 1 or more"));
            }
            if least.is_some_and(|least| *cost > least) {
                let least = least.unwrap_or_default();
                faults.push(format!(
                    "`costs` says that {name} counts as {cost}, and one limit lets {least} come at once, so it \
                     could never be called; write {least} or less, or a larger burst"
                ));
            }
        }
        for (name, _) in self.shares.iter().filter(|(_, share)| **share == 0) {
            faults.push(format!("`shares` gives {name} no turn at all; write 1 or more"));
        }
        if self.usd_per_day.is_some_and(|usd| !(usd.is_finite() && (0.0..=1e6).contains(&usd))) {
            faults.push("`usd_per_day` is no sum up to a million dollars; write one such as 5.0".to_owned());
        }
        if self.wait.0 > std::time::Duration::from_secs(60) {
            faults.push("`wait` is longer than clients wait; write a minute or less".to_owned());
        }
        faults
    }

    /// How many calls may be under way.
    pub fn slots(&self) -> slots::Most {
        let most = |said: Option<usize>, usual| match said.unwrap_or(usual) {
            0 => usize::MAX,
            some => some,
        };
        slots::Most {
            all: most(self.at_once, AT_ONCE),
            per_caller: most(self.at_once_per_caller, AT_ONCE_PER_CALLER),
            per_backend: most(self.at_once_per_backend, AT_ONCE_PER_BACKEND),
            queue: self.queue,
        }
    }

    /// Is the number of calls under way limited for whoever starts the gateway himself?
    pub fn slots_are_for_all(&self) -> bool {
        self.at_once.is_some() || self.at_once_per_caller.is_some() || self.at_once_per_backend.is_some()
    }

    /// How many of a caller's calls go when it is his turn.
    pub fn share(&self, caller: &Caller) -> u32 {
        let Caller::Known(identity) = caller else { return 1 };
        let shares = identity.groups.iter().filter_map(|group| self.shares.get(group));
        shares.copied().max().unwrap_or(1)
    }

    /// What each caller may use in a day.
    pub fn daily(&self) -> daily::Most {
        let nano_usd = self.usd_per_day.map(|usd| (usd * 1e9).round() as u64);
        daily::Most { calls: self.calls_per_day, tokens: self.tokens_per_day, nano_usd }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, words: &[&str]) {
        let settings: Settings = serde_json::from_str(json).unwrap();
        let faults = settings.faults();
        assert_eq!(faults.len(), words.len(), "{json} {faults:?}");
        for (fault, word) in faults.iter().zip(words) {
            assert!(fault.contains(word) && fault.contains("; "), "{word:?} is not in {fault}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        check("{}", &[]);
        check(r#"{"costs":{"a__b":10}}"#, &[]);
        check(r#"{"costs":{"a__b":11}}"#, &["counts as 11, and one limit lets 10"]);
        check(r#"{"costs":{"a__b":11},"anonymous":"none"}"#, &[]);
        check(r#"{"costs":{"a":0},"tools":{"":"1/s"}}"#, &["without letters", "counts as nothing"]);
        check(r#"{"shares":{"staff":0},"usd_per_day":-1.0}"#, &["no turn", "a million dollars"]);
        check(r#"{"wait":"2m"}"#, &["a minute or less"]);
    }

    #[test]
    fn nothing_said_is_what_holds_over_a_network() {
        let most = Settings::default().slots();
        assert_eq!((most.all, most.per_caller, most.per_backend, most.queue), (1000, 32, 100, 1000));
        let settings: Settings = serde_json::from_str(r#"{"at_once":0,"usd_per_day":0.1}"#).unwrap();
        assert_eq!(settings.slots().all, usize::MAX);
        assert_eq!(settings.daily().nano_usd, Some(100_000_000));
    }
}
