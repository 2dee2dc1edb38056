//! Who did what, and what came of it?

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::{Layer, Service};

use crate::{
    call::{Call, Reply, Replying, Stage},
    error::{Error, Result},
};

/// `[audit]`: what is noted of calls.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {}

/// Notes what was decided and done.
#[derive(Debug)]
pub struct Trail {}

impl Trail {
    /// None where nothing is configured.
    pub fn new(settings: &Settings) -> Result<Option<Arc<Self>>, Vec<String>> {
        let Settings {} = settings;
        Ok(None)
    }
}

/// Puts it before a stage; without it, nothing.
#[derive(Debug, Clone)]
pub struct AuditLayer(pub Option<Arc<Trail>>);

impl<S> Layer<S> for AuditLayer {
    type Service = Audited<S>;

    fn layer(&self, next: S) -> Audited<S> {
        Audited { part: self.0.clone(), next }
    }
}

/// A stage with it before.
#[derive(Debug, Clone)]
pub struct Audited<S> {
    part: Option<Arc<Trail>>,
    next: S,
}

impl<S: Stage> Service<Call> for Audited<S> {
    type Response = Reply;
    type Error = Error;
    type Future = Replying;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Replying {
        let Some(_part) = &self.part else { return self.next.call(call) };
        self.next.call(call)
    }
}
