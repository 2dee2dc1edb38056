//! Is a secret ever shown? Canaries are planted wherever secrets come in, and everything that the
//! shipped program writes is looked through for them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use waystation::config::{Config, Environment};

use crate::{
    fake::Fake,
    support::{
        Post,
        battery::{Battery, is_weakened},
        modern_call, modern_message,
        shipped::{Running, Shipped, descendants},
        until,
    },
};

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// A text that stands nowhere else. Its beginning is its own, too, since much of a secret is a
/// secret.
fn canary(name: &str) -> String {
    let mut random = [0; 12];
    aws_lc_rs::rand::fill(&mut random).unwrap();
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("Zq{digits}{}", name.len())
}

/// The same with letters that an address cannot have as they are.
fn canary_with_signs(name: &str) -> String {
    canary(name) + "+/ü"
}

/// Where something was written, and what.
type Seen = Vec<(String, Vec<u8>)>;

/// The places in which a secret is shown, whole or in part, as it is or encoded.
fn found(secret: &str, seen: &Seen) -> Vec<String> {
    let percent = |letter: &u8| match letter {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(*letter).to_string()
        }
        other => format!("%{other:02X}"),
    };
    let escaped: String = secret.as_bytes().iter().map(percent).collect();
    let begins: String = secret.chars().take(12).collect();
    let (base64, of_urls) = (STANDARD.encode(secret), URL_SAFE_NO_PAD.encode(secret));
    let forms = [secret, &escaped, &begins, base64.trim_end_matches('='), &of_urls];
    let holds = |text: &[u8]| forms.iter().any(|form| memchr::memmem::find(text, form.as_bytes()).is_some());
    seen.iter().filter(|(_, text)| holds(text)).map(|(place, _)| place.clone()).collect()
}

/// A secret that was planted, and where it may be seen: by its owner.
struct Planted {
    name: &'static str,
    secret: String,
    may: &'static [&'static str],
}

#[derive(Default)]
struct Garden(Vec<Planted>);

impl Garden {
    fn plant(&mut self, name: &'static str) -> String {
        self.add(name, canary(name), &[])
    }

    fn add(&mut self, name: &'static str, secret: String, may: &'static [&'static str]) -> String {
        self.0.push(Planted { name, secret: secret.clone(), may });
        secret
    }
}

/// A server that refuses all, and says more than it should.
async fn denying(body: String, cookie: String, challenge: String) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let text = json!({ "error": "bad token", "token": body }).to_string();
            let answer = format!(
                "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nSet-Cookie: s={cookie}\r\n\
                 WWW-Authenticate: Bearer realm=\"{challenge}\"\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            tokio::spawn(async move {
                let mut bytes = [0; 16 << 10];
                while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("http://{address}/mcp")
}

/// Its key set in a file, and a token of ada's.
fn issuer(folder: &Path) -> (String, String) {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let (b64, file) = (URL_SAFE_NO_PAD, folder.join("keys.json"));
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64.encode(key.public_key()) });
    fs::write(&file, json!({ "keys": [jwk] }).to_string()).unwrap();
    let now = now();
    let claims = json!({ "iss": "https://login.example.com", "aud": "https://mcp.example.com/mcp", "sub": "ada",
        "iat": now, "exp": now + 600, "jti": canary("jti") });
    let header = json!({ "kid": "ed", "alg": "EdDSA" });
    let signed = format!("{}.{}", b64.encode(header.to_string()), b64.encode(claims.to_string()));
    let token = format!("{signed}.{}", b64.encode(key.sign(signed.as_bytes())));
    (file.display().to_string(), token)
}

/// A gateway with secrets in all its corners, at work.
struct Scene {
    gateway: Running,
    garden: Garden,
    token: String,
    /// What clients were answered.
    answers: Seen,
}

impl Scene {
    async fn begin(level: &str, format: &str, fake: &Fake) -> Self {
        let (mut garden, shipped) = (Garden::default(), Shipped::default());
        let (keys, token) = issuer(shipped.folder());
        garden.add("token", token.clone(), &[]);
        let file = shipped.folder().join("secret");
        fs::write(&file, garden.add("file-of-child", canary("f"), &["environment of child"])).unwrap();
        let bearer = shipped.folder().join("bearer");
        fs::write(&bearer, garden.add("file-of-header", canary("b"), &[])).unwrap();
        let refusing = denying(
            garden.plant("body-of-401"),
            garden.plant("cookie-of-401"),
            garden.plant("challenge-of-401"),
        );
        let refusing = refusing.await;
        let url = format!("http://127.0.0.1:9/mcp?key={}", garden.plant("query-of-url"));
        let own = garden.add("env-of-gateway", canary("own"), &[]);
        let proxy = format!("http://me:{}@127.0.0.1:9", garden.plant("proxy-in-env"));
        let shipped = shipped
            .set("CHILD_TOKEN", &garden.add("env-of-child", canary("c"), &["environment of child"]))
            .set("DOWN_TOKEN", &garden.add("env-of-dying-child", canary("d"), &["environment of child"]))
            .set("HEADER_TOKEN", &garden.add("env-of-header", canary("h"), &[]))
            .set("WAYSTATION_BACKENDS__AWAY__URL", &url)
            .set("AWS_SECRET_ACCESS_KEY", &own)
            .set("HTTPS_PROXY", &proxy)
            .set("HTTP_PROXY", &proxy);
        let keys_url = format!(
            "http://me:{}@127.0.0.1:9/keys?x={}",
            garden.plant("password-of-issuer"),
            garden.plant("query-of-issuer")
        );
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fake_stdio.py");
        let talks = format!(
            "echo \"I have $TOKEN and $(cat secret) and $AWS_SECRET_ACCESS_KEY\" >&2; exec python3 -S -E {script}"
        );
        let toml = format!(
            "[log]\nlevel = \"{level}\"\nformat = \"{format}\"\n[audit]\nfile = \"audit.jsonl\"\n\
             [audit.tools]\n\"*\" = {{ arguments = true }}\n\
             [identify]\naudience = \"https://mcp.example.com/mcp\"\n\
             [[identify.issuer]]\nissuer = \"https://login.example.com\"\njwks_file = \"{keys}\"\n\
             [[identify.issuer]]\nissuer = \"https://other.example.com\"\njwks_url = \"{keys_url}\"\n\
             [backends.child]\ncommand = \"sh\"\nargs = [\"-c\", {talks:?}]\n\
             env = {{ TOKEN = {{ env = \"CHILD_TOKEN\" }}, FILE = {{ file = {file:?} }} }}\n\
             [backends.dying]\ncommand = \"sh\"\nargs = [\"-c\", \"echo bad: $TOKEN >&2; exit 3\"]\n\
             env = {{ TOKEN = {{ env = \"DOWN_TOKEN\" }} }}\n\
             [backends.good]\nurl = \"{}\"\n\
             headers = {{ Authorization = {{ file = {bearer:?}, prefix = \"Bearer \" }}, X-Other = {{ env = \"HEADER_TOKEN\" }} }}\n\
             [backends.refusing]\nurl = \"{refusing}\"\n",
            fake.url(),
        );
        let gateway = shipped.serve(&toml);
        Self { gateway, garden, token, answers: Vec::new() }
    }

    fn call(&self, tool: &str, arguments: Value) -> Post {
        modern_call(self.gateway.address, tool, arguments)
            .header("authorization", format!("Bearer {}", self.token))
    }

    async fn answer(&mut self, place: &str, post: Post) -> (u16, String) {
        let answer = post.send().await;
        let (status, text) = (answer.status, answer.text());
        let headers = format!("{:?}", answer.headers);
        self.answers.push((format!("answer to {place}"), [headers, text.clone()].concat().into_bytes()));
        (status, text)
    }

    /// Asks in every way in which a secret can come along.
    async fn ask(&mut self) {
        let echo = self.call("child__echo", json!({}));
        until_answered(&echo).await;
        let bad = ["eyJhbGciOiJFZERTQSJ9", &self.garden.plant("payload-of-bad-token"), "c2ln"].join(".");
        let invalid = self.call("child__echo", json!({})).header("authorization", format!("Bearer {bad}"));
        assert_eq!(self.answer("a bad token", invalid).await.0, 401);
        let unknown_issuer = bad_token("https://other.example.com", &mut self.garden);
        let other =
            self.call("child__echo", json!({})).header("authorization", format!("Bearer {unknown_issuer}"));
        assert_eq!(self.answer("a token whose keys cannot be had", other).await.0, 503);
        let basic = STANDARD.encode(format!("me:{}", self.garden.plant("basic")));
        let basic = self.call("child__echo", json!({})).header("authorization", format!("Basic {basic}"));
        assert_eq!(self.answer("basic", basic).await.0, 401);

        let mut full = self.call("child__echo", json!({}));
        for (name, header) in [
            ("cookie", "cookie"),
            ("api-key", "x-api-key"),
            ("forwarded", "forwarded"),
            ("forwarded-for", "x-forwarded-for"),
            ("proxy-authorization", "proxy-authorization"),
            ("upstream-authorization", "x-upstream-authorization"),
            ("baggage", "baggage"),
            ("tracestate", "tracestate"),
            ("any-header", "x-whatever"),
        ] {
            full = full.header(header, format!("k={}", self.garden.plant(name)));
        }
        assert_eq!(self.answer("headers", full).await.0, 200);
        self.paths().await;
        self.bodies().await;
        self.sessions().await;
    }

    async fn paths(&mut self) {
        let query = format!("/mcp?access_token={}", self.garden.plant("query-of-request"));
        let path = format!("/mcp/{}", self.garden.plant("path-of-request"));
        for (place, path) in [("a query", query), ("a path", path)] {
            let message = modern_message(json!(1), "tools/list", json!({})).to_string();
            let post = Post::new(self.gateway.address, &path, message);
            let post = post.header("authorization", format!("Bearer {}", self.token));
            let post = post.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/list");
            self.answer(place, post).await;
        }
    }

    async fn bodies(&mut self) {
        // What a tool is given and says back is its caller's, and may be seen in that answer.
        let own = &["echo"];
        let password = self.garden.add("password-argument", canary_with_signs("p"), own);
        let key = ["ghp", "_", &self.garden.add("key-argument", canary("k"), own)].concat();
        let deep = self.garden.add("deep-argument", canary("deep"), own);
        let secrets =
            json!({ "password": password, "note": key, "list": [{ "apiKey": deep }], "visible": "marker" });
        let answer = self.call("good__echo", secrets).send().await;
        self.answers.push(("echo".into(), answer.text().into_bytes()));
        let state = self.garden.plant("request-state");
        let params =
            json!({ "name": "good__echo", "arguments": {}, "requestState": state, "inputResponses": {} });
        let message = modern_message(json!(1), "tools/call", params).to_string();
        let post = self.call("good__echo", json!({})).body(message);
        self.answer("a forged state", post).await;
        let broken =
            format!("{{\"jsonrpc\": \"2.0\", \"password\": \"{}\" x", self.garden.plant("broken-body"));
        let post = self.call("good__echo", json!({})).body(broken);
        assert_eq!(self.answer("a broken body", post).await.0, 400);
        let twice =
            format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"{0}\":1,\"{0}\":2}}", self.garden.plant("key-of-body"));
        let post = self.call("good__echo", json!({})).body(twice);
        self.answer("a key that stands there twice", post).await;
        // Whoever asks for an address is told that it is not there.
        let uri = format!(
            "db://host/table?token={}",
            self.garden.add("query-of-resource", canary("uri"), &["resource"])
        );
        let message = modern_message(json!(1), "resources/read", json!({ "uri": uri })).to_string();
        let post = Post::new(self.gateway.address, "/mcp", message)
            .header("authorization", format!("Bearer {}", self.token))
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "resources/read")
            .header("mcp-name", uri);
        self.answer("resource", post).await;
    }

    async fn sessions(&mut self) {
        let with = |post: Post, token: &str| post.header("authorization", format!("Bearer {token}"));
        let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }).to_string();
        let foreign = Post::new(self.gateway.address, "/mcp", list.clone());
        let foreign =
            with(foreign, &self.token).header("mcp-session-id", self.garden.plant("foreign-session"));
        self.answer("a foreign session", foreign).await;
        let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } } });
        let hello =
            with(Post::new(self.gateway.address, "/mcp", hello.to_string()), &self.token).send().await;
        let id = hello.headers["mcp-session-id"].to_str().unwrap().to_owned();
        // It goes on after a restart, so it has to be kept.
        self.garden.add("session", id.clone(), &["state/"]);
        let post = with(Post::new(self.gateway.address, "/mcp", list.clone()), &self.token);
        self.answer("a session", post.header("mcp-session-id", &id)).await;
        let get = Post::new(self.gateway.address, "/mcp", "").verb("GET").without("content-type");
        let get = with(get, &self.token).header("mcp-session-id", &id).header("accept", "text/event-stream");
        let get = get.header("last-event-id", self.garden.plant("last-event"));
        self.answer("a foreign event", get).await;
    }

    /// Everything that can be seen of it from outside.
    async fn seen(mut self) -> (Garden, Seen) {
        for path in ["/status", "/health", "/nothing"] {
            let get = Post::new(self.gateway.admin, path, "").verb("GET");
            let answer = get.send().await;
            self.answers.push((format!("admin {path}"), answer.text().into_bytes()));
        }
        let stranger = Post::new(self.gateway.admin, "/status", "").verb("GET").header("cookie", "x=y");
        self.answers.push(("admin".into(), stranger.send().await.text().into_bytes()));
        let status = self.call("waystation__status", json!({}));
        self.answer("waystation__status", status).await;
        let mut seen = self.answers;
        for pid in descendants(self.gateway.pid()).into_iter().chain([self.gateway.pid()]) {
            let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let command = read("cmdline");
            let who = match String::from_utf8_lossy(&command).contains("guardian") {
                true => "guardian",
                false => "child",
            };
            seen.push((format!("arguments of {who}"), command));
            if pid != self.gateway.pid() {
                // A child has been given its own, and nobody else's.
                seen.push((format!("environment of {who}"), read("environ")));
            }
        }
        let audit = self.gateway.folder().join("audit.jsonl");
        until("the trail is written", || {
            fs::read_to_string(&audit)
                .is_ok_and(|text| text.contains("waystation__status") || text.contains("\"status\""))
        })
        .await;
        for entry in fs::read_dir(self.gateway.folder().join("state/waystation")).unwrap() {
            let path = entry.unwrap().path();
            seen.push((format!("state/{}", path.file_name().unwrap().display()), fs::read(&path).unwrap()));
        }
        let (stdout, stderr) = self.gateway.said();
        seen.extend([("stdout".into(), stdout.into_bytes()), ("log".into(), stderr.into_bytes())]);
        let folder = self.gateway.folder().to_owned();
        let toml = fs::read_to_string(folder.join("routes.toml")).unwrap();
        let shipped = self.gateway.stop();
        seen.push(("audit.jsonl".into(), fs::read(&audit).unwrap()));
        seen.push(("log at the end".into(), fs::read(folder.join("stderr")).unwrap()));
        for arguments in
            [&["audit", "--json"][..], &["audit"], &["check"], &["serve", "--config", "/no/such"]]
        {
            let output = shipped.run(&toml, arguments);
            seen.push((format!("waystation {}", arguments[0]), [output.stdout, output.stderr].concat()));
        }
        (self.garden, seen)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token of that issuer's that nobody signed. All else about it is right, so its keys are asked for.
fn bad_token(issuer: &str, garden: &mut Garden) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({ "alg": "EdDSA", "kid": "x" }));
    let audience = "https://mcp.example.com/mcp";
    let claims = part(json!({ "iss": issuer, "aud": audience, "sub": "eve", "exp": now() + 600 }));
    let token = format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode([7; 64]));
    garden.add("unsigned-token", token, &[])
}

async fn until_answered(post: &Post) {
    let begun = std::time::Instant::now();
    loop {
        let answer = post.clone().send().await;
        if answer.status == 200 && answer.text().contains("\"result\"") {
            return;
        }
        assert!(begun.elapsed() < crate::support::PATIENCE, "in vain: {}", answer.text());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_shown_anywhere() {
    let battery = Battery::new("T16-secrets");
    let fake = Fake::builder().start().await;
    let mut leaks: std::collections::BTreeMap<&str, Vec<String>> = std::collections::BTreeMap::new();
    for (number, level) in LEVELS.into_iter().enumerate() {
        // Every level in both forms takes twice as long, and the texts are the same ones.
        let formats =
            if level == "trace" { vec!["text", "json"] } else { vec![["text", "json"][number % 2]] };
        for format in formats {
            let mut scene = Scene::begin(level, format, &fake).await;
            scene.ask().await;
            let (garden, seen) = scene.seen().await;
            still_looking(level, &garden, &seen);
            for Planted { name, secret, may } in &garden.0 {
                let places = found(secret, &seen);
                let places = places.iter().filter(|place| !may.iter().any(|may| place.contains(may)));
                let places = places.map(|place| format!("{place} ({level}, {format})"));
                leaks.entry(name).or_default().extend(places);
            }
        }
    }
    for (name, places) in leaks {
        battery.row(name, places.is_empty(), places);
    }
    battery.end(38);
}

/// Is what is looked for, and where, as it is thought to be?
fn still_looking(level: &str, garden: &Garden, seen: &Seen) {
    let text = |place: &str| {
        let parts = seen.iter().filter(|(name, _)| name.contains(place));
        parts.map(|(_, text)| String::from_utf8_lossy(text)).collect::<Vec<_>>().concat()
    };
    let secret = |name: &str| &garden.0.iter().find(|planted| planted.name == name).unwrap().secret;
    assert!(text("environment of child").contains(secret("env-of-child")), "the child has its token");
    assert!(text("echo").contains(secret("deep-argument")), "the tool said what it was given");
    assert!(text("state/").contains(secret("session")), "sessions are kept in the store");
    assert!(text("audit.jsonl").contains("\"visible\":\"marker\""), "{}", text("audit.jsonl"));
    assert!(text("waystation audit").contains("ada") && text("arguments of guardian").contains("guardian"));
    assert!(text("admin /status").contains("dying") && text("stdout").contains("MCP endpoint"));
    let log = text("log");
    assert!(!log.is_empty() || level == "error", "the log says nothing");
    assert!(level != "trace" || (log.contains("DEBUG") && log.contains("stderr: I have")), "{log}");
    if !is_weakened() {
        assert!(text("waystation check").contains("is all right"), "{}", text("waystation check"));
    }
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_without_its_secrets() {
    let battery = Battery::new("T16-complaints");
    let shipped = Shipped::default();
    let check = |id: &str, expected: &str, toml: &dyn Fn(&str) -> String| {
        let secret = canary(id);
        let output = shipped.run(&toml(&secret), &["check"]);
        // On a terminal the lines are quoted, too.
        let complaints = Config::parse("routes.toml", &toml(&secret), &Environment::default()).unwrap_err();
        let said = [&*output.stdout, &*output.stderr, complaints.drawn(false).as_bytes()].concat();
        let text = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(output.status.code(), Some(78), "{id}: {text}");
        assert!(text.contains(expected), "{id}: {text}");
        battery.row(id, found(&secret, &vec![(String::new(), said)]).is_empty(), text);
    };
    let backend = |lines: String| format!("[backends.a]\n{lines}\n");
    let token = |secret: &str| format!("ghp_{secret}{secret}");
    check("token-in-env", "looks like a secret", &|s| {
        backend(format!("command = \"sh\"\nenv = {{ A = \"{}\" }}", token(s)))
    });
    check("header-of-proof", "secret", &|s| {
        backend(format!("url = \"http://127.0.0.1:1/\"\nheaders = {{ Authorization = \"Bearer {s}\" }}"))
    });
    check("password-in-url", "url", &|s| backend(format!("url = \"http://me:{s}@127.0.0.1:1/\"")));
    check("token-in-arguments", "looks like a secret", &|s| {
        backend(format!("command = \"sh\"\nargs = [\"{}\"]", token(s)))
    });
    check("flag-in-command", "without a shell", &|s| backend(format!("command = \"server --api-key {s}\"")));
    check("no-toml", "routes.toml:", &|s| backend(format!("headers = {{ Authorization = \"Bearer {s}\"")));
    check("no-toml-2", "routes.toml:", &|s| format!("[backends.a]\npassword {s}\n"));
    check("unknown-key", "there is no key", &|s| backend(format!("command = \"sh\"\npassword = \"{s}\"")));
    check("wrong-shape", "backends.a", &|s| backend(format!("command = \"sh\"\nenv = \"TOKEN={s}\"")));
    check("wrong-kind", "log.level", &|s| format!("[log]\nlevel = \"{}\"\n", token(s)));
    check("token-for-a-key", "there is no key", &|s| backend(format!("command = \"sh\"\n{} = 1", token(s))));
    check("token-for-a-backend", "backends", &|s| format!("[backends.{}]\ncommand = \"sh\"\n", token(s)));
    battery.end(12);
    // From the environment, too, a password in an address is refused, and not repeated.
    let secret = canary("url");
    let shipped =
        Shipped::default().set("WAYSTATION_BACKENDS__A__URL", &format!("http://me:{secret}@127.0.0.1/"));
    let output = shipped.run("", &["check"]);
    let said = [output.stdout, output.stderr].concat();
    assert_eq!((output.status.code(), found(&secret, &vec![(String::new(), said)])), (Some(78), Vec::new()));
}

#[test]
fn texts_that_hold_a_secret_print_none() {
    use waystation::settings::{FromEnv, Text};
    let battery = Battery::new("T16-types");
    let secret = canary("type");
    let text = Text::Plain(secret.clone());
    battery.row("debug-of-text", !format!("{text:?} {text:#?}").contains(&secret), &text);
    let resolved = text.resolve().unwrap();
    battery.row("debug-of-resolved", !format!("{resolved:?} {resolved:#?}").contains(&secret), &resolved);
    battery.end(2);
    // One that is found elsewhere says where, and nothing more.
    let env = Text::Env(FromEnv { env: "HOME".into(), prefix: secret.clone() });
    assert_eq!(format!("{env:?}"), "env HOME");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_memory_are_the_owners_alone() {
    let battery = Battery::new("T16-files");
    let shipped = Shipped::default();
    let toml = "[audit]\nstore = true\nfile = \"audit.jsonl\"\n";
    // One that others can read already is narrowed.
    fs::create_dir_all(shipped.state().join("waystation")).unwrap();
    for name in ["state/waystation/waystation.db", "audit.jsonl"] {
        fs::write(shipped.folder().join(name), "").unwrap();
        fs::set_permissions(shipped.folder().join(name), fs::Permissions::from_mode(0o666)).unwrap();
    }
    // Many machines have cores written, though not all.
    let cores = rustix::process::getrlimit(rustix::process::Resource::Core);
    let cores = rustix::process::Rlimit { current: cores.maximum, ..cores };
    rustix::process::setrlimit(rustix::process::Resource::Core, cores).unwrap();
    let gateway = shipped.serve(toml);
    modern_call(gateway.address, "waystation__status", json!({})).send().await.result();
    let audit = gateway.folder().join("audit.jsonl");
    until("the trail is written", || fs::read_to_string(&audit).is_ok_and(|text| text.contains("status")))
        .await;
    let state = gateway.folder().join("state/waystation");
    let files = ["waystation.db", "waystation.db-wal", "waystation.db-shm"].map(|name| state.join(name));
    for file in files.iter().chain([&audit]) {
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        let name = file.file_name().unwrap().display().to_string();
        battery.row(name, mode == 0o600, format!("{mode:o}"));
    }
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    battery.row("core-dump", core.split_whitespace().nth(4) == Some("0"), core);
    battery.end(5);
}
