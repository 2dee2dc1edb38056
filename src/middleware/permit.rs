//! What may a caller see and use?
//!
//! Rules are asked in their order, and the first that says anything about a thing for a caller
//! decides. Where there is any rule, what no rule allows is not there: it is left out of lists, and
//! using it is answered like using what never was. Which rules speak of a caller at all is its
//! *profile*; two callers of the same profile see the same.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::call::{Caller, Profile, Thing};

/// `[[permit]]`: a rule. The first that fits decides; where there is any, the rest is not allowed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// For whom it is; for everybody where nothing is said.
    pub who: Who,
    /// What it allows: tools and prompts by their names here, anything as
    /// `<backend>__<name or URI>`; `*` stands for any letters.
    pub allow: Vec<String>,
    /// What it does not allow, written the same way; asked before `allow`.
    pub deny: Vec<String>,
}

/// Callers; all that is said must be so.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Who {
    /// The issuer of their tokens.
    pub issuer: Option<String>,
    /// The subject of their tokens.
    pub subject: Option<String>,
    /// A group that their tokens name.
    pub group: Option<String>,
    /// A scope that their tokens have.
    pub scope: Option<String>,
    /// Strangers without a token (`true`), or those with one (`false`).
    pub anonymous: Option<bool>,
}

impl Who {
    fn is(&self, caller: &Caller) -> bool {
        let Self { issuer, subject, group, scope, anonymous } = self;
        let stranger = matches!(caller, Caller::Stranger(_));
        if anonymous.is_some_and(|wanted| wanted != stranger) {
            return false;
        }
        let Caller::Known(identity) = caller else {
            return issuer.is_none() && subject.is_none() && group.is_none() && scope.is_none();
        };
        let same = |wanted: &Option<String>, own: &String| wanted.as_ref().is_none_or(|wanted| wanted == own);
        let among = |wanted: &Option<String>, own: &Vec<String>| {
            wanted.as_ref().is_none_or(|wanted| own.contains(wanted))
        };
        same(issuer, &identity.issuer)
            && same(subject, &identity.subject)
            && among(group, &identity.groups)
            && among(scope, &identity.scopes)
    }
}

/// All rules.
#[derive(Debug)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// None where there are no rules, and everything is allowed.
    pub fn new(rules: Vec<Rule>) -> Option<Self> {
        (!rules.is_empty()).then_some(Self(rules))
    }
}

impl crate::call::Permit for Rules {
    fn profile(&self, caller: &Caller) -> Option<Profile> {
        if *caller == Caller::Gateway {
            return None;
        }
        let fitting = self.0.iter().enumerate().filter(|(_, rule)| rule.who.is(caller));
        Some(fitting.map(|(index, _)| index).collect())
    }

    fn allows(&self, profile: &Profile, thing: &Thing<'_>) -> bool {
        let full = format!("{}__{}", thing.backend, thing.own);
        let is = |pattern: &String| super::fits(pattern, thing.shown) || super::fits(pattern, &full);
        for rule in profile.iter().filter_map(|index| self.0.get(*index)) {
            if rule.deny.iter().any(is) {
                return false;
            }
            if rule.allow.iter().any(is) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::call::{Identity, Permit as _};

    fn known(subject: &str, groups: &[&str]) -> Caller {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let (issuer, scopes) = ("https://a.example".to_owned(), vec!["read".to_owned()]);
        let (subject, claims) = (subject.to_owned(), serde_json::Map::new());
        Caller::Known(Arc::new(Identity { issuer, subject, groups, scopes, claims }))
    }

    fn rule(who: Who, allow: &[&str], deny: &[&str]) -> Rule {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Rule { who, allow: texts(allow), deny: texts(deny) }
    }

    #[track_caller]
    fn check(rules: &Rules, caller: &Caller, shown: &str, expected: bool) {
        let (backend, own) = shown.split_once("__").unwrap();
        let allowed = rules.profile(caller).is_none_or(|profile| {
            rules.allows(&profile, &Thing { backend, own, shown, hints: Default::default() })
        });
        assert_eq!(allowed, expected, "{caller:?} {shown}");
    }

    #[test]
    fn the_first_rule_that_says_anything_decides() {
        let group = |name: &str| Who { group: Some(name.to_owned()), ..Who::default() };
        let rules = Rules::new(vec![
            rule(group("engineering"), &["github__*"], &["github__delete_*"]),
            rule(group("admins"), &["*"], &[]),
            rule(Who { subject: Some("ada".into()), ..Who::default() }, &["time__now"], &[]),
            rule(Who { anonymous: Some(true), ..Who::default() }, &["docs__*"], &[]),
        ]);
        let rules = rules.unwrap();
        let engineer = known("eve", &["engineering"]);
        check(&rules, &engineer, "github__list", true);
        check(&rules, &engineer, "github__delete_repo", false);
        check(&rules, &engineer, "time__now", false);
        let both = known("eve", &["admins", "engineering"]);
        check(&rules, &both, "github__delete_repo", false);
        check(&rules, &both, "time__now", true);
        check(&rules, &known("ada", &[]), "time__now", true);
        check(&rules, &known("ada", &[]), "time__then", false);
        let stranger = Caller::Stranger([127, 0, 0, 1].into());
        check(&rules, &stranger, "docs__search", true);
        check(&rules, &stranger, "time__now", false);
        check(&rules, &Caller::Local, "docs__search", false);
        check(&rules, &Caller::Gateway, "github__delete_repo", true);
    }

    #[test]
    fn without_rules_there_is_nothing_to_ask() {
        assert!(Rules::new(Vec::new()).is_none());
    }
}
