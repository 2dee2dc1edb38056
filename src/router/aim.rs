//! Whose is a call, for the stages that decide by it?
//!
//! Said before the other stages see it, so that limits, the cache and the audit trail know backend
//! and tool without asking. A call for what does not exist, or may not be used so, is nobody's.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tower::{Layer, Service};

use super::{
    Router, repeated_rightly, text_param,
    view::{self, Route, View},
};
use crate::{
    call::{Aim, Call, Kind, Reply, Replying, Stage},
    error::{Error, Result},
    wire::{json, mcp::Method},
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
        let view = self.view(call)?;
        let (kind, shown, route, arguments) = match call.method {
            Method::Complete => {
                let (kind, shown, route) = completed(call, &view)?;
                (kind, shown, route, view::completed(&call.message).into())
            }
            method => {
                let target = text_param(call, method.target()?).ok()?;
                let route = view.route(method, &target)?;
                repeated_rightly(&route, call).ok()?;
                (view::kind(method), target, route, Cow::Borrowed(view::arguments(&call.message)))
            }
        };
        view.admit(kind, &shown, &route, &arguments).ok()?;
        Some(Arc::new(Aim {
            backend: Arc::clone(&route.upstream.name),
            own: route.target,
            hints: route.hints,
        }))
    }
}

/// The prompt or template that a completion is about, and whose it is.
fn completed<'a>(call: &'a Call, view: &View) -> Option<(Kind, Cow<'a, str>, Route)> {
    let reference = call.message.in_params("ref")?;
    let member = |name| json::member(reference, name).and_then(json::string);
    let (kind, shown) = match &*member("type")? {
        "ref/prompt" => (Kind::Prompt, member("name")?),
        "ref/resource" => (Kind::Template, member("uri")?),
        _ => return None,
    };
    let route = if kind == Kind::Prompt { view.prompt(&shown) } else { view.resource(&shown) };
    Some((kind, shown, route?))
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
