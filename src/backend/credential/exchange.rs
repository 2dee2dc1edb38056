//! How is a caller's token exchanged for one that a server takes?
//!
//! It is shown to the issuer that the operator has written down, and to nobody else: not to the
//! server, and not to whom the server names. (RFC 8693; RFC 8414.)

use http::Request;
use serde_json::Value;
use url::Url;

use super::{
    flow::Terms,
    token::{Endpoint, Token},
};
use crate::call::Proof;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// A token for the server in exchange for a caller's.
pub async fn exchanged(terms: &Terms, Proof(subject): &Proof) -> Result<Token, String> {
    let scopes = terms.scopes.join(" ");
    let mut form = vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("subject_token", subject),
        ("subject_token_type", ACCESS_TOKEN),
        ("requested_token_type", ACCESS_TOKEN),
        ("resource", terms.server.as_str()),
    ];
    if !scopes.is_empty() {
        form.push(("scope", &scopes));
    }
    endpoint(terms).await?.ask(terms, None, &form).await
}

/// What the issuer says of itself, under one of the addresses that there are for it.
async fn endpoint(terms: &Terms) -> Result<Endpoint, String> {
    let issuer = terms.issuer.as_deref().unwrap_or_default();
    let base = Url::parse(issuer).map_err(|_| format!("the issuer {issuer:?} is no address"))?;
    let path = base.path().trim_end_matches('/');
    let places = [
        format!("/.well-known/oauth-authorization-server{path}"),
        format!("/.well-known/openid-configuration{path}"),
        format!("{path}/.well-known/openid-configuration"),
    ];
    for path in places {
        let mut url = base.clone();
        url.set_path(&path);
        let request = Request::get(url.as_str()).body(Vec::new()).map_err(|why| why.to_string())?;
        let answer = terms.egress.ask(request).await.map_err(|why| why.to_string())?;
        let Ok(said) = serde_json::from_slice::<Value>(answer.body()) else { continue };
        if !answer.status().is_success() {
            continue;
        }
        if said["issuer"].as_str() != Some(issuer) {
            return Err(format!("what is at {issuer} calls itself something else"));
        }
        let address = said["token_endpoint"].as_str().and_then(|url| Url::parse(url).ok());
        return Ok(Endpoint {
            issuer: issuer.to_owned(),
            address: address.ok_or("the issuer does not say where it gives tokens")?,
            methods: serde_json::from_value(said["token_endpoint_auth_methods_supported"].clone()).ok(),
        });
    }
    Err(format!("{issuer} says nothing of itself (RFC 8414)"))
}
