//! How is an authorization server asked for a token, by a client that it knows?
//!
//! With a secret, in the header or in the body as the server has it, or with a signed statement
//! that is good for five minutes and for this server alone. (RFC 6749 §2.3.1, §5; RFC 7523.)

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{Request, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use url::{Url, form_urlencoded};

use super::flow::{Secret, Terms};

/// Where tokens are given, and how.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub issuer: String,
    pub address: Url,
    /// How clients may prove who they are (`token_endpoint_auth_methods_supported`).
    pub methods: Option<Vec<String>>,
}

/// A token to bear.
pub struct Token {
    pub text: String,
    /// In seconds.
    pub lifetime: Option<u64>,
}

/// A private key of the gateway's.
#[derive(Clone)]
pub struct Key(EncodingKey, Algorithm);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Key {
    /// From a PEM: RSA signs with RS256, P-256 with ES256.
    pub fn read(Secret(pem): &Secret) -> Result<Self, String> {
        if let Ok(key) = EncodingKey::from_rsa_pem(pem.as_bytes()) {
            return Ok(Self(key, Algorithm::RS256));
        }
        let wrong = "auth.private_key is no private key as PEM; give one of RSA, or of P-256 in PKCS #8";
        let key = EncodingKey::from_ec_pem(pem.as_bytes()).map_err(|_| wrong)?;
        Ok(Self(key, Algorithm::ES256))
    }

    /// That it is this client who asks this issuer.
    fn statement(&self, client: &str, issuer: &str) -> Result<String, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|why| why.to_string())?;
        let claims = json!({
            "iss": client, "sub": client, "aud": issuer, "iat": now, "exp": now + 300,
            "jti": URL_SAFE_NO_PAD.encode(random),
        });
        jsonwebtoken::encode(&Header::new(self.1), &claims, &self.0).map_err(|why| why.to_string())
    }
}

impl Endpoint {
    fn takes(&self, method: &str) -> bool {
        self.methods.as_ref().is_some_and(|all| all.iter().any(|one| one == method))
    }

    /// Asks for a token with these members beside those that say who asks.
    pub async fn ask(
        &self,
        terms: &Terms,
        key: Option<&Key>,
        form: &[(&str, &str)],
    ) -> Result<Token, String> {
        let client = terms.client_id.as_deref().unwrap_or_default();
        let mut request = Request::post(self.address.as_str())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        let mut own = Vec::new();
        // What is said nowhere is the header (RFC 8414).
        let in_body = self.takes("client_secret_post") && !self.takes("client_secret_basic");
        match (key, &terms.client_secret) {
            (Some(key), _) => {
                own.push((
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".into(),
                ));
                own.push(("client_assertion", key.statement(client, &self.issuer)?));
            }
            (None, Some(Secret(secret))) if in_body => {
                own.push(("client_id", client.to_owned()));
                own.push(("client_secret", secret.clone()));
            }
            (None, Some(Secret(secret))) => {
                let encoded =
                    |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let basic = STANDARD.encode(format!("{}:{}", encoded(client), encoded(secret)));
                request = request.header(header::AUTHORIZATION, format!("Basic {basic}"));
            }
            (None, None) => own.push(("client_id", client.to_owned())),
        }
        let own = own.iter().map(|(name, value)| (*name, value.as_str()));
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form.iter().copied().chain(own))
            .finish();
        let request = request.body(form.into_bytes()).map_err(|why| why.to_string())?;
        let answer = terms.egress.ask(request).await.map_err(|why| why.to_string())?;
        read(answer.status().as_u16(), answer.body())
    }
}

fn read(status: u16, body: &[u8]) -> Result<Token, String> {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    if !(200..300).contains(&status) {
        let error = said["error"].as_str().unwrap_or("no reason");
        let error: String = error.chars().filter(char::is_ascii_graphic).take(60).collect();
        return Err(format!("the issuer answered HTTP {status} ({error})"));
    }
    let is_bearer = said["token_type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
    match said["access_token"].as_str() {
        Some(token) if is_bearer => {
            Ok(Token { text: token.to_owned(), lifetime: said["expires_in"].as_u64() })
        }
        Some(_) => Err("the issuer gave a token that is none to bear".into()),
        None => Err("the issuer's answer has no token in it".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_token_to_bear_is_none() {
        let token = read(200, br#"{"access_token":"t","token_type":"bearer","expires_in":60}"#).ok().unwrap();
        assert_eq!((token.text.as_str(), token.lifetime), ("t", Some(60)));
        for (status, body) in [
            (400, r#"{"error":"invalid_client","access_token":"t","token_type":"Bearer"}"#),
            (200, r#"{"access_token":"t","token_type":"DPoP"}"#),
            (200, r#"{"access_token":"t"}"#),
            (200, "{}"),
            (200, "<html>"),
            (302, ""),
        ] {
            assert!(read(status, body.as_bytes()).is_err(), "{status} {body}");
        }
    }
}
