//! Whom is a call answered for?

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// Whom a call is answered for. Verified on the very request; there is no value for nobody.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Caller {
    /// Someone who can reach the loopback address or the standard input, which is all the
    /// proof there is while no identity is configured.
    Local,
    /// The gateway itself, asking for what a backend offers.
    Gateway,
    /// Whoever a token says it is.
    Known(Arc<Identity>),
    /// Somebody without a token, where strangers are let in: known by their address.
    Stranger(IpAddr),
}

/// Who a token says its bearer is. Two with the same issuer and subject are the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Identity {
    pub issuer: String,
    pub subject: String,
    pub groups: Vec<String>,
    pub scopes: Vec<String>,
    /// All that the token says, for rules.
    #[serde(default)]
    pub claims: serde_json::Map<String, serde_json::Value>,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.subject == other.subject && self.issuer == other.issuer
    }
}

impl Eq for Identity {}

impl Hash for Identity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Seldom have two issuers the same subject, and who is whose is said by `eq`.
        self.subject.hash(state);
    }
}

impl Caller {
    /// A text that is this caller's and no other's, to bind handles to.
    pub fn name(&self) -> String {
        match self {
            Self::Local => "local".to_owned(),
            Self::Gateway => "gateway".to_owned(),
            Self::Known(identity) => format!("known {:?} {:?}", identity.issuer, identity.subject),
            Self::Stranger(address) => format!("stranger {address}"),
        }
    }
}

/// The token with which a caller came. It is for the gateway alone, and kept as long as a call that
/// came with it: an issuer may exchange it for another.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof(pub String);

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}
