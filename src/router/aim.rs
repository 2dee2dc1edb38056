//! Whose is a call, for the stages that decide by it?
//!
//! Said before the other stages see it, so that limits, the cache and the audit trail know backend
//! and tool without asking. A call for what does not exist, or may not be used so, is nobody's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{Router, text_param, view};
use crate::{
    call::{Aim, Call, Reply, Replying, Stage},
    error::{Error, Result},
};

/// Puts the question before a stage.
#[derive(Debug, Clone)]
pub struct AimLayer {
    pub router: Router,
    /// Does any stage decide by it, as things are?
    pub wanted: Arc<AtomicBool>,
}

impl<S> Layer<S> for AimLayer {
    type Service = Aimed<S>;

    fn layer(&self, next: S) -> Aimed<S> {
        Aimed { router: self.router.clone(), wanted: Arc::clone(&self.wanted), next }
    }
}

/// A stage that is told whose each call is.
#[derive(Debug, Clone)]
pub struct Aimed<S> {
    router: Router,
    wanted: Arc<AtomicBool>,
    next: S,
}

impl Router {
    /// Whose a call with a target is.
    fn aim(&self, call: &Call) -> Option<Arc<Aim>> {
        let target = text_param(call, call.method.target()?).ok()?;
        let view = self.view(call)?;
        let route = view.route(call.method, &target)?;
        view.admit(view::kind(call.method), &target, &route, view::arguments(&call.message)).ok()?;
        Some(Arc::new(Aim {
            backend: Arc::clone(&route.upstream.name),
            own: route.target,
            hints: route.hints,
        }))
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
        if self.wanted.load(Ordering::Relaxed) {
            call.aim = self.router.aim(&call);
        }
        self.next.call(call)
    }
}
