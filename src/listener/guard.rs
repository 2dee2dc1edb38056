//! Who sends a request, and what is answered if that is not known?
//!
//! Where identity is configured, every request says it anew, and nothing is looked at before: not
//! the body, and no session. A client without a good token is told where to get one. (RFC 6750;
//! 2026-07-28 "Authorization".)

use std::{net::SocketAddr, sync::Arc};

use arc_swap::ArcSwapOption;
use http::{HeaderValue, Response, StatusCode, header, request::Parts};
use serde_json::Value;

use super::{
    body::{self, Body},
    resource::{About, ENDPOINT, Resource},
};
use crate::{
    call::{Caller, Denied, Identify, Proof},
    weaken,
};

/// Beside an answer: all scopes that were needed.
#[derive(Debug, Clone)]
pub struct Scopes(pub Arc<[String]>);

/// Lets requests in, each as somebody's.
#[derive(Debug, Clone)]
pub struct Guard(Arc<ArcSwapOption<Inner>>);

/// By what requests are let in, where identity is configured.
#[derive(Debug)]
pub struct Inner {
    identify: Arc<dyn Identify>,
    audience: String,
    /// Nothing is said of it where nobody issues tokens, or no address is known.
    resource: Option<Resource>,
    /// Requests without a token come in.
    strangers: bool,
}

impl Inner {
    /// `audience` is what tokens are issued for.
    pub fn new(identify: Arc<dyn Identify>, audience: &str, about: About, strangers: bool) -> Self {
        Self { identify, audience: audience.to_owned(), resource: Resource::new(about), strangers }
    }

    /// Was a caller's token issued for this place? That it was issued for the gateway, or for some
    /// part of it, has been looked at before.
    fn is_for(&self, caller: &Caller, backend: Option<&str>) -> bool {
        let Caller::Known(identity) = caller else { return true };
        if weaken::is("guard-part") {
            return true;
        }
        let here = |audience: &str| {
            let part = audience.strip_prefix(&self.audience).and_then(|rest| rest.strip_prefix('/'));
            let has_parts = self.audience.ends_with(ENDPOINT);
            audience == self.audience || (has_parts && part.is_some() && part == backend)
        };
        match identity.claims.get("aud") {
            Some(Value::String(one)) => here(one),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).any(here),
            _ => true, // Known by something else than a token for an audience.
        }
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

    /// Whose this request is; at the endpoint of one backend, if that is named. Without identity,
    /// whoever can reach a loopback address may do what the gateway's owner may.
    pub async fn who(&self, parts: &Parts, backend: Option<&str>) -> Result<Caller, Denied> {
        let inner = self.0.load();
        let Some(inner) = inner.as_ref().filter(|_| !weaken::is("defaults-open")) else {
            return Ok(Caller::Local);
        };
        let mut tokens = parts.headers.get_all(header::AUTHORIZATION).iter();
        let token = match (tokens.next(), tokens.next()) {
            (Some(_), Some(_)) => return Err(Denied::Invalid),
            (first, _) => first.map(HeaderValue::as_bytes),
        };
        let peer = parts.extensions.get::<SocketAddr>().map(SocketAddr::ip);
        let caller = match (inner.identify.known(token, peer), token) {
            (Some(known), _) => known,
            (None, Some(token)) => inner.identify.ask(token).await,
            (None, None) => Err(Denied::Missing),
        };
        if weaken::is("identify-fallthrough") {
            return caller.or(Ok(Caller::Local));
        }
        let caller = caller?;
        if inner.is_for(&caller, backend) { Ok(caller) } else { Err(Denied::Invalid) }
    }

    /// Whose a token is, for whoever may ask about others.
    pub async fn whose(&self, authorization: &[u8]) -> Result<Caller, Denied> {
        let inner = self.0.load_full().ok_or(Denied::Invalid)?;
        match inner.identify.known(Some(authorization), None) {
            Some(known) => known,
            None => inner.identify.ask(authorization).await,
        }
    }

    /// The token of a request that was let in with one.
    pub fn proof(&self, parts: &Parts) -> Option<Arc<Proof>> {
        self.0.load().as_ref()?;
        let token = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?.1;
        Some(Arc::new(Proof(token.trim().to_owned())))
    }

    /// What the gateway says of itself as a protected resource, or of the endpoint with this path;
    /// nothing where there is none.
    pub fn metadata(&self, path: &str) -> Option<Response<Body>> {
        let document = self.0.load().as_ref()?.resource.as_ref()?.document(path)?;
        Some(body::json(200, document.to_string()))
    }

    /// Where clients that know no metadata of resources find who issues tokens: they ask the
    /// gateway, as if it did. (2025-03-26 "Authorization", "Metadata discovery".)
    pub fn authorization_server(&self) -> Option<Response<Body>> {
        let place = self.0.load().as_ref()?.resource.as_ref()?.authorization_server()?;
        let mut response = body::empty(StatusCode::FOUND);
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_str(&place).ok()?);
        Some(response)
    }

    /// Says to a client whose token has too few scopes which it needs, if that is what the answer is.
    /// `part` is the endpoint that it was at, if not the gateway's own.
    pub fn stepped_up(&self, part: Option<&str>, mut response: Response<Body>) -> Response<Body> {
        let Some(Scopes(scopes)) = response.extensions_mut().remove() else { return response };
        let mut parts =
            vec!["error=\"insufficient_scope\"".to_owned(), format!("scope=\"{}\"", scopes.join(" "))];
        if let Some(resource) = self.0.load().as_ref().and_then(|inner| inner.resource.as_ref()) {
            parts.push(resource.place(part));
        }
        parts.push("error_description=\"this needs a token with more scopes\"".to_owned());
        if let Ok(challenge) = HeaderValue::from_str(&format!("Bearer {}", parts.join(", "))) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }

    /// The answer to a request that is not let in. It says nothing about why a token is not good.
    pub fn denied(&self, why: Denied, backend: Option<&str>) -> Response<Body> {
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
        if let Some(resource) = self.0.load().as_ref().and_then(|inner| inner.resource.as_ref()) {
            parts.extend(resource.challenge(backend));
        }
        let challenge = format!("Bearer {}", parts.join(", "));
        let mut response = body::plain(StatusCode::UNAUTHORIZED, text);
        if let Ok(challenge) = HeaderValue::from_str(challenge.trim_end()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
