//! `waystation import`: other programs' files as a routes.toml.

use std::{fs, io, io::Write as _, path::PathBuf};

use clap::Args;

use super::{Outcome, complain, fail, note, print};
use crate::config::{
    Complaint, Complaints, Environment, Place,
    mcp_json::{self, Intake, Names, Purpose, Taken},
};

pub const EXAMPLES: &str = "\
Examples:
  waystation import ~/.claude.json > routes.toml                        Claude Code
  waystation import .mcp.json ~/.cursor/mcp.json .vscode/mcp.json > routes.toml
  waystation import \"$HOME/Library/Application Support/Claude/claude_desktop_config.json\"

The routes.toml goes to standard output; what could not be taken over, and which variables to set
for the secrets, is said on standard error. The files themselves are left as they are.";

#[derive(Debug, Args)]
pub struct Arguments {
    /// Files of Claude Desktop, Claude Code, Cursor or VS Code.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub fn import(arguments: &Arguments, environment: &Environment) -> Outcome {
    let mut intake = Intake::new(Purpose::File, environment, Names::new([]));
    let mut complaints = Complaints::default();
    for file in &arguments.files {
        let name = file.display().to_string();
        match fs::read_to_string(file) {
            Ok(text) => {
                let read = intake.read(&name, &text);
                read.err().into_iter().flatten().for_each(|complaint| complaints.push(complaint));
            }
            Err(why) => {
                let complaint = Complaint::new("", format_args!("cannot be read: {why}"), "");
                complaints.push(complaint.placed(Place::File(name, None)));
            }
        }
    }
    let taken = intake.taken;
    explain(&taken);
    if !complaints.is_empty() {
        complain(&complaints);
    }
    if taken.servers.is_empty() {
        return fail("no servers were taken over");
    }
    let files: Vec<_> = arguments.files.iter().map(|file| file.display().to_string()).collect();
    let head = format!("# Taken over from {}.\n# Is all well? waystation check\n\n", files.join(", "));
    print(&(head + &mcp_json::write(&taken.servers)))
}

fn explain(taken: &Taken) {
    for remark in &taken.remarks {
        note(remark);
    }
    if taken.variables.is_empty() {
        return;
    }
    note("set these variables where the gateway runs:");
    for (name, what) in &taken.variables {
        let _ = writeln!(io::stderr(), "  {name}  {what}");
    }
}
