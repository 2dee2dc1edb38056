//! When is it time to stop, and how is that told to a command that runs?
//!
//! The first SIGINT or SIGTERM asks it to end in good order, the second ends it as it is. A command
//! that speaks with a person decides itself what an interruption means.

use std::{future::Future, io};

use tokio_util::sync::CancellationToken;

use super::{Outcome, fail};

/// Runs a command that can be stopped.
pub fn run<F: Future<Output = Outcome>>(command: impl FnOnce(CancellationToken) -> F) -> Outcome {
    on_threads(async {
        let stop = CancellationToken::new();
        let impatience = match signals(stop.clone()) {
            Ok(impatience) => impatience,
            Err(why) => return deaf(&why),
        };
        tokio::select! {
            outcome = command(stop) => outcome,
            () = impatience => Outcome::Failed,
        }
    })
}

/// Runs a command that listens to interruptions itself.
pub fn run_interruptible(command: impl AsyncFnOnce(Interruptions) -> Outcome) -> Outcome {
    on_threads(async {
        match Interruptions::listen() {
            Ok(interruptions) => command(interruptions).await,
            Err(why) => deaf(&why),
        }
    })
}

fn on_threads(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return fail(format_args!("no threads can be started: {why}")),
    };
    let outcome = runtime.block_on(command);
    // A thread that waits for a file or a name must not keep us.
    runtime.shutdown_background();
    outcome
}

fn deaf(why: &io::Error) -> Outcome {
    fail(format_args!("signals cannot be listened to: {why}"))
}

/// What somebody wants who interrupts a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// Ctrl-C: an end to what is being done.
    OfThis,
    /// SIGTERM: an end to everything.
    OfAll,
}

#[cfg(unix)]
#[derive(Debug)]
pub struct Interruptions {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Interruptions {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate })
    }

    pub async fn next(&mut self) -> Interruption {
        tokio::select! {
            _ = self.interrupt.recv() => Interruption::OfThis,
            _ = self.terminate.recv() => Interruption::OfAll,
        }
    }
}

#[cfg(not(unix))]
#[derive(Debug)]
pub struct Interruptions;

#[cfg(not(unix))]
impl Interruptions {
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    pub async fn next(&mut self) -> Interruption {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Interruption::OfThis,
            Err(_) => Interruption::OfAll,
        }
    }
}

/// Cancels at the first signal; is done at the second.
#[cfg(unix)]
fn signals(stop: CancellationToken) -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.is_cancelled() {
                return;
            }
            stop.cancel();
        }
    })
}

#[cfg(not(unix))]
fn signals(stop: CancellationToken) -> io::Result<impl Future<Output = ()>> {
    Ok(async move {
        while tokio::signal::ctrl_c().await.is_ok() && !stop.is_cancelled() {
            stop.cancel();
        }
    })
}
