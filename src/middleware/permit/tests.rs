//! Do rules say what they are meant to?

#[cfg(test)]
use proptest::{prelude::*, test_runner::TestCaseResult};
use serde_json::{Value, json};

use super::*;
use crate::call::{Identity, Kind, Thing, Verdict};

fn known(subject: &str, groups: &[&str], scopes: &[&str], claims: &Value) -> Caller {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let (groups, scopes) = (texts(groups), texts(scopes));
    let claims = claims.as_object().cloned().unwrap_or_default();
    let (issuer, subject) = ("https://a.example".to_owned(), subject.to_owned());
    Caller::Known(Arc::new(Identity { issuer, subject, groups, scopes, claims }))
}

fn rules(rules: Value) -> Arc<Rules> {
    Rules::new(Policy::new(&read(rules), &BTreeMap::new()).unwrap_or_else(|why| panic!("{why:?}")))
}

fn read(rules: Value) -> Vec<Rule> {
    serde_json::from_value(rules).unwrap()
}

/// What is said of a tool that reads, if its name begins with "read".
fn verdict(rules: &Rules, caller: &Caller, shown: &str, arguments: Option<&str>) -> Verdict {
    let (backend, own) = shown.split_once("__").unwrap();
    let hints = Hints { read_only: own.starts_with("read"), ..Hints::default() };
    let thing = Thing { kind: Kind::Tool, backend, own, shown, hints };
    let grant = rules.grant(caller);
    grant.map_or(Verdict::Allowed, |grant| grant.verdict(&thing, arguments.map(str::as_bytes)))
}

#[track_caller]
fn check(rules: &Rules, caller: &Caller, shown: &str, allowed: bool) {
    let expected = if allowed { Verdict::Allowed } else { Verdict::Denied };
    assert_eq!(verdict(rules, caller, shown, None), expected, "{caller:?} {shown}");
    assert_eq!(verdict(rules, caller, shown, Some("{}")), expected, "{caller:?} {shown}");
}

#[test]
fn the_first_rule_that_says_anything_decides() {
    let rules = rules(json!([
        { "who": { "group": "engineering" }, "allow": ["github__*"], "deny": ["github__delete_*"] },
        { "who": { "group": "admins" }, "allow": ["*"] },
        { "who": { "subject": "ada" }, "allow": ["time__now"] },
        { "who": { "anonymous": true }, "allow": ["docs__*"] },
    ]));
    let nothing = json!({});
    let engineer = known("eve", &["engineering"], &[], &nothing);
    check(&rules, &engineer, "github__list", true);
    check(&rules, &engineer, "github__delete_repo", false);
    check(&rules, &engineer, "time__now", false);
    let both = known("eve", &["admins", "engineering"], &[], &nothing);
    check(&rules, &both, "github__delete_repo", false);
    check(&rules, &both, "time__now", true);
    check(&rules, &known("ada", &[], &[], &nothing), "time__now", true);
    check(&rules, &known("ada", &[], &[], &nothing), "time__then", false);
    let stranger = Caller::Stranger([127, 0, 0, 1].into());
    check(&rules, &stranger, "docs__search", true);
    check(&rules, &stranger, "time__now", false);
    check(&rules, &Caller::Local, "docs__search", false);
    check(&rules, &Caller::Gateway, "github__delete_repo", true);
}

#[test]
fn without_rules_there_is_nothing_to_ask() {
    assert!(rules(json!([])).grant(&Caller::Local).is_none());
}

#[test]
fn claims_of_any_name_are_texts_numbers_booleans_or_in_lists() {
    let rules = rules(json!([
        { "who": { "claim": { "department": "sales" } }, "allow": ["a__x"] },
        { "who": { "claim": { "level": 3, "staff": true } }, "allow": ["b__x"] },
        { "who": { "claim": { "ratio": 0.5 } }, "allow": ["c__x"] },
    ]));
    for (claims, sees) in [
        (json!({ "department": "sales" }), [true, false, false]),
        (json!({ "department": ["it", "sales"] }), [true, false, false]),
        (json!({ "department": [["sales"]] }), [false; 3]),
        (json!({ "department": { "sales": true } }), [false; 3]),
        (json!({ "department": "sales2" }), [false; 3]),
        (json!({ "Department": "sales" }), [false; 3]),
        (json!({ "level": 3, "staff": true }), [false, true, false]),
        (json!({ "level": "3", "staff": true }), [false; 3]),
        (json!({ "level": 3, "staff": "true" }), [false; 3]),
        (json!({ "level": 3 }), [false; 3]),
        (json!({ "ratio": 0.5 }), [false, false, true]),
        (json!({}), [false; 3]),
    ] {
        let caller = known("ada", &[], &[], &claims);
        for (tool, sees) in ["a__x", "b__x", "c__x"].iter().zip(sees) {
            check(&rules, &caller, tool, sees);
        }
        check(&rules, &Caller::Local, "a__x", false);
    }
}

#[test]
fn a_rule_of_a_backend_is_about_no_other() {
    let rules = rules(json!([
        { "backend": "files", "allow": ["read_*"] },
        { "only": "read-only", "allow": ["docs__*"] },
        { "only": "destructive", "deny": ["*"] },
        { "allow": ["web__*"] },
    ]));
    check(&rules, &Caller::Local, "files__read_x", true);
    check(&rules, &Caller::Local, "other__read_x", false);
    check(&rules, &Caller::Local, "docs__read_x", true);
    check(&rules, &Caller::Local, "docs__write", false);
    check(&rules, &Caller::Local, "web__write", false);
    check(&rules, &Caller::Local, "web__read", true);
    let named = Thing {
        kind: Kind::Tool,
        backend: "evil",
        own: "files__read_x",
        shown: "files__read_x",
        hints: Hints::default(),
    };
    let grant = rules.grant(&Caller::Local).unwrap();
    assert_eq!(
        grant.verdict(&named, None),
        Verdict::Denied,
        "a name without prefix is no way into another's rule"
    );
}

#[test]
fn what_some_arguments_could_allow_is_listed() {
    let rules = rules(json!([
        { "when": "arguments.repo == 'secret'", "deny": ["git__*"] },
        { "who": { "group": "dev" }, "when": "arguments.repo.startsWith('acme/')", "allow": ["git__push"] },
        { "who": { "group": "lead" }, "allow": ["git__*"] },
        { "when": "caller.groups.exists(g, g == 'oncall') && target.read_only", "allow": ["ops__*"] },
    ]));
    let of = |groups: &[&str]| known("ada", groups, &[], &json!({}));
    let (some, yes, no) = (Verdict::WithSome, Verdict::Allowed, Verdict::Denied);
    for (groups, tool, arguments, expected) in [
        (&["dev"][..], "git__push", None, &some),
        (&["dev"], "git__push", Some(r#"{"repo":"acme/x"}"#), &yes),
        (&["dev"], "git__push", Some(r#"{"repo":"evil/x"}"#), &no),
        (&["dev"], "git__push", Some("{}"), &no),
        (&["dev"], "git__pull", None, &no),
        (&["lead"], "git__pull", None, &some),
        (&["lead"], "git__pull", Some(r#"{"repo":"x"}"#), &yes),
        (&["lead"], "git__pull", Some(r#"{"repo":"secret"}"#), &no),
        // What a condition for `deny` cannot be evaluated with is denied.
        (&["lead"], "git__pull", Some("{}"), &no),
        (&["oncall"], "ops__read", None, &yes),
        (&["oncall"], "ops__write", None, &no),
        (&[], "ops__read", None, &no),
    ] {
        assert_eq!(
            verdict(&rules, &of(groups), tool, arguments),
            *expected,
            "{groups:?} {tool} {arguments:?}"
        );
    }
}

#[test]
fn scopes_that_are_missing_are_named_and_what_needs_them_is_listed() {
    let rules =
        rules(json!([{ "who": { "group": "dev" }, "needs": ["repo", "write"], "allow": ["git__push"] }]));
    let of = |scopes: &[&str]| known("ada", &["dev"], scopes, &json!({}));
    let needs = Verdict::Needs(["repo".to_owned(), "write".to_owned()].into());
    assert_eq!(verdict(&rules, &of(&["repo"]), "git__push", None), needs);
    assert_eq!(verdict(&rules, &of(&["write", "repo"]), "git__push", None), Verdict::Allowed);
    assert_eq!(verdict(&rules, &known("eve", &[], &[], &json!({})), "git__push", None), Verdict::Denied);
}

#[test]
fn callers_who_are_alike_share_a_profile_and_others_do_not() {
    let rules = rules(json!([
        { "who": { "group": "dev" }, "allow": ["a__*"] },
        { "when": "caller.claims.team == 'x' && arguments.n > 1", "allow": ["b__*"] },
        { "when": "caller.claims.team == target.name", "allow": ["c__*"] },
    ]));
    let id = |caller: &Caller| rules.grant(caller).unwrap().id();
    let of = |subject: &str, team: &str, exp: u64| {
        known(subject, &["dev"], &[], &json!({ "team": team, "exp": exp }))
    };
    assert_eq!(id(&of("ada", "x", 1)), id(&of("bob", "x", 2)));
    assert_ne!(id(&of("ada", "x", 1)), id(&of("ada", "y", 1)));
    let ada = of("ada", "read", 1);
    check(&rules, &ada, "c__read", true);
    check(&rules, &ada, "c__write", false);
}

#[test]
fn rules_can_be_replaced_and_wrong_ones_are_told() {
    let rules = rules(json!([{ "allow": ["a__*"] }]));
    let before = rules.grant(&Caller::Local).unwrap().id();
    rules.put(Policy::new(&read(json!([{ "allow": ["b__*"] }])), &BTreeMap::new()).unwrap());
    check(&rules, &Caller::Local, "a__x", false);
    check(&rules, &Caller::Local, "b__x", true);
    assert_ne!(
        rules.grant(&Caller::Local).unwrap().id(),
        before,
        "no view of the old rules is taken for a new one"
    );
    let wrong = Policy::new(
        &read(json!([{ "allow": ["x"], "when": "caller.", "needs": ["a b"] }])),
        &BTreeMap::new(),
    );
    let said = wrong.expect_err("it is wrong twice");
    assert!(said.len() == 2 && said[0].starts_with("rule 1: `when` "), "{said:?}");
}

#[test]
fn the_rule_that_decides_is_named() {
    let rules = rules(json!([
        { "who": { "group": "dev" }, "deny": ["a__secret"], "allow": ["a__*"] },
        { "when": "arguments.n > 1", "allow": ["b__*"] },
    ]));
    let ada = known("ada", &["dev"], &[], &json!({}));
    let grant = rules.grant(&ada).unwrap();
    for (own, backend, rule, words) in [
        ("secret", "a", Some(1), "Rule 1 denies it"),
        ("open", "a", Some(1), "Rule 1 allows it"),
        ("x", "b", Some(2), "rule 2 allows it when arguments.n > 1"),
        ("x", "c", None, "Of the rules that speak of this caller (rule 1, rule 2) none speaks of it"),
    ] {
        let shown = format!("{backend}__{own}");
        let thing = Thing { kind: Kind::Tool, backend, own, shown: &shown, hints: Hints::default() };
        let explained = grant.explain(&thing);
        assert_eq!(explained.rule.map(|(number, _)| number), rule, "{explained:?}");
        assert!(explained.says.concat().contains(words), "{explained:?}");
    }
}

const GROUPS: [&str; 3] = ["g0", "g1", "g2"];
const BACKENDS: [&str; 3] = ["b0", "b1", "b2"];
const TOOLS: [&str; 3] = ["read_a", "write_a", "read_b"];

/// A rule as a test makes it up: simple enough that what it means can be said a second time.
#[derive(Debug, Clone)]
struct Made {
    group: Option<usize>,
    backend: Option<usize>,
    read_only: bool,
    /// Only with this number as argument `n`.
    argument: Option<i64>,
    allow: Vec<(usize, usize)>,
    deny: Vec<(usize, usize)>,
}

/// Tools of backends, where 3 stands for all.
fn some() -> impl Strategy<Value = Vec<(usize, usize)>> {
    proptest::collection::vec((0..=3usize, 0..=3usize), 0..3)
}

/// `conditions`: how many of them have one, from 0 to 1.
fn made(conditions: f64) -> impl Strategy<Value = Made> {
    let group = proptest::option::of(0..3usize);
    let backend = proptest::option::weighted(0.3, 0..3usize);
    let argument = proptest::option::weighted(conditions, 0..2i64);
    (group, backend, proptest::bool::weighted(0.2), argument, some(), some()).prop_map(
        |(group, backend, read_only, argument, allow, deny)| Made {
            group,
            backend,
            read_only,
            argument,
            allow,
            deny,
        },
    )
}

impl Made {
    fn rule(&self) -> Rule {
        let name = |list: &[&str], index: usize| {
            list.get(index).map_or_else(|| "*".to_owned(), |one| (*one).to_owned())
        };
        let patterns = |list: &[(usize, usize)]| {
            list.iter().map(|(b, t)| format!("{}__{}", name(&BACKENDS, *b), name(&TOOLS, *t))).collect()
        };
        Rule {
            who: Who { group: self.group.map(|group| GROUPS[group].to_owned()), ..Who::default() },
            backend: self.backend.map(|backend| BACKENDS[backend].to_owned()),
            only: self.read_only.then_some(Only::ReadOnly),
            when: self.argument.map(|n| format!("arguments.n == {n}")),
            allow: patterns(&self.allow),
            deny: patterns(&self.deny),
            ..Rule::default()
        }
    }

    /// What it says of a tool: nothing, or whether it may be called.
    fn says(&self, group: usize, backend: usize, tool: usize, n: i64) -> Option<bool> {
        let speaks = self.group.is_none_or(|own| own == group)
            && self.backend.is_none_or(|own| own == backend)
            && (!self.read_only || TOOLS[tool].starts_with("read"))
            && self.argument.is_none_or(|own| own == n);
        let names = |list: &[(usize, usize)]| {
            list.iter().any(|(b, t)| (*b == 3 || *b == backend) && (*t == 3 || *t == tool))
        };
        match (speaks, names(&self.deny), names(&self.allow)) {
            (false, ..) | (_, false, false) => None,
            (_, true, _) => Some(false),
            (_, false, true) => Some(true),
        }
    }
}

fn model(rules: &[Made], group: usize, backend: usize, tool: usize, n: i64) -> bool {
    rules.is_empty() || rules.iter().find_map(|rule| rule.says(group, backend, tool, n)).unwrap_or(false)
}

/// They allow what the model does; what is listed is what some arguments can call; and one more thing
/// denied never allows more.
fn decide_as_the_model(rules: &[Made], more: &[(usize, usize)], at: usize, numbers: i64) -> TestCaseResult {
    let ready = |rules: &[Made]| {
        let rules: Vec<_> = rules.iter().map(Made::rule).collect();
        Rules::new(Policy::new(&rules, &BTreeMap::new()).expect("they make sense"))
    };
    let mut narrower = rules.to_vec();
    if let Some(rule) = narrower.get_mut(at) {
        rule.deny.extend(more);
    }
    let (narrow, ready) = (ready(&narrower), ready(rules));
    for (group, name) in GROUPS.iter().enumerate() {
        let caller = known("ada", &[name], &[], &json!({}));
        for (backend, b) in BACKENDS.iter().enumerate() {
            for (tool, t) in TOOLS.iter().enumerate() {
                let shown = format!("{b}__{t}");
                let may: Vec<bool> = (0..numbers).map(|n| model(rules, group, backend, tool, n)).collect();
                let called = |rules: &Rules, n: i64| {
                    verdict(rules, &caller, &shown, Some(&format!("{{\"n\":{n}}}"))) == Verdict::Allowed
                };
                for (n, may) in (0..numbers).zip(&may) {
                    prop_assert_eq!(called(&ready, n), *may, "{} {} {}", name, shown, n);
                    prop_assert!(
                        !called(&narrow, n) || *may,
                        "{} {} {}: denying more allows more",
                        name,
                        shown,
                        n
                    );
                }
                match verdict(&ready, &caller, &shown, None) {
                    Verdict::Denied => {
                        prop_assert!(!may.contains(&true), "{} {} could be called", name, shown)
                    }
                    Verdict::Allowed => {
                        prop_assert!(!may.contains(&false), "{} {} cannot be called", name, shown)
                    }
                    // Conditions are not looked through for whether any arguments fit them.
                    _ => prop_assert!(rules.iter().any(|rule| rule.argument.is_some())),
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn rules_decide_as_a_model_of_them_does(
        rules in proptest::collection::vec(made(0.001), 0..5), more in some(), at in 0..5usize
    ) {
        decide_as_the_model(&rules, &more, at, 1)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn rules_with_conditions_decide_as_a_model_of_them_does(
        rules in proptest::collection::vec(made(0.5), 0..5), more in some(), at in 0..5usize
    ) {
        decide_as_the_model(&rules, &more, at, 3)?;
    }
}
