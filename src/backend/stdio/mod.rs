//! An MCP server that runs as a child process.
//!
//! To connect is to start it, so a server that ended is started again by whoever connects
//! again, and a new connection shares nothing with the one before. The child is given the
//! environment that programs need to run at all, what is configured for it, and nothing else of
//! ours: our environment holds other servers' secrets.

mod output; //  what it writes, as messages
mod pipe; //    the connection
mod process; // its start and its end
mod program; // where the program is
mod stderr; //  its last words

use std::{
    collections::BTreeMap,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, Once},
};

use futures_util::future::BoxFuture;

use self::{pipe::Pipe, process::Process, stderr::Stderr};
use super::{
    guardian,
    transport::{Connect, Inbox, Kind, Transport, Trouble},
};
use crate::settings::Resolved;

/// What a child has of our environment.
const INHERITED: [&str; 8] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM"];

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// A path, or a name to be found on PATH.
    pub command: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, Resolved>,
    /// The gateway's own by default.
    pub cwd: Option<PathBuf>,
}

impl Command {
    /// The command of a backend's settings, with its secrets put in; or all that is wrong.
    pub fn new(command: &str, settings: &super::Settings) -> Result<Self, Vec<String>> {
        let mut complaints = Vec::new();
        let mut env = BTreeMap::new();
        for (name, text) in &settings.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                complaints.push(format!("env: {name:?} is no name that a variable can have"));
            }
            match text.resolve() {
                Ok(text) => drop(env.insert(name.clone(), text)),
                Err(why) => complaints.push(format!("env.{name}: {why}")),
            }
        }
        let (args, cwd) = (settings.args.clone(), settings.cwd.clone());
        let command = Self { command: command.to_owned(), args, env, cwd };
        if complaints.is_empty() { Ok(command) } else { Err(complaints) }
    }

    /// What the child's environment holds.
    fn environment(&self) -> impl Iterator<Item = (String, std::ffi::OsString)> {
        let inherited =
            INHERITED.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?)));
        let configured = self.env.iter().map(|(name, text)| (name.clone(), text.text.clone().into()));
        inherited.chain(configured)
    }
}

/// Starts a child for every connection.
pub struct Stdio {
    name: Arc<str>,
    command: Command,
    secrets: Arc<[String]>,
    /// Of the child that was started last.
    stderr: Mutex<Option<Arc<Stderr>>>,
}

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments may be secret.
        f.debug_struct("Stdio").field("command", &self.command.command).finish_non_exhaustive()
    }
}

impl Stdio {
    /// For the backend of this name. An error says what is missing on this machine.
    pub fn new(name: &str, settings: Command) -> Result<Self, String> {
        program::find(&settings)?;
        let secrets = settings.env.values().filter_map(|text| text.secret.as_deref());
        let secrets = stderr::in_pieces(secrets);
        Ok(Self { name: name.into(), command: settings, secrets, stderr: Mutex::default() })
    }

    /// What the child that was started last has last said on its error output, which is the
    /// best explanation there is of one that does not answer.
    pub fn last_words(&self) -> Option<String> {
        let stderr = self.stderr.lock().expect("no code panics while it holds this lock");
        stderr.as_ref()?.last()
    }

    fn start(&self, inbox: Inbox) -> Result<Pipe, String> {
        warn_if_unguarded();
        let Command { command: name, args, env: _, cwd } = &self.command;
        let program = program::find(&self.command)?; // Again: it may have been moved since.
        let mut command = tokio::process::Command::new(program);
        command.args(args).env_clear().envs(self.command.environment());
        if let Some(cwd) = cwd {
            command.current_dir(cwd);
        }
        let started = Process::start(&mut command);
        let started = started.map_err(|why| format!("{name:?} could not be started: {}", reason(&why)))?;
        let stderr = Stderr::new(Arc::clone(&self.name), Arc::clone(&self.secrets));
        *self.stderr.lock().expect("no code panics while it holds this lock") = Some(Arc::clone(&stderr));
        Ok(Pipe::new(&self.name, started, stderr, inbox))
    }
}

/// Why a program that exists does not start. The one reason that is not what it says: for a
/// script whose interpreter is missing, the kernel reports the script as missing.
fn reason(why: &io::Error) -> String {
    if why.kind() == io::ErrorKind::NotFound {
        return "the interpreter named in its first line is missing".into();
    }
    why.to_string()
}

fn warn_if_unguarded() {
    static ONCE: Once = Once::new();
    if guardian::installed().is_none() {
        ONCE.call_once(|| {
            tracing::warn!(
                "no guardian is installed: if this process is killed, child processes learn of it by the end of their input only"
            );
        });
    }
}

impl Connect for Stdio {
    fn connect(&self, inbox: Inbox) -> BoxFuture<'_, Result<Arc<dyn Transport>, Trouble>> {
        // Nothing is waited for between the start and the hand-over, so a future that is
        // dropped leaves no child behind.
        Box::pin(async move {
            let pipe = self.start(inbox).map_err(|why| Trouble::new(Kind::NotSent, why))?;
            Ok(Arc::new(pipe) as Arc<dyn Transport>)
        })
    }

    /// Some servers leave, or hang, when they are asked anything before the handshake.
    fn probe_apart(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
