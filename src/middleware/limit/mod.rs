//! How often may a caller do what?

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

/// `[limit]`: how often callers may do what.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {}

/// The limits, and what has been used of them.
#[derive(Debug)]
pub struct Limits {}

impl Limits {
    /// None where nothing is configured.
    pub fn new(settings: &Settings) -> Result<Option<Arc<Self>>, Vec<String>> {
        let Settings {} = settings;
        Ok(None)
    }
}

/// Puts it before a stage; without it, nothing.
#[derive(Debug, Clone)]
pub struct LimitLayer(pub Option<Arc<Limits>>);

impl<S> Layer<S> for LimitLayer {
    type Service = Limited<S>;

    fn layer(&self, next: S) -> Limited<S> {
        Limited { part: self.0.clone(), next }
    }
}

/// A stage with it before.
#[derive(Debug, Clone)]
pub struct Limited<S> {
    part: Option<Arc<Limits>>,
    next: S,
}

impl<S: Stage> Service<Call> for Limited<S> {
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
