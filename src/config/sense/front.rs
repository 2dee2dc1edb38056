//! Do the tables about clients and their calls make sense: `[identify]`, `[limit]`, `[session]`, `[deadline]`, `[log]`?

use std::collections::BTreeMap;

use tracing_subscriber::EnvFilter;

use super::time;
use crate::{
    backend,
    config::{
        Config,
        complaint::{Complaint, Complaints},
        document::dotted,
        secret, similar,
    },
    listener, middleware, store, telemetry,
};

pub fn identify(
    settings: &middleware::identify::Settings,
    store: &store::Settings,
    complaints: &mut Complaints,
) {
    if settings.keys && store.file().as_os_str() == ":memory:" {
        let what = "keys are kept in the database, and `store.path` says to keep nothing";
        complaints.push(Complaint::new("identify.keys", what, "name a file in `store.path`"));
    }
    if let Err(faults) = middleware::identify::Identify::new(settings) {
        for fault in faults {
            let (what, instead) = fault.split_once("; ").unwrap_or((&fault, ""));
            complaints.push(Complaint::new("identify", what, instead));
        }
    }
}

pub fn audit(
    settings: &middleware::audit::Settings,
    store: &crate::store::Settings,
    complaints: &mut Complaints,
) {
    if settings.store == Some(true) && store.file().as_os_str() == ":memory:" {
        let instead = "give the store a file, or write file = \"audit.jsonl\" here instead";
        complaints.push(Complaint::new("audit.store", "the store keeps nothing over a restart", instead));
    }
    for (key, fault) in settings.faults() {
        let (what, instead) = fault.split_once("; ").unwrap_or((&fault, ""));
        complaints.push(Complaint::new(format!("audit.{key}"), what, instead));
    }
}

pub fn permit(
    rules: &[middleware::permit::Rule],
    identify: &middleware::identify::Settings,
    complaints: &mut Complaints,
) {
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("permit.{index}");
        if rule.allow.is_empty() && rule.deny.is_empty() {
            let instead = "name what it allows, such as allow = [\"time__*\"]";
            complaints.push(Complaint::new(at.clone(), "allows nothing and denies nothing", instead));
        }
        let somebody = rule.who != Default::default() || !rule.needs.is_empty();
        if somebody && *identify == Default::default() {
            let instead = "say in [identify] who issues tokens, or leave `who` and `needs` out";
            complaints.push(Complaint::new(at.clone(), "is for somebody, but nobody is known here", instead));
        }
        for middleware::permit::Fault { key, what, instead } in rule.faults() {
            complaints.push(Complaint::new(format!("{at}.{key}"), what, instead));
        }
    }
}

pub fn sets(sets: &BTreeMap<String, middleware::permit::Set>, complaints: &mut Complaints) {
    for (name, set) in sets {
        let at = dotted(&["sets", name]);
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty() || !name.bytes().all(fits) {
            let what = "a set's name has small letters, digits and hyphens, since it stands in an address";
            complaints.push(Complaint::new(at.clone(), what, "call it for instance [sets.reading]"));
        }
        if *set == Default::default() {
            let instead = "name what is in it, such as tools = [\"time__*\"]";
            complaints.push(Complaint::new(at, "has nothing in it", instead));
        }
    }
}

pub fn limit(config: &Config, complaints: &mut Complaints) {
    let settings = &config.limit;
    for fault in settings.faults() {
        let (what, instead) = fault.split_once("; ").unwrap_or((&fault, ""));
        complaints.push(Complaint::new("limit", what, instead));
    }
    time("limit.wait", settings.wait, complaints);
    let names: Vec<_> = config.backends.keys().map(String::as_str).collect();
    for name in settings.backends.keys().filter(|name| !names.contains(&name.as_str())) {
        let at = dotted(&["limit", "backends", name]);
        complaints.push(Complaint::new(at, "is no backend", similar::did_you_mean(name, &names)));
    }
    let known = !config.identify.issuer.is_empty();
    for (key, said) in [("groups", !settings.groups.is_empty()), ("shares", !settings.shares.is_empty())] {
        if said && !known {
            let instead = "say in [[identify.issuer]] who issues tokens, or leave it out";
            complaints.push(Complaint::new(
                format!("limit.{key}"),
                "is for groups, but nobody is known here",
                instead,
            ));
        }
    }
}

/// What is looked at there needs no connection, so the part itself says what is wrong.
pub fn connect(settings: &backend::credential::DeskSettings, complaints: &mut Complaints) {
    for fault in backend::credential::Desk::new(settings, "http://localhost").err().into_iter().flatten() {
        let (what, instead) = fault.split_once("; ").unwrap_or((&fault, ""));
        complaints.push(Complaint::new("connect", what, instead));
    }
}

pub fn session(settings: &listener::session::Settings, complaints: &mut Complaints) {
    time("session.idle", settings.idle, complaints);
    if settings.max == 0 {
        complaints.push(Complaint::new(
            "session.max",
            "no session at all could begin",
            "write 10000, which is the default",
        ));
    }
}

pub fn deadline(settings: &middleware::deadline::Settings, complaints: &mut Complaints) {
    time("deadline.idle", settings.idle, complaints);
    time("deadline.total", settings.total, complaints);
    if !settings.heartbeat.0.is_zero() {
        time("deadline.heartbeat", settings.heartbeat, complaints);
    }
    for (tool, times) in &settings.tools {
        for (key, set) in [("idle", times.idle), ("total", times.total)] {
            if let Some(set) = set {
                time(&dotted(&["deadline", "tools", tool, key]), set, complaints);
            }
        }
    }
}

pub fn log(settings: &telemetry::Settings, complaints: &mut Complaints) {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let level = settings.level.trim();
    let right = "write a level such as \"info\", or a filter such as \"info,waystation=debug\"";
    // A word alone would be taken for the name of a module, and nothing would be logged.
    if !level.contains(['=', ',']) {
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            let hidden = secret::better_hidden(level);
            let what = if hidden { "is no level".into() } else { format!("\"{level}\" is no level") };
            complaints.push(Complaint::new("log.level", what, similar::did_you_mean(level, &LEVELS)));
        }
    } else if let Err(why) = EnvFilter::builder().parse(level) {
        complaints.push(Complaint::new("log.level", format!("is no filter: {why}"), right));
    }
}
