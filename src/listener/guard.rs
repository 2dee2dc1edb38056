//! Who sends a request, and what is answered if that is not known?
//!
//! Where identity is configured, every request says it anew, and nothing is looked at before: not
//! the body, and no session. A client without a good token is told where to get one. (RFC 6750;
//! RFC 9728; 2026-07-28 "Authorization", "Protected resource metadata".)

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwapOption;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use serde_json::json;

use super::body::{self, Body};
use crate::call::{Caller, Denied, Identify, Proof};

/// Where clients look for what a protected resource says of itself.
pub const METADATA: &str = "/.well-known/oauth-protected-resource";

/// Lets requests in, each as somebody's.
#[derive(Debug, Clone)]
pub struct Guard(Arc<ArcSwapOption<Inner>>);

/// By what requests are let in, where identity is configured.
#[derive(Debug)]
pub struct Inner {
    identify: Arc<dyn Identify>,
    metadata: Option<String>,
    /// Where the metadata is, for clients without a token.
    at: Option<String>,
    /// Requests without a token come in.
    strangers: bool,
}

impl Inner {
    /// `resource` is the address that clients use for the gateway, and `issuers` give tokens for it.
    pub fn new(identify: Arc<dyn Identify>, resource: &str, issuers: &[String], strangers: bool) -> Self {
        let document = json!({
            "resource": resource,
            "authorization_servers": issuers,
            "bearer_methods_supported": ["header"],
        });
        let at = resource.parse::<http::Uri>().ok().filter(|_| !issuers.is_empty()).and_then(|uri| {
            let path = uri.path().trim_end_matches('/');
            Some(format!("{}://{}{METADATA}{path}", uri.scheme_str()?, uri.authority()?))
        });
        let metadata = (!issuers.is_empty()).then(|| document.to_string());
        Self { identify, metadata, at, strangers }
    }
}

impl Guard {
    /// Without anything, whoever can reach the gateway comes in.
    pub fn new(inner: Option<Inner>) -> Self {
        Self(Arc::new(ArcSwapOption::from_pointee(inner)))
    }

    /// Lets the next request in, or not, by something else.
    pub fn replace(&self, inner: Option<Inner>) {
        self.0.store(inner.map(Arc::new));
    }

    /// Must a request have its sender's address?
    pub fn lets_strangers_in(&self) -> bool {
        self.0.load().as_ref().is_some_and(|inner| inner.strangers)
    }

    /// Whose request this is. Without identity, whoever can reach a loopback address may do what
    /// the gateway's owner may.
    pub async fn who(&self, parts: &Parts) -> Result<Caller, Denied> {
        let inner = self.0.load();
        let Some(inner) = &*inner else { return Ok(Caller::Local) };
        let mut tokens = parts.headers.get_all(header::AUTHORIZATION).iter();
        let token = match (tokens.next(), tokens.next()) {
            (Some(_), Some(_)) => return Err(Denied::Invalid),
            (first, _) => first.map(HeaderValue::as_bytes),
        };
        let peer = parts.extensions.get::<SocketAddr>().map(SocketAddr::ip);
        match (inner.identify.known(token, peer), token) {
            (Some(known), _) => known,
            (None, Some(token)) => inner.identify.ask(token).await,
            (None, None) => Err(Denied::Missing),
        }
    }

    /// The token of a request that was let in with one.
    pub fn proof(&self, parts: &Parts) -> Option<Arc<Proof>> {
        self.0.load().as_ref()?;
        let token = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?.1;
        Some(Arc::new(Proof(token.trim().to_owned())))
    }

    /// What the gateway says of itself as a protected resource; nothing where it is none.
    pub fn metadata(&self) -> Option<Response<Body>> {
        let metadata = self.0.load().as_ref()?.metadata.clone()?;
        Some(body::json(200, metadata.into_bytes()))
    }

    /// The answer to a request that is not let in. It says nothing about why a token is not good.
    pub fn denied(&self, why: Denied) -> Response<Body> {
        let text = match why {
            Denied::Missing => {
                "This gateway wants to know who asks: send Authorization: Bearer with a token for it."
            }
            Denied::Invalid => "The token is not one that this gateway takes. Ask its issuer for another.",
            Denied::Unavailable => "Tokens cannot be looked at just now. Try again later.",
        };
        if why == Denied::Unavailable {
            let mut response = body::plain(StatusCode::SERVICE_UNAVAILABLE, text);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
            return response;
        }
        let mut parts = Vec::new();
        if why == Denied::Invalid {
            parts.push("error=\"invalid_token\"".to_owned());
        }
        if let Some(at) = self.0.load().as_ref().and_then(|inner| inner.at.clone()) {
            parts.push(format!("resource_metadata=\"{at}\""));
        }
        let challenge = format!("Bearer {}", parts.join(", "));
        let mut response = body::plain(StatusCode::UNAUTHORIZED, text);
        if let Ok(challenge) = HeaderValue::from_str(challenge.trim_end()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
