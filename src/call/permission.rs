//! Who may use what: what the parts that ask and the parts that know say to each other.

use std::{fmt, sync::Arc};

use super::{Aim, Caller, Hints};

/// Something that a backend offers.
#[derive(Debug, Clone, Copy)]
pub struct Thing<'a> {
    pub kind: Kind,
    pub backend: &'a str,
    /// What the backend calls it.
    pub own: &'a str,
    /// What it is called here.
    pub shown: &'a str,
    pub hints: Hints,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Tool,
    Prompt,
    Resource,
    Template,
    Skill,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Template => "template",
            Self::Skill => "skill",
        }
    }
}

impl Hints {
    /// May using it destroy something? What does not say it may not.
    pub fn may_destroy(self) -> bool {
        !self.read_only && self.destructive != Some(false)
    }
}

/// What is said of a thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Allowed,
    /// With some arguments; with which, is asked again when there are any.
    WithSome,
    /// If the caller's token had these scopes.
    Needs(Arc<[String]>),
    Denied,
}

/// Says what callers may see and use, as things are just now.
pub trait Permit: fmt::Debug + Send + Sync + 'static {
    /// None if the caller may use everything.
    fn grant(&self, caller: &Caller) -> Option<Arc<dyn Grant>>;

    /// What is in a set. None if there is no such set.
    fn set(&self, name: &str) -> Option<Arc<dyn Grant>>;
}

/// What may be used. The same function decides for lists and for calls.
pub trait Grant: fmt::Debug + Send + Sync + 'static {
    /// Another one for all that decide otherwise, now or later.
    fn id(&self) -> u64;

    /// Without arguments, with any.
    fn verdict(&self, thing: &Thing<'_>, arguments: Option<&[u8]>) -> Verdict;

    /// The same without arguments, with the reason.
    fn explain(&self, thing: &Thing<'_>) -> Explained;
}

/// Why a thing is there for a caller, or is not: for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    pub verdict: Verdict,
    /// The rule that decides: its number, from 1, and its line.
    pub rule: Option<(usize, Option<usize>)>,
    /// In sentences.
    pub says: Vec<String>,
}

/// What another part of the gateway has to say of a call that is allowed.
pub trait Explain: fmt::Debug + Send + Sync + 'static {
    /// In sentences; none where it has nothing to do with it.
    fn explain(&self, caller: &Caller, aim: &Aim) -> Vec<String>;
}
