//! `waystation reload`: the running gateway reads its configuration again.

use std::time::Duration;

use serde::Deserialize;

use super::{Outcome, Sources, fail, print, stop};
use crate::config::Environment;

pub const EXAMPLES: &str = "\
Examples:
  waystation reload --config /etc/waystation/routes.toml
  kill -HUP $(pidof waystation)                    the same, with the answer in the log

The gateway reads the files it was started with. Who may come in and what they may do, how often and from
which cache, is obeyed from the next request on. Backends that differ are begun anew, and all others are left
alone; other tables wait for a restart. `waystation check --diff` says before what would change. A configuration with
anything wrong in it changes nothing.";

/// Longer than reading files ever takes.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Reloaded {
        changed: Vec<String>,
        needs_restart: Vec<String>,
        #[serde(default)]
        backends: Vec<String>,
    },
    Refused {
        error: String,
    },
}

pub fn reload(sources: &Sources, environment: &Environment) -> Outcome {
    let admin = match sources.load(environment) {
        Ok(loaded) => loaded.config.listen.admin,
        Err(outcome) => return outcome,
    };
    stop::run(|_| async move {
        match ask(&format!("http://{admin}/reload")).await {
            Ok(Answer::Reloaded { changed, needs_restart, backends }) => {
                print(&told(&changed, &needs_restart, &backends))
            }
            Ok(Answer::Refused { error }) => {
                fail(format_args!("nothing was changed, since the configuration is not right:\n{error}"))
            }
            Err(why) => fail(format_args!("no gateway answers at {admin}: {why}")),
        }
    })
}

async fn ask(url: &str) -> Result<Answer, reqwest::Error> {
    client()?.post(url).send().await?.json().await
}

/// For the address of operators.
pub fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build()
}

fn told(changed: &[String], needs_restart: &[String], backends: &[String]) -> String {
    let list = |names: &[String]| names.iter().map(|name| format!("[{name}]")).collect::<Vec<_>>().join(", ");
    let mut text = match changed {
        [] => "nothing that can change while it runs is different\n".to_owned(),
        changed => format!("obeyed from now on: {}\n", list(changed)),
    };
    if !backends.is_empty() {
        text += &format!("begun, begun anew or ended: {}\n", backends.join(", "));
    }
    if !needs_restart.is_empty() {
        text += &format!("different too, and obeyed after a restart: {}\n", list(needs_restart));
    }
    text
}
