//! The 94 tokens, each with its verdict.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};

use super::signer::{Key, now, small_rsa};

pub const ISSUER: &str = "https://login.example.com";
pub const AUDIENCE: &str = "https://mcp.example.com/mcp";
const RS256: &str = r#"{"alg":"RS256","kid":"rsa","typ":"JWT"}"#;
const ES256: &str = r#"{"alg":"ES256","kid":"p256"}"#;

pub struct Case {
    pub id: &'static str,
    pub accepted: bool,
    pub token: String,
}

/// The keys of the issuer, and one that is not its own.
pub struct Keys {
    pub rsa: Key,
    pub p256: Key,
    p384: Key,
    other: Key,
    foreign: Key,
}

/// All tokens, the key set that they are held against, and what listens where no gateway should ask.
pub fn all(canary: &str) -> (Vec<Case>, Value) {
    let (rsa, p256, p384) = (Key::rsa(), Key::p256(), Key::p384());
    let keys = Keys { rsa, p256, p384, other: Key::rsa(), foreign: Key::rsa() };
    let mut table = Table { cases: Vec::new(), keys };
    let (small, token) = small_rsa(r#"{"alg":"RS256","kid":"small"}"#, &claims(&json!({})));
    let set = {
        let Keys { rsa, p256, p384, other, .. } = &table.keys;
        json!({ "keys": [rsa.jwk("rsa"), other.jwk("other"), p256.jwk("p256"), p384.jwk("p384"), small] })
    };
    table.good();
    table.no_algorithm();
    table.confused();
    table.key_names();
    table.bring_their_own_key(canary);
    table.reject("weak-rsa-1024", token);
    table.wrong_keys();
    table.elliptic();
    table.times();
    table.addressees();
    table.twice();
    table.extensions();
    table.shapes();
    (table.cases, set)
}

/// The claims with some changed; null takes one away.
pub fn claims(changes: &Value) -> String {
    let mut claims =
        json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now(), "exp": now() + 600 });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims.to_string()
}

/// The claims with one as it is written here.
fn written(name: &str, value: &str) -> String {
    claims(&json!({ name: "HERE" })).replace("\"HERE\"", value)
}

struct Table {
    cases: Vec<Case>,
    keys: Keys,
}

impl Table {
    fn accept(&mut self, id: &'static str, token: String) {
        self.cases.push(Case { id, accepted: true, token });
    }

    fn reject(&mut self, id: &'static str, token: String) {
        self.cases.push(Case { id, accepted: false, token });
    }

    fn signed(&self, header: &str, claims: impl AsRef<[u8]>) -> String {
        self.keys.rsa.token(header, claims)
    }

    fn with(&self, changes: Value) -> String {
        self.signed(RS256, claims(&changes))
    }

    fn good(&mut self) {
        self.accept("plain-rs256", self.with(json!({})));
        self.accept("plain-es256", self.keys.p256.token(ES256, claims(&json!({}))));
    }

    fn no_algorithm(&mut self) {
        for (id, name) in [
            ("alg-none", "none"),
            ("alg-none-2", "None"),
            ("alg-none-3", "NONE"),
            ("alg-none-4", "nOnE"),
            ("alg-empty", ""),
        ] {
            let header = json!({ "alg": name, "kid": "rsa" }).to_string();
            self.reject(id, Key::None.token(&header, claims(&json!({}))));
        }
        self.reject("alg-none-signed", self.signed(r#"{"alg":"none","kid":"rsa"}"#, claims(&json!({}))));
        self.reject("alg-missing", self.signed(r#"{"kid":"rsa"}"#, claims(&json!({}))));
    }

    /// Signed with a secret that everybody knows: the public key.
    fn confused(&mut self) {
        use base64::engine::general_purpose::STANDARD;
        let der = self.keys.rsa.der();
        let body = STANDARD.encode(&der);
        let lines: Vec<_> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        let header = r#"{"alg":"HS256","kid":"rsa"}"#;
        for (id, header, secret) in [
            ("hs256-with-pem", header, pem.into_bytes()),
            ("hs256-with-der", header, der),
            ("hs256-with-nothing", header, Vec::new()),
            ("hs256-with-dev-null", r#"{"alg":"HS256","kid":"/dev/null"}"#, Vec::new()),
        ] {
            self.reject(id, Key::Secret(secret).token(header, claims(&json!({}))));
        }
    }

    fn key_names(&mut self) {
        for (id, name) in [
            ("kid-traversal", json!("../../../../dev/null")),
            ("kid-sql", json!("x' UNION SELECT 'secret' -- ")),
            ("kid-unknown", json!("unknown")),
            ("kid-number", json!(1)),
            ("kid-64-kib", json!("k".repeat(64 << 10))),
            ("kid-nul", json!("rsa\u{0}")),
            ("kid-of-an-ec-key", json!("p256")),
        ] {
            let header = json!({ "alg": "RS256", "kid": name }).to_string();
            self.reject(id, self.signed(&header, claims(&json!({}))));
        }
        // Two keys would do, so it names none.
        self.reject("kid-missing", self.signed(r#"{"alg":"RS256"}"#, claims(&json!({}))));
    }

    fn bring_their_own_key(&mut self, canary: &str) {
        let own = self.keys.foreign.jwk("rsa");
        let x5c = base64::engine::general_purpose::STANDARD.encode(self.keys.foreign.der());
        for (id, member, value) in [
            ("brings-jwk", "jwk", own),
            ("brings-jku", "jku", json!(format!("{canary}/jku"))),
            ("brings-x5u", "x5u", json!(format!("{canary}/x5u"))),
            ("brings-x5c", "x5c", json!([x5c])),
        ] {
            let header = json!({ "alg": "RS256", "kid": "rsa", member: value }).to_string();
            self.reject(id, self.keys.foreign.token(&header, claims(&json!({}))));
        }
    }

    fn wrong_keys(&mut self) {
        self.reject("wrong-key", self.keys.foreign.token(RS256, claims(&json!({}))));
        let header = r#"{"alg":"ES256","kid":"p384"}"#;
        self.reject("wrong-curve", self.keys.p384.token(header, claims(&json!({}))));
    }

    fn elliptic(&mut self) {
        let text = format!("{}.{}", B64.encode(ES256), B64.encode(claims(&json!({ "jti": "1" }))));
        let signature = self.keys.p256.sign(&text);
        let (r, s) = signature.split_at(32);
        let with = |signature: &[u8]| format!("{text}.{}", B64.encode(signature));
        let twin = with(&[r, &subtracted(s)].concat());
        for (id, bad) in [
            ("es256-zeros", vec![0; 64]),
            ("es256-order", [ORDER, ORDER].concat()),
            ("es256-der", der_of(r, s)),
            ("es256-truncated", signature[..63].to_vec()),
        ] {
            self.reject(id, with(&bad));
        }
        // Both s and n - s verify, by the definition of ECDSA. So nothing may go by a token's text.
        self.accept("es256-twin", twin);
    }

    fn times(&mut self) {
        for (id, value) in [
            ("exp-text", "\"tomorrow\""),
            ("exp-null", "null"),
            ("exp-negative", "-1"),
            ("exp-1e400", "1e400"),
            ("exp-over-i64", "9223372036854775808"),
            ("exp-true", "true"),
            ("exp-list", "[4102444800]"),
        ] {
            self.reject(id, self.signed(RS256, written("exp", value)));
        }
        for (id, changes) in [
            ("exp-missing", json!({ "exp": null })),
            ("exp-in-a-century", json!({ "exp": now() + 100 * 366 * 86_400 })),
            ("exp-a-minute-ago", json!({ "exp": now() - 60 })),
            ("exp-long-ago", json!({ "exp": now() - 3600, "iat": now() - 7200 })),
            ("exp-too-far-from-iat", json!({ "exp": now() + 600, "iat": now() - 90_000 })),
            ("nbf-later", json!({ "nbf": now() + 120 })),
            ("nbf-text", json!({ "nbf": "now" })),
            ("iat-later", json!({ "iat": now() + 120 })),
        ] {
            self.reject(id, self.with(changes));
        }
        self.accept("exp-just-now", self.with(json!({ "exp": now() - 45 })));
    }

    fn addressees(&mut self) {
        for (id, changes) in [
            ("aud-missing", json!({ "aud": null })),
            ("aud-number", json!({ "aud": 1 })),
            ("aud-object", json!({ "aud": { AUDIENCE: true } })),
            ("aud-empty", json!({ "aud": "" })),
            ("aud-empty-list", json!({ "aud": [] })),
            ("aud-list-with-number", json!({ "aud": [AUDIENCE, 1] })),
            ("aud-other", json!({ "aud": "https://mcp.example.com" })),
            ("aud-slash", json!({ "aud": format!("{AUDIENCE}/") })),
            ("aud-capitals", json!({ "aud": AUDIENCE.to_uppercase() })),
            ("iss-missing", json!({ "iss": null })),
            ("iss-other", json!({ "iss": "https://evil.example.com" })),
            ("iss-slash", json!({ "iss": format!("{ISSUER}/") })),
            ("iss-list", json!({ "iss": [ISSUER] })),
            ("sub-missing", json!({ "sub": null })),
            ("sub-number", json!({ "sub": 7 })),
            ("sub-nul", json!({ "sub": "ada\u{0}" })),
            ("sub-newline", json!({ "sub": "ada\nlevel=info msg=forged" })),
        ] {
            self.reject(id, self.with(changes));
        }
        self.accept("aud-list", self.with(json!({ "aud": ["https://other.example.com", AUDIENCE] })));
    }

    fn twice(&mut self) {
        for (id, again) in [
            ("twice-sub", r#""sub":"eve","#),
            ("twice-exp", r#""exp":1,"#),
            ("twice-aud", r#""aud":"https://other.example.com","#),
            ("twice-sub-escaped", r#""s\u0075b":"eve","#),
        ] {
            let claims = claims(&json!({})).replacen('{', &format!("{{{again}"), 1);
            self.reject(id, self.signed(RS256, claims));
        }
        for (id, header) in [
            ("twice-alg", r#"{"alg":"none","alg":"RS256","kid":"rsa"}"#),
            ("twice-kid", r#"{"kid":"p256","alg":"RS256","kid":"rsa"}"#),
        ] {
            self.reject(id, self.signed(header, claims(&json!({}))));
        }
    }

    fn extensions(&mut self) {
        for (id, header) in [
            ("crit-exp", r#"{"alg":"RS256","kid":"rsa","crit":["exp"],"exp":1}"#),
            ("crit-empty", r#"{"alg":"RS256","kid":"rsa","crit":[]}"#),
            ("b64-false", r#"{"alg":"RS256","kid":"rsa","b64":false}"#),
            ("typ-dpop", r#"{"alg":"RS256","kid":"rsa","typ":"dpop+jwt"}"#),
            ("typ-number", r#"{"alg":"RS256","kid":"rsa","typ":1}"#),
        ] {
            self.reject(id, self.signed(header, claims(&json!({}))));
        }
        self.accept(
            "typ-at-jwt",
            self.signed(r#"{"alg":"RS256","kid":"rsa","typ":"at+jwt"}"#, claims(&json!({}))),
        );
        self.reject(
            "cnf-bound",
            self.with(json!({ "cnf": { "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" } })),
        );
    }

    fn shapes(&mut self) {
        let good = self.with(json!({ "jti": "shape" }));
        let parts: Vec<_> = good.split('.').collect();
        let [header, payload, signature] = parts[..] else { panic!("three parts") };
        let flipped = String::from_utf8(B64.decode(payload).unwrap()).unwrap().replace("shape", "shapd");
        let flipped = B64.encode(flipped);
        // The last letter of 2,048 bits in base64 has four bits that say nothing.
        let trailing =
            signature.chars().last().map(|last| if last == 'A' { 'B' } else { next(last) }).unwrap();
        // In the other alphabet of base64; one of many signatures has such a letter.
        let standard = (0..)
            .map(|number| self.with(json!({ "jti": number })))
            .find(|token| token.rsplit('.').next().unwrap().contains(['-', '_']))
            .unwrap();
        let (text, ending) = standard.rsplit_once('.').unwrap();
        let standard = format!("{text}.{}", ending.replace('-', "+").replace('_', "/"));
        let mut claims_in_latin = claims(&json!({ "name": "?" })).into_bytes();
        let at = claims_in_latin.iter().position(|byte| *byte == b'?').unwrap();
        claims_in_latin[at] = 0xe4;
        let deep = written("deep", &format!("{}{}", "[".repeat(5000), "]".repeat(5000)));
        for (id, token) in [
            ("shape-empty", String::new()),
            ("shape-two-parts", format!("{header}.{payload}")),
            ("shape-four-parts", format!("{good}.{signature}")),
            ("shape-five-parts", format!("{good}.{payload}.{signature}")),
            ("shape-bit-flipped", format!("{header}.{flipped}.{signature}")),
            ("shape-padding", format!("{good}==")),
            ("shape-other-base64", standard),
            ("shape-blank-inside", format!("{header}. {payload}.{signature}")),
            ("shape-trailing-bits", format!("{}{trailing}", &good[..good.len() - 1])),
            ("shape-no-json", self.signed(RS256, "iss=https://login.example.com")),
            ("shape-list", self.signed(RS256, format!("[{}]", claims(&json!({}))))),
            ("shape-bad-utf-8", self.signed(RS256, claims_in_latin)),
            ("shape-1-mib", self.with(json!({ "padding": "x".repeat(1 << 20) }))),
            ("shape-deep", self.signed(RS256, deep)),
        ] {
            self.reject(id, token);
        }
    }
}

/// The letter of base64 that differs in the last bit.
fn next(letter: char) -> char {
    const LETTERS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = LETTERS.find(letter).unwrap() ^ 1;
    LETTERS.as_bytes()[at].into()
}

/// The order n of the group of P-256.
const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// n - s.
fn subtracted(s: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    let mut twin = vec![0u8; 32];
    for at in (0..32).rev() {
        let digit = i16::from(ORDER[at]) - i16::from(s[at]) - borrow;
        borrow = i16::from(digit < 0);
        twin[at] = u8::try_from(digit.rem_euclid(256)).unwrap();
    }
    twin
}

/// The same signature as X.509 writes it.
fn der_of(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |number: &[u8]| {
        let mut bytes: Vec<_> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        if bytes[0] & 0x80 != 0 {
            bytes.insert(0, 0);
        }
        [&[2, u8::try_from(bytes.len()).unwrap()][..], &bytes].concat()
    };
    let body = [integer(r), integer(s)].concat();
    [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat()
}
