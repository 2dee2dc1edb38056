//! Which replies may be used again?

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

/// `[cache]`: which replies may be used again.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {}

/// Replies that may be used again.
#[derive(Debug)]
pub struct Replies {}

impl Replies {
    /// None where nothing is configured.
    pub fn new(settings: &Settings) -> Result<Option<Arc<Self>>, Vec<String>> {
        let Settings {} = settings;
        Ok(None)
    }
}

/// Puts it before a stage; without it, nothing.
#[derive(Debug, Clone)]
pub struct CacheLayer(pub Option<Arc<Replies>>);

impl<S> Layer<S> for CacheLayer {
    type Service = Cached<S>;

    fn layer(&self, next: S) -> Cached<S> {
        Cached { part: self.0.clone(), next }
    }
}

/// A stage with it before.
#[derive(Debug, Clone)]
pub struct Cached<S> {
    part: Option<Arc<Replies>>,
    next: S,
}

impl<S: Stage> Service<Call> for Cached<S> {
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
