//! What is left of a view for callers who may not use everything?
//!
//! A view of its own, made once for all callers of a profile. Lists and calls read the same
//! tables, so what is not listed cannot be called, and what can be called is listed.

use std::{collections::HashMap, sync::Arc};

use super::{Listing, Route, Routes, Snapshot, View, instructions};
use crate::{
    call::{Caller, Permit, Profile, Scope, Thing},
    wire::mcp::{Era, List},
};

/// Profiles for which views are kept; for more they are made anew each time.
const MOST: usize = 256;

/// The rules, as they are for one profile.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    permit: Arc<dyn Permit>,
    profile: Profile,
}

impl Grant {
    pub(super) fn allows(&self, shown: &str, route: &Route) -> bool {
        let thing = Thing { backend: &route.upstream.name, own: &route.target, shown, hints: route.hints };
        self.permit.allows(&self.profile, &thing)
    }
}

impl Snapshot {
    /// What a caller sees at an endpoint. An endpoint at which they may use nothing is none.
    pub fn seen(
        &self,
        scope: &Scope,
        caller: &Caller,
        permit: Option<&Arc<dyn Permit>>,
    ) -> Option<Arc<View>> {
        let view = self.view(scope)?;
        let Some((permit, profile)) = permit.and_then(|permit| Some((permit, permit.profile(caller)?)))
        else {
            return Some(Arc::clone(view));
        };
        let key = (scope.clone(), profile);
        if let Some(known) = self.permitted.get(&key) {
            return known.clone();
        }
        let grant = Grant { permit: Arc::clone(permit), profile: key.1.clone() };
        let seen = Arc::new(view.permitted(&grant));
        let seen = (*scope == Scope::All || !seen.is_empty()).then_some(seen);
        if self.permitted.len() < MOST {
            self.permitted.insert(key, seen.clone());
        }
        seen
    }
}

impl View {
    fn permitted(&self, grant: &Grant) -> Self {
        let keep = |table: &Routes| -> Routes {
            let kept = table.iter().filter(|(shown, route)| grant.allows(shown, route));
            kept.map(|(shown, route)| (shown.clone(), route.clone())).collect()
        };
        let some = |table: &[(String, Route)]| -> Vec<(String, Route)> {
            table.iter().filter(|(shown, route)| grant.allows(shown, route)).cloned().collect()
        };
        let mut view = Self {
            tools: keep(&self.tools),
            prompts: keep(&self.prompts),
            resources: keep(&self.resources),
            templates: some(&self.templates),
            skills: keep(&self.skills),
            skill_folders: self.skill_folders.clone(),
            upstreams: self.upstreams.clone(),
            lists: HashMap::new(),
            instructions: String::new(),
            said: Vec::new(),
            bare: self.bare,
            apart: self.apart.clone(),
            grant: Some(grant.clone()),
        };
        for list in List::ALL {
            for era in [Era::Legacy, Era::Modern] {
                let all = self.listing(list, era);
                let kept = all.entries.iter().filter(|(shown, _)| view.lists_it(list, shown));
                let kept = kept.cloned().collect();
                view.lists.insert((list, era), Listing::sorted(kept));
            }
        }
        let heard = |(backend, _): &&(Arc<str>, String)| view.shows(backend);
        view.said = self.said.iter().filter(heard).cloned().collect();
        view.instructions = instructions(&view.said, view.bare);
        view
    }

    /// Is anything of this backend to be seen?
    fn shows(&self, backend: &str) -> bool {
        let tables = [&self.tools, &self.prompts, &self.resources, &self.skills];
        let routes = tables.into_iter().flat_map(HashMap::values);
        let templates = self.templates.iter().map(|(_, route)| route);
        routes.chain(templates).any(|route| *route.upstream.name == *backend)
    }

    fn lists_it(&self, list: List, shown: &str) -> bool {
        match list {
            List::Tools => self.tools.contains_key(shown),
            List::Prompts => self.prompts.contains_key(shown),
            List::Resources => self.resources.contains_key(shown),
            List::Templates => self.templates.iter().any(|(template, _)| template == shown),
            List::Skills => self.skills.contains_key(shown),
        }
    }

    fn is_empty(&self) -> bool {
        self.tools.is_empty()
            && self.prompts.is_empty()
            && self.resources.is_empty()
            && self.templates.is_empty()
            && self.skills.is_empty()
    }
}
