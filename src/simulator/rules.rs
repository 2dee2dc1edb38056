//! Which scenario is a request's?

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    random,
    refusal::Refusal,
    scenario::{Directive, Scenario, known},
};

/// Rules that wait, and tries that are counted, at most.
const MOST: usize = 10_000;

/// What the control plane has queued, and what was tried before.
#[derive(Debug, Default)]
pub struct Rules {
    queue: VecDeque<Queued>,
    /// How often a request met a scenario that ends after some tries.
    tries: HashMap<u64, u64>,
}

/// A rule as it is written: when it holds, and what happens then.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default, rename = "match")]
    matches: Match,
    scenario: String,
    #[serde(default)]
    params: Map<String, Value>,
}

/// All of what is said has to fit; `nth` is the how many-th request that does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Match {
    path: Option<String>,
    model: Option<String>,
    contains: Option<String>,
    nth: Option<u64>,
}

#[derive(Debug)]
struct Queued {
    matches: Match,
    scenario: Scenario,
    seen: u64,
    left: u64,
}

/// What of a request decides about its scenario.
#[derive(Debug)]
pub struct Look<'a> {
    pub path: &'a str,
    pub header: Option<&'a str>,
    pub model: Option<&'a str>,
    pub body: &'a [u8],
    /// The last message of the user.
    pub said: &'a str,
    /// Who asks.
    pub key: Option<&'a str>,
}

impl Rules {
    /// Appends rules. None of them, if one is wrong.
    pub fn queue(&mut self, rules: Vec<Rule>) -> Result<usize, Refusal> {
        if self.queue.len() + rules.len() > MOST {
            return Err(Refusal::invalid(format!("there can be {MOST} rules at once")));
        }
        let mut queued = Vec::new();
        for Rule { matches, scenario, params } in rules {
            let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let parameters: BTreeMap<_, _> =
                params.into_iter().map(|(key, value)| (key, text(value))).collect();
            let scenario = Scenario::new(&scenario, parameters)?;
            // Here `times` counts requests, of whatever content.
            let left = scenario.number("times", 1).max(1);
            queued.push(Queued { matches, scenario, seen: 0, left });
        }
        let count = queued.len();
        self.queue.extend(queued);
        Ok(count)
    }

    /// The scenario of this request, if any.
    pub fn choose(&mut self, look: &Look<'_>) -> Result<Option<Scenario>, Refusal> {
        if let Some(scenario) = self.queued(look) {
            return Ok(Some(scenario));
        }
        let by_model = look.model.and_then(|model| model.strip_prefix("sim/"));
        let by_model = by_model.map(|name| name.split(':').next().unwrap_or_default());
        let scenario = if let Some(header) = look.header {
            Scenario::header(header)?
        } else if let Some(name) = by_model.and_then(known) {
            Scenario::new(name, BTreeMap::new())?
        } else if let Some(directive) =
            Directive::all(look.said).into_iter().find(|one| known(&one.name).is_some())
        {
            Scenario::new(&directive.name, directive.parameters)?
        } else {
            return Ok(None);
        };
        Ok(self.still(&scenario, look).then_some(scenario))
    }

    fn queued(&mut self, look: &Look<'_>) -> Option<Scenario> {
        let at = self.queue.iter_mut().position(|rule| rule.fits(look))?;
        let rule = &mut self.queue[at];
        rule.left -= 1;
        let scenario = rule.scenario.clone();
        if rule.left == 0 {
            self.queue.remove(at);
        }
        Some(scenario)
    }

    /// Whether a scenario that ends after some tries still holds. When it has ended, it begins anew, so
    /// that the same test can be run again.
    fn still(&mut self, scenario: &Scenario, look: &Look<'_>) -> bool {
        let Some(times) = scenario.times() else { return true };
        let key = look.key.unwrap_or_default().as_bytes();
        let who = random::number(&[
            scenario.name.as_bytes(),
            b"\0",
            key,
            b"\0",
            look.path.as_bytes(),
            look.said.as_bytes(),
        ]);
        if self.tries.len() >= MOST {
            self.tries.clear();
        }
        let tries = self.tries.entry(who).or_default();
        *tries += 1;
        let holds = *tries <= times;
        if !holds {
            self.tries.remove(&who);
        }
        holds
    }
}

impl Queued {
    fn fits(&mut self, look: &Look<'_>) -> bool {
        let Match { path, model, contains, nth } = &self.matches;
        let body = || String::from_utf8_lossy(look.body);
        let fits = path.as_deref().is_none_or(|path| look.path.ends_with(path))
            && model.as_deref().is_none_or(|model| look.model == Some(model))
            && contains.as_deref().is_none_or(|words| body().contains(words));
        self.seen += u64::from(fits);
        fits && nth.is_none_or(|nth| self.seen >= nth)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn look<'a>(header: Option<&'a str>, model: Option<&'a str>, said: &'a str) -> Look<'a> {
        let path = "/api/v1/chat/completions";
        Look { path, header, model, body: said.as_bytes(), said, key: Some("k") }
    }

    #[track_caller]
    fn check(rules: &mut Rules, look: &Look<'_>, expected: Option<&str>) {
        assert_eq!(rules.choose(look).unwrap().map(|scenario| scenario.name), expected);
    }

    #[test]
    fn the_first_that_names_one_decides() {
        let mut rules = Rules::default();
        let rule =
            json!([{ "match": { "contains": "hi", "nth": 2 }, "scenario": "500", "params": { "times": 2 } }]);
        assert_eq!(rules.queue(serde_json::from_value(rule).unwrap()).unwrap(), 1);
        let all = look(Some("502"), Some("sim/503"), "hi [[sim:504]]");
        check(&mut rules, &all, Some("502"));
        check(&mut rules, &all, Some("500"));
        check(&mut rules, &all, Some("500"));
        check(&mut rules, &all, Some("502"));
        check(&mut rules, &look(None, Some("sim/503"), "[[sim:504]]"), Some("503"));
        check(&mut rules, &look(None, Some("acme/x"), "[[sim:words n=3]] [[sim:504]]"), Some("504"));
        check(&mut rules, &look(None, Some("acme/x"), "hello"), None);
    }

    #[test]
    fn what_ends_after_some_tries_begins_anew_when_it_has_ended() {
        let mut rules = Rules::default();
        let (one, other) = (look(None, None, "a [[sim:429]]"), look(None, None, "b [[sim:502 times=2]]"));
        for expected in [Some("429"), None, Some("429"), None] {
            check(&mut rules, &one, expected);
        }
        for expected in [Some("502"), Some("502"), None] {
            check(&mut rules, &other, expected);
        }
    }
}
