//! Whose is a call, for the stages that decide by it?
//!
//! Said before the other stages see it, so that limits, the cache and the audit trail know backend
//! and tool without asking. A call for what does not exist, or may not be seen, is nobody's.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{
    Router, text_param,
    view::{Route, View},
};
use crate::{
    call::{Aim, Call, Reply, Replying, Stage},
    error::{Error, Result},
    wire::{json, mcp::Method},
};

/// Puts the question before a stage.
#[derive(Debug, Clone)]
pub struct AimLayer {
    pub router: Router,
    /// Does any stage decide by it?
    pub wanted: bool,
}

impl<S> Layer<S> for AimLayer {
    type Service = Aimed<S>;

    fn layer(&self, next: S) -> Aimed<S> {
        Aimed { router: self.router.clone(), wanted: self.wanted, next }
    }
}

/// A stage that is told whose each call is.
#[derive(Debug, Clone)]
pub struct Aimed<S> {
    router: Router,
    wanted: bool,
    next: S,
}

impl Router {
    /// Whose a call with a target is.
    fn aim(&self, call: &Call) -> Option<Arc<Aim>> {
        let parts = &self.0;
        let view = parts.catalog.snapshot().seen(&call.scope, &call.caller, parts.permit.as_ref())?;
        let route = match call.method {
            Method::Complete => completed(call, &view)?,
            method => view.route(method, &text_param(call, method.target()?).ok()?)?,
        };
        Some(Arc::new(Aim {
            backend: Arc::clone(&route.upstream.name),
            own: route.target,
            hints: route.hints,
        }))
    }
}

/// Whose prompt or template it is that a completion is about.
fn completed(call: &Call, view: &View) -> Option<Route> {
    let reference = call.message.in_params("ref")?;
    let member = |name| json::member(reference, name).and_then(json::string);
    match &*member("type")? {
        "ref/prompt" => view.prompt(&member("name")?),
        "ref/resource" => view.resource(&member("uri")?),
        _ => None,
    }
}

impl<S: Stage> Service<Call> for Aimed<S> {
    type Response = Reply;
    type Error = Error;
    type Future = Replying;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut call: Call) -> Replying {
        if self.wanted {
            call.aim = self.router.aim(&call);
        }
        self.next.call(call)
    }
}
