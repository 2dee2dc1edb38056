//! What can be done from the command line?
//!
//! Each command is a file here; what they have in common is which configuration they read and
//! how they tell what is wrong with it.

use std::{
    ffi::OsString,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    config::{CONFIG_FILE, Complaints, Config, DEFAULT_FILE, Environment, Loaded},
    settings::Duration,
};

mod arguments; // the arguments of a tool
mod audit; //     who did what
mod cache; //     what a gateway keeps of replies
mod call; //      a tool
mod chat; //      a conversation with a model
mod check; //     a configuration
mod client; //    requests to a gateway
mod explain; //   why something is there, or is not
mod gateway; //   the one that is asked
mod import; //    other programs' files
mod key; //       of callers
mod list; //      tools, prompts and resources
mod reload; //    a configuration, into a gateway that runs
mod serve; //     a gateway, over HTTP or a pipe
mod status; //    how the backends are
mod stop; //      signals
mod table; //     columns, and texts of strangers
mod token; //     for trying identities

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// It was understood, tried, and did not succeed.
    Failed,
    /// The command line was not understood.
    Usage,
    /// Something is wrong with the configuration.
    Configuration,
}

const ABOUT: &str = "One MCP endpoint in front of many MCP servers";

const LONG_ABOUT: &str = "\
One MCP endpoint in front of many MCP servers.

Without a command it serves: clients find all servers of ./routes.toml at
http://127.0.0.1:8080/mcp. Without that file it serves what is built in, which is enough to try it.";

const EXAMPLES: &str = "\
Examples:
  waystation                                     serve what ./routes.toml says
  waystation import ~/.claude.json > routes.toml take over the servers of another program
  waystation check                               is routes.toml all right?
  waystation list                                which tools are there?
  waystation call time__get_current_time --arg timezone=Europe/Berlin
  waystation chat                                speak with a model

The file routes.toml explains itself; all keys are in docs/configuration.md.";

#[derive(Debug, Parser)]
#[command(name = "waystation", version, about = ABOUT, long_about = LONG_ABOUT, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    sources: Sources,
}

/// Where a configuration comes from.
#[derive(Debug, Clone, Default, Args)]
struct Sources {
    /// The configuration [default: $WAYSTATION_CONFIG, else ./routes.toml, else built in].
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Adds the servers of another program's file, as it is: {"mcpServers": …} or VS Code's
    /// mcp.json. May be given several times.
    #[arg(long, value_name = "FILE")]
    mcp_json: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve over HTTP [what is done without a command].
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::Arguments),
    /// Serve one client over standard input and output.
    #[command(after_help = serve::STDIO_EXAMPLES)]
    Stdio(Sources),
    /// Say all that is wrong with a configuration, and serve nothing.
    #[command(after_help = check::EXAMPLES)]
    Check(check::Arguments),
    /// List tools, prompts and resources.
    #[command(after_help = list::EXAMPLES)]
    List(list::Arguments),
    /// Call a tool and print what it answers.
    #[command(after_help = call::EXAMPLES)]
    Call(call::Arguments),
    /// Speak with a model.
    #[command(after_help = chat::EXAMPLES)]
    Chat(chat::Arguments),
    /// Say how each backend is.
    #[command(after_help = status::EXAMPLES)]
    Status(status::Arguments),
    /// Have the running gateway read its configuration again.
    #[command(after_help = reload::EXAMPLES)]
    Reload(Sources),
    /// Give out keys to callers, and take them back.
    #[command(after_help = key::EXAMPLES)]
    Key(key::Arguments),
    /// Make a token for trying identities and rules.
    #[command(after_help = token::EXAMPLES)]
    Token(token::Arguments),
    /// Say who did what.
    #[command(after_help = audit::EXAMPLES)]
    Audit(audit::Arguments),
    /// Say why somebody may use a tool, or may not.
    #[command(after_help = explain::EXAMPLES)]
    Explain(explain::Arguments),
    /// Make a running gateway forget replies that it keeps.
    #[command(after_help = cache::EXAMPLES)]
    Cache(cache::Arguments),
    /// Turn another program's file into a routes.toml.
    #[command(after_help = import::EXAMPLES)]
    Import(import::Arguments),
    /// Print the JSON Schema of routes.toml, for editors.
    #[command(after_help = "Example:\n  waystation schema > routes.schema.json")]
    Schema {
        /// Prints the page of all keys instead, docs/configuration.md.
        #[arg(long, hide = true)]
        markdown: bool,
    },
}

/// Does what the command line says. `arguments` begins with the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Outcome {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            let told = error.print();
            return if error.use_stderr() || told.is_err() { Outcome::Usage } else { Outcome::Done };
        }
    };
    let environment = Environment::of_process();
    let common = arguments.sources;
    match arguments.command {
        None => serve::serve(serve::Arguments::default(), common, &environment),
        Some(Command::Serve(arguments)) => serve::serve(arguments, common, &environment),
        Some(Command::Stdio(sources)) => serve::stdio(&sources.or(common), &environment),
        Some(Command::Check(arguments)) => check::check(arguments, common, &environment),
        Some(Command::List(arguments)) => list::list(&arguments, common, environment),
        Some(Command::Call(arguments)) => call::call(&arguments, common, environment),
        Some(Command::Chat(arguments)) => chat::chat(&arguments, common, &environment),
        Some(Command::Status(arguments)) => status::status(&arguments, common, environment),
        Some(Command::Reload(sources)) => reload::reload(&sources.or(common), &environment),
        Some(Command::Key(arguments)) => key::key(&arguments, common, &environment),
        Some(Command::Token(arguments)) => token::token(&arguments, common, &environment),
        Some(Command::Audit(arguments)) => audit::audit(&arguments, common, &environment),
        Some(Command::Explain(arguments)) => explain::explain(&arguments, common, environment),
        Some(Command::Cache(arguments)) => cache::cache(arguments, common, &environment),
        Some(Command::Import(arguments)) => import::import(&arguments, &environment),
        Some(Command::Schema { markdown: false }) => print(&crate::config::schema::text()),
        Some(Command::Schema { markdown: true }) => print(&crate::config::manual::text()),
    }
}

impl Sources {
    /// What was said behind the command, and else what was said before it.
    fn or(self, common: Self) -> Self {
        let mcp_json = if self.mcp_json.is_empty() { common.mcp_json } else { self.mcp_json };
        Self { config: self.config.or(common.config), mcp_json }
    }

    /// The configuration, with a note of what was changed on the way. What is wrong is told.
    fn load(&self, environment: &Environment) -> Result<Loaded, Outcome> {
        let loaded = self.read(environment).map_err(|complaints| complain(&complaints))?;
        for remark in &loaded.remarks {
            note(remark);
        }
        Ok(loaded)
    }

    /// The same, told to nobody.
    fn read(&self, environment: &Environment) -> Result<Loaded, Complaints> {
        Config::load_with(self.file(environment).as_deref(), &self.mcp_json, environment)
    }

    /// The file that is named.
    fn file(&self, environment: &Environment) -> Option<PathBuf> {
        let named = environment.get(CONFIG_FILE).filter(|name| !name.is_empty()).map(PathBuf::from);
        self.config.clone().or(named)
    }

    /// All files that the configuration is read from.
    fn files(&self, environment: &Environment) -> Vec<PathBuf> {
        let file = self.file(environment).unwrap_or_else(|| DEFAULT_FILE.into());
        [file].into_iter().chain(self.mcp_json.iter().cloned()).collect()
    }
}

/// Tells all that is wrong: drawn on a terminal, and a line each for other programs.
fn complain(complaints: &Complaints) -> Outcome {
    let terminal = io::stderr().is_terminal();
    let text = if terminal { complaints.drawn(table::colours()) } else { complaints.to_string() };
    let _ = write!(io::stderr(), "{text}");
    Outcome::Configuration
}

/// A length of time as settings have it.
fn duration(text: &str) -> Result<time::Duration, String> {
    Duration::try_from(text.to_owned()).map(|duration| duration.0)
}

/// Says something that is not the command's output.
fn note(what: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "note: {what}");
}

/// Says why a command did not succeed.
fn fail(why: impl std::fmt::Display) -> Outcome {
    let _ = writeln!(io::stderr(), "error: {why}");
    Outcome::Failed
}

/// Writes the command's output. Whoever reads it may have read enough (`| head`).
fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Outcome::Done,
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Outcome::Done,
        Err(why) => fail(format_args!("the output cannot be written: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_commands_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_configuration_may_be_named_before_or_behind_the_command() {
        for line in ["waystation -c a list", "waystation list --config a"] {
            let arguments = parse(line).unwrap();
            let Some(Command::List(list)) = arguments.command else { panic!("{line}") };
            let sources = list.target.sources.or(arguments.sources);
            assert_eq!(sources.config, Some("a".into()), "{line}");
        }
    }

    #[test]
    fn every_command_has_an_example() {
        let root = Arguments::command();
        let commands: Vec<_> = root.get_subcommands().collect();
        assert!(commands.len() > 6);
        for command in commands {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("waystation {}", command.get_name())), "{}", command.get_name());
        }
    }
}
