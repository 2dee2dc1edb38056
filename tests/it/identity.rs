//! T01: which tokens are believed, by which keys, and is there a way around?
//!
//! The tokens go through the whole gateway, without a socket, so that none is too long for HTTP.

mod login;
mod signer;
mod tokens;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tempfile::TempDir;
use waystation::{
    config::{Config, Environment},
    engine::Waystation,
};

use crate::{
    fake::{Era, Fake},
    support::{
        Answer, Gateway, LEGACY, MODERN, Post,
        battery::{Battery, is_weakened},
        modern_message,
    },
};
use login::{Login, Manner};
use signer::Key;
use tokens::{AUDIENCE, ISSUER, claims};

const CHALLENGE: &str = "Bearer error=\"invalid_token\", resource_metadata=\"https://mcp.example.com/.well-known/oauth-protected-resource/mcp\"";

const REFUSAL: &str = "The token is not one that this gateway takes. Ask its issuer for another.";

/// The tables of routes.toml that believe the keys of a file.
fn tables(issuer: &str, set: &Value, folder: &TempDir) -> String {
    let file = folder.path().join(format!("{}.json", issuer.replace(['/', ':'], "-")));
    std::fs::write(&file, set.to_string()).unwrap();
    format!("[[identify.issuer]]\nissuer = \"{issuer}\"\njwks_file = {file:?}\n")
}

fn audience() -> String {
    format!("[identify]\naudience = \"{AUDIENCE}\"\n")
}

/// Asks for the list of tools with this token.
async fn ask(gateway: &Waystation, token: &str) -> Answer {
    let (head, body) = gateway.handle(request(token)).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

fn request(token: &str) -> Request<Full<Bytes>> {
    let message = modern_message(json!(1), "tools/list", json!({})).to_string();
    Request::post("/mcp")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", "tools/list")
        .header("authorization", format!("Bearer {token}"))
        .body(Full::new(Bytes::from(message)))
        .unwrap()
}

fn challenge(answer: &Answer) -> &str {
    answer.headers.get("www-authenticate").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[tokio::test]
async fn the_94_tokens_get_the_verdict_of_the_table() {
    let battery = Battery::new("T01-tokens");
    let canary = Login::start(Manner::Away).await;
    let folder = tempfile::tempdir().unwrap();
    let (cases, set) = tokens::all(&canary.name());
    for_oracles(&cases, &set);
    let gateway = Gateway::with(&format!("{}{}", audience(), tables(ISSUER, &set, &folder))).start().await;
    assert_eq!((cases.len(), cases.iter().filter(|case| case.accepted).count()), (94, 6));
    for case in &cases {
        let answer = ask(&gateway.waystation, &case.token).await;
        let held = match case.accepted {
            true => answer.status == 200,
            // All refusals are one and the same, so none says which claim it was.
            false => {
                answer.status == 401 && challenge(&answer) == CHALLENGE && answer.text().trim_end() == REFUSAL
            }
        };
        battery.row(case.id, held, (answer.status, challenge(&answer), answer.text()));
    }
    assert_eq!(canary.asked(), 0, "no token says where its key is");
    // Before any cryptography: the best of several, since other tests run meanwhile.
    let long = &cases.iter().find(|case| case.id == "shape-1-mib").unwrap().token;
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        let asked = request(long);
        let begun = Instant::now();
        gateway.waystation.handle(asked).await;
        fastest = fastest.min(begun.elapsed());
    }
    battery.row("an-oversized-token-costs-nothing", fastest <= Duration::from_millis(1), fastest);
    battery.end(95);
}

/// Writes the tokens to a file, for other implementations to judge: tests/oracles.
fn for_oracles(cases: &[tokens::Case], set: &Value) {
    let Some(file) = std::env::var_os("WAYSTATION_TOKENS") else { return };
    let cases =
        cases.iter().map(|case| json!({ "id": case.id, "accepted": case.accepted, "token": case.token }));
    let all = json!({
        "now": signer::now(), "issuer": ISSUER, "audience": AUDIENCE, "keys": set,
        "tokens": cases.collect::<Vec<_>>(),
    });
    std::fs::write(file, all.to_string()).unwrap();
}

/// A token of an issuer's, by its key of this name.
fn of(login: &str, key: &Key, algorithm: &str, id: &str) -> String {
    let header = json!({ "alg": algorithm, "kid": id }).to_string();
    key.token(&header, claims(&json!({ "iss": login, "jti": fresh() })))
}

/// So that no token is remembered from earlier.
fn fresh() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

fn set(keys: &[Value]) -> Manner {
    Manner::Set(json!({ "keys": keys }))
}

/// Lets time pass, for everything but the wall clock.
async fn later(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
    tokio::task::yield_now().await;
}

const MINUTES_5: Duration = Duration::from_secs(300);

/// Asks until the status is the one that is waited for, for two seconds of the wall clock.
async fn becomes(gateway: &Waystation, token: &str, status: u16) -> bool {
    for _ in 0..200 {
        if ask(gateway, token).await.status == status {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// The status of an answer that must come within two seconds; 0 if it does not.
async fn soon(gateway: &Waystation, token: &str) -> u16 {
    let asked = tokio::time::timeout(Duration::from_secs(2), ask(gateway, token));
    asked.await.map_or(0, |answer| answer.status)
}

/// How a gateway answers one token of an issuer whose key set is served in some manner.
async fn first_answer(manner: Manner, key: &Key) -> (Answer, Login) {
    let login = Login::start(manner).await;
    let gateway = Gateway::with(&login.tables()).start().await;
    let answer = ask(&gateway.waystation, &of(&login.name(), key, "EdDSA", "a")).await;
    (answer, login)
}

fn unavailable(answer: &Answer) -> bool {
    answer.status == 503 && answer.headers.contains_key("retry-after")
}

#[tokio::test]
async fn keys_come_go_and_hold_as_their_issuer_says() {
    let battery = Battery::new("T01-keys-in-time");
    rotated_and_removed(&battery).await;
    issuer_away(&battery).await;
    issuer_away_at_the_start(&battery).await;
    flood(&battery).await;
    battery.end(6);
}

async fn rotated_and_removed(battery: &Battery) {
    let (a, b) = (Key::edwards(), Key::edwards());
    let login = Login::start(set(&[a.jwk("a")])).await;
    let gateway = Gateway::with(&login.tables()).start().await;
    let name = login.name();
    let (old, new) = (of(&name, &a, "EdDSA", "a"), of(&name, &b, "EdDSA", "b"));
    let before = ask(&gateway.waystation, &old).await.status;
    later(Duration::from_secs(31)).await;
    login.becomes(set(&[a.jwk("a"), b.jwk("b")]));
    let after = soon(&gateway.waystation, &new).await;
    battery.row("rotation", (before, after) == (200, 200), (before, after));
    login.becomes(set(&[b.jwk("b")]));
    let (newer, known) = (of(&name, &a, "EdDSA", "a"), soon(&gateway.waystation, &old).await);
    later(MINUTES_5).await;
    // Neither one that was verified before, nor one that comes now.
    let gone =
        becomes(&gateway.waystation, &old, 401).await && becomes(&gateway.waystation, &newer, 401).await;
    battery.row("removed-key", known == 200 && gone, (known, gone));
}

async fn issuer_away(battery: &Battery) {
    let key = Key::edwards();
    let login = Login::start(set(&[key.jwk("a")])).await;
    let gateway = Gateway::with(&login.tables()).start().await;
    let token = || of(&login.name(), &key, "EdDSA", "a");
    let before = ask(&gateway.waystation, &token()).await.status;
    login.becomes(Manner::Silence);
    let mut seen = vec![before];
    // It hangs, and those whose key is known do not wait for it.
    for _ in 0..3 {
        later(MINUTES_5).await;
        seen.push(soon(&gateway.waystation, &token()).await);
    }
    battery.row("away-with-known-key", seen == [200; 4], &seen);
    login.becomes(Manner::Away);
    later(Duration::from_secs(50 * 60)).await;
    let known = token();
    let answer = ask(&gateway.waystation, &known).await;
    battery.row("away-for-an-hour", unavailable(&answer), (answer.status, answer.text()));
}

async fn issuer_away_at_the_start(battery: &Battery) {
    let key = Key::edwards();
    let (answer, login) = first_answer(Manner::Away, &key).await;
    let gateway = Gateway::with(&login.tables()).start().await;
    let token = of(&login.name(), &key, "EdDSA", "a");
    let away = ask(&gateway.waystation, &token).await;
    login.becomes(set(&[key.jwk("a")]));
    later(Duration::from_secs(31)).await;
    let back = becomes(&gateway.waystation, &token, 200).await;
    let held = unavailable(&answer) && unavailable(&away) && back;
    battery.row("away-at-the-start", held, (answer.status, away.status, back));
}

/// Tokens that name keys which nobody has.
async fn flood(battery: &Battery) {
    const TOKENS: usize = 10_000;
    let key = Key::edwards();
    let login = Login::start(set(&[key.jwk("a")])).await;
    let gateway = Gateway::with(&login.tables()).start().await;
    let first = ask(&gateway.waystation, &of(&login.name(), &key, "EdDSA", "a")).await.status;
    let name = login.name();
    let mut refused = 0;
    for half in 0..2 {
        for _ in 0..TOKENS / 200 {
            let tokens: Vec<_> =
                (0..100).map(|_| of(&name, &key, "EdDSA", &format!("x{}", fresh()))).collect();
            let asked = tokens.iter().map(|token| ask(&gateway.waystation, token));
            let answers = futures_util::future::join_all(asked).await;
            refused += answers.iter().filter(|answer| answer.status == 401).count();
            if login.asked() > 20 {
                break; // Lost already.
            }
        }
        if half == 0 {
            later(Duration::from_secs(30)).await;
        }
    }
    // One for the first token, and one when the cooldown was over.
    let held = first == 200 && refused == TOKENS && login.asked() == 2;
    battery.row("flood-of-unknown-keys", held, (first, refused, login.asked()));
}

#[tokio::test]
async fn key_sets_that_are_none_are_not_believed() {
    let battery = Battery::new("T01-key-sets");
    let key = Key::edwards();
    answers_that_are_no_sets(&battery, &key).await;
    drip(&battery, &key).await;
    redirect(&battery, &key).await;
    keys_that_are_passed_over(&battery, &key).await;
    refused_at_the_start(&battery, &key);
    two_issuers(&battery, &key).await;
    battery.end(11);
}

async fn answers_that_are_no_sets(battery: &Battery, key: &Key) {
    let html = b"<!doctype html><title>Sign in</title>".to_vec();
    let (answer, _login) = first_answer(Manner::Text(html), key).await;
    battery.row("html", unavailable(&answer), answer.status);

    let long = json!({ "keys": [key.jwk("a")], "padding": "x".repeat(5 << 20) });
    let (answer, login) = first_answer(Manner::Set(long), key).await;
    let held = unavailable(&answer) && login.sent() < 4 << 20;
    battery.row("5-mib", held, (answer.status, login.sent()));

    let mut keys = vec![key.jwk("a")];
    keys.resize(10_000, json!({ "kty": "x" }));
    let (answer, _login) = first_answer(set(&keys), key).await;
    battery.row("10000-keys", unavailable(&answer), answer.status);
}

async fn drip(battery: &Battery, key: &Key) {
    let login = Login::start(Manner::Drip).await;
    let gateway = Gateway::with(&login.tables()).start().await;
    let token = of(&login.name(), key, "EdDSA", "a");
    let asked = ask(&gateway.waystation, &token);
    let passing = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        later(Duration::from_secs(5)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let answer = tokio::select! {
        answer = asked => Some(answer),
        () = passing => None,
    };
    battery.row("slow-drip", answer.as_ref().is_some_and(unavailable), answer.map(|answer| answer.status));
}

async fn redirect(battery: &Battery, key: &Key) {
    let other = Login::start(set(&[key.jwk("a")])).await;
    let (answer, _login) = first_answer(Manner::Redirect(format!("{}/keys", other.name())), key).await;
    let held = unavailable(&answer) && other.asked() == 0;
    battery.row("redirect", held, (answer.status, other.asked()));
}

async fn keys_that_are_passed_over(battery: &Battery, key: &Key) {
    let folder = tempfile::tempdir().unwrap();
    let secret = Key::Secret(b"a secret that everybody can read".to_vec());
    let (other, sealing) = (Key::edwards(), Key::edwards());
    let mut sealing_key = sealing.jwk("sealing");
    sealing_key["use"] = json!("enc");
    let keys = [key.jwk("a"), secret.jwk("shared"), sealing_key, key.jwk("two"), other.jwk("two")];
    let tables = tables(ISSUER, &json!({ "keys": keys }), &folder);
    let gateway = Gateway::with(&format!("{}{tables}", audience())).start().await;
    let good = ask(&gateway.waystation, &of(ISSUER, key, "EdDSA", "a")).await.status;
    for (id, token) in [
        ("shared-secret", of(ISSUER, &secret, "HS256", "shared")),
        ("key-for-sealing", of(ISSUER, &sealing, "EdDSA", "sealing")),
        ("two-keys-of-one-name", of(ISSUER, key, "EdDSA", "two")),
    ] {
        let status = ask(&gateway.waystation, &token).await.status;
        battery.row(id, (good, status) == (200, 401), (good, status));
    }
}

/// What is wrong with a configuration, if anything is.
fn complaints(toml: &str) -> String {
    match Config::parse("routes.toml", toml, &Environment::default()) {
        Ok(_) => String::new(),
        Err(complaints) => complaints.to_string(),
    }
}

fn refused_at_the_start(battery: &Battery, key: &Key) {
    let folder = tempfile::tempdir().unwrap();
    let mut private = key.jwk("a");
    private["d"] = json!("c2VjcmV0");
    let toml = format!("{}{}", audience(), tables(ISSUER, &json!({ "keys": [private] }), &folder));
    let said = complaints(&toml);
    let held = said.contains("has a private key in it") && !said.contains("c2VjcmV0");
    battery.row("private-key", held, said);

    let issuer = |more: &str| format!("{}[[identify.issuer]]\n{more}", audience());
    let found = complaints(&issuer("issuer = \"http://login.example.com\""));
    let given = complaints(&issuer("issuer = \"https://a.example\"\njwks_url = \"http://a.example/keys\""));
    let held = [&found, &given].iter().all(|said| said.contains("must begin with https://"));
    battery.row("plain-http", held, (found, given));
}

async fn two_issuers(battery: &Battery, key: &Key) {
    let (folder, other) = (tempfile::tempdir().unwrap(), Key::edwards());
    let (one, two) = ("https://one.example.com", "https://two.example.com");
    let (first, second) = (json!({ "keys": [key.jwk("a")] }), json!({ "keys": [other.jwk("a")] }));
    let tables = format!("{}{}{}", audience(), tables(one, &first, &folder), tables(two, &second, &folder));
    let gateway = Gateway::with(&tables).start().await;
    let mut seen = Vec::new();
    for (issuer, key) in [(one, key), (two, &other), (one, &other), (two, key)] {
        seen.push(ask(&gateway.waystation, &of(issuer, key, "EdDSA", "a")).await.status);
    }
    battery.row("two-issuers-one-key-name", seen == [200, 200, 401, 401], seen);
}

/// Places to ask at, each with what is answered there to somebody without a good token, and a request that
/// does something for whoever is let in.
async fn places(gateway: &Gateway, good: &str) -> Vec<(String, u16, Post)> {
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {} }).to_string();
    let hello = |revision: &str| {
        json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": revision, "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } })
        .to_string()
    };
    let modern = || gateway.modern("tools/list", json!({}));
    let mut places = vec![("modern".to_owned(), 401, modern())];
    let mut session = String::new();
    for revision in LEGACY {
        let open = gateway.post("/mcp", hello(revision));
        let opened = open.clone().header("authorization", format!("Bearer {good}")).send().await;
        session = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
        places.push((format!("opening-{revision}"), 401, open));
        let post = gateway.post("/mcp", list.clone()).header("mcp-session-id", &session);
        places.push((format!("session-{revision}"), 401, post));
    }
    let events = |path: &str| gateway.get(path).header("accept", "text/event-stream");
    let more = [
        ("stream", 401, events("/mcp").header("mcp-session-id", &session)),
        ("end-of-session", 401, gateway.delete("/mcp").header("mcp-session-id", &session)),
        ("options", 401, modern().verb("OPTIONS")),
        ("head", 401, modern().verb("HEAD")),
        ("put", 401, modern().verb("PUT")),
        ("batch", 401, gateway.post("/mcp", format!("[{list}]")).header("mcp-session-id", &session)),
        ("slash", 401, gateway.modern_at("/mcp/", "tools/list", json!({}))),
        ("two-slashes", 404, gateway.modern_at("//mcp", "tools/list", json!({}))),
        ("encoded", 404, gateway.modern_at("/%6dcp", "tools/list", json!({}))),
        ("dots", 404, gateway.modern_at("/x/../mcp", "tools/list", json!({}))),
        ("capitals", 404, gateway.modern_at("/MCP", "tools/list", json!({}))),
        ("one-backend", 401, gateway.modern_at("/mcp/one", "tools/list", json!({}))),
        ("sse", 401, events("/sse")),
        ("sse-of-one-backend", 401, events("/sse/one")),
        ("messages", 401, gateway.post("/messages?session=0", list)),
        ("status", 404, gateway.get("/status")),
        ("reload", 404, gateway.post("/reload", "")),
        ("metrics", 404, gateway.get("/metrics")),
    ];
    places.extend(more.map(|(id, status, post)| (id.to_owned(), status, post)));
    places
}

#[tokio::test]
async fn there_is_no_way_around_a_token() {
    let battery = Battery::new("T01-ways-around");
    let (folder, key) = (tempfile::tempdir().unwrap(), Key::edwards());
    let fake = Fake::builder().era(Era::Both).sse(true).start().await;
    let set = json!({ "keys": [key.jwk("a")] });
    let toml = format!("{}{}", audience(), tables(ISSUER, &set, &folder));
    let gateway = Gateway::with(&toml).backend("one", &fake).start().await;
    let good = of(ISSUER, &key, "EdDSA", "a");
    let over = key.token(r#"{"alg":"EdDSA","kid":"a"}"#, claims(&json!({ "exp": signer::now() - 3600 })));
    let twice = format!("Bearer {good}");
    let failures: [(&str, Vec<String>); 6] = [
        ("nothing", vec![]),
        ("rubbish", vec!["Bearer a.b.c".into()]),
        ("over", vec![format!("Bearer {over}")]),
        ("made-up key", vec!["Bearer ws_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".into()]),
        ("another scheme", vec!["Basic YWRhOmE=".into()]),
        ("twice", vec![twice.clone(), twice]),
    ];
    for (id, expected, post) in places(&gateway, &good).await {
        let mut seen = Vec::new();
        for (what, headers) in &failures {
            let asked = headers.iter().fold(post.clone(), |post, value| post.and("authorization", value));
            let opened = asked.open().await;
            let told = opened.headers.contains_key("www-authenticate");
            seen.push((what, opened.status, told));
        }
        // Where nothing is, nobody has to be anybody; and who says it twice says nothing (RFC 6750, §3.1).
        let is_right = |what: &str, status, told| match what {
            "twice" => (status, told) == (400, false),
            _ => (status, told) == (expected, expected == 401),
        };
        let held = seen.iter().all(|(what, status, told)| is_right(what, *status, *told));
        battery.row(id, held, seen);
    }
    if !is_weakened() {
        let asked = gateway.modern("tools/list", json!({})).header("authorization", format!("Bearer {good}"));
        assert_eq!(asked.send().await.status, 200);
    }
    battery.end(20);
}

fn config(toml: &str) -> Config {
    Config::parse("routes.toml", toml, &Environment::default()).unwrap().0
}

#[tokio::test]
async fn a_reload_goes_on_with_what_is_known_of_an_issuer() {
    let key = Key::edwards();
    let login = Login::start(set(&[key.jwk("a")])).await;
    let gateway = Gateway::with(&login.tables()).start().await;
    let token = || of(&login.name(), &key, "EdDSA", "a");
    assert_eq!(ask(&gateway.waystation, &token()).await.status, 200);
    login.becomes(Manner::Away);
    let changed = login.tables().replace("[identify]\n", "[identify]\nanonymous = true\n");
    gateway.waystation.reload(config(&changed)).await.expect("nothing is wrong with it");
    assert_eq!((ask(&gateway.waystation, &token()).await.status, login.asked()), (200, 1));
    let other = login.tables().replace(AUDIENCE, "https://other.example.com/mcp");
    let remembered = token();
    assert_eq!(ask(&gateway.waystation, &remembered).await.status, 200);
    gateway.waystation.reload(config(&other)).await.expect("nothing is wrong with it");
    assert_eq!(ask(&gateway.waystation, &remembered).await.status, 401, "it was for the audience of before");
}

#[tokio::test]
async fn an_issuer_is_asked_as_long_as_its_tokens_are_taken() {
    let key = Key::edwards();
    let login = Login::start(set(&[key.jwk("a")])).await;
    let gateway = Gateway::with(&login.tables()).start().await;
    assert_eq!(ask(&gateway.waystation, &of(&login.name(), &key, "EdDSA", "a")).await.status, 200);
    later(MINUTES_5).await;
    crate::support::until("the keys are fetched again", || login.asked() == 2).await;
    gateway.waystation.reload(Config::default()).await.expect("nothing is wrong with it");
    later(MINUTES_5).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(login.asked(), 2);
}

#[tokio::test]
async fn a_reload_reads_key_files_again() {
    let (folder, a, b) = (tempfile::tempdir().unwrap(), Key::edwards(), Key::edwards());
    let toml =
        |key: &Key| format!("{}{}", audience(), tables(ISSUER, &json!({ "keys": [key.jwk("a")] }), &folder));
    let gateway = Gateway::with(&toml(&a)).start().await;
    let (old, new) = (of(ISSUER, &a, "EdDSA", "a"), of(ISSUER, &b, "EdDSA", "a"));
    assert_eq!(ask(&gateway.waystation, &old).await.status, 200);
    gateway.waystation.reload(config(&toml(&b))).await.expect("nothing is wrong with it");
    let seen = (ask(&gateway.waystation, &old).await.status, ask(&gateway.waystation, &new).await.status);
    assert_eq!(seen, (401, 200));
}
