//! How do messages come in: over which paths, of which era, and with which headers?

use serde_json::{Value, json};

use crate::{
    fake::{Era, Fake, tool},
    support::{
        Answer, Gateway, LEGACY, MODERN, Opened, Post, envelope, modern_message, names_of,
        session::initialize,
    },
};

async fn gateway() -> (Gateway, Fake) {
    let fake = Fake::builder().era(Era::Both).start().await;
    let gateway = Gateway::with("").backend("files", &fake).start().await;
    (gateway, fake)
}

/// A legacy request without a session's headers.
fn bare(gateway: &Gateway, method: &str, params: Value) -> Post {
    let message = json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params });
    gateway.post("/mcp", message.to_string())
}

#[tokio::test]
async fn the_era_is_told_apart_by_each_message() {
    let (gateway, _fake) = gateway().await;
    let session = gateway.legacy("2025-11-25").await;

    // A request with an envelope is modern, whatever else comes along.
    let list = gateway.modern("tools/list", json!({}));
    assert_eq!(list.clone().send().await.result()["resultType"], "complete");
    assert_eq!(list.header("mcp-session-id", &session.id).send().await.result()["resultType"], "complete");
    // `initialize` with an envelope is modern too, where there is no such method.
    assert_eq!(gateway.modern("initialize", json!({})).send().await.refusal(), (404, -32601));
    // Without one it is the legacy handshake, unless the header says otherwise.
    let hello = gateway.post("/mcp", initialize("2025-11-25").to_string());
    assert_eq!(hello.clone().send().await.result()["protocolVersion"], "2025-11-25");
    assert_eq!(hello.header("mcp-protocol-version", MODERN).send().await.refusal(), (400, -32020));
    // Without one, but with a modern header, it is an incomplete modern request.
    let list = bare(&gateway, "tools/list", json!({})).header("mcp-protocol-version", MODERN);
    let answer = list.send().await;
    assert_eq!(answer.refusal(), (400, -32602));
    let said = answer.error()["message"].to_string();
    assert!(said.contains("protocolVersion") && said.contains("clientCapabilities"), "{said}");
    // Without either it is a legacy request, which wants a session.
    let list = bare(&gateway, "tools/list", json!({}));
    assert_eq!(list.clone().send().await.refusal(), (400, -32000));
    assert_eq!(list.header("mcp-protocol-version", "2025-06-18").send().await.refusal(), (400, -32000));
    assert!(session.request("tools/list", json!({})).send().await.result().get("resultType").is_none());
    // Responses and notifications are taken in either.
    let response = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
    assert_eq!(session.post(response.to_string()).send().await.status, 202);
    let notice = json!({ "jsonrpc": "2.0", "method": "notifications/x", "params": { "_meta": envelope() } });
    assert_eq!(gateway.post("/mcp", notice.to_string()).send().await.status, 202);
    assert_eq!(session.notify("notifications/x", json!({})).await.status, 202);
}

#[tokio::test]
async fn every_legacy_revision_is_agreed_on_and_any_other_becomes_the_newest_of_them() {
    let (gateway, _fake) = gateway().await;
    for revision in LEGACY {
        let session = gateway.legacy(revision).await;
        assert_eq!(session.revision, revision);
        let tools = names_of(&session.request("tools/list", json!({})).send().await.result());
        assert!(tools.contains(&"files__echo".to_owned()), "{revision} {tools:?}");
        let result = session.call("files__echo", json!({ "a": 1 })).send().await.result();
        assert_eq!(result["content"][0]["text"], r#"{"a":1}"#, "{revision}");
    }
    for revision in [MODERN, "2024-10-07", "2099-01-01", "x"] {
        assert_eq!(gateway.legacy(revision).await.revision, "2025-11-25", "{revision}");
    }
}

#[tokio::test]
async fn initialize_wants_a_revision_and_who_the_client_is() {
    let (gateway, _fake) = gateway().await;
    for missing in ["protocolVersion", "capabilities", "clientInfo"] {
        let mut hello = initialize("2025-11-25");
        hello["params"].as_object_mut().unwrap().remove(missing);
        let answer = gateway.post("/mcp", hello.to_string()).send().await;
        assert_eq!(answer.refusal(), (200, -32602), "{missing}");
        assert!(answer.headers.get("mcp-session-id").is_none(), "{missing}");
        assert!(answer.error()["message"].to_string().contains(missing));
    }
}

#[tokio::test]
async fn headers_of_a_modern_request_must_say_what_its_body_does() {
    let (gateway, fake) = gateway().await;
    fake.forget();
    let good = gateway.call("files__echo", json!({}));
    assert_eq!(good.clone().send().await.status, 200);
    // Names are compared without blanks around them and, where they need it, in base64.
    let encoded = good.clone().header("mcp-name", "=?base64?ZmlsZXNfX2VjaG8=?=");
    assert_eq!(encoded.send().await.status, 200);
    assert_eq!(good.clone().header("MCP-NAME", "  files__echo ").send().await.status, 200);
    assert_eq!(fake.seen_of("tools/call").len(), 3);

    let bad = [
        ("no version", good.clone().without("mcp-protocol-version")),
        ("another version", good.clone().header("mcp-protocol-version", "2025-11-25")),
        ("two versions", good.clone().and("mcp-protocol-version", MODERN)),
        ("no method", good.clone().without("mcp-method")),
        ("another method", good.clone().header("mcp-method", "tools/list")),
        ("a method in capitals", good.clone().header("mcp-method", "Tools/Call")),
        ("two methods", good.clone().and("mcp-method", "tools/call")),
        ("no name", good.clone().without("mcp-name")),
        ("another name", good.clone().header("mcp-name", "files__slow")),
        ("an empty name", good.clone().header("mcp-name", "")),
        ("two names", good.clone().and("mcp-name", "files__echo")),
        ("broken base64", good.clone().header("mcp-name", "=?base64?%%%?=")),
        ("no UTF-8", good.clone().header("mcp-name", b"\xff")),
    ];
    for (what, post) in bad {
        assert_eq!(post.send().await.refusal(), (400, -32020), "{what}");
    }
    assert_eq!(fake.seen_of("tools/call").len(), 3, "none of them went on");
}

#[tokio::test]
async fn arguments_that_a_tool_wants_repeated_in_headers_are_compared_and_repeated() {
    let mut query = tool("query");
    query["inputSchema"] = json!({
        "type": "object",
        "properties": { "region": { "type": "string", "x-mcp-header": "Region" } },
    });
    let fake = Fake::builder().era(Era::Modern).tools(vec![query]).start().await;
    let gateway = Gateway::with("").backend("db", &fake).start().await;
    let call = gateway.call("db__query", json!({ "region": "eu" }));

    call.clone().header("mcp-param-region", "eu").send().await.result();
    assert_eq!(fake.seen_of("tools/call")[0].headers["mcp-param-region"], "eu");
    assert_eq!(call.clone().header("mcp-param-region", "us").send().await.refusal(), (400, -32020));
    assert_eq!(call.send().await.refusal(), (400, -32020));
    // A legacy client knows nothing of it, and the server gets the header all the same.
    let session = gateway.legacy("2025-06-18").await;
    session.call("db__query", json!({ "region": "us" })).send().await.result();
    assert_eq!(fake.seen_of("tools/call")[1].headers["mcp-param-region"], "us");
}

#[tokio::test]
async fn a_modern_request_that_is_incomplete_is_refused_with_its_code() {
    let (gateway, _fake) = gateway().await;
    let without = |key: &str, value: Value| {
        let mut message = modern_message(json!(7), "tools/list", json!({}));
        let meta = message["params"]["_meta"].as_object_mut().unwrap();
        match value {
            Value::Null => drop(meta.remove(key)),
            value => drop(meta.insert(key.to_owned(), value)),
        }
        gateway.modern("tools/list", json!({})).body(message.to_string())
    };
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    let version = "io.modelcontextprotocol/protocolVersion";
    let refusal = |post: Post| async move { post.send().await.refusal() };
    assert_eq!(refusal(without(capabilities, Value::Null)).await, (400, -32602));
    assert_eq!(refusal(without(capabilities, json!([]))).await, (400, -32602));
    assert_eq!(refusal(without(version, json!(20260728))).await, (400, -32602));
    assert_eq!(refusal(without("io.modelcontextprotocol/clientInfo", json!("me"))).await, (400, -32602));
    assert_eq!(refusal(without("io.modelcontextprotocol/logLevel", json!("loud"))).await, (400, -32602));
    let newer = without(version, json!("2099-01-01")).header("mcp-protocol-version", "2099-01-01");
    let answer = newer.send().await;
    assert_eq!(answer.refusal(), (400, -32022));
    assert_eq!(answer.error()["data"], json!({ "supported": [MODERN], "requested": "2099-01-01" }));
}

#[tokio::test]
async fn a_method_that_is_not_there_is_so_in_the_words_of_the_era() {
    let (gateway, _fake) = gateway().await;
    let session = gateway.legacy("2025-11-25").await;
    for method in ["nonsense", "tasks/put"] {
        assert_eq!(gateway.modern(method, json!({})).send().await.refusal(), (404, -32601), "{method}");
        assert_eq!(session.request(method, json!({})).send().await.refusal(), (200, -32601), "{method}");
    }
    for method in ["ping", "logging/setLevel", "resources/subscribe", "tasks/result", "tasks/list"] {
        assert_eq!(gateway.modern(method, json!({})).send().await.refusal(), (404, -32601), "{method}");
    }
    for method in ["server/discover", "subscriptions/listen", "tasks/update"] {
        assert_eq!(session.request(method, json!({})).send().await.refusal(), (200, -32601), "{method}");
    }
    assert_eq!(session.request("ping", json!({})).send().await.result(), json!({}));
}

#[tokio::test]
async fn targets_that_are_unknown_are_refused_with_the_code_of_the_era() {
    let (gateway, _fake) = gateway().await;
    let session = gateway.legacy("2025-11-25").await;
    for (method, params, legacy) in [
        ("tools/call", json!({ "name": "files__none" }), -32602),
        ("tools/call", json!({ "name": "none" }), -32602),
        ("prompts/get", json!({ "name": "none" }), -32602),
        ("resources/read", json!({ "uri": "none://x" }), -32002),
    ] {
        assert_eq!(gateway.modern(method, params.clone()).send().await.refusal(), (200, -32602), "{method}");
        assert_eq!(session.request(method, params).send().await.refusal(), (200, legacy), "{method}");
    }
    assert_eq!(session.request("tools/call", json!({})).send().await.refusal(), (200, -32602));
}

#[tokio::test]
async fn a_backend_alone_has_its_own_names() {
    let (gateway, _fake) = gateway().await;
    let list = gateway.modern_at("/mcp/files", "tools/list", json!({})).send().await.result();
    assert_eq!(names_of(&list), ["ask", "echo", "fails_with", "progress", "raw", "slow"]);
    let call = json!({ "name": "echo", "arguments": {} });
    gateway.modern_at("/mcp/files", "tools/call", call).send().await.result();
    let session = gateway.legacy_at("/mcp/files", "2025-06-18").await;
    session.call("echo", json!({})).send().await.result();
    assert_eq!(session.call("files__echo", json!({})).send().await.refusal(), (200, -32602));
    let list = gateway.modern_at("/mcp/waystation", "tools/list", json!({})).send().await.result();
    assert_eq!(names_of(&list), ["backends", "explain", "status"]);
}

#[tokio::test]
async fn a_backend_that_is_unknown_is_like_one_that_is_left_out() {
    let fake = Fake::builder().start().await;
    let setup = Gateway::with("").server("hidden", &fake.url(), "enabled = false");
    let gateway = setup.start().await;
    let mut answers = Vec::new();
    for name in ["hidden", "never"] {
        let path = format!("/mcp/{name}");
        let list = gateway.modern_at(&path, "tools/list", json!({})).send().await;
        let hello = gateway.post(&path, initialize("2025-11-25").to_string()).send().await;
        assert_eq!((list.status, hello.status), (404, 404), "{name}");
        assert!(hello.headers.get("mcp-session-id").is_none());
        let tool = gateway.call(&format!("{name}__echo"), json!({})).send().await.error();
        let plain = |text: String| text.replace(name, "");
        answers.push((plain(list.error().to_string()), plain(hello.text()), plain(tool.to_string())));
    }
    assert_eq!(answers[0], answers[1]);
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn what_http_has_against_a_request_is_a_status() {
    let (gateway, fake) = gateway().await;
    fake.forget();
    let call = gateway.call("files__echo", json!({}));
    let status = |post: Post| async move { post.send().await.status };
    assert_eq!(status(call.clone().header("content-type", "text/plain")).await, 415);
    assert_eq!(status(call.clone().without("content-type")).await, 415);
    assert_eq!(status(call.clone().header("content-type", "Application/JSON; charset=utf-8")).await, 200);
    assert_eq!(status(call.clone().header("accept", "text/html")).await, 406);
    assert_eq!(status(call.clone().header("accept", "*/*")).await, 200);
    assert_eq!(status(call.clone().header("accept", "application/json")).await, 200);
    assert_eq!(status(call.clone().without("accept")).await, 200);
    assert_eq!(status(call.clone().header("host", "evil.example")).await, 403);
    assert_eq!(status(call.clone().header("host", "localhost:1")).await, 200);
    assert_eq!(status(call.clone().header("origin", "https://evil.example")).await, 403);
    assert_eq!(status(call.clone().header("origin", "null")).await, 403);
    assert_eq!(status(call.clone().header("origin", "http://localhost:3000")).await, 200);
    assert_eq!(fake.seen_of("tools/call").len(), 6, "only those that were let in");
    assert_eq!(status(gateway.get("/")).await, 404);
    assert_eq!(status(gateway.get("/mcp/a/b").header("accept", "text/event-stream")).await, 404);
    for (verb, path) in [("PUT", "/mcp"), ("PATCH", "/mcp/files"), ("GET", "/messages"), ("POST", "/sse")] {
        let answer = call.clone().verb(verb);
        let answer = Post::new(gateway.address, path, answer.body).verb(verb).send().await;
        assert_eq!(answer.status, 405, "{verb} {path}");
        assert!(answer.headers.contains_key("allow"), "{verb} {path}");
    }
}

#[tokio::test]
async fn hosts_and_origins_that_are_configured_come_in() {
    let toml = "[listen]\nhosts = [\"mcp.example.com\"]\norigins = [\"https://app.example.com\"]";
    let gateway = Gateway::with(toml).start().await;
    let list = gateway.modern("tools/list", json!({}));
    let status = |post: Post| async move { post.send().await.status };
    assert_eq!(status(list.clone().header("host", "MCP.example.com:443")).await, 200);
    assert_eq!(status(list.clone().header("origin", "https://app.example.com")).await, 200);
    assert_eq!(status(list.clone().header("origin", "https://app.example.com:8")).await, 403);
    assert_eq!(status(list.header("host", "mcp.example.com.evil")).await, 403);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_no_backend_sees_it() {
    let fake = Fake::builder().start().await;
    let gateway = Gateway::with("[listen]\nbody_limit = \"2 KiB\"").backend("files", &fake).start().await;
    let session = gateway.legacy("2025-11-25").await;
    fake.forget();
    let long = json!({ "a": "x".repeat(2048) });
    assert_eq!(gateway.call("files__echo", long.clone()).send().await.status, 413);
    assert_eq!(session.call("files__echo", long).send().await.status, 413);
    // Said to be short, or not said how long at all: what counts is what comes.
    let chunked = gateway.post("/mcp", "x".repeat(4096)).header("transfer-encoding", "chunked");
    assert_eq!(chunked.without("content-length").send().await.status, 413);
    assert!(fake.seen().is_empty());
    gateway.call("files__echo", json!({ "a": "x".repeat(1024) })).send().await.result();
}

/// The old pair: a stream, and where it says to post.
async fn open_pair(gateway: &Gateway, path: &str) -> (Opened, String) {
    let mut stream = gateway.get(path).header("accept", "text/event-stream").open().await;
    assert_eq!(stream.status, 200);
    let endpoint = stream.event().await.expect("the first event");
    assert_eq!(endpoint.name, "endpoint");
    (stream, String::from_utf8(endpoint.data.to_vec()).unwrap())
}

#[tokio::test]
async fn the_oldest_clients_have_a_stream_and_an_address_to_post_to() {
    let (gateway, fake) = gateway().await;
    for (path, echo) in [("/sse", "files__echo"), ("/sse/files", "echo")] {
        let (mut stream, endpoint) = open_pair(&gateway, path).await;
        let say = |message: Value| gateway.post(&endpoint, message.to_string()).send();
        assert_eq!(say(initialize("2024-11-05")).await.status, 202);
        assert_eq!(stream.message().await.unwrap()["result"]["protocolVersion"], "2024-11-05");
        say(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        let params = json!({ "name": echo, "arguments": { "path": path } });
        let call = json!({ "jsonrpc": "2.0", "id": "c", "method": "tools/call", "params": params });
        assert_eq!(say(call).await.status, 202);
        let answer = stream.message().await.unwrap();
        let text = json!({ "path": path }).to_string();
        assert_eq!((&answer["id"], &answer["result"]["content"][0]["text"]), (&json!("c"), &json!(text)));
        let refused: Answer = say(json!({ "jsonrpc": "2.0", "id": 1.5, "method": "ping" })).await;
        assert!(matches!(refused.status, 202 | 400), "{refused:?}");
    }
    // With its stream the session is over, and what it asked is cancelled.
    let (stream, endpoint) = open_pair(&gateway, "/sse").await;
    gateway.post(&endpoint, initialize("2024-11-05").to_string()).send().await;
    let params = json!({ "name": "files__slow", "arguments": { "key": "old" } });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    gateway.post(&endpoint, call.to_string()).send().await;
    fake.until_running(1).await;
    drop(stream);
    assert_eq!(fake.until_cancelled(1).await[0].arguments["key"], "old");
    assert_eq!(gateway.post(&endpoint, "{}").send().await.status, 404);
    assert_eq!(gateway.post("/messages?session=none", "{}").send().await.status, 404);
}
