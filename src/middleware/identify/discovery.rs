//! Where are an issuer's keys, and what is said there?
//!
//! The issuer itself says where, in a document that must name it. Nothing is asked of an address that
//! anybody on the way could speak for, redirects lead nowhere, and an answer that is too long or too
//! slow is none. (OpenID Connect Discovery 1.0; RFC 8414.)

use std::{net::IpAddr, time::Duration};

use reqwest::{Client, Url, redirect};
use serde_json::Value;

use super::keys::LARGEST_SET;
use crate::{
    weaken::is,
    wire::json::{self, Limits},
};

/// How long it may take to ask an issuer, with all the requests that needs.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// The text of the key set at an address that is known.
pub async fn fetch(http: &Client, set: &Url) -> Result<Vec<u8>, String> {
    within(get(http, set.clone())).await
}

/// The text of the key set of an issuer that says itself where it is.
pub async fn discover(http: &Client, issuer: &str, at: &Url) -> Result<Vec<u8>, String> {
    within(async {
        let mut last = String::new();
        for address in well_known(at) {
            let found = match get(http, address).await {
                Ok(text) => key_set_of(issuer, &text),
                Err(why) => Err(why),
            };
            match found {
                Ok(url) => return get(http, url).await,
                Err(why) => last = why,
            }
        }
        Err(last)
    })
    .await
}

async fn within(asking: impl Future<Output = Result<Vec<u8>, String>>) -> Result<Vec<u8>, String> {
    if is("identify-patience") {
        return asking.await;
    }
    let asked = tokio::time::timeout(TIMEOUT, asking).await;
    asked.unwrap_or_else(|_| Err(format!("no whole answer within {} s", TIMEOUT.as_secs())))
}

/// The address of the key set, by a document that must be this issuer's own.
fn key_set_of(issuer: &str, document: &[u8]) -> Result<Url, String> {
    json::check(document, &Limits::REQUEST)
        .map_err(|why| format!("its metadata is not strict JSON: {why}"))?;
    let document: Value = serde_json::from_slice(document).map_err(|why| why.to_string())?;
    if document["issuer"].as_str() != Some(issuer) {
        return Err("its metadata is another issuer's".into());
    }
    trustworthy(document["jwks_uri"].as_str().ok_or("its metadata names no key set")?)
}

/// Where an issuer's metadata may be, in the order of the specification.
fn well_known(issuer: &Url) -> Vec<Url> {
    let path = issuer.path().trim_matches('/');
    let at = |path: String| {
        let mut url = issuer.clone();
        url.set_path(&path);
        url
    };
    let (oauth, openid) = (".well-known/oauth-authorization-server", ".well-known/openid-configuration");
    if path.is_empty() {
        return vec![at(oauth.into()), at(openid.into())];
    }
    vec![at(format!("{oauth}/{path}")), at(format!("{openid}/{path}")), at(format!("{path}/{openid}"))]
}

/// An address whose answer can be believed: over TLS, or on this machine.
pub fn trustworthy(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| format!("{text:?} is no address"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match url.scheme() {
        "https" => Ok(url),
        "http" if here || is("identify-plain-http") => Ok(url),
        _ => Err(format!("{text:?} must begin with https://, or anybody on the way could forge keys")),
    }
}

/// For asking issuers: follows nobody elsewhere.
pub fn http() -> Result<Client, String> {
    let nowhere = redirect::Policy::none();
    let redirects = if is("identify-redirects") { redirect::Policy::default() } else { nowhere };
    Client::builder().redirect(redirects).build().map_err(|why| format!("no HTTP client can be made: {why}"))
}

/// The address without what may be a key to it.
fn shown(mut url: Url) -> Url {
    if !is("secrets-shown") {
        url.set_query(None);
        // Both fail for addresses that have no place for them.
        let _ = url.set_username("").and_then(|()| url.set_password(None));
    }
    url
}

async fn get(http: &Client, url: Url) -> Result<Vec<u8>, String> {
    let place = shown(url.clone());
    let said = |why: &dyn std::fmt::Display| format!("{place}: {why}");
    let response = http.get(url).header("accept", "application/json").send().await;
    let mut response = response.map_err(|why| said(&why.without_url()))?;
    if response.status() != 200 {
        return Err(said(&response.status()));
    }
    let mut text = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|why| said(&why.without_url()))? {
        text.extend_from_slice(&part);
        if text.len() > LARGEST_SET && !is("identify-set-size") {
            return Err(said(&format!("is over {LARGEST_SET} bytes")));
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_looked_for_where_the_specification_puts_it() {
        let paths = |issuer: &str| {
            let all = well_known(&Url::parse(issuer).unwrap());
            all.iter().map(|url| url.path().to_owned()).collect::<Vec<_>>()
        };
        let (oauth, openid) =
            ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration");
        assert_eq!(paths("https://a.example"), [oauth, openid]);
        let tenant = paths("https://a.example/tenant/");
        assert_eq!(
            tenant,
            [format!("{oauth}/tenant"), format!("{openid}/tenant"), format!("/tenant{openid}")]
        );
    }

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for right in
            ["https://a.example/keys", "http://127.0.0.1:8/keys", "http://localhost/k", "http://[::1]/k"]
        {
            assert!(trustworthy(right).is_ok(), "{right}");
        }
        for wrong in ["http://a.example/keys", "ftp://a.example", "keys", "http://localhost.evil.example/k"] {
            assert!(trustworthy(wrong).is_err(), "{wrong}");
        }
    }
}
