//! Which things are in a set?

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{new_id, policy::fits_any};
use crate::{
    call::{Explained, Grant, Kind, Thing, Verdict},
    weaken,
};

/// `[sets.NAME]`: some things of all backends under an address of their own, `/mcp/@NAME`, by their
/// usual names. Who may use them is said by the rules all the same.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Set {
    /// Tools, by their names here or as `<backend>__<name>`; `*` stands for any letters.
    pub tools: Vec<String>,
    /// Prompts, written the same way.
    pub prompts: Vec<String>,
    /// Resources, templates and skills, by their URIs here or as `<backend>__<URI>`.
    pub resources: Vec<String>,
}

/// A set that is ready to be asked.
#[derive(Debug)]
pub struct Members {
    id: u64,
    name: String,
    set: Set,
}

impl Members {
    pub fn new(name: &str, set: &Set) -> Arc<Self> {
        Arc::new(Self { id: new_id(), name: name.to_owned(), set: set.clone() })
    }
}

impl Grant for Members {
    fn id(&self) -> u64 {
        self.id
    }

    fn verdict(&self, thing: &Thing<'_>, _: Option<&[u8]>) -> Verdict {
        let patterns = match thing.kind {
            Kind::Tool => &self.set.tools,
            Kind::Prompt => &self.set.prompts,
            Kind::Resource | Kind::Template | Kind::Skill => &self.set.resources,
        };
        match fits_any(patterns, thing, false) || weaken::is("permit-set") {
            true => Verdict::Allowed,
            false => Verdict::Denied,
        }
    }

    fn explain(&self, thing: &Thing<'_>) -> Explained {
        let verdict = self.verdict(thing, None);
        let says = match verdict {
            Verdict::Denied => vec![format!(
                "It is not in the set {}: add it to [sets.{}], or ask at /mcp.",
                self.name, self.name
            )],
            _ => Vec::new(),
        };
        Explained { verdict, rule: None, says }
    }
}
