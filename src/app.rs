//! The stages, put in their order.
//!
//! HOOK(app): these are the faces that the command line expects; what is behind them is to come.

use tokio_util::sync::CancellationToken;

use crate::config::{Complaint, Complaints, Config};

/// Builds everything and serves nothing, to hear of all that is wrong.
pub fn check(config: &Config) -> Result<(), Complaints> {
    let _ = config;
    Ok(())
}

/// Serves over HTTP until `stop`, and then until the calls under way are answered.
pub async fn serve(config: Config, stop: CancellationToken) -> Result<(), Complaints> {
    let _ = (config, stop);
    not_yet()
}

/// Serves one client over standard input and output until either ends or `stop`.
pub async fn stdio(config: Config, stop: CancellationToken) -> Result<(), Complaints> {
    let _ = (config, stop);
    not_yet()
}

/// A gateway in this process.
#[derive(Debug)]
pub struct Running;

impl Running {
    /// Ends it in good order.
    pub async fn stop(self) {}
}

/// Starts a gateway on a free port of this machine, and says under which address it answers, as
/// in `http://127.0.0.1:49152`. Returns when each backend is ready or has failed.
pub async fn ephemeral(config: Config) -> Result<(Running, String), Complaints> {
    let _ = config;
    not_yet()
}

fn not_yet<T>() -> Result<T, Complaints> {
    let mut complaints = Complaints::default();
    complaints.push(Complaint::new("", "the gateway itself is not built in yet", ""));
    Err(complaints)
}
