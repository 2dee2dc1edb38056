//! Why is a thing there for a caller, or why is it not?
//!
//! Whatever can be in the way is named, with what to do about it: the name, the backend, the rules,
//! what a token lacks; and what else happens to a call. It tells of what callers may not know, so it is
//! for operators, and for those whom a rule gives `waystation__explain`.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    Parts, Router,
    catalog::Report,
    view::{Note, Route},
};
use crate::{
    backend::State,
    call::{Aim, Caller, Explain, Explained, Kind, Scope, Thing, Verdict},
    wire::mcp::Method,
};

const KINDS: [(Method, Kind); 3] = [
    (Method::ToolsCall, Kind::Tool),
    (Method::PromptsGet, Kind::Prompt),
    (Method::ResourcesRead, Kind::Resource),
];

impl Router {
    /// Why a tool, a prompt or a resource is there for a caller at `/mcp`, or why it is not.
    pub fn explain(&self, caller: &Caller, name: &str) -> Value {
        self.0.explain(caller, name)
    }

    /// Has another part say what it does to calls.
    pub fn explain_with(&self, part: Arc<dyn Explain>) {
        self.0.explains.rcu(|parts| parts.iter().cloned().chain([Arc::clone(&part)]).collect::<Vec<_>>());
    }
}

impl Parts {
    pub(super) fn explain(&self, caller: &Caller, name: &str) -> Value {
        let snapshot = self.catalog.snapshot();
        let reports = self.catalog.reports();
        let all = snapshot.view(&Scope::All);
        let found = KINDS.iter().find_map(|(method, kind)| Some((*kind, all?.route(*method, name)?)));
        let is_of = |note: &Note| note.name == name || note.shown_as.as_deref() == Some(name);
        let Some((kind, route)) = found else {
            let meant = |note: &&Note| is_of(note) || name.ends_with(&format!("__{}", note.name));
            let notes: Vec<_> = snapshot.notes.iter().filter(meant).collect();
            let mut says: Vec<_> = notes.iter().map(|note| sentence(note)).collect();
            let why = if notes.is_empty() { why_not(name, &reports) } else { "see notes".into() };
            if notes.is_empty() {
                says.push(why.clone());
            }
            return json!({ "tool": name, "found": false, "why": why, "notes": noted(&notes), "says": says });
        };
        let notes: Vec<_> = snapshot.notes.iter().filter(|note| is_of(note)).collect();
        let report = reports.iter().find(|report| *report.name == *route.upstream.name);
        let explained = self.verdict(caller, kind, name, &route);
        let mut says = vec![format!(
            "{name} is the {} {:?} of the backend {}.",
            kind.name(),
            route.target,
            route.upstream.name
        )];
        says.extend(notes.iter().map(|note| sentence(note)));
        says.extend(report.map(health));
        says.extend(explained.says);
        if explained.verdict != Verdict::Denied {
            let aim = Aim {
                backend: Arc::clone(&route.upstream.name),
                own: Arc::clone(&route.target),
                hints: route.hints,
            };
            says.extend(self.explain_sampler(caller, &route.upstream));
            says.extend(self.explains.load().iter().flat_map(|part| part.explain(caller, &aim)));
        }
        let mut told = json!({
            "tool": name, "found": true, "kind": kind.name(), "backend": &*route.upstream.name,
            "name_there": &*route.target, "listed": explained.verdict != Verdict::Denied,
            "verdict": word(&explained.verdict),
            "state": report.map(|report| report.status.state),
            "problem": report.and_then(|report| report.status.problem.clone()),
            "notes": noted(&notes), "says": says,
        });
        if let Some((number, line)) = explained.rule {
            told["rule"] = number.into();
            told["line"] = line.into();
        }
        if let Verdict::Needs(scopes) = &explained.verdict {
            told["needs"] = json!(**scopes);
        }
        told
    }

    fn verdict(&self, caller: &Caller, kind: Kind, shown: &str, route: &Route) -> Explained {
        let thing =
            Thing { kind, backend: &route.upstream.name, own: &route.target, shown, hints: route.hints };
        self.permit.grant(caller).map_or_else(
            || Explained {
                verdict: Verdict::Allowed,
                rule: None,
                says: vec!["There is no [[permit]] rule, so everybody who comes in may use it.".to_owned()],
            },
            |grant| grant.explain(&thing),
        )
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Allowed => "allowed",
        Verdict::WithSome => "allowed with some arguments",
        Verdict::Needs(_) => "needs scopes",
        Verdict::Denied => "denied",
    }
}

fn noted(notes: &[&Note]) -> Vec<Value> {
    let note = |note: &&Note| {
        let members = [
            ("backend", json!(&*note.backend)),
            ("name_there", json!(note.name)),
            ("shown_as", json!(note.shown_as)),
            ("why", json!(note.why)),
        ];
        Value::from(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
    };
    notes.iter().map(note).collect()
}

fn sentence(note: &Note) -> String {
    let Note { backend, name, shown_as, why } = note;
    match shown_as {
        Some(shown) => format!("What {backend} calls {name:?} is called {shown:?} here: {why}."),
        None => format!(
            "What {backend} calls {name:?} is left out: {why}. Only the server can change that; `waystation status` lists \
             all such."
        ),
    }
}

fn health(report: &Report) -> String {
    let Report { name, status, stale, .. } = report;
    let problem =
        status.problem.as_deref().map(|problem| format!(": {}", problem.trim_end())).unwrap_or_default();
    match status.state {
        State::Ready if *stale => {
            format!("The backend {name} is ready, but its list was not confirmed lately{problem}.")
        }
        State::Ready => format!("The backend {name} is ready."),
        _ => format!(
            "The backend {name} is not ready{problem}. What it had is listed all the same, and a call waits for it or \
             is answered with an error; `waystation status` says how it is."
        ),
    }
}

fn why_not(name: &str, reports: &[Report]) -> String {
    let Some((prefix, own)) = name.split_once("__") else {
        return "names here begin with their backend's, as in files__read_file; tools/list has them all"
            .into();
    };
    match reports.iter().find(|report| *report.name == *prefix) {
        None => format!(
            "there is no backend named {prefix:?}; check the [backends] tables of routes.toml, and whether it is `enabled`"
        ),
        Some(report) if report.stale => {
            let problem = report.status.problem.as_deref().unwrap_or("it has not answered yet");
            format!(
                "the backend {prefix:?} is not ready, and when it last was it had no tool {own:?}: {problem}"
            )
        }
        Some(_) => format!(
            "the backend {prefix:?} is ready and has no tool named {own:?}; `waystation list --kind tools` has those it has"
        ),
    }
}
