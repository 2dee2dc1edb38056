//! What must be known of a session to go on with it after a restart?
//!
//! Clients of the legacy era say once who they are. That, and what they asked for since, is
//! noted whenever it changes, so that a gateway that was killed and started again knows them
//! still. What was under way is lost, and the client learns that from its broken connection.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::{
    call::{Client, Scope},
    wire::{
        capability::Capabilities,
        mcp::{Era, Level, Revision},
    },
};

/// Takes what is to be kept: the id of a session, and its record while there is one.
pub type Journal = mpsc::UnboundedSender<(String, Option<Record>)>;

/// A session in a form that can be kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Record {
    /// The backend, at an endpoint of one.
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
    pub fn new(scope: &Scope, client: &Client, level: Option<Level>, watched: Vec<String>) -> Self {
        Self {
            endpoint: match scope {
                Scope::All => None,
                Scope::One(backend) => Some(backend.to_string()),
            },
            revision: client.revision.to_string(),
            capabilities: client.capabilities.json(),
            info: String::from_utf8_lossy(&client.info).into_owned(),
            level: level.map(|level| level.name().to_owned()),
            watched,
        }
    }

    pub fn scope(&self) -> Scope {
        self.endpoint.as_deref().map_or(Scope::All, |backend| Scope::One(backend.into()))
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
