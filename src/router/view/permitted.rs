//! What is left of a view for callers who may not use everything, and in a set?
//!
//! A view of its own, made once for all to whom the same is granted. Lists and calls read the same
//! tables, so what is not listed cannot be called, and what can be called is listed.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{Listing, Route, Routes, Snapshot, View, instructions};
use crate::{
    call::{Caller, Grant, Kind, Permit, Scope, Thing, Verdict},
    error::{Error, Result},
    weaken,
    wire::{
        json,
        mcp::{Era, List, Method},
        message::Message,
    },
};

/// Views that are kept; when there are more, all are made anew.
const MOST: usize = 1024;

/// Where it is seen, and the numbers of what is granted there.
pub type Key = (Scope, [u64; 2]);

impl Snapshot {
    /// What a caller sees at an endpoint. An endpoint at which they may use nothing is none.
    pub fn seen(&self, scope: &Scope, caller: &Caller, permit: &dyn Permit) -> Option<Arc<View>> {
        let view = self.view(scope)?;
        let set = match scope {
            Scope::Set(_) if weaken::is("permit-set-missing") => None,
            Scope::Set(name) => Some(permit.set(name)?),
            Scope::All | Scope::One(_) => None,
        };
        let own = permit.grant(caller);
        if set.is_none() && own.is_none() {
            return Some(Arc::clone(view));
        }
        let id = |grant: &Option<Arc<dyn Grant>>| grant.as_ref().map_or(0, |grant| grant.id());
        let key = (scope.clone(), [id(&set), id(&own)]);
        if let Some(known) = self.permitted.get(&key) {
            return known.clone();
        }
        let seen = Arc::new(view.permitted(set.into_iter().chain(own).collect()));
        let seen = (*scope == Scope::All || !seen.is_empty()).then_some(seen);
        if self.permitted.len() >= MOST {
            self.permitted.clear();
        }
        self.permitted.insert(key, seen.clone());
        seen
    }
}

impl View {
    fn permitted(&self, grants: Vec<Arc<dyn Grant>>) -> Self {
        let mut view = Self {
            upstreams: self.upstreams.clone(),
            skill_folders: self.skill_folders.clone(),
            bare: self.bare,
            apart: self.apart.clone(),
            grants,
            ..Self::default()
        };
        let keep = |kind, table: &Routes| -> Routes {
            let kept = table.iter().filter_map(|(shown, route)| {
                Some((shown.clone(), view.permitted_route(kind, shown, route)?))
            });
            kept.collect()
        };
        let templates = self.templates.iter().filter_map(|(shown, route)| {
            Some((shown.clone(), view.permitted_route(Kind::Template, shown, route)?))
        });
        let templates: Vec<_> = templates.collect();
        let (tools, prompts) = (keep(Kind::Tool, &self.tools), keep(Kind::Prompt, &self.prompts));
        let (resources, skills) = (keep(Kind::Resource, &self.resources), keep(Kind::Skill, &self.skills));
        (view.tools, view.prompts, view.resources, view.skills) = (tools, prompts, resources, skills);
        view.templates = templates;
        for list in List::ALL {
            for era in [Era::Legacy, Era::Modern] {
                let all = self.listing(list, era);
                let listed = |shown: &str| view.lists_it(list, shown) || weaken::is("permit-list");
                let kept = all.entries.iter().filter(|(shown, _)| listed(shown)).cloned().collect();
                view.lists.insert((list, era), Listing::sorted(kept));
            }
        }
        let heard =
            |(backend, _): &&(Arc<str>, String)| view.shows(backend) || weaken::is("permit-instructions");
        view.said = self.said.iter().filter(heard).cloned().collect();
        view.instructions = instructions(&view.said, view.bare);
        view
    }

    /// The route to a thing, if any arguments could be allowed.
    pub(super) fn permitted_route(&self, kind: Kind, shown: &str, route: &Route) -> Option<Route> {
        let mut free = true;
        for grant in &self.grants {
            match grant.verdict(&thing(kind, shown, route), None) {
                Verdict::Allowed => {}
                Verdict::WithSome | Verdict::Needs(_) => free = false,
                Verdict::Denied if weaken::is("permit-call") => {}
                Verdict::Denied => return None,
            }
        }
        Some(Route { free, ..route.clone() })
    }

    /// May a thing that is seen here be used with these arguments?
    pub fn admit(&self, kind: Kind, shown: &str, route: &Route, arguments: &[u8]) -> Result<()> {
        if route.free {
            return Ok(());
        }
        for grant in &self.grants {
            match grant.verdict(&thing(kind, shown, route), Some(arguments)) {
                Verdict::Allowed => {}
                Verdict::Needs(scopes) => return Err(Error::NeedsScopes(scopes)),
                Verdict::WithSome | Verdict::Denied => return Err(Error::Arguments(shown.to_owned())),
            }
        }
        Ok(())
    }

    /// The names of all tools, but for those of these backends.
    pub fn tool_names(&self, without: &BTreeSet<&str>) -> BTreeSet<String> {
        let there = self.tools.iter().filter(|(_, route)| !without.contains(&*route.upstream.name));
        there.map(|(shown, _)| shown.to_string()).collect()
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

fn thing<'a>(kind: Kind, shown: &'a str, route: &'a Route) -> Thing<'a> {
    Thing { kind, backend: &route.upstream.name, own: &route.target, shown, hints: route.hints }
}

/// What a method uses.
pub fn kind(method: Method) -> Kind {
    match method {
        Method::ToolsCall => Kind::Tool,
        Method::PromptsGet => Kind::Prompt,
        Method::SkillsGet => Kind::Skill,
        _ => Kind::Resource,
    }
}

/// The arguments of a request, as a JSON object.
pub fn arguments(message: &Message) -> &[u8] {
    message.in_params("arguments").unwrap_or(b"{}")
}

/// The arguments that a completion speaks of: those there are, and the one that is written.
pub fn completed(message: &Message) -> Vec<u8> {
    let context = message.in_params("context").unwrap_or_default();
    let others = json::member(context, "arguments").unwrap_or(b"{}");
    let mut all: serde_json::Map<_, _> = serde_json::from_slice(others).unwrap_or_default();
    let argument = message.in_params("argument").unwrap_or_default();
    let part = |name| json::member(argument, name).and_then(json::string);
    if let (Some(name), Some(value)) = (part("name"), part("value")) {
        all.insert(name.into_owned(), value.into_owned().into());
    }
    serde_json::Value::from(all).to_string().into_bytes()
}
