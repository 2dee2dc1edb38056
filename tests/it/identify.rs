//! Who is let in, by which tokens, and what do they see?

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    fake::{Era, Fake},
    support::{Answer, Gateway, Post, UNLIMITED, names_of},
    tasks::takes_tasks,
};

const ISSUER: &str = "https://login.example.com";
const AUDIENCE: &str = "https://mcp.example.com/mcp";

/// Issues tokens, with an Ed25519 key and a P-256 one.
pub struct Issuer {
    edwards: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    folder: TempDir,
}

impl Issuer {
    pub fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let edwards = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap();
        let issuer = Self { edwards, p256, folder: tempfile::tempdir().unwrap() };
        std::fs::write(issuer.file(), issuer.keys().to_string()).unwrap();
        issuer
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("keys.json")
    }

    /// The key set. What is of no use for tokens stands in it, too.
    fn keys(&self) -> Value {
        let (point, oct) = (self.p256.public_key().as_ref(), B64.encode("a shared secret"));
        json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": B64.encode(self.edwards.public_key()) },
            { "kty": "EC", "crv": "P-256", "kid": "p256", "alg": "ES256", "use": "sig",
              "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..65]) },
            { "kty": "oct", "kid": "shared", "k": oct },
            { "kty": "RSA", "kid": "small", "e": "AQAB", "n": B64.encode([0xc5; 128]) },
        ] })
    }

    fn token(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", B64.encode(header), B64.encode(claims));
        let signature = self.edwards.sign(signed.as_bytes());
        format!("{signed}.{}", B64.encode(signature))
    }

    /// A good token of somebody's.
    pub fn of(&self, subject: &str, groups: &[&str]) -> String {
        let mut claims = claims();
        (claims["sub"], claims["groups"]) = (json!(subject), json!(groups));
        self.token(r#"{"alg":"EdDSA","kid":"ed","typ":"at+jwt"}"#, &claims.to_string())
    }

    /// The tables of routes.toml that believe it.
    pub fn tables(&self) -> String {
        let file = self.file();
        format!(
            "{UNLIMITED}[identify]\naudience = \"{AUDIENCE}\"\n[[identify.issuer]]\nissuer = \"{ISSUER}\"\njwks_file = {file:?}\n"
        )
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now(), "exp": now() + 600 })
}

pub fn with(post: Post, token: &str) -> Post {
    post.header("authorization", format!("Bearer {token}"))
}

async fn verdict(gateway: &Gateway, token: &str) -> Answer {
    with(gateway.modern("tools/list", json!({})), token).send().await
}

/// The claims with some changed; null takes one away.
fn changed(changes: &Value) -> String {
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims.to_string()
}

#[tokio::test]
async fn tokens_that_are_taken() {
    let issuer = Issuer::new();
    let gateway = Gateway::with(&issuer.tables()).start().await;
    let plain = r#"{"alg":"EdDSA","kid":"ed"}"#;
    for (header, changes) in [
        (plain, json!({})),
        (r#"{"alg":"EdDSA","kid":"ed","typ":"JWT"}"#, json!({})),
        (r#"{"alg":"EdDSA","typ":"application/at+jwt"}"#, json!({})),
        (plain, json!({ "aud": ["https://other.example.com", AUDIENCE] })),
        (plain, json!({ "iat": null })),
        (plain, json!({ "exp": now() - 50 })),
        (plain, json!({ "nbf": now() + 50 })),
        (plain, json!({ "scope": "read write", "anything": { "else": [1, 2] } })),
    ] {
        let answer = verdict(&gateway, &issuer.token(header, &changed(&changes))).await;
        assert_eq!(answer.status, 200, "{header} {changes}: {}", answer.text());
    }
    let signed =
        format!("{}.{}", B64.encode(r#"{"alg":"ES256","kid":"p256"}"#), B64.encode(changed(&json!({}))));
    let signature = issuer.p256.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    let token = format!("{signed}.{}", B64.encode(signature));
    assert_eq!(verdict(&gateway, &token).await.status, 200);
    // Under the other key's name it is none, and neither is one of zeros.
    let other =
        format!("{}.{}", B64.encode(r#"{"alg":"ES256","kid":"ed"}"#), B64.encode(changed(&json!({}))));
    let signature = issuer.p256.sign(&SystemRandom::new(), other.as_bytes()).unwrap();
    assert_eq!(verdict(&gateway, &format!("{other}.{}", B64.encode(signature))).await.status, 401);
    assert_eq!(verdict(&gateway, &format!("{signed}.{}", B64.encode([0; 64]))).await.status, 401);
}

#[tokio::test]
async fn tokens_that_are_refused() {
    let issuer = Issuer::new();
    let stranger = Issuer::new();
    let gateway = Gateway::with(&issuer.tables()).start().await;
    let plain = r#"{"alg":"EdDSA","kid":"ed"}"#;
    let mut refused: Vec<(String, String)> = Vec::new();
    for changes in [
        json!({ "exp": null }),
        json!({ "exp": "tomorrow" }),
        json!({ "exp": now() - 61 }),
        json!({ "exp": -1 }),
        json!({ "exp": true }),
        json!({ "exp": [now() + 9] }),
        json!({ "exp": now() + 100 * 366 * 86_400 }),
        json!({ "exp": 1e300 }),
        json!({ "iat": now() + 120 }),
        json!({ "iat": "now" }),
        json!({ "nbf": now() + 120 }),
        json!({ "nbf": "now" }),
        json!({ "aud": null }),
        json!({ "aud": 1 }),
        json!({ "aud": {} }),
        json!({ "aud": "" }),
        json!({ "aud": [] }),
        json!({ "aud": [AUDIENCE, 1] }),
        json!({ "aud": "https://mcp.example.com" }),
        json!({ "aud": format!("{AUDIENCE}/") }),
        json!({ "aud": AUDIENCE.to_uppercase() }),
        json!({ "iss": null }),
        json!({ "iss": "https://evil.example.com" }),
        json!({ "iss": format!("{ISSUER}/") }),
        json!({ "iss": [ISSUER] }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": 7 }),
        json!({ "sub": "a\nb" }),
        json!({ "sub": "a\u{0}" }),
        json!({ "sub": "a b" }),
        json!({ "sub": "ä" }),
        json!({ "sub": "x".repeat(256) }),
        json!({ "cnf": { "jkt": "x" } }),
    ] {
        refused.push((changes.to_string(), issuer.token(plain, &changed(&changes))));
    }
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":"None","kid":"ed"}"#,
        r#"{"alg":""}"#,
        r#"{"kid":"ed"}"#,
        r#"{"alg":1}"#,
        r#"{"alg":"HS256","kid":"shared"}"#,
        r#"{"alg":"HS256","kid":"ed"}"#,
        r#"{"alg":"RS256","kid":"small"}"#,
        r#"{"alg":"ES256","kid":"ed"}"#,
        r#"{"alg":"EdDSA","kid":"p256"}"#,
        r#"{"alg":"EdDSA","kid":"unknown"}"#,
        r#"{"alg":"EdDSA","kid":7}"#,
        r#"{"alg":"EdDSA","kid":"../../dev/null"}"#,
        r#"{"alg":"EdDSA","kid":"ed","typ":"dpop+jwt"}"#,
        r#"{"alg":"EdDSA","kid":"ed","typ":1}"#,
        r#"{"alg":"EdDSA","kid":"ed","crit":["exp"]}"#,
        r#"{"alg":"EdDSA","kid":"ed","b64":false}"#,
        r#"{"alg":"EdDSA","kid":"ed","zip":"DEF"}"#,
        r#"{"alg":"EdDSA","alg":"none","kid":"ed"}"#,
        r#"["EdDSA"]"#,
        "{}",
        "",
    ] {
        refused.push((header.to_owned(), issuer.token(header, &changed(&json!({})))));
    }
    let twice = changed(&json!({})).replacen('{', "{\"sub\":\"eve\",", 1);
    refused.push(("a claim twice".into(), issuer.token(plain, &twice)));
    refused.push(("claims in a list".into(), issuer.token(plain, "[]")));
    refused.push((
        "deep claims".into(),
        issuer.token(plain, &changed(&json!({ "x": "D" })).replace("\"D\"", &"[".repeat(50))),
    ));
    refused.push(("another's key".into(), stranger.of("ada", &[])));
    let good = issuer.of("ada", &[]);
    let parts: Vec<&str> = good.split('.').collect();
    let (first, last) = (parts[0], parts[2]);
    for (what, token) in [
        ("empty", String::new()),
        ("two parts", format!("{first}.{}", parts[1])),
        ("four parts", format!("{good}.{last}")),
        ("no signature", format!("{first}.{}.", parts[1])),
        ("padding", format!("{good}=")),
        ("a bit in the claims", good.replacen(parts[1], &parts[1].replacen('a', "b", 1), 1)),
        ("cut short", good[..good.len() - 2].to_owned()),
        ("spaces inside", good.replacen('.', ". ", 1)),
    ] {
        refused.push((what.into(), token));
    }
    assert!(refused.len() >= 65, "{}", refused.len());
    let mut answers = Vec::new();
    for (what, token) in &refused {
        let answer = verdict(&gateway, token).await;
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
        let challenge = answer.headers["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.contains("error=\"invalid_token\""), "{what}: {challenge}");
        answers.push((challenge, answer.text()));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "none of them says what was wrong");
    assert_eq!(verdict(&gateway, &good).await.status, 200);
}

#[tokio::test]
async fn without_a_token_a_client_is_told_where_to_get_one() {
    let issuer = Issuer::new();
    let fake = Fake::builder().start().await;
    let gateway = Gateway::with(&issuer.tables()).backend("one", &fake).start().await;
    let session = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {} }).to_string();
    let tries = [
        gateway.modern("tools/list", json!({})),
        gateway.post("/mcp", session.clone()),
        gateway.post("/mcp/one", session),
        gateway.post("/mcp", "rubbish"),
        gateway.get("/mcp").header("accept", "text/event-stream").header("mcp-session-id", "0"),
        gateway.delete("/mcp").header("mcp-session-id", "0"),
        gateway.get("/sse").header("accept", "text/event-stream"),
        gateway.post("/messages?session=0", "{}"),
        gateway.modern("tools/list", json!({})).header("authorization", "Basic YTpi"),
    ];
    let place = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp";
    for post in tries {
        let answer = post.send().await;
        assert_eq!(answer.status, 401, "{}", answer.text());
        let challenge = answer.headers["www-authenticate"].to_str().unwrap();
        assert!(challenge.starts_with("Bearer ") && challenge.contains(place), "{challenge}");
    }
    let token = issuer.of("ada", &[]);
    let twice =
        with(gateway.modern("tools/list", json!({})), &token).and("authorization", format!("Bearer {token}"));
    // Whoever reads the first and whoever reads the last would see another caller. (RFC 6750, §3.1.)
    assert_eq!(twice.send().await.status, 400);
    assert_eq!(gateway.get("/health").send().await.status, 200);
    for path in ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"] {
        let document = gateway.get(path).send().await.json();
        assert_eq!(
            (&document["resource"], &document["authorization_servers"]),
            (&json!(AUDIENCE), &json!([ISSUER]))
        );
    }
    assert!(fake.seen_of("tools/call").is_empty());
}

#[tokio::test]
async fn what_one_has_is_nothing_to_another() {
    let issuer = Issuer::new();
    let fake = Fake::builder().era(Era::Both).sse(true).start().await;
    let tables = format!("{}[deadline]\ntask = \"50ms\"\n[listen]\npage_size = 1\n", issuer.tables());
    let gateway = Gateway::with(&tables).backend("one", &fake).start().await;
    let (ada, eve) = (issuer.of("ada", &[]), issuer.of("eve", &[]));
    let newer = issuer.of("ada", &["new"]);
    // A session.
    let hello = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
    let opened = with(gateway.post("/mcp", hello.to_string()), &ada).send().await;
    let id = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
    let ping = |token: &str, id: &str| {
        let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
        with(gateway.post("/mcp", ping).header("mcp-session-id", id), token).send()
    };
    let (stolen, unknown) = (ping(&eve, &id).await, ping(&eve, "0123456789abcdef0123456789abcdef").await);
    assert_eq!((stolen.status, stolen.text()), (unknown.status, unknown.text()));
    assert_eq!(
        (stolen.status, ping(&ada, &id).await.status, ping(&newer, &id).await.status),
        (404, 200, 200)
    );
    // A cursor.
    let page = |token: &str, cursor: &str| {
        with(gateway.modern("tools/list", json!({ "cursor": cursor })), token).send()
    };
    let cursor =
        with(gateway.modern("tools/list", json!({})), &ada).send().await.result()["nextCursor"].clone();
    let cursor = cursor.as_str().unwrap();
    assert_eq!(page(&eve, cursor).await.error(), page(&eve, "bm90aGluZw").await.error());
    assert!(page(&ada, cursor).await.result()["tools"].is_array());
    // A task.
    let slow = json!({ "name": "one__slow", "arguments": {}, "_meta": takes_tasks() });
    let made = with(gateway.modern("tools/call", slow), &ada).send().await.result();
    let task = made["taskId"].as_str().expect("a task");
    let ask = |token: &str, method: &str, id: &str| {
        let params = json!({ "taskId": id, "inputResponses": {}, "_meta": takes_tasks() });
        with(gateway.modern(method, params), token).send()
    };
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let stolen = ask(&eve, method, task).await.error().to_string().replace(task, "X");
        assert_eq!(
            stolen,
            ask(&eve, method, "made-up").await.error().to_string().replace("made-up", "X"),
            "{method}"
        );
    }
    assert_eq!(ask(&ada, "tasks/get", task).await.result()["status"], "working");
    // A sealed state.
    let form = json!({ "mode": "form", "message": "Who?", "requestedSchema": { "type": "object", "properties": {} } });
    let arguments = json!({ "method": "elicitation/create", "params": form });
    let asked = |token: &str, more: Value| {
        let mut params = json!({ "name": "one__ask", "arguments": arguments, "_meta": takes_tasks() });
        more.as_object().unwrap().iter().for_each(|(key, value)| params[key] = value.clone());
        with(gateway.modern("tools/call", params), token).send()
    };
    let first = asked(&ada, json!({})).await.result();
    assert_eq!(first["resultType"], "input_required", "{first}");
    let key = first["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
    let again =
        |state: &Value| json!({ "inputResponses": { &key: { "action": "decline" } }, "requestState": state });
    let stolen = asked(&eve, again(&first["requestState"])).await;
    let unknown = asked(&eve, again(&json!("made-up"))).await;
    assert_eq!((stolen.status, stolen.error()), (unknown.status, unknown.error()));
    assert_eq!(asked(&ada, again(&first["requestState"])).await.result()["resultType"], "complete");
    // A subscription to another's task.
    let filter = json!({ "notifications": { "taskIds": [task] }, "_meta": takes_tasks() });
    let mut stream = with(gateway.modern("subscriptions/listen", filter), &eve).open().await;
    let honoured = stream.message().await.expect("an acknowledgement");
    assert_eq!(honoured["params"]["notifications"], json!({ "taskIds": [] }));
}

#[tokio::test]
async fn what_is_listed_can_be_called_and_nothing_else() {
    let issuer = Issuer::new();
    let resource = json!({ "uri": "test://a", "name": "a" });
    let build = |name| {
        Fake::builder().name(name).resources(vec![resource.clone()]).prompts(vec![json!({ "name": "greet" })])
    };
    let (one, two) = (build("one").start().await, build("two").start().await);
    let rules = r#"
        [[permit]]
        who = { group = "engineering" }
        allow = ["one__*"]
        deny = ["one__slow"]
        [[permit]]
        who = { subject = "ada" }
        allow = ["two__echo"]
    "#;
    let setup =
        Gateway::with(&format!("{}{rules}", issuer.tables())).backend("one", &one).backend("two", &two);
    let gateway = &setup.start().await;
    let everything = ["one__echo", "one__slow", "one__raw", "two__echo", "two__slow", "two__nothing"];
    for (subject, groups, may) in [
        ("ada", &[][..], &["two__echo"][..]),
        ("ada", &["engineering"], &["one__echo", "one__raw", "two__echo"]),
        ("bob", &["engineering"], &["one__echo", "one__raw"]),
        ("bob", &["sales"], &[]),
    ] {
        let token = &issuer.of(subject, groups);
        let ask = |path: &'static str, method: &'static str, params: Value| {
            with(gateway.modern_at(path, method, params), token).send()
        };
        let listed = ask("/mcp", "tools/list", json!({})).await.result();
        let listed = names_of(&listed);
        for tool in everything {
            let allowed = may.contains(&tool);
            assert_eq!(listed.contains(&tool.to_owned()), allowed, "{subject} {groups:?} {tool}");
            let called = ask("/mcp", "tools/call", json!({ "name": tool, "arguments": { "ms": 1 } })).await;
            if allowed {
                assert!(called.text().contains("result"), "{tool}: {}", called.text());
            } else {
                let unknown = ask("/mcp", "tools/call", json!({ "name": "none__x", "arguments": {} })).await;
                assert_eq!(
                    called.text().replace(tool, "X").replace(&id_of(&called), ""),
                    unknown.text().replace("none__x", "X").replace(&id_of(&unknown), ""),
                    "{tool}"
                );
            }
        }
        let engineer = groups.contains(&"engineering");
        let read = ask("/mcp", "resources/read", json!({ "uri": "test://a" })).await;
        assert_eq!(read.text().contains("\"contents\""), engineer, "{}", read.text());
        let prompt = ask("/mcp", "prompts/get", json!({ "name": "one__greet" })).await;
        assert_eq!(prompt.text().contains("\"messages\""), engineer);
        let reference = json!({ "ref": { "type": "ref/prompt", "name": "one__greet" }, "argument": { "name": "a", "value": "b" } });
        let completed = ask("/mcp", "completion/complete", reference).await;
        assert_eq!(completed.text().contains("\"completion\""), engineer);
        // An endpoint at which there is nothing for a caller is none.
        let (own, none) =
            (ask("/mcp/one", "tools/list", json!({})).await, ask("/mcp/none", "tools/list", json!({})).await);
        assert_eq!(own.status == none.status, !engineer, "{}", own.text());
    }
    let nobody = gateway.modern("tools/list", json!({})).send().await;
    assert_eq!(nobody.status, 401);
}

fn id_of(answer: &Answer) -> String {
    format!("\"id\":{}", answer.response()["id"])
}

#[tokio::test]
async fn strangers_are_let_in_where_that_is_said() {
    let issuer = Issuer::new();
    let fake = Fake::builder().start().await;
    let rules = "[[permit]]\nwho = { anonymous = true }\nallow = [\"one__echo\"]\n[[permit]]\nwho = { anonymous = false }\nallow = [\"*\"]\n";
    let tables = issuer.tables().replacen("[identify]\n", "[identify]\nanonymous = true\n", 1);
    let gateway = Gateway::with(&format!("{tables}{rules}")).backend("one", &fake).start().await;
    let stranger = gateway.modern("tools/list", json!({})).send().await.result();
    assert_eq!(names_of(&stranger), ["one__echo"]);
    let known = with(gateway.modern("tools/list", json!({})), &issuer.of("ada", &[])).send().await.result();
    assert!(names_of(&known).len() > 5);
    // A bad token is no way to become a stranger.
    let bad = with(gateway.modern("tools/list", json!({})), "a.b.c").send().await;
    assert_eq!(bad.status, 401);
}
