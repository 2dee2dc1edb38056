//! What do all rules together say, as they are at one moment?

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, Weak},
};

use dashmap::DashMap;

use super::{
    Claim, Fault, Rule, Set, Who,
    condition::{Condition, Truth},
    profile::{Entry, Profile},
    set::Members,
    uses::Wanted,
    value,
};
use crate::{
    call::{Caller, Grant, Identity, Permit, Thing},
    weaken,
};

/// Identities whose profiles are remembered.
const REMEMBERED: usize = 20_000;

/// Rules and sets that do not change.
#[derive(Debug)]
pub struct Policy {
    rules: Arc<[Ready]>,
    sets: BTreeMap<String, Arc<Members>>,
    /// What a rule wants of callers beside what their profile says.
    wanted: Vec<Wanted>,
    /// All profiles there were, each once.
    profiles: Mutex<HashMap<Likeness, Arc<Profile>>>,
    /// Profiles by the address of the identity, which nobody else has as long as it is held weakly.
    known: DashMap<usize, Known, foldhash::fast::RandomState>,
}

/// What makes two callers the same to the rules: which speak of them, and what their conditions look at.
type Likeness = (Vec<Entry>, String);
type Known = (Weak<Identity>, Arc<Profile>);

/// A rule that is ready to be asked.
#[derive(Debug)]
pub struct Ready {
    pub rule: Rule,
    pub needs: Arc<[String]>,
    pub condition: Option<Condition>,
}

/// Which of its lists names a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Deny,
    Allow,
}

impl Policy {
    pub fn new(rules: &[Rule], sets: &BTreeMap<String, Set>) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let told = |fault: Fault| {
                format!("rule {}: `{}` {}; {}", index + 1, fault.key, fault.what, fault.instead)
            };
            faults.extend(rule.faults().into_iter().map(told));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let ready = rules.iter().map(|rule| Ready {
            rule: rule.clone(),
            needs: rule.needs.as_slice().into(),
            // One with anything wrong was told above.
            condition: rule.when.as_deref().and_then(|text| Condition::new(text).ok()),
        });
        let rules: Arc<[Ready]> = ready.collect();
        let wanted = rules
            .iter()
            .map(|ready| ready.condition.as_ref().map(Condition::wants_of_callers).unwrap_or_default());
        Ok(Self {
            wanted: wanted.collect(),
            sets: sets.iter().map(|(name, set)| (name.clone(), Members::new(name, set))).collect(),
            rules,
            profiles: Mutex::default(),
            known: DashMap::default(),
        })
    }

    fn profile(&self, caller: &Caller) -> Arc<Profile> {
        let Caller::Known(identity) = caller else { return self.made(caller) };
        let address = Arc::as_ptr(identity) as usize;
        if let Some(known) = self.known.get(&address) {
            return Arc::clone(&known.1);
        }
        let profile = self.made(caller);
        if self.known.len() >= REMEMBERED {
            self.known.retain(|_, (identity, _)| identity.strong_count() > 0);
        }
        if self.known.len() < REMEMBERED {
            self.known.insert(address, (Arc::downgrade(identity), Arc::clone(&profile)));
        }
        profile
    }

    /// The profile of a caller that was not here lately.
    fn made(&self, caller: &Caller) -> Arc<Profile> {
        let said = value::caller(caller);
        let seen = value::of(&said).ok();
        let mut entries = Vec::new();
        let mut wanted = Wanted::default();
        for (index, ready) in self.rules.iter().enumerate() {
            if !ready.rule.who.is(caller) {
                continue;
            }
            let truth = match (&ready.condition, &seen) {
                (None, _) => Truth::Yes,
                (Some(condition), Some(seen)) => condition.of_caller(&**seen),
                (Some(_), None) => Truth::Unknown,
            };
            if truth == Truth::No {
                continue;
            }
            let lacks = ready.needs.iter().any(|scope| !has_scope(caller, scope));
            entries.push(Entry { rule: index, unknown: truth == Truth::Unknown, lacks });
            wanted = wanted.and(self.wanted[index].clone());
        }
        let part = value::part_of(&said, &wanted);
        let key = (entries, part.to_string());
        let mut profiles = self.profiles.lock().expect("no code panics while it holds this lock");
        if let Some(known) = profiles.get(&key) {
            return Arc::clone(known);
        }
        let profile = Arc::new(Profile::new(Arc::clone(&self.rules), key.0.clone(), value::of(&part).ok()));
        if profiles.len() >= REMEMBERED {
            profiles.clear(); // Those who hold one keep it.
        }
        profiles.insert(key, Arc::clone(&profile));
        profile
    }
}

impl Permit for Policy {
    fn grant(&self, caller: &Caller) -> Option<Arc<dyn Grant>> {
        if self.rules.is_empty() || *caller == Caller::Gateway {
            return None;
        }
        Some(self.profile(caller))
    }

    fn set(&self, name: &str) -> Option<Arc<dyn Grant>> {
        self.sets.get(name).map(|set| Arc::clone(set) as _)
    }
}

fn has_scope(caller: &Caller, scope: &String) -> bool {
    matches!(caller, Caller::Known(identity) if identity.scopes.contains(scope))
        || weaken::is("permit-scopes")
}

impl Rule {
    /// All that is wrong with it.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(Err(what)) = self.when.as_deref().map(Condition::new) {
            faults.push(Fault {
                key: "when",
                what,
                instead: "write a condition such as 'caller.groups.exists(g, g == \"oncall\")'",
            });
        }
        // RFC 6749, section 3.3.
        let fits = |b: u8| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if self.needs.iter().any(|scope| scope.is_empty() || !scope.bytes().all(fits)) {
            let what = "has something that is no scope".to_owned();
            faults.push(Fault {
                key: "needs",
                what,
                instead: "write names without blanks, such as [\"repo:write\"]",
            });
        }
        if !self.needs.is_empty() && self.allow.is_empty() {
            let what = "is for nothing, since the rule allows nothing".to_owned();
            faults.push(Fault { key: "needs", what, instead: "name what needs these scopes in `allow`" });
        }
        faults
    }
}

impl Ready {
    /// Does it speak of a thing, for whomever it is?
    pub fn side(&self, thing: &Thing<'_>) -> Option<Side> {
        let Rule { backend, only, allow, deny, .. } = &self.rule;
        if backend.as_ref().is_some_and(|backend| backend != thing.backend) && !weaken::is("permit-backend") {
            return None;
        }
        if only.is_some_and(|only| !only.is(thing.hints)) && !weaken::is("permit-only") {
            return None;
        }
        let names = |patterns: &[String]| fits_any(patterns, thing, backend.is_some());
        if names(deny) && !weaken::is("permit-deny") {
            Some(Side::Deny)
        } else {
            names(allow).then_some(Side::Allow)
        }
    }
}

/// Does any of these patterns name a thing? `own`: by what its backend calls it, too.
pub fn fits_any(patterns: &[String], thing: &Thing<'_>, own: bool) -> bool {
    if patterns.is_empty() {
        return false;
    }
    let full = format!("{}__{}", thing.backend, thing.own);
    let fits = super::super::fits;
    patterns.iter().any(|pattern| {
        fits(pattern, thing.shown) || fits(pattern, &full) || (own && fits(pattern, thing.own))
    })
}

impl Who {
    /// Is this one of them?
    pub fn is(&self, caller: &Caller) -> bool {
        let Self { issuer, subject, group, scope, anonymous, claim } = self;
        let stranger = matches!(caller, Caller::Stranger(_));
        if anonymous.is_some_and(|wanted| wanted != stranger) {
            return false;
        }
        let nothing = issuer.is_none() && subject.is_none() && group.is_none() && scope.is_none();
        let Caller::Known(identity) = caller else { return nothing && claim.is_empty() };
        let same = |wanted: &Option<String>, own: &String| wanted.as_ref().is_none_or(|wanted| wanted == own);
        let among = |wanted: &Option<String>, own: &Vec<String>| {
            wanted.as_ref().is_none_or(|wanted| own.contains(wanted)) || weaken::is("permit-who")
        };
        same(issuer, &identity.issuer)
            && same(subject, &identity.subject)
            && among(group, &identity.groups)
            && among(scope, &identity.scopes)
            && (claim
                .iter()
                .all(|(name, wanted)| identity.claims.get(name).is_some_and(|own| wanted.is(own)))
                || weaken::is("permit-claim"))
    }
}

/// In words, for operators.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { issuer, subject, group, scope, anonymous, claim } = self;
        let texts = [("issuer", issuer), ("subject", subject), ("group", group), ("scope", scope)];
        let texts = texts.into_iter().filter_map(|(key, said)| Some(format!("{key} {:?}", said.as_ref()?)));
        let claims = claim.iter().map(|(name, wanted)| format!("{name} = {}", wanted.value()));
        let anonymous = anonymous.map(|wanted| if wanted { "without a token" } else { "with a token" });
        let all: Vec<_> = texts.chain(claims).chain(anonymous.map(str::to_owned)).collect();
        f.write_str(&all.join(" and "))
    }
}

impl Who {
    /// A caller with a token that says this and nothing else.
    pub fn example(&self) -> Caller {
        let Self { issuer, subject, group, scope, anonymous: _, claim } = self;
        Caller::Known(Arc::new(Identity {
            issuer: issuer.clone().unwrap_or_default(),
            subject: subject.clone().unwrap_or_default(),
            groups: group.iter().cloned().collect(),
            scopes: scope.iter().cloned().collect(),
            claims: claim.iter().map(|(name, wanted)| (name.clone(), wanted.value())).collect(),
        }))
    }
}

impl Claim {
    fn value(&self) -> serde_json::Value {
        match self {
            Self::Boolean(wanted) => (*wanted).into(),
            Self::Integer(wanted) => (*wanted).into(),
            Self::Number(wanted) => (*wanted).into(),
            Self::Text(wanted) => wanted.as_str().into(),
        }
    }

    /// Does a token say that, or has it a list with that in?
    fn is(&self, own: &serde_json::Value) -> bool {
        use serde_json::Value;
        match own {
            Value::Array(list) => list.iter().any(|one| !one.is_array() && self.is(one)),
            own => match self {
                Self::Boolean(wanted) => own.as_bool() == Some(*wanted),
                Self::Integer(wanted) => own.as_i64() == Some(*wanted),
                Self::Number(wanted) => own.as_f64() == Some(*wanted),
                Self::Text(wanted) => own.as_str() == Some(wanted),
            },
        }
    }
}
