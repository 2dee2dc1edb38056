//! What must be known of a session to go on with it after a restart?
//!
//! Clients of the legacy era say once who they are. That, and what they asked for since, is
//! noted whenever it changes, so that a gateway that was killed and started again knows them
//! still. Their streams are noted too (`kept.rs`). What was under way is lost, and the client is
//! told so.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::kept::Note;
use crate::{
    call::{Caller, Client, Scope},
    wire::{
        capability::Capabilities,
        mcp::{Era, Level, Revision},
    },
};

/// Takes what is to be kept.
#[derive(Debug, Clone)]
pub struct Journal {
    sessions: mpsc::UnboundedSender<(String, Option<Record>)>,
    streams: mpsc::UnboundedSender<Note>,
}

/// What has been noted and is to be kept: the ids of sessions, with their records while there
/// are any, and what is new of streams.
#[derive(Debug)]
pub struct Noted {
    pub sessions: mpsc::UnboundedReceiver<(String, Option<Record>)>,
    pub streams: mpsc::UnboundedReceiver<Note>,
}

pub fn journal() -> (Journal, Noted) {
    let (sessions, noted_sessions) = mpsc::unbounded_channel();
    let (streams, noted_streams) = mpsc::unbounded_channel();
    (Journal { sessions, streams }, Noted { sessions: noted_sessions, streams: noted_streams })
}

impl Journal {
    pub fn session(&self, id: String, record: Option<Record>) {
        let _ = self.sessions.send((id, record)); // Fails when the gateway ends.
    }

    pub fn stream(&self, note: Note) {
        let _ = self.streams.send(note); // Fails when the gateway ends.
    }
}

/// A session in a form that can be kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Record {
    pub caller: Caller,
    /// The backend or the set, at an endpoint of one.
    endpoint: Option<String>,
    revision: String,
    /// JSON texts.
    capabilities: String,
    info: String,
    level: Option<String>,
    /// Resources that are watched.
    pub watched: Vec<String>,
}

impl Record {
    pub fn new(
        caller: Caller,
        scope: &Scope,
        client: &Client,
        level: Option<Level>,
        watched: Vec<String>,
    ) -> Self {
        Self {
            caller,
            endpoint: scope.endpoint(),
            revision: client.revision.to_string(),
            capabilities: client.capabilities.json(),
            info: String::from_utf8_lossy(&client.info).into_owned(),
            level: level.map(|level| level.name().to_owned()),
            watched,
        }
    }

    pub fn scope(&self) -> Scope {
        Scope::at(self.endpoint.as_deref())
    }

    pub fn level(&self) -> Option<Level> {
        self.level.as_deref().and_then(Level::parse)
    }

    /// The client, if it is one that has sessions.
    pub fn client(&self) -> Option<Client> {
        let revision = Revision::parse(&self.revision).filter(|revision| revision.era() == Era::Legacy)?;
        let capabilities = Capabilities::of(self.capabilities.as_bytes(), revision);
        Some(Client { revision, capabilities, info: self.info.clone().into() })
    }
}
