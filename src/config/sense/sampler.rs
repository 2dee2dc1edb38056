//! Does a backend's `sampler` make sense?

use std::collections::BTreeMap;

use crate::{
    backend::{Settings, openrouter::sampling::SHORTEST},
    config::{
        complaint::{Complaint, Complaints},
        document::dotted,
        similar,
    },
};

pub fn samplers(backends: &BTreeMap<String, Settings>, complaints: &mut Complaints) {
    for (name, settings) in backends {
        let Some(sampler) = &settings.sampler else { continue };
        let mut complain = |key: &str, what: String, instead: String| {
            let at = dotted(&["backends", name, "sampler", key]);
            complaints.push(Complaint::new(at, what, instead));
        };
        if let Some((what, instead)) = fault(&sampler.backend, backends) {
            complain("backend", what, instead);
        }
        if sampler.max_requests == 0 {
            let what = "lets the server ask for nothing".into();
            complain("max_requests", what, "write 10, which is the default, or leave out `sampler`".into());
        }
        if sampler.max_tokens < SHORTEST {
            let what = format!("is less than the {SHORTEST} tokens of the shortest answer");
            complain("max_tokens", what, "write 50000, which is the default".into());
        }
        if settings.openrouter.is_some() {
            let at = dotted(&["backends", name, "sampler"]);
            let what = "is for servers, and this backend asks nobody for texts of a model";
            complaints.push(Complaint::new(at, what, "leave it out"));
        }
    }
}

/// Why this cannot be a sampler, and what could be.
fn fault(name: &str, backends: &BTreeMap<String, Settings>) -> Option<(String, String)> {
    let can = |(_, settings): &(&String, &Settings)| {
        settings.enabled != Some(false)
            && settings.openrouter.as_ref().is_some_and(|models| models.can_complete())
    };
    let able: Vec<_> = backends.iter().filter(can).map(|(name, _)| name.as_str()).collect();
    if able.contains(&name) {
        return None;
    }
    let add = || "add a backend with openrouter = {}, and name that".to_owned();
    let instead = if able.is_empty() { add() } else { similar::did_you_mean(name, &able) };
    Some(match backends.get(name) {
        None => (format!("there is no backend named \"{name}\""), instead),
        Some(settings) if settings.enabled == Some(false) => (
            format!("the backend \"{name}\" is left out (enabled = false)"),
            "let it in, or name another".into(),
        ),
        Some(Settings { openrouter: Some(_), .. }) => {
            let what = format!("the backend \"{name}\" has no tool complete, which answers");
            (what, format!("put \"core\" into the packs of [backends.{name}.openrouter]"))
        }
        Some(_) => (format!("the backend \"{name}\" has no models (openrouter)"), instead),
    })
}
