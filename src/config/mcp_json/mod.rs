//! Which servers does another program's file name, and how are they written here?
//!
//! Read are the files of Claude Desktop, Claude Code, Cursor and VS Code, which differ in little
//! but where the servers stand. They serve two ends: `waystation import` writes a `routes.toml`,
//! where no secret must stand, and `--mcp-json` uses such a file as it is.

use serde_json::{Map, Value, value::RawValue};
use std::collections::BTreeMap;

use super::{Complaint, Environment, complaint::Place, quote};
use crate::backend;

mod jsonc; //     comments and commas too many
mod name; //      valid names that do not clash
mod reference; // ${…}
mod server; //    one entry
mod write; //     as routes.toml

pub use name::{Names, valid_name};
pub use server::overriding;
pub use write::write;

/// What the servers are taken over for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A file: secrets become references, and nothing of the environment is filled in.
    File,
    /// To be used at once.
    Use,
}

/// What files gave.
#[derive(Default)]
pub struct Taken {
    pub servers: Vec<Server>,
    /// Variables to set, and for what.
    pub variables: BTreeMap<String, String>,
    /// The secrets that are to be set in variables, so that two never share one by chance.
    secrets: BTreeMap<String, String>,
    /// What could not be taken over, and what was changed on the way.
    pub remarks: Vec<String>,
}

/// One server, as a backend.
#[derive(Debug)]
pub struct Server {
    pub name: String,
    pub settings: backend::Settings,
    /// Keys that hold a secret or name a variable but take no reference, and so cannot be
    /// written into a file.
    pub unwritten: Vec<&'static str>,
    pub place: Place,
}

/// Takes servers over, file after file.
pub struct Intake<'a> {
    purpose: Purpose,
    environment: &'a Environment,
    names: Names,
    pub taken: Taken,
}

impl<'a> Intake<'a> {
    pub fn new(purpose: Purpose, environment: &'a Environment, names: Names) -> Self {
        Self { purpose, environment, names, taken: Taken::default() }
    }

    /// Reads a file's servers, names them, and adds them to those that were read before.
    pub fn read(&mut self, file: &str, text: &str) -> Result<(), Vec<Complaint>> {
        let json = jsonc::plain(text);
        let found = find(&json).map_err(|fault| vec![fault.complaint(file, text)])?;
        let mut complaints = Vec::new();
        let mut seen: Vec<(String, Value)> = Vec::new();
        for entry in found.entries {
            // Several projects may have one server.
            let one = (entry.name.clone(), serde_json::from_str(entry.json.get()).unwrap_or_default());
            if seen.contains(&one) {
                continue;
            }
            seen.push(one);
            let place = entry.place(file, text);
            let (purpose, environment, taken) = (self.purpose, self.environment, &mut self.taken);
            let mut reader = server::Reader { file, purpose, environment, inputs: &found.inputs, taken };
            if let Err((what, instead)) = reader.read(&entry, &mut self.names, place.clone()) {
                complaints.push(Complaint::new(format!("\"{}\"", entry.name), what, instead).placed(place));
            }
        }
        if complaints.is_empty() { Ok(()) } else { Err(complaints) }
    }
}

/// The servers of a file and what it says about them.
struct Found<'a> {
    entries: Vec<Entry<'a>>,
    /// What VS Code asks the user for: the id, and how it asks.
    inputs: BTreeMap<String, String>,
}

struct Entry<'a> {
    name: String,
    /// The folder whose project alone has the server, in `~/.claude.json`.
    project: Option<String>,
    json: &'a RawValue,
    /// Where it stands in the text.
    at: usize,
}

impl Entry<'_> {
    /// Its place, without its line, which may hold all of it, secrets and all.
    fn place(&self, file: &str, text: &str) -> Place {
        let mut spot = quote::spot_in_broken(text, &(self.at..self.at + 1));
        spot.quoted = format!("\"{}\": …", self.name);
        spot.marked = 0..self.name.len() + 2;
        Place::File(file.to_owned(), Some(spot))
    }
}

enum Fault {
    Json(serde_json::Error),
    NoServers,
}

impl Fault {
    fn complaint(&self, file: &str, text: &str) -> Complaint {
        match self {
            Self::Json(why) => {
                let line =
                    text.lines().take(why.line().saturating_sub(1)).map(|line| line.len() + 1).sum::<usize>();
                let at = (line + why.column().saturating_sub(1)).min(text.len());
                let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
                let mut spot = quote::spot_in_broken(text, &(at..at));
                (spot.quoted, spot.marked) = ("…".into(), 0.."…".len());
                // serde's message ends with the place, which is told anyway.
                let message = why.to_string();
                let message = message.split(" at line ").next().unwrap_or_default();
                Complaint::new("", format!("is no JSON: {message}"), "")
                    .placed(Place::File(file.to_owned(), Some(spot)))
            }
            Self::NoServers => Complaint::new(
                "",
                "names no servers",
                "servers are looked for in \"mcpServers\" (Claude, Cursor) and in \"servers\" (VS Code)",
            )
            .placed(Place::File(file.to_owned(), None)),
        }
    }
}

type Members<'a> = BTreeMap<String, &'a RawValue>;

fn find(json: &str) -> Result<Found<'_>, Fault> {
    let root: Members = serde_json::from_str(json).map_err(Fault::Json)?;
    // VS Code's own settings hold what its mcp.json has under "mcp".
    let inner: Option<Members> = root.get("mcp").and_then(|inner| serde_json::from_str(inner.get()).ok());
    let mut entries = Vec::new();
    let mut any = false;
    for members in [Some(&root), inner.as_ref()].into_iter().flatten() {
        for table in ["mcpServers", "servers"].into_iter().filter_map(|name| members.get(name)) {
            any = true;
            entries.extend(entries_of(json, table, None));
        }
    }
    let projects: Option<Members> =
        root.get("projects").and_then(|inner| serde_json::from_str(inner.get()).ok());
    for (folder, project) in projects.iter().flatten() {
        let Ok(project) = serde_json::from_str::<Members>(project.get()) else { continue };
        if let Some(table) = project.get("mcpServers") {
            any = true;
            entries.extend(entries_of(json, table, Some(folder)));
        }
    }
    if !any {
        return Err(Fault::NoServers);
    }
    // In the order of the file, whatever a map makes of it.
    entries.sort_by_key(|entry| entry.at);
    let inputs = root.get("inputs").or_else(|| inner.as_ref().and_then(|inner| inner.get("inputs")));
    Ok(Found { entries, inputs: inputs.map(|inputs| inputs_of(inputs)).unwrap_or_default() })
}

fn entries_of<'a>(json: &'a str, table: &&'a RawValue, project: Option<&str>) -> Vec<Entry<'a>> {
    let members: Members<'a> = serde_json::from_str(table.get()).unwrap_or_default();
    let entry = |(name, json_of_it): (String, &'a RawValue)| Entry {
        name,
        project: project.map(str::to_owned),
        // It is a part of that text, so the difference of their beginnings is its place.
        at: json_of_it.get().as_ptr() as usize - json.as_ptr() as usize,
        json: json_of_it,
    };
    members.into_iter().map(entry).collect()
}

fn inputs_of(inputs: &RawValue) -> BTreeMap<String, String> {
    let inputs: Vec<Map<String, Value>> = serde_json::from_str(inputs.get()).unwrap_or_default();
    let text =
        |input: &Map<String, Value>, key: &str| input.get(key).and_then(Value::as_str).map(str::to_owned);
    inputs
        .iter()
        .filter_map(|input| Some((text(input, "id")?, text(input, "description").unwrap_or_default())))
        .collect()
}
