//! Is a bearer token one of ours to accept, and whose is it?
//!
//! The signature is the smaller part. Everything about a token is refused that two readers could
//! read differently, or that would make it mean more than its issuer said: what is missing as
//! much as what has the wrong type. (RFC 7519, RFC 8725 "Best current practices", RFC 9068 "Access
//! tokens"; MCP 2026-07-28 "Authorization", "Token handling".)

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::keys::Keys;
use crate::wire::json::{self, Limits};

/// The longest token that is looked at.
pub const LONGEST: usize = 16 << 10;
/// How far clocks may be apart, in seconds.
pub const LEEWAY: u64 = 60;
/// How long a token may be good for, in seconds.
const LIFETIME: u64 = 24 * 60 * 60;
/// What a token may consist of. Generous for claims, hopeless for attacks.
const LIMITS: Limits = Limits { depth: 16, nodes: 4_000, key_bytes: 256 };
/// The largest number that all readers of JSON agree on.
const LARGEST: f64 = 9_007_199_254_740_991.0;

/// A token taken apart, of which nothing is believed yet.
#[derive(Debug)]
pub struct Unverified<'a> {
    /// Header and payload as they were signed.
    signed: &'a str,
    signature: &'a str,
    pub algorithm: Algorithm,
    pub key_id: Option<String>,
    claims: Map<String, Value>,
}

/// What a token says that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub issuer: String,
    pub subject: String,
    /// Seconds since 1970.
    pub expires: u64,
    pub scopes: Vec<String>,
    /// All claims, for rules.
    pub all: Map<String, Value>,
}

/// Why a token is refused: for the log, never for whoever sent it.
pub type Refusal = &'static str;

impl<'a> Unverified<'a> {
    /// Reads a token without believing it.
    pub fn read(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > LONGEST {
            return Err("it is too long");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("it has no three parts")?;
        let (header, payload) = signed.split_once('.').ok_or("it has no three parts")?;
        if payload.contains('.') || signature.is_empty() {
            return Err("it has no three parts");
        }
        let header = object(header)?;
        let claims = object(payload)?;
        // What these ask for is not done here, and must be done by whoever takes the token.
        if ["crit", "b64", "zip", "enc"].iter().any(|name| header.contains_key(*name)) {
            return Err("its header asks for what is not done here");
        }
        if let Some(kind) = header.get("typ") {
            let kind = kind.as_str().ok_or("its type is no text")?.to_ascii_lowercase();
            if !["jwt", "at+jwt", "application/at+jwt"].contains(&kind.as_str()) {
                return Err("it is no access token");
            }
        }
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or("it names no algorithm")?;
        let algorithm = ALGORITHMS.iter().find(|(name, _)| *name == algorithm);
        let (_, algorithm) = algorithm.ok_or("its algorithm is not one of those taken here")?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= 256 => Some(id.clone()),
            Some(_) => return Err("its key's name is no short text"),
        };
        Ok(Self { signed, signature, algorithm: *algorithm, key_id, claims })
    }

    /// Who says to have issued it: good for choosing the keys, and for nothing else.
    pub fn issuer(&self) -> Result<&str, Refusal> {
        self.claims.get("iss").and_then(Value::as_str).ok_or("it names no issuer")
    }

    /// Believes it, if the issuer's key fits and it was issued for us.
    pub fn verify(self, keys: &Keys, audience: &str, now: u64) -> Result<Claims, Refusal> {
        let key = keys.find(self.key_id.as_deref(), self.algorithm).ok_or("no key of its issuer's fits")?;
        if !strict_base64(self.signature) {
            return Err("its signature is not well encoded");
        }
        let fits = jsonwebtoken::crypto::verify(self.signature, self.signed.as_bytes(), key, self.algorithm);
        if !fits.unwrap_or(false) {
            return Err("its signature is wrong");
        }
        let expires = self.time("exp")?.ok_or("it does not say when it ends")?;
        if expires.saturating_add(LEEWAY) <= now {
            return Err("its time is over");
        }
        let issued = self.time("iat")?;
        if issued.is_some_and(|issued| issued > now + LEEWAY) {
            return Err("it was issued in the future");
        }
        if self.time("nbf")?.is_some_and(|begin| begin > now + LEEWAY) {
            return Err("its time has not begun");
        }
        if expires.saturating_sub(issued.unwrap_or(now)) > LIFETIME + LEEWAY {
            return Err("it is good for too long");
        }
        if !is_for(self.claims.get("aud"), audience) {
            return Err("it was issued for somebody else");
        }
        if self.claims.contains_key("cnf") {
            return Err("it is bound to a key, of which there is no proof here");
        }
        let subject = self.claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if subject.is_empty() || subject.len() > 255 || !subject.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("it names nobody");
        }
        let scopes = match self.claims.get("scope").or_else(|| self.claims.get("scp")) {
            Some(Value::String(list)) => {
                list.split(' ').filter(|one| !one.is_empty()).map(str::to_owned).collect()
            }
            Some(Value::Array(list)) => {
                list.iter().filter_map(|one| Some(one.as_str()?.to_owned())).collect()
            }
            _ => Vec::new(),
        };
        let (issuer, subject) = (self.issuer()?.to_owned(), subject.to_owned());
        Ok(Claims { issuer, subject, expires, scopes, all: self.claims })
    }

    /// A point in time, in seconds since 1970.
    fn time(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.claims.get(name) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| (0.0..=LARGEST).contains(seconds));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was just looked at")]
        seconds.map(|seconds| Some(seconds as u64)).ok_or("one of its times is no time")
    }
}

/// Those whose keys can be public. Which one a key is for is the key's to say.
const ALGORITHMS: [(&str, Algorithm); 6] = [
    ("RS256", Algorithm::RS256),
    ("PS256", Algorithm::PS256),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    ("RS512", Algorithm::RS512),
];

/// One of the JSON parts of a token.
fn object(part: &str) -> Result<Map<String, Value>, Refusal> {
    let text = URL_SAFE_NO_PAD.decode(part).map_err(|_| "a part of it is not well encoded")?;
    json::check(&text, &LIMITS).map_err(|_| "a part of it is not JSON that all read alike")?;
    serde_json::from_slice(&text).map_err(|_| "a part of it is no object")
}

fn strict_base64(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok()
}

/// Is this audience, or an endpoint below it, among those that a token was issued for? Which
/// endpoint that is, whoever knows where the token came must look at.
fn is_for(claim: Option<&Value>, audience: &str) -> bool {
    let fits = |one: &str| {
        let part = one.strip_prefix(audience).and_then(|rest| rest.strip_prefix('/'));
        one == audience || (audience.ends_with("/mcp") && part.is_some_and(|part| !part.is_empty()))
    };
    match claim {
        Some(Value::String(one)) => fits(one),
        Some(Value::Array(all)) => {
            all.iter().all(Value::is_string) && all.iter().filter_map(Value::as_str).any(fits)
        }
        _ => false,
    }
}
