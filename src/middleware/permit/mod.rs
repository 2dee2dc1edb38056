//! What may a caller see and use?
//!
//! Rules are asked in their order, and the first that says anything about a thing for a caller
//! decides. Where there is any rule, what no rule allows is not there: it is left out of lists, and
//! using it is answered like using what never was. What rules say of a caller, whatever they ask for,
//! is its *profile*: it is made once for each token, and callers of the same profile see the same.
//!
//! One function decides for lists and for calls. A list asks it without arguments, so what some
//! arguments could allow is listed; the call asks again, with the arguments there are.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod condition; // what a rule asks besides
mod explain; //   in words
mod policy; //    all rules, as they are at one moment
mod profile; //   what they say of one caller
mod set; //       some things under an address of their own
mod uses; //      what a condition speaks of
mod value; //     what a condition sees

pub use policy::Policy;
pub use set::Set;

use crate::call::{Caller, Grant, Hints, Permit};

/// `[[permit]]`: a rule. The first that fits decides; where there is any, the rest is not allowed.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// For whom it is; for everybody where nothing is said.
    pub who: Who,
    /// The backend whose things it is about; things of all backends where nothing is said. With it,
    /// names below may be those that the backend gives them.
    pub backend: Option<String>,
    /// It is about tools of this kind only, as their server describes them. So this is for servers
    /// that are believed.
    pub only: Option<Only>,
    /// A condition in CEL on `caller` (issuer, subject, groups, scopes, claims, anonymous), `target`
    /// (backend, name, shown, kind, read_only, destructive, idempotent, open_world) and `arguments`.
    /// What cannot be evaluated does not allow, and denies.
    pub when: Option<String>,
    /// Scopes that a token must have for calling what the rule allows. It is listed without them, and a
    /// call is answered with what is needed.
    pub needs: Vec<String>,
    /// What it allows: tools and prompts by their names here, anything as
    /// `<backend>__<name or URI>`; `*` stands for any letters.
    pub allow: Vec<String>,
    /// What it does not allow, written the same way; asked before `allow`.
    pub deny: Vec<String>,
    /// Where it stands in the file.
    #[serde(skip)]
    #[schemars(skip)]
    pub line: Option<usize>,
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
    /// What their tokens say under these names: the same text, number or boolean, or a list with it in.
    pub claim: BTreeMap<String, Claim>,
}

/// What a token must say.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Claim {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

/// Tools that say this of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Only {
    /// It changes nothing. What is no tool is read-only too.
    ReadOnly,
    /// It destroys nothing.
    NonDestructive,
    /// It may destroy something, or does not say that it does not.
    Destructive,
}

impl Only {
    fn is(self, hints: Hints) -> bool {
        match self {
            Self::ReadOnly => hints.read_only,
            Self::NonDestructive => !hints.may_destroy(),
            Self::Destructive => hints.may_destroy(),
        }
    }
}

/// What is wrong with a key, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Below the rule or the set, such as `when`.
    pub key: &'static str,
    pub what: String,
    pub instead: &'static str,
}

/// Rules and sets, which may be replaced while they are asked.
#[derive(Debug)]
pub struct Rules(ArcSwap<Policy>);

impl Rules {
    pub fn new(policy: Policy) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(policy)))
    }

    /// Decides by others from the next request on. Gives back those it decided by before.
    pub fn put(&self, policy: Policy) -> Arc<Policy> {
        self.0.swap(Arc::new(policy))
    }
}

impl Permit for Rules {
    fn grant(&self, caller: &Caller) -> Option<Arc<dyn Grant>> {
        self.0.load().grant(caller)
    }

    fn set(&self, name: &str) -> Option<Arc<dyn Grant>> {
        self.0.load().set(name)
    }
}

/// A number that no grant had before, in any set of rules.
fn new_id() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

#[cfg(test)]
mod tests;
