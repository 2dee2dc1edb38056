//! When is it time to stop, and how is that told to a command that runs?
//!
//! The first SIGINT or SIGTERM asks it to end in good order, the second ends it as it is.

use std::{future::Future, io};

use tokio_util::sync::CancellationToken;

use super::{Outcome, fail};

/// Runs a command that can be stopped.
pub fn run<F: Future<Output = Outcome>>(command: impl FnOnce(CancellationToken) -> F) -> Outcome {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(why) => return fail(format_args!("no threads can be started: {why}")),
    };
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let impatience = match signals(stop.clone()) {
            Ok(impatience) => impatience,
            Err(why) => return fail(format_args!("signals cannot be listened to: {why}")),
        };
        tokio::select! {
            outcome = command(stop) => outcome,
            () = impatience => Outcome::Failed,
        }
    });
    // A thread that waits for a file or a name must not keep us.
    runtime.shutdown_background();
    outcome
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
