//! With what does the gateway prove itself to a server?
//!
//! Each backend has one source and no other: the headers that are written in its table, or one of
//! the grants of OAuth in `[backends.NAME.auth]`. A caller's own token is never sent to a server:
//! it was made for the gateway. What a server answers when it takes no proof (401, 403 and their
//! challenges) ends here, too: a client that saw it would fetch a token for the wrong door.

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;
use http::HeaderValue;
use rmcp::transport::auth::WWWAuthenticateParams;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

mod account; //  what one caller has at one server
mod address; //  who may be connected to
mod desk; //     where callers connect their accounts
mod door; //     one server, seen by all its callers
pub mod egress; // where servers lead the gateway
mod exchange; // a caller's token against another
mod flow; //     from consent to token
mod machine; //  the gateway's own account
mod token; //    from whom it is known
mod vault; //    tokens at rest

pub use desk::{Desk, Settings as DeskSettings};
pub use door::{Asker, Door, asks_to_visit};

use super::transport::{Kind, Trouble};
use crate::settings::Text;
use flow::{Secret, Terms};

/// `[backends.NAME.auth]`: how the gateway gets tokens for the server at `url`, if that server
/// wants OAuth. Without this table only `headers` are sent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Whose account is used, and how it is come by.
    pub grant: Grant,
    /// Who gives the tokens, as the authorization server calls itself. A server that names somebody
    /// else is refused. Must be there where `client_id` is, so that no other gets to see the secret.
    pub issuer: Option<String>,
    /// As what the gateway is registered with the issuer. Or the `https` address of a document that
    /// says so (Client ID Metadata Document), if it is not to be the gateway's own.
    pub client_id: Option<String>,
    /// The secret that belongs to `client_id`.
    pub client_secret: Option<Text>,
    /// In its place, for "client-credentials": a private key as PEM, with which the gateway signs
    /// (`private_key_jwt`; RSA with RS256, or P-256 with ES256).
    pub private_key: Option<Text>,
    /// What is asked for beside what the server itself says it needs.
    pub scopes: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// Each caller connects an account of their own, with a browser.
    #[default]
    AuthorizationCode,
    /// The gateway has an account, which all callers use.
    ClientCredentials,
    /// The token with which a caller came is exchanged at the issuer for one that is for the server
    /// (RFC 8693).
    TokenExchange,
}

impl Settings {
    /// All that does not make sense, with what would be right.
    pub fn faults(&self) -> Vec<(&'static str, String, &'static str)> {
        let Self { grant, issuer, client_id, client_secret, private_key, scopes: _ } = self;
        let mut faults = Vec::new();
        let mut fault = |key, what: &str, instead| faults.push((key, what.to_owned(), instead));
        if issuer.as_ref().is_some_and(|issuer| Url::parse(issuer).is_err()) {
            fault(
                "issuer",
                "is no address",
                "write the issuer to the letter, such as \"https://login.example.com\"",
            );
        }
        let is_document = client_id.as_deref().is_some_and(flow::is_document);
        if client_id.is_some() && issuer.is_none() && !is_document {
            let instead = "write issuer = \"https://…\", as the authorization server calls itself";
            fault(
                "issuer",
                "is missing, so any server could have itself shown the secret of `client_id`",
                instead,
            );
        }
        let proof = client_secret.is_some() || private_key.is_some();
        if proof && client_id.is_none() {
            fault("client_id", "is missing, to which the secret belongs", "write client_id = \"…\"");
        }
        if is_document && client_secret.is_some() {
            fault("client_secret", "is none that such a client could have", "leave it out");
        }
        if client_secret.is_some() && private_key.is_some() {
            fault(
                "private_key",
                "stands beside `client_secret`, and there is one proof",
                "leave one of them out",
            );
        }
        let needs_client = *grant != Grant::AuthorizationCode;
        if needs_client && (client_id.is_none() || is_document) {
            let instead = "register the gateway with the issuer and write client_id = \"…\"";
            fault("client_id", "is missing: this grant has no use for a client that nobody knows", instead);
        }
        if *grant == Grant::ClientCredentials && !proof {
            let instead = "write client_secret = { env = \"NAME\" }";
            fault("client_secret", "is missing, with which the gateway gets its token", instead);
        }
        if *grant != Grant::ClientCredentials && private_key.is_some() {
            let instead = "write client_secret instead";
            fault("private_key", "is for grant = \"client-credentials\" alone", instead);
        }
        faults
    }

    /// With the secrets put in.
    fn terms(&self, server: &Url, desk: &Desk) -> Result<Terms, String> {
        let Self { grant: _, issuer, client_id, client_secret, private_key: _, scopes } = self;
        let secret = client_secret.as_ref().map(Text::resolve).transpose()?;
        let mut egress = desk.egress().around(server);
        if let Some(issuer) = issuer.as_ref().and_then(|issuer| Url::parse(issuer).ok()) {
            egress = egress.with(&issuer); // The operator has written it.
        }
        Ok(Terms {
            server: server.clone(),
            egress,
            issuer: issuer.clone(),
            client_id: client_id.clone(),
            client_secret: secret.map(|resolved| Secret(resolved.text)),
            scopes: scopes.clone(),
        })
    }
}

/// What requests to a server are proved with.
pub trait Credential: fmt::Debug + Send + Sync + 'static {
    /// The `Authorization` of the next request; none if there is none, which some servers take.
    fn proof(&self) -> BoxFuture<'_, Result<Option<HeaderValue>, Trouble>>;

    /// What comes of a refusal: another attempt is worth it, or this is why not.
    fn refused<'a>(&'a self, refusal: &'a Refusal) -> BoxFuture<'a, Result<(), Trouble>>;

    /// Another number whenever it is another's, or was consented to anew: then a session that was
    /// begun before is somebody else's.
    fn edition(&self) -> u64;
}

/// A server takes no proof, or not this one.
#[derive(Debug)]
pub struct Refusal {
    pub status: u16,
    pub sent: Option<HeaderValue>,
    /// What it wants instead (`WWW-Authenticate`).
    pub challenge: Option<String>,
    /// This was the second attempt.
    pub again: bool,
}

impl Refusal {
    /// The scopes that the server wants for what was asked of it, where that is all it wants.
    fn wants(&self, server: &Url) -> Option<Vec<String>> {
        let said = WWWAuthenticateParams::parse(self.challenge.as_deref()?, server);
        let scopes = said.scope.as_deref().unwrap_or_default().split_whitespace();
        (self.status == 403 && said.is_insufficient_scope()).then(|| scopes.map(str::to_owned).collect())
    }

    /// That the server does not take what there is.
    fn trouble(&self, whose: &str) -> Trouble {
        Trouble::new(
            Kind::Status(self.status),
            format!("answered HTTP {}: it does not take {whose}", self.status),
        )
    }
}

/// A credential's `Authorization`.
fn bearer(token: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "the token has letters that no header may have".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// A server that wants OAuth, and what the gateway has for it.
#[derive(Debug, Clone)]
pub enum Source {
    /// One proof for all.
    Gateway(Arc<dyn Credential>),
    /// One for each caller.
    Callers(Arc<Door>),
}

impl Source {
    pub fn new(name: &str, server: &Url, settings: &Settings, desk: &Arc<Desk>) -> Result<Self, String> {
        if let Some((key, what, instead)) = settings.faults().into_iter().next() {
            return Err(format!("auth.{key} {what}; {instead}"));
        }
        let terms = settings.terms(server, desk)?;
        Ok(match settings.grant {
            Grant::ClientCredentials => {
                let key = settings.private_key.as_ref().map(Text::resolve).transpose()?;
                Self::Gateway(Arc::new(machine::Machine::new(terms, key.map(|key| Secret(key.text)))?))
            }
            Grant::AuthorizationCode | Grant::TokenExchange => {
                let exchanged = settings.grant == Grant::TokenExchange;
                Self::Callers(Door::new(name, terms, exchanged, desk))
            }
        })
    }
}
