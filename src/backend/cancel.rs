//! Who tells a server that nobody waits for its answer any more?
//!
//! Inside the gateway there is no message for it: what is dropped is cancelled. Here a drop
//! becomes what the server understands.

use std::sync::Arc;

use bytes::Bytes;

use super::transport::Transport;
use crate::wire::mcp::Era;

/// Tells the server when its caller has gone. Goes along with a call until it is answered.
pub struct Guard {
    pub transport: Arc<dyn Transport>,
    pub id: u64,
    pub era: Era,
    armed: bool,
}

impl Guard {
    pub fn new(transport: Arc<dyn Transport>, id: u64, era: Era) -> Self {
        Self { transport, id, era, armed: true }
    }

    /// There is nothing left to cancel.
    pub fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.armed || self.transport.cancels_by_closing(self.era) {
            return;
        }
        let text = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{},\"reason\":\"the caller has gone\"}}}}",
            self.id
        );
        let telling = self.transport.notify(Bytes::from(text));
        // Outside a runtime the process is ending, and its connections with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(telling);
        }
    }
}
