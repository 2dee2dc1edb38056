//! When does another program take over, and what if it does not?

use std::os::fd::AsFd as _;

use tokio::{net::TcpListener, signal::unix::Signal};

use super::handover::Successor;

/// Waits for the signal to hand over.
pub struct Succession(Option<Signal>);

impl Succession {
    pub fn new(signal: Option<Signal>) -> Self {
        Self(signal)
    }

    /// A program that is ready to take over. Those that are not are told of and forgotten.
    pub async fn next(&mut self, sockets: [&TcpListener; 2]) -> Successor {
        loop {
            let Some(signal) = &mut self.0 else { return std::future::pending().await };
            if signal.recv().await.is_none() {
                self.0 = None;
                continue;
            }
            tracing::info!("the program is started anew, to take over");
            let Ok(copies) = copies(sockets) else { continue };
            let prepared = tokio::task::spawn_blocking(move || {
                Successor::prepare([copies[0].as_fd(), copies[1].as_fd()])
            });
            match prepared.await.map_err(std::io::Error::other).flatten() {
                Ok(successor) => return successor,
                Err(why) => tracing::warn!(%why, "the new program does not take over; its own words say why"),
            }
        }
    }

    /// Lets it begin. Has it?
    pub async fn give_way(&self, successor: Successor) -> bool {
        let begun = tokio::task::spawn_blocking(|| successor.go()).await.map_err(std::io::Error::other);
        match begun.flatten() {
            Ok(pid) => {
                tracing::info!(pid, "another program has taken over; what is under way here is ended");
                true
            }
            Err(why) => {
                tracing::warn!(%why, "the new program did not begin; this one goes on");
                false
            }
        }
    }
}

fn copies(sockets: [&TcpListener; 2]) -> std::io::Result<Vec<std::os::fd::OwnedFd>> {
    sockets.iter().map(|socket| socket.as_fd().try_clone_to_owned()).collect()
}
