//! Which backend is a call for?
//!
//! The last stage: lists and discovery are answered from the catalog, everything with a target
//! goes to the backend that the name stands for. A name that stands for nothing and one that
//! may not be seen get the same answer.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use serde_json::json;
use tower::Service;

pub mod aim; //     whose a call is, said beforehand
pub mod catalog; // what all backends offer, kept fresh
mod cursor; //      where the next page begins
mod explain; //     why something is there, or is not
pub mod names; //   backend__tool, both ways
mod offering; //    what one backend offers
pub mod own; //     the gateway's own tools
pub mod sampling; // texts of a model for a client that has none
mod sight; //       what one caller sees
pub mod seal; //    what passes through the client between two rounds of a call
pub mod subscriptions; // who hears of which changes
mod uris; //        resources that go by another spelling
pub mod view; //    what a client sees

use crate::{
    backend::Ask,
    call::{Answer, Call, Caller, Explain, Kind, Permit, Reply, Replying, Scope},
    error::{Error, Result},
    weaken,
    wire::{
        capability::Capabilities,
        json,
        mcp::{Era, INTRODUCTION, List, Method, Revision, extension},
        message::Message,
    },
};
use catalog::Catalog;
use cursor::Cursors;
use seal::{Bound, Seals};
use sight::Sight;
use subscriptions::Subscriptions;
use view::{Route, View};

/// Routes calls by the catalog. Clones are the same router.
#[derive(Debug, Clone)]
pub struct Router(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    catalog: Arc<Catalog>,
    subscriptions: Arc<Subscriptions>,
    cursors: Cursors,
    seals: Arc<Seals>,
    page_size: usize,
    permit: Arc<dyn Permit>,
    /// Who else has something to say of calls.
    explains: ArcSwap<Vec<Arc<dyn Explain>>>,
    /// The way of calls that the router makes itself.
    way: sampling::Known,
}

impl Router {
    /// `secret` stays the same over restarts.
    pub fn new(
        catalog: Arc<Catalog>,
        subscriptions: Arc<Subscriptions>,
        secret: &[u8],
        seals: Seals,
        page_size: usize,
        permit: Arc<dyn Permit>,
    ) -> Self {
        let (cursors, seals) = (Cursors::new(secret), Arc::new(seals));
        let (explains, way) = (ArcSwap::default(), sampling::Known::default());
        Self(Arc::new(Parts { catalog, subscriptions, cursors, seals, page_size, permit, explains, way }))
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.0.catalog
    }

    /// The tools that a caller could use by these rules, but for those of some backends.
    pub fn tools_of(
        &self,
        caller: &Caller,
        permit: &dyn Permit,
        without: &BTreeSet<&str>,
    ) -> BTreeSet<String> {
        let seen = self.catalog().snapshot().seen(&Scope::All, caller, permit);
        seen.map(|view| view.tool_names(without)).unwrap_or_default()
    }

    /// What a caller sees at an endpoint.
    pub fn sight(&self, caller: Caller, scope: Scope) -> Sight {
        let (catalog, permit) = (Arc::clone(&self.0.catalog), Arc::clone(&self.0.permit));
        Sight { catalog, permit, scope, caller }
    }

    fn view(&self, call: &Call) -> Option<Arc<View>> {
        self.0.catalog.snapshot().seen(&call.scope, &call.caller, &*self.0.permit)
    }

    /// `waited` says that no backend is to be waited for any more.
    async fn route(self, call: Box<Call>, waited: bool) -> Result<Reply> {
        let seen = self.view(&call).ok_or(Error::NoEndpoint)?;
        let view = &*seen;
        if let Some(list) = call.method.list() {
            return self.list(view, list, &call).map(Reply::Whole);
        }
        match call.method {
            Method::ToolsCall
            | Method::PromptsGet
            | Method::ResourcesRead
            | Method::SkillsGet
            | Method::DirectoryRead => {
                let target = text_param(&call, call.method.target().unwrap_or_default())?;
                let Some(route) = view.route(call.method, &target) else {
                    let (method, target) = (call.method, target.into_owned());
                    let unknown = Error::unknown(method, &target);
                    if weaken::is("permit-slow") && self.is_there(&call.scope, method, &target) {
                        std::thread::sleep(std::time::Duration::from_micros(200));
                    }
                    return self.not_known_yet(call, waited, (method, target), unknown).await;
                };
                repeated_rightly(&route, &call)?;
                view.admit(view::kind(call.method), &target, &route, view::arguments(&call.message))?;
                drop(target);
                self.forward(route, call, view).await
            }
            Method::Complete => Box::pin(self.complete(view, call, waited)).await, // Rare and large.
            Method::Listen => {
                let sight = self.sight(call.caller.clone(), call.scope.clone());
                self.0.subscriptions.listen(view, &call, sight).map(Reply::Stream)
            }
            Method::Discover => Ok(Reply::Whole(self.discover(view))),
            Method::Initialize => Ok(Reply::Whole(initialize(view, &call))),
            Method::Ping
            | Method::SetLevel
            | Method::Subscribe
            | Method::Unsubscribe
            | Method::ToolsList
            | Method::PromptsList
            | Method::ResourcesList
            | Method::TemplatesList
            | Method::TasksGet
            | Method::TasksResult
            | Method::TasksList
            | Method::TasksCancel
            | Method::TasksUpdate
            | Method::SkillsList => Err(Error::UnknownMethod(call.method.name().to_owned())),
        }
    }

    /// Does a name stand for anything, whoever may use it?
    fn is_there(&self, scope: &Scope, method: Method, target: &str) -> bool {
        let snapshot = self.0.catalog.snapshot();
        snapshot.view(scope).is_some_and(|all| all.route(method, target).is_some())
    }

    /// What nobody has may be had in a moment by a backend that is just starting.
    fn not_known_yet(self, call: Box<Call>, waited: bool, of: (Method, String), unknown: Error) -> Replying {
        Box::pin(async move {
            let (method, target) = of;
            // What its caller may not see is waited for like what nobody has.
            let known = || self.view(&call).is_some_and(|view| view.route(method, &target).is_some());
            if !waited && self.0.catalog.first_heard(&call.scope, method, &target, known).await {
                return self.route(call, true).await;
            }
            Err(unknown)
        })
    }

    async fn forward(&self, route: Route, mut call: Box<Call>, view: &View) -> Result<Reply> {
        let Route { upstream, target, mirrored, wrapped, task_support, hints, free: _ } = route;
        let (repeatable, read_only) = (hints.read_only || hints.idempotent, hints.read_only);
        let method = call.method;
        if let Some(given) = &mut call.given {
            let bound = bound(&call.caller, &upstream.name, method, &target, &call.message);
            if let Some(state) = &given.state {
                let unknown =
                    || Error::Params("`requestState` is not one of this call, or not any more".into());
                given.state = match self.0.seals.open(&bound, state) {
                    Some(inner) => inner,
                    // A task is known by its handle, which no client brings, however old the state.
                    None if given.task.is_some() => None,
                    None => return Err(unknown()),
                };
            }
        }
        // A resource read under a spelling of ours comes back under that spelling.
        let respelled = method == Method::ResourcesRead && text_param(&call, "uri")? != *target;
        let apart = (view.has_apart() || respelled)
            .then(|| uris::Apart::new(view, &upstream, respelled.then(|| Arc::clone(&target))));
        // Without capabilities nothing is asked, and nothing need be kept for sealing.
        let asked = (call.client.capabilities != Capabilities::NONE || upstream.sampler.is_some())
            .then(|| (call.caller.clone(), call.message.clone()));
        let known = Some(Arc::clone(&target));
        let ask = Ask { call, target: known, mirrored, wrapped, task_support, repeatable, read_only };
        let reply = match &upstream.sampler {
            Some(sampler) => Box::pin(self.sampled(&upstream, sampler, ask)).await?,
            None => upstream.backend.answer(ask).await?,
        };
        if apart.is_none() && asked.is_none() {
            return Ok(reply);
        }
        let seals = Arc::clone(&self.0.seals);
        reply.map_answer(move |answer| match (answer, &asked, &apart) {
            (Answer::Asks(message), Some((caller, request)), _) => {
                let bound = bound(caller, &upstream.name, method, &target, request);
                seals.sealed(&bound, &message).map(Answer::Asks)
            }
            (answer, _, Some(apart)) => Ok(apart.respell(answer, method)),
            (answer, ..) => Ok(answer),
        })
    }

    /// A completion goes to whoever has the prompt or the template; a backend without completions
    /// has none to offer, which is no error.
    async fn complete(&self, view: &View, call: Box<Call>, waited: bool) -> Result<Reply> {
        let reference = call.message.in_params("ref").unwrap_or_default();
        let member = |name| {
            let text = json::member(reference, name).and_then(json::string)?;
            Some(text.into_owned())
        };
        let (route, of, unknown) = match member("type").as_deref() {
            Some("ref/prompt") => {
                let name = member("name").ok_or_else(|| Error::Params("`ref` wants a `name`".into()))?;
                let unknown = Error::UnknownPrompt(name.clone());
                (view.prompt(&name), (Method::PromptsGet, name), unknown)
            }
            Some("ref/resource") => {
                let uri = member("uri").ok_or_else(|| Error::Params("`ref` wants a `uri`".into()))?;
                // Up to 2025-11-25 too, a completion's unknown reference is an invalid parameter.
                let unknown = Error::Params(format!("there is no resource {uri:?}"));
                (view.resource(&uri), (Method::ResourcesRead, uri), unknown)
            }
            _ => return Err(Error::Params("`ref` must be of the type ref/prompt or ref/resource".into())),
        };
        let Some(route) = route else {
            return self.clone().not_known_yet(call, waited, of, unknown).await;
        };
        if !route.free {
            let kind = if of.0 == Method::PromptsGet { Kind::Prompt } else { Kind::Template };
            view.admit(kind, &of.1, &route, &view::completed(&call.message))?;
        }
        let offer = route.upstream.backend.offer();
        let completes = offer.is_none_or(|offer| {
            let text = offer.capabilities.as_bytes();
            // Revision 2024-11-05 had the method before there was a capability to declare.
            offer.revision == Revision::V2024_11_05 || json::member(text, "completions").is_some()
        });
        if !completes {
            let nothing = match call.client.revision.era() {
                Era::Legacy => "{\"completion\":{\"values\":[]}}".to_owned(),
                Era::Modern => format!(
                    "{{\"resultType\":\"complete\",\"completion\":{{\"values\":[]}},\"_meta\":{{\"{}\":{}}}}}",
                    crate::wire::mcp::meta::SERVER_INFO,
                    INTRODUCTION
                ),
            };
            return Ok(Reply::Whole(Answer::Result(nothing.into())));
        }
        self.forward(route, call, view).await
    }

    fn list(&self, view: &View, list: List, call: &Call) -> Result<Answer> {
        let after = match call.message.in_params("cursor") {
            None | Some(b"null") => None,
            Some(cursor) => {
                let cursor =
                    json::string(cursor).ok_or_else(|| Error::Params("`cursor` must be a text".into()))?;
                let read = self.0.cursors.read(&cursor, list, &call.scope, &call.caller);
                Some(read.ok_or(Error::Cursor)?)
            }
        };
        let era = call.client.revision.era();
        let cursor = |last: &str| self.0.cursors.after(last, list, &call.scope, &call.caller);
        let page = view.listing(list, era).page(list, era, after.as_deref(), self.0.page_size, cursor);
        Ok(Answer::Result(page))
    }

    fn discover(&self, view: &View) -> Answer {
        let mut text = format!("{{{}", view::head_of_modern());
        text.push_str(&format!("\"supportedVersions\":[\"{}\"],", Revision::NEWEST));
        text.push_str(&introduction(view, Revision::NEWEST));
        text.push('}');
        Answer::Result(Bytes::from(text))
    }
}

/// The answer to `initialize`. The revision was agreed on before.
fn initialize(view: &View, call: &Call) -> Answer {
    let revision = call.client.revision;
    let text = format!(
        "{{\"protocolVersion\":\"{revision}\",\"serverInfo\":{},{}}}",
        INTRODUCTION,
        introduction(view, revision)
    );
    Answer::Result(Bytes::from(text))
}

/// What a client is told before it asks for anything, as members of an object.
///
/// Everything is declared, whatever backends there are just now: a client of the legacy era
/// hears of capabilities once, and an empty list is no lie.
fn introduction(view: &View, revision: Revision) -> String {
    let mut capabilities = json!({
        "tools": { "listChanged": true },
        "prompts": { "listChanged": true },
        "resources": { "listChanged": true, "subscribe": true },
        "completions": {},
        "logging": {},
    });
    let mut extensions = view.extensions();
    if revision.era() == Era::Modern {
        extensions.insert(extension::TASKS.to_owned(), json!({}));
    } else if revision == Revision::V2025_11_25 {
        let calls = json!({ "tools": { "call": {} } });
        capabilities["tasks"] = json!({ "list": {}, "cancel": {}, "requests": calls });
    }
    if !extensions.is_empty() {
        capabilities["extensions"] = extensions.into();
    }
    let mut text = format!("\"capabilities\":{capabilities}");
    if !view.instructions.is_empty() {
        text.push_str(&format!(",\"instructions\":{}", json::quoted(&view.instructions)));
    }
    text
}

fn bound<'a>(
    caller: &'a Caller,
    backend: &'a str,
    method: Method,
    target: &'a str,
    message: &'a Message,
) -> Bound<'a> {
    let arguments = message.in_params("arguments").unwrap_or_default();
    Bound { caller, backend, method, target, arguments }
}

/// A text that must be among the parameters.
fn text_param<'a>(call: &'a Call, name: &str) -> Result<Cow<'a, str>> {
    let value = call.message.in_params(name).and_then(json::string);
    let missing = || Error::Params(format!("{} wants the parameter `{name}`, a text", call.method.name()));
    value.ok_or_else(missing)
}

/// Do the headers that repeat arguments say what the arguments do (revision 2026-07-28)?
fn repeated_rightly(route: &Route, call: &Call) -> Result<()> {
    let Some(headers) = &call.mirrored else { return Ok(()) };
    let arguments = call.message.in_params("arguments").unwrap_or_default();
    for mirrored in &*route.mirrored {
        let header = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(&mirrored.header));
        if !mirrored.agrees(arguments, header.map(|(_, value)| value.as_str())) {
            let (name, path) = (&mirrored.header, mirrored.path.join("."));
            return Err(Error::Header(format!(
                "the header Mcp-Param-{name} must be there and say what the argument {path:?} does"
            )));
        }
    }
    Ok(())
}

impl Service<Call> for Router {
    type Response = Reply;
    type Error = Error;
    type Future = Replying;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Box::pin(self.clone().route(Box::new(call), false))
    }
}
