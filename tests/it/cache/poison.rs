//! What tells one call from another, and one caller's from another's, through the whole gateway?
//!
//! A row sends one request and then another. The second is answered from the cache, or comes to the
//! server, as the row says.

use serde_json::{Value, json};

use super::{
    people::{ISSUERS, People, by},
    stage::hit,
};
use crate::{
    fake::{Era, Fake, tool},
    support::{Answer, Gateway, Post, battery::Battery, modern_message},
};

struct Table {
    gateway: Gateway,
    fakes: [Fake; 2],
    people: People,
    ada: String,
    battery: Battery,
}

fn annotated(name: &str) -> Value {
    let mut tool = tool(name);
    tool["annotations"] = json!({ "readOnlyHint": true });
    tool
}

fn docs() -> crate::fake::Builder {
    let mut mirrored = annotated("mirrored");
    mirrored["inputSchema"]["properties"] =
        json!({ "region": { "type": "string", "x-mcp-header": "Region" } });
    let tools = ["echo", "raw", "ask", "fails_with", "shared_echo"].map(annotated);
    let tools = [&tools[..], &[mirrored, tool("plain"), tool("told")]].concat();
    let prompts =
        vec![json!({ "name": "greet", "arguments": [{ "name": "who" }] }), json!({ "name": "part" })];
    let template = |uri: &str| vec![json!({ "uriTemplate": uri, "name": "any" })];
    let fake =
        Fake::builder().era(Era::Modern).tools(tools).prompts(prompts).templates(template("test://{+path}"));
    let hints = [
        ("zero", json!({ "ttlMs": 0 })),
        ("negative", json!({ "ttlMs": -1 })),
        ("fraction", json!({ "ttlMs": 1.5 })),
        ("text", json!({ "ttlMs": "60000" })),
        ("true", json!({ "ttlMs": true })),
        ("lowest", json!({ "ttlMs": i64::MIN })),
        ("enormous", json!({ "ttlMs": 1u64 << 63 })),
        ("unsaid", json!({ "ttlMs": null, "cacheScope": null })),
        ("public", json!({ "cacheScope": "public" })),
    ];
    hints
        .into_iter()
        .fold(fake.ttl_ms(60_000), |fake, (name, hints)| fake.hints(&format!("test://{name}"), hints))
}

fn open() -> crate::fake::Builder {
    let template = vec![json!({ "uriTemplate": "open://{+path}", "name": "any" })];
    let fake = Fake::builder().era(Era::Modern).ttl_ms(60_000).templates(template);
    fake.hints("open://public", json!({ "cacheScope": "public" }))
        .hints("open://half", json!({ "cacheScope": null }))
        .hints("open://odd", json!({ "cacheScope": "Public" }))
}

const CACHE: &str = r#"
[cache]
largest = "64 KiB"
[cache.tools]
"docs__*" = { ttl = "5m" }
"docs__told" = { ttl = "5m", read_only = true }
"docs__shared_*" = { ttl = "5m", share = "all" }
[cache.backends]
docs = { ttl = "1m" }
open = { share = "all" }
"#;

impl Table {
    async fn new() -> Self {
        let (people, fakes) = (People::new(), [docs().start().await, open().start().await]);
        let setup = Gateway::with(&format!("{}{CACHE}", people.tables()));
        let gateway = setup.backend("docs", &fakes[0]).backend("open", &fakes[1]).start().await;
        let ada = people.token(ISSUERS[0], "ada", json!({ "tenant": 1, "scope": "read", "groups": ["g"] }));
        Self { gateway, fakes, people, ada, battery: Battery::new("T10") }
    }

    /// What servers were asked so far, beside their lists.
    fn asked(&self) -> usize {
        let calls = ["tools/call", "resources/read", "prompts/get", "completion/complete"];
        self.fakes
            .iter()
            .map(|fake| calls.iter().map(|method| fake.seen_of(method).len()).sum::<usize>())
            .sum()
    }

    async fn send(&self, post: Post) -> (Answer, bool, bool) {
        let before = self.asked();
        let answer = post.send().await;
        let result = answer.response()["result"].clone();
        (answer, hit(&result)["hit"] == true, self.asked() > before)
    }

    /// Is the second answered with the reply to the first?
    async fn row(&self, id: &str, again: bool, first: Post, second: Post) {
        let (one, was_hit, first_came) = self.send(first).await;
        let (two, is_hit, second_came) = self.send(second).await;
        let held = !was_hit && first_came && is_hit == again && second_came != again;
        self.battery.row(id, held, (one.text(), two.text()));
    }

    fn ask(&self, method: &str, params: Value) -> Post {
        by(&self.ada, self.gateway.modern(method, params))
    }

    /// A call of a tool with arguments that are spelled like this.
    fn call(&self, tool: &str, arguments: &str) -> Post {
        let params = json!({ "name": format!("docs__{tool}"), "arguments": "@" });
        let message = modern_message(json!(1), "tools/call", params.clone()).to_string();
        self.ask("tools/call", params).body(message.replacen("\"@\"", arguments, 1))
    }

    fn read(&self, uri: &str) -> Post {
        self.ask("resources/read", json!({ "uri": uri }))
    }

    async fn spellings(&self) {
        for (id, again, one, two) in [
            ("key-order", true, r#"{"r":1,"a":1}"#, r#"{"a":1,"r":1}"#),
            (
                "key-order-deeper",
                true,
                r#"{"r":2,"a":{"x":[{"p":1,"q":2}]}}"#,
                r#"{"r":2,"a":{"x":[{"q":2,"p":1}]}}"#,
            ),
            ("spaces", true, r#"{"r":3}"#, "{ \"r\" :\n3 }"),
            ("escapes", true, r#"{"r":4,"a":"é\/"}"#, r#"{"\u0072":4,"a":"\u00e9/"}"#),
            ("one-and-one-point-zero", false, r#"{"r":5,"a":1}"#, r#"{"r":5,"a":1.0}"#),
            ("hundred-and-1e2", false, r#"{"r":6,"a":100}"#, r#"{"r":6,"a":1e2}"#),
            ("zero-and-minus-zero", false, r#"{"r":7,"a":0}"#, r#"{"r":7,"a":-0}"#),
            ("beyond-a-double", false, r#"{"r":8,"a":9007199254740993}"#, r#"{"r":8,"a":9007199254740992}"#),
            ("nfc-and-nfd", false, "{\"r\":9,\"a\":\"\u{e9}\"}", "{\"r\":9,\"a\":\"e\u{301}\"}"),
            ("number-and-text", false, r#"{"r":10,"a":1}"#, r#"{"r":10,"a":"1"}"#),
            ("null-and-nothing", false, r#"{"r":11,"a":null}"#, r#"{"r":11}"#),
            ("case-of-a-key", false, r#"{"r":12,"a":1}"#, r#"{"r":12,"A":1}"#),
            ("case-of-a-value", false, r#"{"r":13,"a":"x"}"#, r#"{"r":13,"a":"X"}"#),
            ("order-of-a-list", false, r#"{"r":14,"a":[1,2]}"#, r#"{"r":14,"a":[2,1]}"#),
            ("list-and-object", false, r#"{"r":15,"a":[]}"#, r#"{"r":15,"a":{}}"#),
            ("nesting", false, r#"{"r":16,"a":{"b":1},"c":2}"#, r#"{"r":16,"a":{"b":1,"c":2}}"#),
            ("true-and-text", false, r#"{"r":17,"a":true}"#, r#"{"r":17,"a":"true"}"#),
            ("where-a-key-ends", false, r#"{"r":18,"ab":"c"}"#, r#"{"r":18,"a":"bc"}"#),
            ("zero-width", false, r#"{"r":19,"a":"x"}"#, "{\"r\":19,\"a\":\"x\u{200b}\"}"),
            ("nul", false, r#"{"r":20,"a":"x"}"#, r#"{"r":20,"a":"x\u0000"}"#),
        ] {
            self.row(id, again, self.call("echo", one), self.call("echo", two)).await;
        }
        for (id, one, two) in [
            ("uri-case-of-path", "test://case", "test://Case"),
            ("uri-percent", "test://percent-a", "test://percent-%61"),
            ("uri-slash-at-the-end", "test://slash", "test://slash/"),
            ("uri-dots", "test://dots/b", "test://dots/a/../b"),
            ("uri-query", "test://query", "test://query?"),
            ("uri-fragment", "test://fragment", "test://fragment#"),
        ] {
            self.row(id, false, self.read(one), self.read(two)).await;
        }
    }

    async fn around(&self) {
        for name in [
            "x-forwarded-host",
            "x-forwarded-for",
            "forwarded",
            "x-original-url",
            "x-rewrite-url",
            "x-tenant",
            "x-http-method-override",
            "accept-language",
            "user-agent",
            "cookie",
            "via",
            "cache-control",
            "if-none-match",
            "range",
            "accept-encoding",
            "x-api-key",
        ] {
            let call = || self.call("echo", &format!("{{\"header\":{name:?}}}"));
            self.row(&format!("header-{name}"), true, call().header(name, "evil-7f3a"), call()).await;
        }
        let reached =
            self.fakes[0].seen().iter().any(|seen| format!("{:?}", seen.headers).contains("evil-7f3a"));
        assert!(!reached, "no header of a client's reaches a server");
        let call = |n: u32| self.call("echo", &format!("{{\"around\":{n}}}"));
        let local = format!("localhost:{}", self.gateway.address.port());
        self.row("host", true, call(1), call(1).header("host", local)).await;
        let accept = "text/event-stream, application/json";
        self.row("accept", true, call(2), call(2).header("accept", accept)).await;
        let span = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        self.row("trace", true, call(3), call(3).header("traceparent", span)).await;
        self.row("baggage", false, call(4), call(4).header("baggage", "tenant=2")).await;
        let with = |n: u32, meta: Value| {
            let arguments = json!({ "around": n });
            self.ask("tools/call", json!({ "name": "docs__echo", "arguments": arguments, "_meta": meta }))
        };
        let name = |name: &str| format!("io.modelcontextprotocol/{name}");
        let info = json!({ name("clientInfo"): { "name": "other", "version": "9" } });
        self.row("client-info", true, with(5, json!({})), with(5, info)).await;
        self.row("progress-token", true, with(6, json!({})), with(6, json!({ "progressToken": 1 }))).await;
        self.row("log-level", true, with(7, json!({})), with(7, json!({ name("logLevel"): "debug" }))).await;
        let asked = json!({ name("clientCapabilities"): { "sampling": {} } });
        self.row("capabilities", false, with(8, json!({})), with(8, asked)).await;
        self.row("own-meta", false, with(9, json!({})), with(9, json!({ "example.com/tenant": 2 }))).await;
        let more = json!({ "name": "docs__echo", "arguments": { "around": 10 }, "more": 1 });
        self.row("more-params", false, with(10, json!({})), self.ask("tools/call", more)).await;
        let cursor = json!({ "uri": "test://cursor", "cursor": "eyJ" });
        self.row("cursor", false, self.read("test://cursor"), self.ask("resources/read", cursor)).await;
        let alone = json!({ "name": "echo", "arguments": { "around": 11 } });
        let alone = by(&self.ada, self.gateway.modern_at("/mcp/docs", "tools/call", alone));
        self.row("endpoint", false, call(11), alone).await;
        // Of a session, in its own revision and without hints that it does not know.
        let uri = "test://version";
        let hello = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
        let opened = by(&self.ada, self.gateway.post("/mcp", hello.to_string())).send().await;
        let session = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
        let older =
            json!({ "jsonrpc": "2.0", "id": "o", "method": "resources/read", "params": { "uri": uri } });
        let older =
            by(&self.ada, self.gateway.post("/mcp", older.to_string())).header("mcp-session-id", session);
        let _ = self.read(uri).send().await;
        let (answer, is_hit, came) = self.send(older).await;
        let response = answer.response();
        let plain = response["result"]["ttlMs"].is_null() && response["result"]["cacheScope"].is_null();
        self.battery.row("version", is_hit && !came && plain && response["id"] == "o", &response);
        // A header that must repeat an argument is looked at, whatever is kept.
        let call = || self.call("mirrored", r#"{"region":"eu"}"#);
        let right = |post: Post| post.header("mcp-param-region", "eu");
        self.row("repeated-argument", true, right(call()), right(call())).await;
        for (id, post) in [("wrong", call().header("mcp-param-region", "us")), ("missing", call())] {
            let (answer, _, _) = self.send(post).await;
            let held = answer.status == 400 && answer.text().contains("-32020");
            self.battery.row(format!("repeated-argument-{id}"), held, answer.text());
        }
    }

    async fn people(&self) {
        let token =
            |issuer: usize, subject: &str, more: Value| self.people.token(ISSUERS[issuer], subject, more);
        let said = || json!({ "tenant": 1, "scope": "read", "groups": ["g"] });
        let with = |name: &str, value: Value| {
            let mut said = said();
            said[name] = value;
            said
        };
        let later = {
            let mut later = with("jti", json!("other"));
            later["nbf"] = json!(1);
            later
        };
        for (id, again, other) in [
            ("a-newer-token", true, token(0, "ada", later)),
            ("another-subject", false, token(0, "eve", said())),
            ("another-issuer", false, token(1, "ada", said())),
            ("another-tenant", false, token(0, "ada", with("tenant", json!(2)))),
            ("another-scope", false, token(0, "ada", with("scope", json!("read write")))),
            ("another-group", false, token(0, "ada", with("groups", json!(["g", "h"])))),
        ] {
            let call = || self.gateway.call("docs__echo", json!({ "people": id }));
            self.row(&format!("{id}-tool"), again, by(&self.ada, call()), by(&other, call())).await;
            let uri = format!("test://people/{id}");
            let read = || self.gateway.modern("resources/read", json!({ "uri": uri }));
            self.row(&format!("{id}-resource"), again, by(&self.ada, read()), by(&other, read())).await;
            let uri = format!("open://people/{id}");
            let read = || self.gateway.modern("resources/read", json!({ "uri": uri }));
            self.row(
                &format!("{id}-private-at-an-open-server"),
                again,
                by(&self.ada, read()),
                by(&other, read()),
            )
            .await;
        }
        let eve = token(1, "eve", json!({}));
        for (id, again, uri) in [
            ("public-where-the-operator-shares", true, "open://public"),
            ("public-where-the-operator-does-not", false, "test://public"),
            ("half-a-hint", false, "open://half"),
            ("a-scope-that-is-none", false, "open://odd"),
        ] {
            let read = || self.gateway.modern("resources/read", json!({ "uri": uri }));
            self.row(id, again, by(&self.ada, read()), by(&eve, read())).await;
        }
        let call = || self.gateway.call("docs__shared_echo", json!({ "people": 1 }));
        self.row("a-tool-that-the-operator-shares", true, by(&self.ada, call()), by(&eve, call())).await;
    }

    async fn kinds(&self) {
        for (id, again, uri) in [
            ("ttl-said", true, "test://said"),
            ("ttl-zero", false, "test://zero"),
            ("ttl-negative", false, "test://negative"),
            ("ttl-fraction", false, "test://fraction"),
            ("ttl-text", false, "test://text"),
            ("ttl-true", false, "test://true"),
            ("ttl-lowest", false, "test://lowest"),
            ("ttl-enormous", true, "test://enormous"),
            ("ttl-unsaid-and-configured", true, "test://unsaid"),
        ] {
            self.row(id, again, self.read(uri), self.read(uri)).await;
        }
        let raw = |result: &str| {
            let hex: String = result.bytes().map(|byte| format!("{byte:02x}")).collect();
            self.call("raw", &format!("{{\"hex\":{hex:?}}}"))
        };
        let large = format!("{{\"content\":[],\"x\":\"{}\"}}", "x".repeat(30 << 10));
        for (id, again, result) in [
            ("result", true, r#"{"content":[]}"#),
            ("result-that-failed", false, r#"{"content":[],"isError":true}"#),
            ("result-that-holds-for-no-time", false, r#"{"content":[],"ttlMs":0}"#),
            (
                "result-that-says-it-is-a-hit",
                true,
                r#"{"content":[],"_meta":{"io.waystation/cache":{"ageMs":1}}}"#,
            ),
            ("result-of-30-KiB", true, &large),
        ] {
            self.row(id, again, raw(result), raw(result)).await;
        }
        let error = || self.call("fails_with", r#"{"message":{"error":{"code":-32000,"message":"no"}}}"#);
        self.row("error", false, error(), error()).await;
        let arguments = format!("{{\"x\":\"{}\"}}", "y".repeat(40 << 10));
        let large = || self.call("echo", &arguments);
        self.row("too-large", false, large(), large()).await;
        let plain = |tool| self.call(tool, "{}");
        self.row("tool-that-may-write", false, plain("plain"), plain("plain")).await;
        self.row("tool-that-only-reads-as-the-operator-says", true, plain("told"), plain("told")).await;
        self.rounds().await;
        let get = |who: &str| {
            self.ask("prompts/get", json!({ "name": "docs__greet", "arguments": { "who": who } }))
        };
        self.row("prompt", true, get("a"), get("a")).await;
        self.row("prompt-with-other-arguments", false, get("b"), get("c")).await;
        let complete = |prompt: &str, value: &str, context: &str| {
            let reference = json!({ "type": "ref/prompt", "name": prompt });
            let (argument, context) =
                (json!({ "name": "who", "value": value }), json!({ "arguments": { "x": context } }));
            self.ask(
                "completion/complete",
                json!({ "ref": reference, "argument": argument, "context": context }),
            )
        };
        let one = |value: &str| complete("docs__greet", value, "c");
        self.row("completion", true, one("a"), one("a")).await;
        self.row("completion-of-another-value", false, one("b"), one("bb")).await;
        self.row("completion-of-another-prompt", false, one("d"), complete("docs__part", "d", "c")).await;
        self.row("completion-in-another-context", false, one("e"), complete("docs__greet", "e", "cc")).await;
    }

    /// Calls of several rounds.
    async fn rounds(&self) {
        let form = json!({ "mode": "form", "message": "Who?", "requestedSchema": { "type": "object", "properties": {} } });
        let arguments = json!({ "method": "elicitation/create", "params": form });
        let ask = |more: Value| {
            let meta =
                json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } } });
            let mut params = json!({ "name": "docs__ask", "arguments": arguments, "_meta": meta });
            more.as_object().unwrap().iter().for_each(|(name, value)| params[name] = value.clone());
            self.ask("tools/call", params)
        };
        self.row("input-required", false, ask(json!({})), ask(json!({}))).await;
        let answers = json!({ "answer": { "action": "decline" } });
        let unasked = || ask(json!({ "inputResponses": answers }));
        self.row("input-responses", false, unasked(), unasked()).await;
        let asked = ask(json!({ "again": 1 })).send().await.result();
        let state = &asked["requestState"];
        let answered = || ask(json!({ "again": 1, "inputResponses": answers, "requestState": state }));
        let (one, _, _) = self.send(answered()).await;
        let (two, is_hit, _) = self.send(answered()).await;
        let held = one.response()["result"]["resultType"] == "complete" && !is_hit;
        self.battery.row("request-state", held, (one.text(), two.text()));
    }
}

#[tokio::test]
async fn nobody_is_given_what_was_not_asked_for_in_just_this_way_by_just_them() {
    let table = Table::new().await;
    table.spellings().await;
    table.around().await;
    table.people().await;
    table.kinds().await;
    table.battery.end(100);
}

#[tokio::test]
async fn operators_see_what_is_kept_and_make_it_forgotten() {
    let fake = docs().start().await;
    let gateway =
        Gateway::with(CACHE.replace("open = { share = \"all\" }", "").as_str()).backend("docs", &fake);
    let gateway = gateway.start().await;
    let call = || gateway.call("docs__echo", json!({ "a": 1 }));
    let is_hit = async || hit(&call().send().await.result())["hit"] == true;
    assert_eq!((is_hit().await, is_hit().await), (false, true));
    let status = gateway.waystation.status();
    let count = |name: &str| status["cache"][name].as_u64().unwrap();
    assert_eq!((count("hits"), count("misses"), count("replies")), (1, 1, 1), "{status}");
    assert!((500..2000).contains(&count("bytes")), "{status}");
    assert_eq!(gateway.waystation.clear_cache(Some("other__*")), 0);
    assert!(is_hit().await);
    assert_eq!(gateway.waystation.clear_cache(Some("docs__*")), 1);
    assert!(!is_hit().await);
    // What a server says of its lists and resources is heard.
    assert!(is_hit().await);
    fake.until_listening(1).await;
    fake.change_tools(vec![annotated("echo"), annotated("new")]);
    crate::support::until_ok(|| gateway.call("docs__new", json!({})).send()).await;
    assert!(!is_hit().await);
}
