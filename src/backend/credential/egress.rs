//! Where does the gateway go when a server tells it to?
//!
//! A server names who gives tokens for it, and that one names where tokens are fetched: addresses
//! that nobody here has written. So they are asked over https alone, no redirect is followed, and
//! the address that is connected to must be public. That is looked at where names are resolved, for
//! a name may be public when it is checked and private when it is used. What the operator has
//! written is the operator's word: the backend's own address, and `connect.allow_private`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use rmcp::transport::auth::{OAuthHttpClient, OAuthHttpClientFuture, OAuthHttpRequest};

use super::address::is_public;
use crate::weaken;

const CONNECT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest document taken.
const LARGEST: usize = 1 << 20;

/// Why an address is not asked, or gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0} is not asked: it is none of https, and connect.allow_private does not name it")]
    Scheme(String),
    #[error(
        "{0} is not asked: it is an address of this machine or its network; if it may be, add it to connect.allow_private"
    )]
    Private(String),
    #[error("{0} does not answer")]
    Silent(String),
    #[error("{0} answers with more than {LARGEST} bytes")]
    TooLong(String),
}

/// Asks addresses that servers have named.
#[derive(Debug, Clone)]
pub struct Egress {
    /// For what strangers name.
    guarded: Client,
    /// For what the operator has named.
    trusted: Client,
    allowed: Arc<[String]>,
    /// The backend is on this machine, by the operator's word, and so may be what it names.
    local: bool,
}

impl Egress {
    /// `allowed` are origins that may be private; `names` finds addresses.
    pub fn new(allowed: &[String], names: Arc<dyn Resolve>) -> Result<Self, String> {
        let build = |names: Arc<dyn Resolve>| {
            let redirects = if weaken::is("egress-redirects") { Policy::default() } else { Policy::none() };
            let client = Client::builder().no_proxy().redirect(redirects).dns_resolver(names);
            let client = client.connect_timeout(CONNECT).timeout(TIMEOUT).build();
            client.map_err(|why| format!("the HTTP client cannot be made: {why}"))
        };
        let guarded = build(Arc::new(Public(Arc::clone(&names))))?;
        let allowed = allowed.iter().filter_map(|origin| Some(origin_of(&Url::parse(origin).ok()?)));
        Ok(Self { guarded, trusted: build(names)?, allowed: allowed.collect(), local: false })
    }

    /// For what the server at this address names, which may be asked itself.
    pub fn around(&self, server: &Url) -> Self {
        Self { local: is_local(server), ..self.with(server) }
    }

    /// The same, which may ask this one wherever it is.
    pub fn with(&self, address: &Url) -> Self {
        let allowed = self.allowed.iter().cloned().chain([origin_of(address)]).collect();
        Self { allowed, ..self.clone() }
    }

    /// May this address be asked, as far as can be said before its name is resolved?
    pub fn check(&self, url: &Url) -> Result<(), Refused> {
        self.client(url).map(drop)
    }

    fn client(&self, url: &Url) -> Result<&Client, Refused> {
        let origin = origin_of(url);
        let web = matches!(url.scheme(), "http" | "https");
        let named = self.allowed.contains(&origin) && !weaken::is("egress-allowed");
        if web && (named || (self.local && is_local(url))) {
            return Ok(&self.trusted);
        }
        if url.scheme() != "https" && !weaken::is("egress-scheme") {
            return Err(Refused::Scheme(origin));
        }
        let literal = match url.host() {
            Some(url::Host::Ipv4(address)) => Some(address.into()),
            Some(url::Host::Ipv6(address)) => Some(address.into()),
            // All of https have a host.
            Some(url::Host::Domain(_)) | None => None,
        };
        if literal.is_some_and(|address| !is_public(address)) && !weaken::is("egress-literals") {
            return Err(Refused::Private(origin));
        }
        Ok(&self.guarded)
    }

    /// Sends a request and reads the whole answer.
    pub async fn ask(&self, request: http::Request<Vec<u8>>) -> Result<http::Response<Vec<u8>>, Refused> {
        let shown = request.uri().to_string();
        let request = reqwest::Request::try_from(request).map_err(|_| Refused::Scheme(shown))?;
        let origin = origin_of(request.url());
        let client = self.client(request.url())?;
        let response = client.execute(request).await.map_err(|why| {
            tracing::debug!(%why, "no answer");
            if is_private(&why) { Refused::Private(origin.clone()) } else { Refused::Silent(origin.clone()) }
        })?;
        let mut answer = http::Response::builder().status(response.status());
        for (name, value) in response.headers() {
            answer = answer.header(name, value);
        }
        let (mut body, mut stream) = (Vec::new(), response.bytes_stream());
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|_| Refused::Silent(origin.clone()))?;
            if body.len() + piece.len() > LARGEST {
                return Err(Refused::TooLong(origin));
            }
            body.extend_from_slice(&piece);
        }
        answer.body(body).map_err(|_| Refused::Silent(origin))
    }
}

impl OAuthHttpClient for Egress {
    /// Redirects are never followed, whatever is wished for.
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move { Ok(self.ask(request.request).await?) })
    }
}

/// Scheme, host and port, as a browser writes them.
pub fn origin_of(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Is it on this machine, by what is written alone?
fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Finds addresses as the machine does.
#[derive(Debug, Clone, Copy)]
pub struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Finds public addresses only, which are then the only ones that are connected to.
struct Public(Arc<dyn Resolve>);

#[derive(Debug, thiserror::Error)]
#[error("the name leads to addresses of this machine or its network")]
struct Private;

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.0.resolve(name);
        Box::pin(async move {
            let all: Vec<_> = found.await?.collect();
            let kept: Vec<_> =
                all.iter().copied().filter(|a| is_public(a.ip()) || weaken::is("egress-names")).collect();
            if kept.is_empty() && !all.is_empty() {
                return Err(Private.into());
            }
            Ok(Box::new(kept.into_iter()) as Addrs)
        })
    }
}

fn is_private(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if inner.is::<Private>() {
            return true;
        }
        cause = inner.source();
    }
    false
}
