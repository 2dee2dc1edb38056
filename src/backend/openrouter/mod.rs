//! How does the gateway speak with models itself?
//!
//! A backend like any other, in the same process: its tools reach the models of OpenRouter, or a
//! simulator of it, and keep conversations that last. Identity, permissions, limits and the audit
//! trail apply to it as to every other.
//!
//! [`upstream`] sends one request once and tells truthfully what came of it. [`policy`] is the one
//! layer that sends again. [`catalog`], [`context`], [`media`] and [`money`] are what a request is
//! made and judged by. None of these knows MCP or the store. [`ask`] puts them together for one
//! question, `turn` for one message of a conversation, and `tools` says what callers see of it.

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use futures_util::future::BoxFuture;
use tokio::sync::OnceCell;

use super::{Ask, Backend, Notice, Notices, Offer, State, Status};
use crate::{
    call::{Answer, Call, Caller, Reply},
    error::{Error, Result},
    store::{
        Store,
        conversations::{ConversationId, Owned, Principal},
    },
    wire::{
        json,
        mcp::{Era, INTRODUCTION, Method, Revision},
        message::Message,
    },
};

mod ask; //        one question to a model, before and after
mod bench; //      what models were measured at
mod catalog; //    which models there are
mod consent; //    may a call cost so much?
mod completions; // what a name may be the beginning of
mod context; //    what of a conversation fits into a model's window
mod form; //       is an answer of the form that was asked for
mod feed; //       what is heard of an answer while it is made
mod history; //    what is kept of a conversation, as a model is told it
mod learned; //    what was learned of models
mod line; //       who says something in a conversation next
mod media; //      may this picture, document or recording be sent?
mod money; //      dollars without rounding
mod policy; //     sending again, other models, limits
mod owed; //       what questions cost that nobody waits for
mod panel; //      several models at once
mod preferences; // a model of which only the kind is known
mod prompts; //    texts to begin with
mod refused; //    how callers are told that something was not done
mod resources; //  what can be read
pub mod sampling; // what servers ask of models
mod settings; //   what can be configured
mod summary; //    what was said before, in short
mod telling; //    what callers hear meanwhile
mod tools; //      what callers can do
mod turn; //       one message of a conversation and its answer
mod upstream; //   one request over HTTP, and what comes back
mod votes; //      what several answers come to
mod watched; //    who hears of changes
mod work; //       what all tools work with

pub use settings::Settings;
pub use upstream::Code;

use consent::Consent;
use settings::Resolved;
use telling::Teller;
use watched::Watched;
use work::Work;

/// Where the store will be found when the gateway has started.
pub type Storeroom = Arc<OnceLock<Store>>;

/// Models behind tools.
pub struct OpenRouter {
    name: Arc<str>,
    settings: Settings,
    resolved: Resolved,
    storeroom: Storeroom,
    notices: Notices,
    watched: Arc<Watched>,
    work: OnceCell<Arc<Work>>,
    offer: Arc<Offer>,
    /// The result of `tools/list`.
    listed: String,
    since: SystemTime,
}

impl std::fmt::Debug for OpenRouter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenRouter").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One call of a tool.
struct Task {
    pub work: Arc<Work>,
    /// What belongs to the caller.
    pub own: Arc<dyn Owned>,
    /// Tells callers apart where they wait for one another.
    pub who: String,
    /// May see what others have used.
    pub is_admin: bool,
    /// Came over standard input, so that it may name files of this machine.
    pub is_local: bool,
    pub consent: Consent,
    /// The trace it belongs to (W3C), if any.
    pub trace: Option<String>,
    pub tell: Teller,
}

impl OpenRouter {
    /// The backend that these settings describe, or all that is wrong with them. Connects nowhere.
    pub fn new(
        name: &str,
        settings: Settings,
        notices: Notices,
        storeroom: Storeroom,
    ) -> std::result::Result<Arc<Self>, String> {
        let resolved = settings.resolve().map_err(|faults| faults.join("; "))?;
        let instructions = settings.is_simulated().then(|| {
            "No api_key is configured: a simulator answers in place of the models, and every answer says so.".to_owned()
        });
        let offer = Offer {
            era: Era::Modern,
            revision: Revision::NEWEST,
            capabilities: r#"{"tools":{},"resources":{"subscribe":true},"prompts":{},"completions":{}}"#
                .to_owned(),
            server_info: INTRODUCTION.to_owned(),
            instructions,
        };
        Ok(Arc::new(Self {
            name: name.into(),
            listed: tools::list(&settings.packs),
            settings,
            resolved,
            storeroom,
            watched: Arc::new(Watched::new(Arc::clone(&notices))),
            notices,
            work: OnceCell::new(),
            offer: Arc::new(offer),
            since: SystemTime::now(),
        }))
    }

    async fn work(&self) -> Result<&Arc<Work>> {
        let opened = self.work.get_or_try_init(|| async {
            let store = self.storeroom.get().ok_or("the gateway has not started yet")?;
            let (name, settings) = (Arc::clone(&self.name), self.settings.clone());
            let watched = Arc::clone(&self.watched);
            let work = Work::open((name, watched), settings, self.resolved.clone(), store).await?;
            (self.notices)(Notice::Connected);
            Ok::<_, String>(work)
        });
        opened.await.map_err(|why| Error::backend(&*self.name, why))
    }

    async fn reply(&self, ask: Ask) -> Result<Reply> {
        let Ask { call, target, .. } = ask;
        let target = target.as_deref().unwrap_or_default();
        match call.method {
            Method::ToolsList => self.result(&self.listed),
            Method::ToolsCall => {
                let tool = tools::find(&self.settings.packs, target)
                    .ok_or_else(|| Error::UnknownTool(target.to_owned()))?;
                if call.given.as_ref().is_some_and(|given| given.task.is_some()) {
                    // It ended with the process that worked at it.
                    return Err(Error::Restarted);
                }
                let work = Arc::clone(self.work().await?);
                Ok(telling::reply(tool, work, &call))
            }
            Method::PromptsList => self.result(&prompts::list(&self.settings.packs)),
            Method::ResourcesList => self.result(&resources::list(&self.settings.packs)),
            Method::TemplatesList => self.result(&resources::templates(&self.settings.packs)),
            Method::ResourcesRead => {
                let read = resources::reply(&self.task(&call).await?, target).await?;
                self.result(&read)
            }
            Method::PromptsGet => {
                let got = prompts::get(&self.task(&call).await?, target, &call).await?;
                self.result(&got)
            }
            Method::Complete => {
                let completed = completions::complete(&self.task(&call).await?, &call).await?;
                self.result(&completed)
            }
            Method::Ping | Method::SetLevel => self.result("{}"),
            other => Err(Error::UnknownMethod(other.name().to_owned())),
        }
    }

    /// For what is answered at once, of which nothing is told meanwhile.
    async fn task(&self, call: &Call) -> Result<Task> {
        Ok(Task::new(Arc::clone(self.work().await?), call, Teller::deaf()))
    }

    fn result(&self, members: &str) -> Result<Reply> {
        let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{members}}}");
        Ok(Reply::Whole(answer(text)?))
    }
}

/// A response in words of the modern era, which are projected like any other backend's.
fn answer(text: String) -> Result<Answer> {
    let message = Message::parse(text.into(), &json::Limits::REPLY)?;
    Ok(Answer::Response { message, written_in: Era::Modern, wrapped: false })
}

impl Task {
    /// What others watch of this caller's conversation is not as it was.
    pub fn changed(&self, id: ConversationId) {
        self.work.watched.changed(&self.who, id);
    }

    pub fn new(work: Arc<Work>, call: &Call, tell: Teller) -> Self {
        let scopes = |scope: &str| match &call.caller {
            Caller::Known(identity) => identity.scopes.iter().any(|one| one == scope),
            Caller::Local | Caller::Gateway => true,
            Caller::Stranger(_) => false,
        };
        let principal =
            principal(&call.caller, work.settings.tenant_claim.as_deref(), scopes("conversations:share"));
        Self {
            own: work.conversations.of(&principal),
            work,
            who: call.caller.name(),
            is_admin: scopes("usage:admin"),
            is_local: call.caller == Caller::Local,
            trace: trace_of(call),
            consent: Consent::of(call.given.as_ref()),
            tell,
        }
    }
}

/// The id in a call's `traceparent`, however it came.
fn trace_of(call: &Call) -> Option<String> {
    const PARENT: &str = "traceparent";
    let said = call.message.in_params("_meta").and_then(|meta| json::member(meta, PARENT));
    let beside = call.trace.iter().flat_map(|trace| trace.missing_in(&call.message));
    let beside = beside.filter(|(name, _)| *name == PARENT).map(|(_, value)| value.as_bytes());
    let parent = json::string(said.or(beside.into_iter().next())?)?.into_owned();
    let id = parent.split('-').nth(1)?;
    let good = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| id.to_owned())
}

/// Whose conversations a caller has.
fn principal(caller: &Caller, tenant_claim: Option<&str>, reads_shared: bool) -> Principal {
    let (tenant, issuer, subject) = match caller {
        Caller::Known(identity) => {
            let tenant = tenant_claim.and_then(|claim| identity.claims.get(claim)?.as_str());
            (tenant.unwrap_or_default(), identity.issuer.as_str(), identity.subject.clone())
        }
        Caller::Local | Caller::Gateway => ("", "local", caller.name()),
        Caller::Stranger(address) => ("", "stranger", address.to_string()),
    };
    Principal { tenant: tenant.to_owned(), issuer: issuer.to_owned(), subject, reads_shared }
}

impl Backend for OpenRouter {
    fn answer(&self, ask: Ask) -> BoxFuture<'_, Result<Reply>> {
        Box::pin(self.reply(ask))
    }

    fn status(&self) -> Status {
        Status {
            state: State::Ready,
            transport: "built-in",
            revision: Some(Revision::NEWEST.to_string()),
            problem: None,
            connections: 0,
            replicas: Vec::new(),
            since: self.since,
        }
    }

    fn offer(&self) -> Option<Arc<Offer>> {
        Some(Arc::clone(&self.offer))
    }

    fn watch(&self, uris: BTreeSet<String>) {
        self.watched.watch(uris);
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Some(work) = self.work.get() {
                work.close().await;
            }
        })
    }
}
