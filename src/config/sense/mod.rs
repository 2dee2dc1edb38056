//! Does a configuration whose values all have the right shape also make sense?
//!
//! Nothing is built or reached here; the environment and the files of secrets are looked at,
//! since a backend without its key would fail later and less clearly.

mod backend;
mod cache;
mod front;
mod listen;
mod sampler;

pub use backend::Look;

use std::collections::BTreeMap;

use super::{
    Config, Environment,
    complaint::{Complaint, Complaints},
};
use crate::settings::Duration;

/// No one waits longer on purpose, and clocks overflow somewhere beyond.
const LONGEST: Duration = Duration::seconds(366 * 24 * 60 * 60);

/// All that is wrong with it. `in_file` says whether a key is written in the file, where a
/// secret must not be.
pub fn check(config: &Config, environment: &Environment, in_file: &dyn Fn(&str) -> bool) -> Complaints {
    let mut complaints = Complaints::default();
    listen::listen(&config.listen, config.identify != Default::default(), &mut complaints);
    front::identify(&config.identify, &config.store, &mut complaints);
    front::permit(&config.permit, &config.identify, &mut complaints);
    front::sets(&config.sets, &mut complaints);
    front::audit(&config.audit, &config.store, &mut complaints);
    front::limit(config, &mut complaints);
    front::connect(&config.connect, &mut complaints);
    front::session(&config.session, &mut complaints);
    front::deadline(&config.deadline, &mut complaints);
    front::log(&config.log, &mut complaints);
    cache::cache(&config.cache, &config.backends, &mut complaints);
    for (name, settings) in &config.backends {
        Look { name, settings, environment, in_file, complaints: &mut complaints }.through();
    }
    prefixes(config, &mut complaints);
    sampler::samplers(&config.backends, &mut complaints);
    complaints
}

/// Names that no backend can have.
pub fn names(config: &Config) -> Complaints {
    let mut complaints = Complaints::default();
    for name in config.backends.keys() {
        if let Some((what, instead)) = backend::name_fault(name) {
            complaints.push(Complaint::new(backend::at(name, ""), what, instead));
        }
    }
    complaints
}

/// What comes before the names of a backend's tools must tell it from all others.
fn prefixes(config: &Config, complaints: &mut Complaints) {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::from([("waystation", "the gateway itself")]);
    for (name, settings) in config.backends.iter().filter(|(_, settings)| settings.enabled != Some(false)) {
        let prefix = settings.prefix.as_deref().unwrap_or(name);
        if prefix.is_empty() || name == "waystation" {
            continue;
        }
        if let Some(other) = taken.insert(prefix, name) {
            let key = if settings.prefix.is_some() { "prefix" } else { "" };
            let what = format!(
                "the prefix \"{prefix}\" is already that of {other}, so their names could not be told apart"
            );
            let instead = "give one of them another prefix, such as prefix = \"".to_owned() + name + "-2\"";
            complaints.push(Complaint::new(backend::at(name, key), what, instead));
        }
    }
}

/// Is the length of time one that can be waited?
fn time(at: &str, time: Duration, complaints: &mut Complaints) {
    if time.0.is_zero() {
        complaints.push(Complaint::new(
            at,
            "no time at all would end everything at once",
            "write a length of time such as \"30s\"",
        ));
    } else if time > LONGEST {
        complaints.push(Complaint::new(at, "is longer than a year", "write a length of time such as \"1h\""));
    }
}
