//! What would another configuration change, and for whom?
//!
//! Rules are tried on one caller of each kind that they speak of: a caller who is nothing else than
//! what the rule wants. Tools are those that are known now, so what a backend will have that is not
//! here yet is not said.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use serde::Serialize;
use serde_json::Value;

use super::{Fault, Plan, Waystation, reload};
use crate::{call::Caller, config::Config, middleware::permit::Who};

/// What a reload would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// By their names, what becomes of backends that are not left alone.
    pub backends: BTreeMap<String, Fate>,
    /// Who can use other tools than before.
    pub callers: Vec<Other>,
    /// Keys of `[limit]` that have another value.
    pub limits: Vec<Limit>,
    /// Tables that would be obeyed after a restart.
    pub needs_restart: Vec<&'static str>,
}

/// What becomes of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    Begins,
    BeginsAnew,
    Ends,
}

/// Callers of one kind, and the tools that they get and lose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Other {
    pub who: String,
    pub gets: BTreeSet<String>,
    pub loses: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    pub key: String,
    pub from: Value,
    pub to: Value,
}

impl Waystation {
    /// What [`Self::reload`] would do, or why it would do nothing.
    pub fn difference(&self, new: Config) -> Result<Difference, Vec<Fault>> {
        let Plan { rules, config: new, .. } = Plan::build(new)?;
        let old = self.config();
        let backends = fates(&old, &new);
        let gone = backends.iter().filter(|(_, fate)| **fate == Fate::Ends);
        let gone = gone.map(|(name, _)| name.as_str()).collect();
        let mut callers = Vec::new();
        for (who, caller) in kinds(&old, &new) {
            let before = self.router.tools_of(&caller, &*self.live.rules, &BTreeSet::new());
            let after = self.router.tools_of(&caller, &rules, &gone);
            let (gets, loses) = (&after - &before, &before - &after);
            if !gets.is_empty() || !loses.is_empty() {
                callers.push(Other { who, gets, loses });
            }
        }
        let limits = limits(&serde_json::json!(old.limit), &serde_json::json!(new.limit));
        Ok(Difference { backends, callers, limits, needs_restart: reload::at_a_restart(&old, &new) })
    }
}

fn fates(old: &Config, new: &Config) -> BTreeMap<String, Fate> {
    let names: BTreeSet<_> = old.backends.keys().chain(new.backends.keys()).collect();
    let fate = |name: &String| {
        let sides = (reload::there(&old.backends, name), reload::there(&new.backends, name));
        let fate = match sides {
            (None, Some(_)) => Fate::Begins,
            (Some(_), None) => Fate::Ends,
            (Some(old), Some(new)) if old != new => Fate::BeginsAnew,
            _ => return None,
        };
        Some((name.clone(), fate))
    };
    names.into_iter().filter_map(fate).collect()
}

/// A caller of each kind that rules of either speak of, and of those that none does.
fn kinds(old: &Config, new: &Config) -> Vec<(String, Caller)> {
    let mut kinds: Vec<(String, Caller)> = Vec::new();
    let rules = old.permit.iter().chain(&new.permit).map(|rule| &rule.who);
    for who in rules.filter(|who| **who != Who::default() && who.anonymous != Some(true)) {
        let named = who.to_string();
        if kinds.iter().all(|(known, _)| *known != named) {
            kinds.push((named, who.example()));
        }
    }
    let configured = |config: &Config| config.identify != Default::default();
    if configured(old) || configured(new) {
        kinds.push(("anybody else with a token".to_owned(), Who::default().example()));
    }
    if old.identify.anonymous || new.identify.anonymous {
        kinds.push(("strangers".to_owned(), Caller::Stranger(IpAddr::V4(Ipv4Addr::UNSPECIFIED))));
    }
    if !configured(old) || !configured(new) {
        kinds.push(("whoever is on this machine".to_owned(), Caller::Local));
    }
    kinds
}

/// The keys of two tables whose values differ; of tables within, each key.
fn limits(old: &Value, new: &Value) -> Vec<Limit> {
    let empty = serde_json::Map::new();
    let table = |value: &Value| value.as_object().unwrap_or(&empty).clone();
    let (old, new) = (table(old), table(new));
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let value =
        |table: &serde_json::Map<String, Value>, key: &str| table.get(key).cloned().unwrap_or_default();
    let mut limits = Vec::new();
    for key in keys {
        let (from, to) = (value(&old, key), value(&new, key));
        if from.is_object() || to.is_object() {
            let within = self::limits(&from, &to).into_iter();
            limits.extend(within.map(|limit| Limit { key: format!("{key}.{}", limit.key), ..limit }));
        } else if from != to {
            limits.push(Limit { key: key.clone(), from, to });
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_that_differ_are_told_with_their_keys() {
        let old = json!({ "a": 1, "b": "x", "groups": { "one": "1/s", "two": "2/s" } });
        let new = json!({ "a": 1, "b": null, "groups": { "one": "3/s" } });
        let told: Vec<_> =
            limits(&old, &new).into_iter().map(|limit| (limit.key, limit.from, limit.to)).collect();
        assert_eq!(
            told,
            [
                ("b".to_owned(), json!("x"), json!(null)),
                ("groups.one".to_owned(), json!("1/s"), json!("3/s")),
                ("groups.two".to_owned(), json!("2/s"), json!(null)),
            ]
        );
    }
}
