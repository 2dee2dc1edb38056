//! Callers with tokens of two issuers.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Post, UNLIMITED};

const AUDIENCE: &str = "https://mcp.example.com/mcp";
pub const ISSUERS: [&str; 2] = ["https://a.example.com", "https://b.example.com"];

pub struct People {
    key: Ed25519KeyPair,
    folder: TempDir,
}

impl People {
    pub fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let x = B64.encode(key.public_key());
        let keys = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": x }] });
        std::fs::write(folder.path().join("keys.json"), keys.to_string()).unwrap();
        Self { key, folder }
    }

    /// The tables of routes.toml that let them in.
    pub fn tables(&self) -> String {
        let file = self.folder.path().join("keys.json");
        let issuer = |issuer| format!("[[identify.issuer]]\nissuer = {issuer:?}\njwks_file = {file:?}\n");
        format!(
            "{UNLIMITED}[identify]\naudience = {AUDIENCE:?}\n{}{}",
            issuer(ISSUERS[0]),
            issuer(ISSUERS[1])
        )
    }

    /// A token of somebody's that says this, too.
    pub fn token(&self, issuer: &str, subject: &str, more: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims =
            json!({ "iss": issuer, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 600 });
        more.as_object().unwrap().iter().for_each(|(name, value)| claims[name] = value.clone());
        let header = r#"{"alg":"EdDSA","kid":"ed"}"#;
        let signed = format!("{}.{}", B64.encode(header), B64.encode(claims.to_string()));
        format!("{signed}.{}", B64.encode(self.key.sign(signed.as_bytes())))
    }
}

pub fn by(token: &str, post: Post) -> Post {
    post.header("authorization", format!("Bearer {token}"))
}
