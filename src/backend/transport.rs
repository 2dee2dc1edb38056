//! What must a connection to an MCP server be able to do, whatever it is made of?
//!
//! Send a request and give back what belongs to it, send a notification, and hand everything
//! else to the [`Inbox`]. Eras, handshakes and retries are [`super::server`]'s; a transport
//! only carries texts.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};

use crate::{
    error::{Error, Fate},
    wire::{
        mcp::{Era, Method, Revision},
        message::Message,
    },
};

/// Makes connections.
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// A new connection, on which nothing has been said yet. Must not outlast `connect` by a
    /// process or task of its own if its future is dropped.
    fn connect(&self, inbox: Inbox) -> BoxFuture<'_, Result<Arc<dyn Transport>, Trouble>>;

    /// May a server stop working when it is asked before the handshake, so that the question
    /// of its era needs a connection of its own?
    fn probe_apart(&self) -> bool;

    /// What the other side has last said beside the protocol, where there is such a place: the
    /// best explanation there is of one that does not answer.
    fn last_words(&self) -> Option<String> {
        None
    }

    /// The only era this kind of connection is made for, where there is one.
    fn only(&self) -> Option<Era> {
        None
    }
}

/// A connection to a server.
pub trait Transport: fmt::Debug + Send + Sync + 'static {
    /// Sends a request and waits for the first message that belongs to it.
    ///
    /// Dropping the future, or the stream it gave, ends our interest: what still comes for the
    /// id is discarded. Telling the server is the caller's business.
    fn request(&self, request: Outgoing) -> BoxFuture<'static, Result<Incoming, Trouble>>;

    /// Sends a notification, or a response to a request of the server's.
    fn notify(&self, text: Bytes) -> BoxFuture<'static, Result<(), Trouble>>;

    /// How the handshake ended: called once, before any other request. HTTP repeats it in
    /// headers and opens its event stream; pipes need not know.
    fn settled(&self, _agreed: &Agreed) {}

    /// Is the connection still of use? None if so, else what ended it.
    fn lost(&self) -> Option<Trouble>;

    /// Does the end of a request's stream tell the server that the call is cancelled?
    fn cancels_by_closing(&self, _era: Era) -> bool {
        false
    }

    /// Does a request from the server come with the request of ours that caused it? If not, the
    /// only way to know is to have one at a time.
    fn tells_origin(&self) -> bool {
        false
    }

    /// Does the server remember anything between two requests that another connection would not have?
    fn keeps_state(&self) -> bool {
        true
    }

    /// Can a question of the server's still be told apart, where one call at a time is to do that?
    fn takes_questions(&self) -> bool {
        true
    }

    /// Ends the connection in good order: the session is deleted, the child asked to leave.
    fn close(&self) -> BoxFuture<'static, ()>;
}

/// What a handshake settled.
#[derive(Debug, Clone, Copy)]
pub struct Agreed {
    pub revision: Revision,
    /// The server was told that it may ask something.
    pub may_ask: bool,
}

/// A request, ready to send.
#[derive(Debug)]
pub struct Outgoing {
    /// The id in the text: unique on the connection, and never used again.
    pub id: u64,
    pub method: Method,
    /// The revision whose headers go with it. Modern requests always name theirs; legacy ones
    /// go by what the handshake settled.
    pub revision: Option<Revision>,
    /// What the backend calls the target, for the `Mcp-Name` header.
    pub target: Option<Arc<str>>,
    /// Arguments to be repeated in `Mcp-Param-…` headers: name without that prefix, and value.
    pub mirrored: Vec<(String, String)>,
    pub text: Bytes,
}

/// What came back for a request.
pub enum Incoming {
    /// The response, and nothing before it.
    Whole(Message),
    /// Requests and notifications that belong to the request, then the response as the last
    /// item. A stream that ends without a response was cut off.
    Stream(BoxStream<'static, Result<Message, Trouble>>),
}

/// Takes a message that belongs to no request of ours: a change of a list, a question.
pub type Inbox = Arc<dyn Fn(Message) + Send + Sync>;

/// Why a backend could not be asked, or what it said was no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct Trouble {
    pub kind: Kind,
    /// For the caller: names no address and no secret.
    pub why: String,
    /// Where the caller has to go first.
    pub page: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing of the request reached the server, so it may be sent again.
    NotSent,
    /// The request may have been processed.
    Lost,
    /// The server does not know our session any more, and did not look at the request.
    SessionLost,
    /// The server said something that is no answer.
    Rubbish,
    /// Other calls take what this one needs.
    Busy,
    /// The caller has to agree to something first.
    Consent,
    /// The HTTP status of a refusal without a JSON-RPC body.
    Status(u16),
}

impl Kind {
    fn fate(self) -> Fate {
        match self {
            Self::NotSent | Self::SessionLost => Fate::NotSent,
            Self::Lost | Self::Status(429 | 500..) => Fate::Unknown,
            Self::Rubbish | Self::Busy | Self::Consent | Self::Status(_) => Fate::Answered,
        }
    }

    /// Is nothing of the request under way any more?
    pub fn is_over(self) -> bool {
        match self {
            Self::NotSent | Self::SessionLost | Self::Consent | Self::Status(_) => true,
            Self::Lost | Self::Rubbish | Self::Busy => false,
        }
    }
}

impl Trouble {
    pub fn new(kind: Kind, why: impl Into<String>) -> Self {
        Self { kind, why: why.into(), page: None }
    }

    /// The caller has to agree first, on this page.
    pub fn consent(page: String) -> Self {
        Self { page: Some(page.into()), ..Self::new(Kind::Consent, "it wants its user's consent first") }
    }

    /// Why a call has no answer, for its caller, who has to know whether to make it again.
    pub fn error(&self, backend: &str) -> Error {
        let why = match self.kind {
            Kind::Busy => return Error::Busy(format!("backend {backend}: {self}")),
            Kind::NotSent | Kind::SessionLost => format!("the call did not reach it: {self}"),
            Kind::Lost => format!("the call may have run: {self}"),
            Kind::Consent => {
                let page = self.page.as_deref().unwrap_or_default().to_owned();
                return Error::Consent { backend: backend.to_owned(), page };
            }
            Kind::Rubbish | Kind::Status(_) => self.why.clone(),
        };
        Error::Backend { backend: backend.to_owned(), why, fate: self.kind.fate() }
    }
}
