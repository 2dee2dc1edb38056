//! How does OpenRouter answer, without OpenRouter?
//!
//! A server on the loopback address that answers as `https://openrouter.ai/api/v1` does: the same
//! catalogue shapes, streams, errors and prices, with answers made up from what was asked. Whoever
//! has no key yet can try everything with it, and tests bring about each fault that a provider can
//! have. It is a foreign service that happens to live in this crate, so nothing of the crate is
//! used here, and nothing here knows the gateway.
//!
//! What it does is decided by the request and the seed alone: there is no outgoing network and no
//! other randomness. How a fault is asked for is told in `scenario.rs`, what the normal answers are
//! in `chat/`.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::TcpListener, task::AbortHandle};

mod account; //    keys, and what was spent with them
mod bill; //       what an answer costs
mod catalogue; //  which models there are
mod chat; //       /chat/completions
mod clock; //      what time it is
mod control; //    /__sim, for tests
mod dataset; //    rankings and benchmarks
mod embeddings; // /embeddings
mod fault; //      what is answered instead of an answer
mod images; //     /images, and pictures
mod journal; //    every request that came, and what was billed for it
mod money; //      exact sums
mod play; //       how an answer goes out
mod random; //     chance, from the seed
mod refusal; //    how errors are written
mod reply; //      an answer before it goes out
mod rerank; //     /rerank
mod route; //      which answer is a request's
mod rules; //      which scenario is a request's
mod scenario; //   what can go wrong
mod server; //     connections
mod world; //      what is remembered

pub use journal::{Entry, Stats};
pub use scenario::SCENARIOS;

use self::world::World;

/// The key that is always good for a simulator.
pub const KEY: &str = "sk-or-v1-sim";

/// The management key: it sees credits and activity, and cannot chat.
pub const MANAGEMENT_KEY: &str = "sk-or-v1-sim-mgmt";

/// How a simulator behaves.
#[derive(Clone)]
pub struct Settings {
    /// What is random is made from this: the same seed gives the same answers.
    pub seed: u64,
    /// How long an answer takes to begin.
    pub ttft: Duration,
    /// How long each token takes after that.
    pub per_token: Duration,
    /// How long after an answer `GET /generation` knows of it.
    pub generation_delay: Duration,
    /// Whether `:free` models are limited to 20 requests a minute, and to 50 or 1,000 a day.
    pub enforce_limits: bool,
    /// Whether the catalogue has an entry without prices.
    pub broken_entries: bool,
    /// The token of the control plane under `/__sim`. Without one there is no control plane.
    pub control: Option<String>,
}

impl Default for Settings {
    /// At once and without limits, as tests want it.
    fn default() -> Self {
        Self {
            seed: 1,
            ttft: Duration::ZERO,
            per_token: Duration::ZERO,
            generation_delay: Duration::ZERO,
            enforce_limits: false,
            broken_entries: false,
            control: None,
        }
    }
}

impl Settings {
    /// With the pace of a model, for people who watch.
    pub fn demo() -> Self {
        Self { ttft: Duration::from_millis(250), per_token: Duration::from_millis(15), ..Self::default() }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, ttft, per_token, generation_delay, enforce_limits, broken_entries, control } = self;
        f.debug_struct("Settings")
            .field("seed", seed)
            .field("ttft", ttft)
            .field("per_token", per_token)
            .field("generation_delay", generation_delay)
            .field("enforce_limits", enforce_limits)
            .field("broken_entries", broken_entries)
            .field("control", &control.as_ref().map(|_| "…"))
            .finish()
    }
}

/// A running simulator. It ends when this is dropped, and with it all that it was answering.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    world: Arc<World>,
    task: AbortHandle,
}

impl Simulator {
    /// Listens on `address`, which has to be one of this machine alone; port 0 means any.
    pub async fn start(settings: Settings, address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            let why =
                format!("the simulator listens on this machine alone, and {address} is no loopback address");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let world = Arc::new(World::new(settings));
        let task = tokio::spawn(server::serve(listener, Arc::clone(&world))).abort_handle();
        Ok(Self { address, world, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client takes as OpenRouter's address: `http://127.0.0.1:PORT/api/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }

    /// Every request so far, the oldest first; of very many only the last.
    pub fn journal(&self) -> Vec<Entry> {
        self.world.journal.since(0)
    }

    /// Sums over all requests so far.
    pub fn stats(&self) -> Stats {
        self.world.journal.stats()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.task.abort();
    }
}
