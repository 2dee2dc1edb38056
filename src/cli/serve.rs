//! `waystation serve` and `waystation stdio`: a gateway.

use clap::Args;

use super::{Outcome, Sources, complain, stop};
use crate::{app, config::Environment};

pub const EXAMPLES: &str = "\
Examples:
  waystation serve --config /etc/waystation/routes.toml
  waystation serve --mcp-json ~/.cursor/mcp.json     the servers of Cursor, behind one address

When its files change it obeys the new ones, as with `waystation reload`. Stop it with Ctrl-C: calls under
way are answered first. Ctrl-C again ends it at once.";

pub const STDIO_EXAMPLES: &str = "\
Example, as an entry in a client's own file:
  { \"mcpServers\": { \"all\": { \"command\": \"waystation\", \"args\": [\"stdio\", \"--config\", \"/home/me/routes.toml\"] } } }

Nothing but the protocol is written to standard output; the log goes to standard error.
To try it: waystation stdio --config routes.toml";

#[derive(Debug, Default, Args)]
pub struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// Does not look whether the files have changed: they are read again by `waystation reload` and SIGHUP alone.
    #[arg(long)]
    no_watch: bool,
}

pub fn serve(arguments: Arguments, common: Sources, environment: &Environment) -> Outcome {
    let sources = arguments.sources.or(common);
    let loaded = match sources.load(environment) {
        Ok(loaded) => loaded,
        Err(outcome) => return outcome,
    };
    let files = (!arguments.no_watch).then(|| sources.files(environment));
    let environment = environment.clone();
    stop::run(|stop| async move {
        let reread = app::Reread::new(move || sources.read(&environment).map(|loaded| loaded.config));
        let reread = match files {
            Some(files) => reread.watching(files),
            None => reread,
        };
        match app::serve(loaded.config, reread, stop).await {
            Ok(()) => Outcome::Done,
            Err(complaints) => complain(&complaints.located(&loaded.source)),
        }
    })
}

pub fn stdio(sources: &Sources, environment: &Environment) -> Outcome {
    let loaded = match sources.load(environment) {
        Ok(loaded) => loaded,
        Err(outcome) => return outcome,
    };
    stop::run(|stop| async move {
        match app::stdio(loaded.config, stop).await {
            Ok(()) => Outcome::Done,
            Err(complaints) => complain(&complaints.located(&loaded.source)),
        }
    })
}
