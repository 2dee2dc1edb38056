//! How does a child process start and end, with all that it started itself?
//!
//! A child leads a process group of its own, so that its end can be the end of its children
//! too: `npx` starts `node`, a shell script starts anything. It ends in steps, each of which
//! leaves time for the next not to be needed: its input ends, the group is asked to leave, the
//! group is killed. Whatever way a [`Process`] goes, dropped with a whole runtime included, the
//! group goes with it.

use std::{io, os::unix::process::ExitStatusExt as _, process::ExitStatus, time::Duration};

use rustix::process::{Pid, Signal};
use tokio::{
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::{sleep, timeout},
};

use crate::backend::guardian::{self, Watch};

/// How long a child has for each step of leaving. As long as the official SDKs give.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether the last of a group has gone, which nothing tells.
const LOOK: Duration = Duration::from_millis(10);

/// A child and its group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// None once the group has ended, when its number may be anybody's.
    group: Option<Group>,
}

#[derive(Debug)]
struct Group {
    id: Pid,
    _watch: Option<Watch>,
}

/// The steps of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub enum Step {
    /// The child sees the end of its input, and leaves.
    Wait,
    Ask,
    Kill,
}

/// The three pipes to a child.
#[derive(Debug)]
pub struct Pipes {
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
    pub stderr: ChildStderr,
}

impl Process {
    /// Starts a child with pipes, in a group of its own. Within a runtime only.
    pub fn start(command: &mut Command) -> io::Result<(Self, Pipes)> {
        use std::process::Stdio;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let id = id.expect("a child that nobody has waited for has a number");
        // Nothing may come between the start and this.
        let watch = guardian::installed().map(|guardian| guardian.watch(id));
        let pipes = Pipes {
            stdin: child.stdin.take().expect("all three pipes were asked for"),
            stdout: child.stdout.take().expect("all three pipes were asked for"),
            stderr: child.stderr.take().expect("all three pipes were asked for"),
        };
        Ok((Self { child, group: Some(Group { id, _watch: watch }) }, pipes))
    }

    /// Waits for the child's own end, and reaps it. Tells how it ended: `exit status 3`.
    pub async fn ended(&mut self) -> String {
        self.child.wait().await.map_or_else(|why| why.to_string(), manner)
    }

    /// Ends the child and its group, from the given step on; whoever has the other end of the
    /// child's input must close it. Each step takes [`PATIENCE`] at the most.
    pub async fn end(mut self, from: Step) {
        for step in [Step::Wait, Step::Ask, Step::Kill].into_iter().filter(|step| *step >= from) {
            match step {
                Step::Wait => {}
                Step::Ask => self.ask_to_leave(),
                Step::Kill => self.signal(Signal::KILL),
            }
            if timeout(PATIENCE, self.gone()).await.is_ok() {
                self.group = None;
                return;
            }
        }
        tracing::warn!("a child process cannot be killed; the kernel holds it");
    }

    /// Tells the whole group, without waiting.
    pub fn ask_to_leave(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = &self.group {
            let _ = rustix::process::kill_process_group(group.id, signal);
        }
    }

    /// Waits until the child and all of its group have gone.
    async fn gone(&mut self) {
        let _ = self.child.wait().await;
        while let Some(group) = &self.group
            && rustix::process::test_kill_process_group(group.id).is_ok()
        {
            sleep(LOOK).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn manner(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".into(),
    }
}
