//! Do the rarer words of each revision get through between any two, or end where they must?

use serde_json::{Value, json};

use crate::{
    fake::{Era, Fake},
    sessions::until_quiet,
    support::{Gateway, Opened, Session, until},
};

const LEGACY: &str = "2025-11-25";
const SPAN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

async fn gateway() -> (Gateway, Fake, Fake) {
    let old = Fake::builder().era(Era::Legacy).sse(true).start().await;
    let new = Fake::builder().era(Era::Modern).sse(true).start().await;
    let gateway = Gateway::with("").backend("old", &old).backend("new", &new).start().await;
    old.until_listening(1).await;
    (gateway, old, new)
}

fn page(id: &str) -> Value {
    let mut params = json!({ "mode": "url", "url": "https://example.com/", "message": "Sign in" });
    if !id.is_empty() {
        params["elicitationId"] = json!(id);
    }
    json!({ "method": "elicitation/create", "params": params })
}

/// The notification of a server that a visit is over.
fn over(id: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/elicitation/complete", "params": { "elicitationId": id } })
}

/// Answers the question that comes next on a call's stream, and gives it.
async fn answer(session: &Session, stream: &mut Opened, result: Value) -> Value {
    let question = stream.message().await.expect("a question");
    assert!(!question["id"].is_null(), "{question}");
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
    assert_eq!(session.post(answer.to_string()).send().await.status, 202);
    question
}

/// What the tool says came back to it.
fn given(response: &Value) -> Value {
    let text = response["result"]["content"][0]["text"].as_str();
    serde_json::from_str(text.unwrap_or_else(|| panic!("no text: {response}"))).unwrap()
}

#[tokio::test]
async fn the_trace_of_a_request_is_known_to_its_backend() {
    let (gateway, old, new) = gateway().await;
    let session = gateway.legacy(LEGACY).await;
    for backend in ["old", "new"] {
        let fake = if backend == "old" { &old } else { &new };
        let tool = format!("{backend}__echo");
        for post in [session.call(&tool, json!({})), gateway.call(&tool, json!({}))] {
            fake.forget();
            let post = post.header("traceparent", SPAN).and("tracestate", "a=1").and("tracestate", "b=2");
            post.header("baggage", "k=v").send().await.result();
            let seen = &fake.seen_of("tools/call")[0];
            let meta = &seen.body["params"]["_meta"];
            let said = (&meta["traceparent"], &meta["tracestate"], &meta["baggage"]);
            assert_eq!(said, (&json!(SPAN), &json!("a=1,b=2"), &json!("k=v")), "{backend}");
            assert!(!seen.headers.contains_key("traceparent"), "it stands in one place");
        }
        // What the client has written itself goes on as it is, right or wrong.
        let own = json!({ "name": tool, "arguments": {}, "_meta": { "traceparent": "mine" } });
        for post in [session.request("tools/call", own.clone()), gateway.modern("tools/call", own)] {
            fake.forget();
            post.header("traceparent", SPAN).header("tracestate", "a=1").send().await.result();
            let meta = &fake.seen_of("tools/call")[0].body["params"]["_meta"];
            assert!(meta["traceparent"] == "mine" && meta["tracestate"].is_null(), "{meta}");
        }
    }
    old.forget();
    session.call("old__echo", json!({})).header("traceparent", "nonsense").send().await.result();
    assert!(old.seen_of("tools/call")[0].body["params"]["_meta"].is_null());
}

#[tokio::test]
async fn a_client_hears_that_a_visit_is_over_under_the_id_it_knows() {
    let (gateway, old, _new) = gateway().await;
    let (session, other) = (gateway.legacy_asked(LEGACY).await, gateway.legacy_asked(LEGACY).await);
    let (mut own, mut others) = (session.stream(None).await, other.stream(None).await);
    until_quiet(&mut own).await; // The lists that were read at the start.
    until_quiet(&mut others).await;
    let mut call = session.call("old__ask", page("theirs")).open().await;
    old.until_listening(2).await;
    let question = answer(&session, &mut call, json!({ "action": "accept" })).await;
    let id = question["params"]["elicitationId"].as_str().expect("an id").to_owned();
    assert_ne!(id, "theirs", "ids are per hop");
    call.last().await.expect("a response");
    // Long after its call, and on no stream of its own.
    assert!(old.notify(over("unknown")) > 0 && old.notify(over("theirs")) > 0);
    assert_eq!(own.message().await.expect("a notification"), over(&id));
    old.notify(over("theirs"));
    let error = json!({ "code": -32042, "message": "m", "data": { "elicitations": [page("e1")["params"]] } });
    let answer = session.call("old__fails_with", json!({ "message": { "error": error } })).send().await;
    assert_eq!(answer.error()["data"]["elicitations"][0]["elicitationId"], "e1");
    old.notify(over("e1"));
    assert_eq!(own.message().await.expect("a notification"), over("e1"), "each is told once");
    assert_eq!(until_quiet(&mut others).await, [Value::Null; 0], "nobody else has heard of it");
}

#[tokio::test]
async fn a_visit_for_a_modern_backend_is_over_with_its_call() {
    let (gateway, _old, _new) = gateway().await;
    let session = gateway.legacy_asked(LEGACY).await;
    for action in ["accept", "decline"] {
        let mut call = session.call("new__ask", page("")).open().await;
        let question = answer(&session, &mut call, json!({ "action": action })).await;
        let id = question["params"]["elicitationId"].as_str().expect("an id").to_owned();
        let next = call.message().await.expect("a message");
        if action == "accept" {
            assert_eq!(next, over(&id));
            assert_eq!(given(&call.message().await.unwrap())["result"]["action"], "accept");
        } else {
            assert_eq!(given(&next)["result"]["action"], "decline", "nobody went there");
        }
    }
}

#[tokio::test]
async fn what_an_older_client_has_no_word_for_is_refused_for_it() {
    let (gateway, _old, _new) = gateway().await;
    let several = json!({ "type": "array", "items": { "enum": ["a", "b"] } });
    let schema = json!({ "type": "object", "properties": { "several": several } });
    let form = json!({ "mode": "form", "message": "Which?", "requestedSchema": schema });
    let form = json!({ "method": "elicitation/create", "params": form });
    let audio = json!({ "type": "audio", "data": "QUJD", "mimeType": "audio/wav" });
    let sound = json!({ "messages": [{ "role": "user", "content": audio }], "maxTokens": 1 });
    let sound = json!({ "method": "sampling/createMessage", "params": sound });
    for (revision, question, word) in [("2025-06-18", form, "several"), ("2024-11-05", sound, "audio")] {
        let session = gateway.legacy_asked(revision).await;
        let response = session.call("old__ask", question.clone()).send().await.response();
        let error = &given(&response)["error"];
        assert!(error["code"] == -32602 && error["message"].as_str().unwrap().contains(word), "{error}");
        let answer = session.call("new__ask", question).send().await;
        assert!(answer.error()["message"].as_str().unwrap().contains(word), "{}", answer.text());
    }
}

#[tokio::test]
async fn progress_rises_over_the_rounds_of_a_call() {
    let (gateway, _old, _new) = gateway().await;
    let session = gateway.legacy_asked(LEGACY).await;
    for (backend, expected) in [("new", &[1, 2, 3, 4][..]), ("old", &[1, 2])] {
        let schema = json!({ "type": "object", "properties": {} });
        let form = json!({ "mode": "form", "message": "Who?", "requestedSchema": schema });
        let arguments = json!({ "method": "elicitation/create", "params": form, "steps": 2 });
        let tool = format!("{backend}__ask");
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "progressToken": "t" } });
        let mut stream = session.request("tools/call", params).open().await;
        let mut heard = Vec::new();
        loop {
            let message = stream.message().await.expect("a message");
            if message["method"] == "notifications/progress" {
                assert_eq!(message["params"]["progressToken"], "t");
                heard.push(message["params"]["progress"].clone());
            } else if message["method"].is_null() {
                break;
            } else {
                let answer =
                    json!({ "jsonrpc": "2.0", "id": message["id"], "result": { "action": "cancel" } });
                assert_eq!(session.post(answer.to_string()).send().await.status, 202);
            }
        }
        assert_eq!(heard, expected, "{backend}");
    }
}

#[tokio::test]
async fn a_backend_that_pings_is_answered_by_the_gateway() {
    let (_gateway, old, _new) = gateway().await;
    let answered = |id: &str| {
        let seen = old.seen();
        seen.iter().any(|seen| seen.body["id"] == id && seen.body["result"] == json!({}))
    };
    assert_eq!(old.notify(json!({ "jsonrpc": "2.0", "id": "p1", "method": "ping" })), 1);
    until("an answer", || answered("p1")).await;
    // Servers of 2025-03-26 may put several messages together.
    let two = json!([
        { "jsonrpc": "2.0", "id": "p2", "method": "ping" }, { "jsonrpc": "2.0", "id": "p3", "method": "ping" },
    ]);
    old.push_raw(format!("data: {two}\n\n"));
    until("two answers", || answered("p2") && answered("p3")).await;
}

#[tokio::test]
async fn what_ends_at_the_gateway_is_not_heard_behind_it() {
    let (gateway, old, new) = gateway().await;
    let session = gateway.legacy_asked(LEGACY).await;
    session.call("old__echo", json!({})).send().await.result();
    [&old, &new].into_iter().for_each(Fake::forget);
    assert_eq!(session.notify("notifications/roots/list_changed", json!({})).await.status, 202);
    assert_eq!(session.request("ping", json!({})).send().await.result(), json!({}));
    session.call("old__echo", json!({})).send().await.result();
    let methods = |fake: &Fake| {
        let seen =
            fake.seen().into_iter().map(|seen| seen.body["method"].as_str().unwrap_or_default().to_owned());
        seen.collect::<Vec<_>>()
    };
    assert_eq!((methods(&old), methods(&new)), (vec!["tools/call".to_owned()], vec![]));
}

#[tokio::test]
async fn an_error_has_the_status_of_its_readers_era() {
    let (gateway, _old, _new) = gateway().await;
    let session = gateway.legacy(LEGACY).await;
    let pages = json!({ "elicitations": [page("e1")["params"]] });
    for (backend, code, data, modern, legacy) in [
        // On a session a 404 would be the session's end.
        ("new", -32601, Value::Null, (404, -32601), (200, -32601)),
        ("old", -32601, Value::Null, (404, -32601), (200, -32601)),
        ("new", -32020, Value::Null, (200, -32603), (200, -32603)),
        ("new", -32022, Value::Null, (200, -32603), (200, -32603)),
        ("old", -32000, Value::Null, (200, -32603), (200, -32000)),
        ("old", -32042, pages, (400, -32021), (200, -32042)),
    ] {
        let error = json!({ "code": code, "message": "m", "data": data });
        let (tool, arguments) = (format!("{backend}__fails_with"), json!({ "message": { "error": error } }));
        let answer = gateway.call(&tool, arguments.clone()).send().await;
        assert_eq!(answer.refusal(), modern, "{backend} {code}");
        assert_eq!(session.call(&tool, arguments).send().await.refusal(), legacy, "{backend} {code}");
    }
}

#[tokio::test]
async fn icons_are_shown_from_safe_addresses_only() {
    let icons = json!([{ "src": "https://example.com/i.png" }, { "src": "javascript:alert(1)" }]);
    let tool = json!({ "name": "t", "inputSchema": { "type": "object" }, "icons": icons });
    let resource = json!({ "uri": "test://a", "name": "a", "icons": [{ "src": "file:///etc/passwd" }] });
    let fake = Fake::builder().tools(vec![tool]).resources(vec![resource]).start().await;
    let gateway = Gateway::with("").backend("one", &fake).start().await;
    let session = gateway.legacy(LEGACY).await;
    let lists = |method: &str| [gateway.modern(method, json!({})), session.request(method, json!({}))];
    for post in lists("tools/list") {
        let tools = post.send().await.result()["tools"].clone();
        let tool = tools.as_array().unwrap().iter().find(|tool| tool["name"] == "one__t").unwrap().clone();
        assert_eq!(tool["icons"], json!([{ "src": "https://example.com/i.png" }]));
    }
    for post in lists("resources/list") {
        let resource = post.send().await.result()["resources"][0].clone();
        assert!(resource["uri"] == "test://a" && resource.get("icons").is_none(), "{resource}");
    }
}

#[tokio::test]
async fn how_much_a_client_wants_of_the_log_is_said_in_the_words_of_the_backend() {
    let (gateway, old, new) = gateway().await;
    let session = gateway.legacy(LEGACY).await;
    let level = |level: &str| session.request("logging/setLevel", json!({ "level": level }));
    assert_eq!(level("warning").send().await.result(), json!({}));
    session.call("old__echo", json!({})).send().await.result();
    session.call("new__echo", json!({})).send().await.result();
    let meta = json!({ "io.modelcontextprotocol/logLevel": "debug" });
    let params = json!({ "name": "old__echo", "arguments": {}, "_meta": meta });
    gateway.modern("tools/call", params).send().await.result();
    // The connection is one of many clients: it says as much as any of them wants.
    assert_eq!(level("error").send().await.result(), json!({}));
    session.call("old__echo", json!({})).send().await.result();
    let seen = old.seen_of("logging/setLevel");
    let levels: Vec<_> = seen.iter().map(|seen| seen.body["params"]["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["warning", "debug"]);
    let meta = &new.seen_of("tools/call")[0].body["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/logLevel"], "warning");
}

#[tokio::test]
async fn what_belongs_to_no_call_of_a_client_is_not_told_to_it() {
    let (gateway, old, _new) = gateway().await;
    let session = gateway.legacy_asked(LEGACY).await;
    let mut own = session.stream(None).await;
    until_quiet(&mut own).await; // The lists that were read at the start.
    for (method, params) in [
        ("notifications/progress", json!({ "progressToken": "nobody's", "progress": 1 })),
        ("notifications/message", json!({ "level": "error", "data": "whose?" })),
        ("notifications/cancelled", json!({ "requestId": 1 })),
        ("notifications/unheard-of", json!({})),
    ] {
        old.notify(json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }
    old.notify(json!({ "jsonrpc": "2.0", "id": "q", "method": "roots/list" }));
    until("a refusal", || {
        old.seen().iter().any(|seen| seen.body["id"] == "q" && seen.body["error"]["code"] == -32601)
    })
    .await;
    assert_eq!(until_quiet(&mut own).await, [Value::Null; 0]);
}

#[tokio::test]
async fn a_tool_whose_arguments_could_not_be_repeated_in_headers_is_left_out() {
    let wrong = json!({ "type": "object", "properties": { "n": { "type": "number", "x-mcp-header": "N" } } });
    let right =
        json!({ "type": "object", "properties": { "n": { "type": "integer", "x-mcp-header": "N" } } });
    let tools = vec![
        json!({ "name": "wrong", "inputSchema": wrong }),
        json!({ "name": "right", "inputSchema": right }),
    ];
    let fake = Fake::builder().era(Era::Modern).tools(tools).start().await;
    let gateway = Gateway::with("").backend("one", &fake).start().await;
    let tools = gateway.tools().await;
    assert!(
        tools.contains(&"one__right".to_owned()) && !tools.contains(&"one__wrong".to_owned()),
        "{tools:?}"
    );
}
