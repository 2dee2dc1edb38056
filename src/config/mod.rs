//! `routes.toml`: what does it say, and what is wrong with it?
//!
//! The text and the environment are laid over each other, read into the `Settings` that each
//! part of the gateway keeps beside its code, and looked through for what makes no sense. All
//! that is wrong is told at once, each with its place and what would be right; a configuration
//! with anything wrong in it is none.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use figment::{Figment, Profile, Provider, value::Dict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    backend, listener,
    middleware::{audit, cache, deadline, identify, limit, permit, tasks},
    secret, store, telemetry,
};

mod complaint; //   what is wrong, where, and what would be right
mod document; //    the text, and where everything stands in it
mod environment; // keys set by variables
pub mod manual; //  docs/configuration.md
pub mod mcp_json; // other programs' files
mod quote; //       a line without its secrets
mod render; //      complaints for a terminal
pub mod schema; //  which keys there are
mod sense; //       what is wrong though every value has its shape
mod shape; //       what is wrong with the values' shapes
mod similar; //     did you mean …?
mod source; //      where a key was set

pub use complaint::{Complaint, Complaints, Place, Spot};
pub use environment::{CONFIG_FILE, Environment};
pub use similar::did_you_mean;
pub use source::Source;

use document::{Document, dotted, undotted};
use environment::Overrides;

/// The file that is taken where none is named.
pub const DEFAULT_FILE: &str = "routes.toml";

/// What is used where there is no file: the manual, whose every key is commented out.
pub const BUILT_IN: &str = include_str!("../../routes.toml");

/// What `routes.toml` says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub listen: listener::Settings,
    pub identify: identify::Settings,
    /// Who may use what. The first rule that fits decides; without any, everybody may use all.
    pub permit: Vec<permit::Rule>,
    pub sets: BTreeMap<String, permit::Set>,
    pub limit: limit::Settings,
    pub cache: cache::Settings,
    pub audit: audit::Settings,
    pub session: listener::session::Settings,
    pub deadline: deadline::Settings,
    pub tasks: tasks::Settings,
    pub connect: backend::credential::DeskSettings,
    pub store: store::Settings,
    pub log: telemetry::Settings,
    /// The MCP servers behind the gateway, each by a name of its own: small letters, digits and
    /// hyphens, 32 at the most.
    pub backends: BTreeMap<String, backend::Settings>,
}

/// A configuration with nothing wrong in it.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    pub source: Source,
    /// What was changed in servers from other programs' files, and what could not be taken over.
    pub remarks: Vec<String>,
}

impl Config {
    /// Reads the file, or `routes.toml` where none is named, or what is built in where there is
    /// none of that name either; lays the environment over it.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<(Self, Source), Complaints> {
        let loaded = Self::load_with(path, &[], environment)?;
        Ok((loaded.config, loaded.source))
    }

    /// The same, and adds the servers of other programs' files as they are.
    pub fn load_with(
        path: Option<&Path>,
        mcp_json: &[PathBuf],
        environment: &Environment,
    ) -> Result<Loaded, Complaints> {
        let default = Path::new(DEFAULT_FILE);
        let file = path.or_else(|| default.exists().then_some(default));
        let read = file.map_or_else(|| Ok(BUILT_IN.to_owned()), std::fs::read_to_string);
        let unreadable = read.as_ref().err().map(|why| unreadable(file.unwrap_or(default), why));
        let name = file.map_or_else(|| "routes.toml (built in)".into(), |file| file.display().to_string());
        let mut complaints = Complaints::default();
        let (mut config, mut source) =
            assemble(&name, read.unwrap_or_default(), environment, &mut complaints);
        unreadable.into_iter().for_each(|complaint| complaints.push(complaint));
        let remarks = take_over(mcp_json, &mut config, &mut source, environment, &mut complaints);
        complaints.located(&source).or(Loaded { config, source, remarks })
    }

    /// Reads a text as if it stood in a file of that name.
    pub fn parse(name: &str, text: &str, environment: &Environment) -> Result<(Self, Source), Complaints> {
        let mut complaints = Complaints::default();
        let (config, source) = assemble(name, text.to_owned(), environment, &mut complaints);
        complaints.located(&source).or((config, source))
    }
}

fn unreadable(file: &Path, why: &io::Error) -> Complaint {
    let instead = match why.kind() {
        io::ErrorKind::NotFound => "name a file that is there, or none for ./routes.toml",
        io::ErrorKind::InvalidData => "write it in UTF-8",
        _ => "",
    };
    let place = Place::File(file.display().to_string(), None);
    Complaint::new("", format!("cannot be read: {why}"), instead).placed(place)
}

/// Text and environment to settings; what is wrong is added to the complaints.
fn assemble(
    name: &str,
    text: String,
    environment: &Environment,
    complaints: &mut Complaints,
) -> (Config, Source) {
    let (document, broken) = Document::parse(name, text);
    let (overrides, mistaken) = Overrides::read(environment);
    let lines_missing = !broken.is_empty();
    broken.into_iter().chain(mistaken).for_each(|complaint| complaints.push(complaint));
    let merged = Figment::from(&document).merge(&overrides).data().unwrap_or_default();
    let values: Dict =
        merged.into_iter().find(|(profile, _)| *profile == Profile::Default).unwrap_or_default().1;
    let (mut config, faults) = shape::read(values);
    let source = Source { document, overrides, taken_over: Vec::new() };
    for (index, rule) in config.permit.iter_mut().enumerate() {
        rule.line = source.place_of(&format!("permit.{index}")).line();
    }
    let in_file = |at: &str| !source.overrides.sets(&undotted(at));
    for complaint in sense::check(&config, environment, &in_file).iter() {
        let path = undotted(&complaint.at);
        // What was taken out for its shape is not missing, and neither is what could not be read.
        let of_a_backend = matches!(path.as_slice(), [table, _] if table == "backends");
        let known = faults.iter().any(|fault| fault.path.starts_with(&path) || path.starts_with(&fault.path));
        let missing = lines_missing && of_a_backend;
        if !(known || missing) {
            complaints.push(complaint.clone());
        }
    }
    complaints.extend(sense::names(&config));
    for fault in faults {
        let place = source.place(&fault.path, fault.mark);
        complaints.push(Complaint::new(dotted(&fault.path), fault.what, fault.instead).placed(place));
    }
    (config, source)
}

/// Adds the servers of other programs' files. Their secrets may stand in them, since those files
/// are as the other programs want them.
fn take_over(
    files: &[PathBuf],
    config: &mut Config,
    source: &mut Source,
    environment: &Environment,
    complaints: &mut Complaints,
) -> Vec<String> {
    let prefixes = config.backends.values().filter_map(|settings| settings.prefix.as_deref());
    let names = mcp_json::Names::new(config.backends.keys().map(String::as_str).chain(prefixes));
    let mut intake = mcp_json::Intake::new(mcp_json::Purpose::Use, environment, names);
    for file in files {
        let read = std::fs::read_to_string(file).map_err(|why| vec![unreadable(file, &why)]);
        let read = read.and_then(|text| intake.read(&file.display().to_string(), &text));
        read.err().into_iter().flatten().for_each(|complaint| complaints.push(complaint));
    }
    let taken = intake.taken;
    for server in taken.servers {
        source.taken_over.push((server.name.clone(), server.place));
        let (name, settings) = (server.name.as_str(), &server.settings);
        sense::Look { name, settings, environment, in_file: &|_| false, complaints }.through();
        config.backends.insert(server.name, server.settings);
    }
    taken.remarks
}
