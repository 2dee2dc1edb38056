//! Keys of every kind, and tokens signed with them.

use std::{
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    encoding::{AsDer as _, PublicKeyX509Der},
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Signs the first two parts of a token.
pub enum Key {
    Rsa(RsaKeyPair),
    Ecdsa(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
    Secret(Vec<u8>),
    /// Leaves the signature empty.
    None,
}

impl Key {
    pub fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    pub fn p256() -> Self {
        Self::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    pub fn p384() -> Self {
        Self::Ecdsa(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    pub fn edwards() -> Self {
        Self::Edwards(Ed25519KeyPair::generate().unwrap())
    }

    /// The public half as it stands in a key set.
    pub fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Rsa(key) => {
                let (n, e) = (key.public_key().modulus(), key.public_key().exponent());
                let number = |bytes: &[u8]| B64.encode(bytes);
                json!({ "kty": "RSA", "kid": id, "n": number(n.big_endian_without_leading_zero()), "e": number(e.big_endian_without_leading_zero()) })
            }
            Self::Ecdsa(key) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "kty": "EC", "crv": curve, "kid": id, "x": B64.encode(x), "y": B64.encode(y) })
            }
            Self::Edwards(key) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": B64.encode(key.public_key()) })
            }
            Self::Secret(secret) => json!({ "kty": "oct", "kid": id, "k": B64.encode(secret) }),
            Self::None => panic!("it has none"),
        }
    }

    /// The public half as DER (SubjectPublicKeyInfo).
    pub fn der(&self) -> Vec<u8> {
        let Self::Rsa(key) = self else { panic!("only of RSA keys") };
        let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
        der.as_ref().to_vec()
    }

    pub fn sign(&self, text: &str) -> Vec<u8> {
        match self {
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Ecdsa(key) => key.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec(),
            Self::Edwards(key) => key.sign(text.as_bytes()).as_ref().to_vec(),
            Self::Secret(secret) => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes()).as_ref().to_vec()
            }
            Self::None => Vec::new(),
        }
    }

    /// A whole token.
    pub fn token(&self, header: &str, claims: impl AsRef<[u8]>) -> String {
        let text = format!("{}.{}", B64.encode(header), B64.encode(claims));
        let signature = B64.encode(self.sign(&text));
        format!("{text}.{signature}")
    }
}

/// A key of 1,024 bits for the set, which no library here would make, and a token that it signed.
/// Python counts with numbers of any size.
pub fn small_rsa(header: &str, claims: &str) -> (Value, String) {
    const SCRIPT: &str = r#"
import base64, hashlib, random, sys
def prime():
    while True:
        p = random.getrandbits(512) | (3 << 510) | 1
        if p % 65537 != 1 and all(pow(a, p - 1, p) == 1 for a in (2, 3, 5, 7, 11)):
            return p
p, q = prime(), prime()
n, d = p * q, pow(65537, -1, (p - 1) * (q - 1))
info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(sys.argv[1].encode()).digest()
padded = b"\x00\x01" + b"\xff" * (125 - len(info)) + b"\x00" + info
b64 = lambda number: base64.urlsafe_b64encode(number.to_bytes(128, "big")).decode().rstrip("=")
print(b64(n), b64(pow(int.from_bytes(padded, "big"), d, n)))
"#;
    let text = format!("{}.{}", B64.encode(header), B64.encode(claims));
    let output = Command::new("python3").args(["-c", SCRIPT, &text]).output().expect("python3 is there");
    let printed = String::from_utf8(output.stdout).unwrap();
    let (n, signature) = printed.trim().split_once(' ').expect("a modulus and a signature");
    (json!({ "kty": "RSA", "kid": "small", "n": n, "e": "AQAB" }), format!("{text}.{signature}"))
}
