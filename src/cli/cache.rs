//! `waystation cache clear`: what a running gateway keeps of replies is forgotten.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::{Outcome, Sources, fail, print, stop};
use crate::config::Environment;

pub const EXAMPLES: &str = "\
Examples:
  waystation cache clear                all replies
  waystation cache clear 'docs__*'      those of the backend docs";

/// Longer than it ever takes.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Forget kept replies.
    #[command(after_help = EXAMPLES)]
    Clear {
        /// Of what, as <backend>__<name or URI>; `*` stands for any letters. Of everything where
        /// nothing is said.
        names: Option<String>,
        #[command(flatten)]
        sources: Sources,
    },
}

#[derive(Deserialize)]
struct Answer {
    cleared: u64,
}

pub fn cache(arguments: Arguments, common: Sources, environment: &Environment) -> Outcome {
    let Command::Clear { names, sources } = arguments.command;
    let admin = match sources.or(common).load(environment) {
        Ok(loaded) => loaded.config.listen.admin,
        Err(outcome) => return outcome,
    };
    stop::run(|_| async move {
        match ask(&format!("http://{admin}/cache/clear"), names.as_deref()).await {
            Ok(Answer { cleared }) => print(&format!("{cleared} kept replies forgotten\n")),
            Err(why) => fail(format_args!("no gateway that keeps replies answers at {admin}: {why}")),
        }
    })
}

async fn ask(url: &str, names: Option<&str>) -> Result<Answer, reqwest::Error> {
    let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let names: Vec<_> = names.map(|names| ("names", names)).into_iter().collect();
    let url = reqwest::Url::parse_with_params(url, names).expect("an address and a path are a URL");
    http.post(url).send().await?.error_for_status()?.json().await
}
