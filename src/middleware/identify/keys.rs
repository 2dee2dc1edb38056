//! Which keys does a key set hold, and which of them fits a token?
//!
//! Only public keys for signatures count, of a kind that is strong enough; what else stands in a set
//! is passed over. A name that two keys have says nothing. (RFC 7517; RFC 7518.)

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde_json::Value;

use crate::{
    weaken::is,
    wire::json::{self, Limits},
};

/// The largest key set that is read, in bytes.
pub const LARGEST_SET: usize = 256 << 10;
/// Keys of one set.
const MOST_KEYS: usize = 100;
/// Bits of an RSA modulus.
const LEAST_RSA: usize = 2048;

/// The keys of one issuer at one moment.
#[derive(Clone, Default)]
pub struct Keys(Vec<Key>);

#[derive(Clone)]
struct Key {
    id: Option<String>,
    kind: Kind,
    /// The only algorithm it may be used with, where its issuer says so.
    algorithm: Option<String>,
    key: DecodingKey,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl Keys {
    /// From the text of a key set. Keys that cannot be used for signatures here are left out.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        json::check(text, &Limits::REPLY).map_err(|why| format!("is not strict JSON: {why}"))?;
        let set: Value = serde_json::from_slice(text).map_err(|why| why.to_string())?;
        let list = set["keys"].as_array().ok_or("has no list `keys`")?;
        if list.len() > MOST_KEYS && !is("identify-set-size") {
            return Err(format!("has {} keys; {MOST_KEYS} are the most", list.len()));
        }
        if list.iter().any(|key| key.get("d").is_some()) && !is("identify-private") {
            return Err("has a private key in it, which everybody may know now".into());
        }
        let keys = list.iter().filter_map(|key| Key::read(&serde_json::from_value(key.clone()).ok()?));
        let keys: Vec<_> = keys.collect();
        if keys.is_empty() {
            return Err("has no key that can be used here (RSA of 2048 bits, P-256, P-384, Ed25519)".into());
        }
        Ok(Self(keys))
    }

    /// The key of this name for this algorithm; without a name, the only one there is.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fitting = self.0.iter().filter(|key| key.takes(algorithm));
        if is("identify-key") {
            return fitting.next().map(|key| &key.key);
        }
        match id {
            Some(id) => {
                let mut named = fitting.filter(|key| key.id.as_deref() == Some(id));
                let first = named.next()?;
                named.next().is_none().then_some(&first.key)
            }
            None => {
                let first = fitting.next()?;
                fitting.next().is_none().then_some(&first.key)
            }
        }
    }
}

impl Key {
    fn read(jwk: &Jwk) -> Option<Self> {
        let other_use =
            jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature);
        if other_use && !is("identify-use") {
            return None;
        }
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => (modulus_bits(&rsa.n) >= LEAST_RSA).then_some(Kind::Rsa),
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => Some(Kind::P256),
                EllipticCurve::P384 => Some(Kind::P384),
                _ => None,
            },
            AlgorithmParameters::OctetKeyPair(pair) => {
                (pair.curve == EllipticCurve::Ed25519).then_some(Kind::Ed25519)
            }
            _ => None, // A shared secret is no public key.
        }?;
        let algorithm = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        Some(Self { id: jwk.common.key_id.clone(), kind, algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
    }

    fn takes(&self, algorithm: Algorithm) -> bool {
        let kind = match algorithm {
            Algorithm::RS256 | Algorithm::RS512 | Algorithm::PS256 => Kind::Rsa,
            Algorithm::ES256 => Kind::P256,
            Algorithm::ES384 => Kind::P384,
            Algorithm::EdDSA => Kind::Ed25519,
            _ => return false,
        };
        let name = format!("{algorithm:?}");
        self.kind == kind && self.algorithm.as_ref().is_none_or(|only| *only == name)
    }
}

/// The length of a modulus, which is written in base64.
fn modulus_bits(modulus: &str) -> usize {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let bytes = URL_SAFE_NO_PAD.decode(modulus).unwrap_or_default();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let first = bytes.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
    (bytes.len() - zeros) * 8 - first
}
