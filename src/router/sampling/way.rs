//! Which way do calls take that the gateway makes itself for a caller?

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
};

use crate::call::{Call, Replying, Stage};

type Stages = dyn Fn(Call) -> Replying + Send + Sync;

/// The way past all stages. It ends when this is dropped.
pub struct Way(#[expect(dead_code, reason = "held for its end")] Arc<Stages>);

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Way")
    }
}

/// The same for the router, which the stages hold and which so must not hold them.
#[derive(Default)]
pub struct Known(OnceLock<Weak<Stages>>);

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Known")
    }
}

impl Known {
    /// It leads past these.
    pub fn learn(&self, stages: impl Stage) -> Way {
        let way: Arc<Stages> = Arc::new(move |call| stages.clone().call(call));
        let _ = self.0.set(Arc::downgrade(&way)); // There is one for all time.
        Way(way)
    }

    /// Sends a call on its way, unless the gateway is ending.
    pub fn take(&self, call: Call) -> Option<Replying> {
        let way = self.0.get()?.upgrade()?;
        Some(way(call))
    }
}
