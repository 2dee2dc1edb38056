//! With what does the gateway prove itself to servers, and who gets to use whose account?

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};
use tempfile::TempDir;
use waystation::config::{Config, Environment};

use crate::{
    fake::provider::{Provider, Ways},
    support::{Answer, Gateway, Post, Session, Setup, names_of, until},
};

fn setup(provider: &Provider) -> Setup {
    Gateway::with("").server("issues", &provider.url(), "[backends.issues.auth]")
}

async fn start() -> (Gateway, Provider) {
    let provider = Provider::start(Ways::default()).await;
    (setup(&provider).start().await, provider)
}

fn connect(gateway: &Gateway) -> Post {
    gateway.call("waystation__connect", json!({ "server": "issues" }))
}

/// The path of the link in an error.
#[track_caller]
fn link(answer: &Answer) -> String {
    let error = answer.error();
    assert_eq!((answer.status, error["code"].as_i64()), (200, Some(401)), "{error}");
    let words = error["message"].as_str().unwrap().split(' ');
    let link = words.into_iter().find(|word| word.contains("/connect/")).expect("a link");
    link[link.find("/connect/").unwrap()..].to_owned()
}

/// Presses the button: where the browser is sent, and its cookie.
async fn pressed(gateway: &Gateway, link: &str) -> (String, String) {
    let answer = gateway.get(link).verb("POST").send().await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let header = |name| answer.headers[name].to_str().unwrap().to_owned();
    (header("location"), header("set-cookie").split(';').next().unwrap().to_owned())
}

async fn back(gateway: &Gateway, query: &str, cookie: &str) -> Answer {
    gateway.get(&format!("/connect/callback?{query}")).header("cookie", cookie).send().await
}

/// A user goes all the way.
async fn agree(gateway: &Gateway, provider: &Provider, link: &str, user: &str) {
    let (location, cookie) = pressed(gateway, link).await;
    let answer = back(gateway, &provider.agrees(user, &location), &cookie).await;
    assert!(answer.text().contains("<h1>Connected</h1>"), "{}", answer.text());
}

async fn until_listed(gateway: &Gateway) {
    until("the tools are listed", || gateway.waystation.status()["tools"].as_u64() > Some(4)).await;
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {result}"))
}

fn state_of(gateway: &Gateway) -> Value {
    let status = gateway.waystation.status();
    let backends = status["backends"].as_array().unwrap();
    backends.iter().find(|backend| backend["name"] == "issues").unwrap().clone()
}

#[tokio::test]
async fn a_caller_without_an_account_gets_a_link_and_with_one_an_answer() {
    let (gateway, provider) = start().await;
    assert_eq!(state_of(&gateway)["state"], "needs-consent");
    let listed = names_of(&gateway.modern("tools/list", json!({})).send().await.result());
    assert!(listed.contains(&"waystation__connect".to_owned()), "{listed:?}");
    let link = link(&connect(&gateway).send().await);
    let page = gateway.get(&link).send().await;
    let seen = page.text();
    assert!(
        page.status == 200 && seen.contains("issues") && seen.contains("<form method=\"post\">"),
        "{seen}"
    );
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    assert!(provider.got("/token").is_empty(), "a page that is opened begins nothing");
    agree(&gateway, &provider, &link, "ada").await;
    until_listed(&gateway).await;
    assert_eq!(text(&gateway.call("issues__whoami", json!({})).send().await.result()), "ada");
    assert_eq!(state_of(&gateway)["state"], "ready");
    let connected = connect(&gateway).send().await.result();
    assert!(text(&connected).contains("is connected"), "{connected}");
    assert_eq!(provider.got("/register").len(), 1);
    assert!(provider.got("/register")[0].body.contains("\"application_type\":\"native\""));
}

#[tokio::test]
async fn a_link_works_once_and_a_browser_comes_back_once_with_its_cookie() {
    let (gateway, provider) = start().await;
    let first = link(&connect(&gateway).send().await);
    let (location, cookie) = pressed(&gateway, &first).await;
    assert_eq!(gateway.get(&first).verb("POST").send().await.status, 400, "used");
    assert_eq!(gateway.get(&first).send().await.status, 400, "used");
    assert_eq!(gateway.get("/connect/made-up").send().await.status, 400);
    let query = provider.agrees("eve", &location);
    for (query, cookie) in [
        (query.as_str(), "waystation-connect=other"),
        (query.as_str(), cookie.as_str()), // It came without its own before.
        ("code=code-1&state=made-up", cookie.as_str()),
        ("", cookie.as_str()),
    ] {
        let answer = back(&gateway, query, cookie).await;
        assert_eq!(answer.status, 400, "{query} {cookie}");
        assert!(answer.text().contains("Not connected"), "{}", answer.text());
    }
    let second = link(&connect(&gateway).send().await);
    assert_ne!(first, second);
    let (location, cookie) = pressed(&gateway, &second).await;
    let query = provider.agrees("eve", &location);
    let elsewhere = query.replace("iss=http%3A%2F%2F127", "iss=http%3A%2F%2F128");
    assert_ne!(query, elsewhere);
    let answer = back(&gateway, &elsewhere, &cookie).await;
    assert!(answer.status == 400 && answer.text().contains("authorization server"), "{}", answer.text());
    assert!(provider.got("/token").is_empty(), "no code was shown to anybody");
}

#[tokio::test]
async fn an_authorization_server_that_cannot_be_trusted_is_not_visited() {
    for (ways, why) in [
        (Ways { without_s256: true, ..Ways::default() }, "S256"),
        (Ways { misnamed: true, ..Ways::default() }, "issuer"),
    ] {
        let provider = Provider::start(ways).await;
        let gateway = setup(&provider).start().await;
        let link = link(&connect(&gateway).send().await);
        let answer = gateway.get(&link).verb("POST").send().await;
        assert!(answer.status == 400 && answer.text().contains(why), "{}", answer.text());
        assert!(provider.got("/register").is_empty());
    }
}

#[tokio::test]
async fn a_client_that_can_show_a_page_is_asked_to_and_its_call_goes_on() {
    let (gateway, provider) = start().await;
    let call = |more: Value| {
        let mut params = json!({
            "name": "waystation__connect", "arguments": { "server": "issues" },
            "_meta": { "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "url": {} } } },
        });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        gateway.modern("tools/call", params)
    };
    let asked = call(json!({})).send().await.result();
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    let request = &asked["inputRequests"]["connect"];
    assert_eq!(
        (&request["method"], &request["params"]["mode"]),
        (&json!("elicitation/create"), &json!("url"))
    );
    let answered = |action: &str| {
        let answer = json!({ "connect": { "action": action } });
        json!({ "inputResponses": answer, "requestState": asked["requestState"] })
    };
    let url = request["params"]["url"].as_str().unwrap();
    agree(&gateway, &provider, &url[url.find("/connect/").unwrap()..], "ada").await;
    let done = call(answered("accept")).send().await.result();
    assert!(text(&done).contains("is connected"), "{done}");
    // Who declines is told so, and not asked again.
    provider.revoke();
    let (gateway, _provider) = start().await;
    let session =
        Session::open_as(gateway.address, "/mcp", "2025-11-25", json!({ "elicitation": { "url": {} } }))
            .await;
    let mut stream = session.call("waystation__connect", json!({ "server": "issues" })).open().await;
    let question = stream.message().await.unwrap();
    assert_eq!(question["params"]["mode"], "url", "{question}");
    let decline = json!({ "jsonrpc": "2.0", "id": question["id"], "result": { "action": "decline" } });
    assert_eq!(session.post(decline.to_string()).send().await.status, 202);
    let answer = stream.last().await.unwrap();
    assert!(answer["error"]["message"].as_str().unwrap().contains("did not connect"), "{answer}");
}

#[tokio::test]
async fn a_token_is_replaced_by_one_request_for_all_that_wait() {
    let provider = Provider::start(Ways { lifetime: Some(30), ..Ways::default() }).await;
    let gateway = setup(&provider).start().await;
    agree(&gateway, &provider, &link(&connect(&gateway).send().await), "ada").await;
    until_listed(&gateway).await;
    let calls = (0..8).map(|_| gateway.call("issues__whoami", json!({})).send());
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(text(&answer.result()), "ada");
    }
    let refreshed = provider.got("/token").iter().filter(|got| got.said("refresh_token").is_some()).count();
    assert_eq!(refreshed, 1);
    assert_eq!(provider.got("/token")[0].said("resource"), Some(provider.url()));
}

#[tokio::test]
async fn an_account_outlives_a_restart_and_stands_nowhere_to_be_read() {
    let provider = Provider::start(Ways::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    let gateway = setup(&provider).store(&file).start().await;
    agree(&gateway, &provider, &link(&connect(&gateway).send().await), "ada").await;
    gateway.stop().await;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"token-" || part == b"refres"));
    }
    let gateway = setup(&provider).store(&file).start().await;
    until_listed(&gateway).await;
    assert_eq!(text(&gateway.call("issues__whoami", json!({})).send().await.result()), "ada");
}

#[tokio::test]
async fn a_caller_is_asked_for_more_but_not_for_what_was_given() {
    let (gateway, provider) = start().await;
    agree(&gateway, &provider, &link(&connect(&gateway).send().await), "ada").await;
    until_listed(&gateway).await;
    let more = link(&gateway.call("issues__write", json!({})).send().await);
    let (location, cookie) = pressed(&gateway, &more).await;
    assert!(location.contains("read") && location.contains("write"), "all of it: {location}");
    // The user agrees to less.
    let less =
        location.replace("+write", "").replace("write+", "").replace("%20write", "").replace("write%20", "");
    assert_ne!(less, location);
    assert_eq!(back(&gateway, &provider.agrees("ada", &less), &cookie).await.status, 200);
    let refused = gateway.call("issues__write", json!({})).send().await.error();
    assert!(!refused.to_string().contains("/connect/"), "{refused}");
}

/// Signs tokens of callers.
struct Login {
    key: Ed25519KeyPair,
    folder: TempDir,
}

impl Login {
    fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let keys = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": B64.encode(key.public_key()) }] });
        std::fs::write(folder.path().join("keys.json"), keys.to_string()).unwrap();
        Self { key, folder }
    }

    fn tables(&self) -> String {
        let file = self.folder.path().join("keys.json");
        format!(
            "[connect]\nurl = \"http://localhost\"\n[identify]\naudience = \"https://mcp.example.com/mcp\"\n\
             anonymous = true\n[[identify.issuer]]\nissuer = \"https://login.example.com\"\njwks_file = {file:?}\n"
        )
    }

    fn of(&self, subject: &str) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let claims = json!({
            "iss": "https://login.example.com", "aud": "https://mcp.example.com/mcp", "sub": subject,
            "iat": now, "exp": now + 600,
        });
        let signed =
            format!("{}.{}", B64.encode(r#"{"alg":"EdDSA","kid":"ed"}"#), B64.encode(claims.to_string()));
        format!("Bearer {signed}.{}", B64.encode(self.key.sign(signed.as_bytes())))
    }
}

#[tokio::test]
async fn nobody_uses_anybody_elses_account() {
    let (login, provider) = (Login::new(), Provider::start(Ways::default()).await);
    let setup = Gateway::with(&login.tables()).server("issues", &provider.url(), "[backends.issues.auth]");
    let gateway = setup.start().await;
    let [ada, bob] = ["ada", "bob"].map(|name| login.of(name));
    let of_ada = link(&connect(&gateway).header("authorization", &ada).send().await);
    assert!(gateway.get(&of_ada).send().await.text().contains("ada (https://login.example.com)"));
    agree(&gateway, &provider, &of_ada, "ada@issues").await;
    until_listed(&gateway).await;
    let whoami =
        |token: &str| gateway.call("issues__whoami", json!({})).header("authorization", token).send();
    assert_eq!(text(&whoami(&ada).await.result()), "ada@issues");
    let of_bob = link(&whoami(&bob).await);
    agree(&gateway, &provider, &of_bob, "bob@issues").await;
    assert_eq!(text(&whoami(&bob).await.result()), "bob@issues");
    assert_eq!(text(&whoami(&ada).await.result()), "ada@issues");
    let stranger = gateway.call("issues__whoami", json!({})).send().await.error();
    assert!(stranger["message"].as_str().unwrap().contains("strangers have none"), "{stranger}");
    // What callers came with was for the gateway alone.
    let signatures = [&ada, &bob].map(|token| token.rsplit('.').next().unwrap().to_owned());
    for got in provider.all() {
        let seen = format!("{got:?}");
        assert!(!signatures.iter().any(|signature| seen.contains(signature)), "{seen}");
    }
}

#[tokio::test]
async fn the_gateway_uses_an_account_of_its_own() {
    let provider = Provider::start(Ways::default()).await;
    let auth = format!(
        "[backends.issues.auth]\ngrant = \"client-credentials\"\nissuer = \"{}\"\nclient_id = \"me\"\nclient_secret = \"hush\"",
        provider.issuer()
    );
    // A secret in the file is refused there; a variable would be another test's as well.
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "hush").unwrap();
    let auth = auth.replace("\"hush\"", &format!("{{ file = {:?} }}", secret.path()));
    let gateway = Gateway::with("").server("issues", &provider.url(), &auth).start().await;
    assert_eq!(text(&gateway.call("issues__whoami", json!({})).send().await.result()), "gateway");
    let asked = provider.got("/token");
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].authorization.as_deref(), Some("Basic bWU6aHVzaA=="));
    assert_eq!(asked[0].said("resource"), Some(provider.url()));
    provider.revoke();
    assert_eq!(text(&gateway.call("issues__whoami", json!({})).send().await.result()), "gateway");
    assert_eq!(provider.got("/token").len(), 2);
    // Another issuer than the one that is written down does not get to see the secret.
    let other = auth.replace(&provider.issuer(), "https://login.example.com");
    let gateway = Gateway::with("").server("issues", &provider.url(), &other).start().await;
    assert!(state_of(&gateway)["problem"].as_str().unwrap().contains("login.example.com"));
    assert_eq!(provider.got("/token").len(), 2);
}

#[tokio::test]
async fn a_callers_token_is_exchanged_at_the_issuer_and_shown_to_nobody_else() {
    let (login, provider) = (Login::new(), Provider::start(Ways::default()).await);
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "hush").unwrap();
    let auth = format!(
        "[backends.issues.auth]\ngrant = \"token-exchange\"\nissuer = \"{}\"\nclient_id = \"me\"\nclient_secret = {{ file = {:?} }}",
        provider.issuer(),
        secret.path()
    );
    let gateway = Gateway::with(&login.tables()).server("issues", &provider.url(), &auth).start().await;
    let ada = login.of("ada");
    let bare = ada.strip_prefix("Bearer ").unwrap();
    let connected = connect(&gateway).header("authorization", &ada).send().await.result();
    assert!(text(&connected).contains("is connected"), "{connected}");
    until_listed(&gateway).await;
    let whoami =
        gateway.call("issues__whoami", json!({})).header("authorization", &ada).send().await.result();
    assert_eq!(text(&whoami), format!("exchanged {}", bare.len()));
    let shown: Vec<_> = provider.all().into_iter().filter(|got| format!("{got:?}").contains("eyJ")).collect();
    assert!(!shown.is_empty());
    for got in shown {
        assert_eq!((got.path.as_str(), got.said("subject_token").as_deref()), ("/token", Some(bare)));
    }
}

#[tokio::test]
async fn a_credential_that_is_refused_is_spoken_of_and_not_shown() {
    let provider = Provider::start(Ways::default()).await;
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "wrong-token").unwrap();
    let headers =
        format!("headers = {{ Authorization = {{ file = {:?}, prefix = \"Bearer \" }} }}", secret.path());
    let gateway = Gateway::with("").server("issues", &provider.url(), &headers).start().await;
    let state = state_of(&gateway);
    assert_eq!(state["state"], "down");
    let problem = state["problem"].as_str().unwrap();
    assert!(
        problem.contains("does not take the credential") && !problem.contains("wrong-token"),
        "{problem}"
    );
}

#[test]
fn a_table_that_makes_no_sense_is_complained_of_all_at_once() {
    let text = "[connect]\nurl = \"https://mcp.example.com/mcp\"\nallow_private = [\"127.0.0.1:9000\"]\n\
        [backends.a]\ncommand = \"x\"\nauth = { }\n\
        [backends.b]\nurl = \"https://b.example.com/mcp\"\nheaders = { Authorization = { env = \"SET\" } }\n\
        auth = { client_id = \"me\", client_secret = \"hush\" }\n\
        [backends.c]\nurl = \"https://c.example.com/mcp\"\nauth = { grant = \"client-credentials\" }\n";
    let environment = Environment::from_iter([("SET", "x")]);
    let complaints = Config::parse("routes.toml", text, &environment).unwrap_err().to_string();
    for said in [
        "is not where browsers could go",
        "is no origin",
        "a program gets its credentials in `env`",
        "stands beside `auth`",
        "any server could have itself shown the secret",
        "looks like a secret",
        "this grant has no use for a client that nobody knows",
        "with which the gateway gets its token",
    ] {
        assert!(complaints.contains(said), "{said} is not in {complaints}");
    }
    assert!(!complaints.contains("hush"), "{complaints}");
}
