//! Does `[cache]` make sense?

use std::collections::BTreeMap;

use super::time;
use crate::{
    backend,
    config::{
        complaint::{Complaint, Complaints},
        document::dotted,
        similar,
    },
    middleware::cache::{Rule, Settings},
    settings::Size,
};

type Backends = BTreeMap<String, backend::Settings>;

/// The name of the gateway's own tools before their `__`.
const OWN: &str = "waystation";

pub fn cache(settings: &Settings, backends: &Backends, complaints: &mut Complaints) {
    let Settings { max, largest, longest, tools, backends: of_backends, clears } = settings;
    size("cache.max", *max, "64 MiB", complaints);
    size("cache.largest", *largest, "1 MiB", complaints);
    if largest.0 > max.0 {
        let (what, instead) =
            (format!("is more than cache.max, which is {max}"), "write less, or make that more");
        complaints.push(Complaint::new("cache.largest", what, instead));
    }
    time("cache.longest", *longest, complaints);
    for (pattern, rule) in tools {
        let at = |key| dotted(&["cache", "tools", pattern, key]);
        known(&dotted(&["cache", "tools", pattern]), pattern, backends, complaints);
        if rule.ttl.is_none() {
            let what = "does not say how long results are kept";
            let at = dotted(&["cache", "tools", pattern]);
            complaints.push(Complaint::new(at, what, "add a time, such as ttl = \"1m\""));
        }
        times(rule, settings, at, complaints);
    }
    for (name, rule) in of_backends {
        let at = |key| dotted(&["cache", "backends", name, key]);
        if !backends.contains_key(name) {
            let known: Vec<_> = backends.keys().map(String::as_str).collect();
            let what = format!("there is no backend named \"{name}\"");
            let at = dotted(&["cache", "backends", name]);
            complaints.push(Complaint::new(at, what, similar::did_you_mean(name, &known)));
        }
        if rule.read_only {
            let what = "is about tools, and this about resources, prompts and completions";
            let instead = format!("leave it out, or write it at cache.tools.\"{name}__*\"");
            complaints.push(Complaint::new(at("read_only"), what, instead));
        }
        times(rule, settings, at, complaints);
    }
    for (pattern, made_untrue) in clears {
        let at = dotted(&["cache", "clears", pattern]);
        known(&at, pattern, backends, complaints);
        made_untrue.iter().for_each(|pattern| known(&at, pattern, backends, complaints));
        if made_untrue.is_empty() {
            let instead = format!("name what is forgotten when it has run, such as [\"{pattern}\"]");
            complaints.push(Complaint::new(at, "names nothing to be forgotten", instead));
        }
    }
}

fn size(at: &str, size: Size, usual: &str, complaints: &mut Complaints) {
    if size.0 == 0 {
        let instead = format!("write \"{usual}\", which is the default, or leave the tables of [cache] out");
        complaints.push(Complaint::new(at, "nothing could be kept in no memory", instead));
    }
}

fn times(rule: &Rule, settings: &Settings, at: impl Fn(&'static str) -> String, complaints: &mut Complaints) {
    let Rule { ttl, share: _, read_only: _, stale_while_revalidate, stale_if_error } = rule;
    if let Some(ttl) = ttl {
        time(&at("ttl"), *ttl, complaints);
        if *ttl > settings.longest {
            let what = format!("is longer than cache.longest, which is {}", settings.longest);
            complaints.push(Complaint::new(at("ttl"), what, "write a shorter time, or make that longer"));
        }
    }
    let late = [("stale_while_revalidate", stale_while_revalidate), ("stale_if_error", stale_if_error)];
    for (key, late) in late {
        if let Some(late) = late {
            time(&at(key), *late, complaints);
        }
    }
}

/// Does a pattern begin with a backend there is? Here things go by their backend's table, and not
/// by the prefix it gives to its tools.
fn known(at: &str, pattern: &str, backends: &Backends, complaints: &mut Complaints) {
    let Some((name, _)) = pattern.split_once("__").filter(|(name, _)| !name.contains('*')) else { return };
    if name == OWN || backends.contains_key(name) {
        return;
    }
    let renamed = backends.iter().find(|(_, settings)| settings.prefix.as_deref() == Some(name));
    let instead = match renamed {
        Some((backend, _)) => format!("write {backend}__, after its table, instead of {name}__"),
        None => similar::did_you_mean(name, &backends.keys().map(String::as_str).collect::<Vec<_>>()),
    };
    complaints.push(Complaint::new(at, format!("there is no backend named \"{name}\""), instead));
}
