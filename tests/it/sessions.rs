//! What is kept for clients of the legacy era, and what becomes of it?

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    children::Program,
    fake::{Era, Fake, tool},
    support::{Gateway, LEGACY, Opened, Session, names_of, session::initialize},
};

#[tokio::test]
async fn a_session_is_known_by_its_id_until_it_is_deleted() {
    let gateway = Gateway::with("").start().await;
    let session = gateway.legacy("2025-11-25").await;
    assert!(session.id.len() >= 32 && session.id.bytes().all(|b| b.is_ascii_graphic()), "{}", session.id);
    let ping = session.request("ping", json!({}));
    assert_eq!(ping.clone().send().await.status, 200);
    assert_eq!(ping.clone().without("mcp-session-id").send().await.refusal(), (400, -32000));
    assert_eq!(ping.clone().header("mcp-session-id", "none").send().await.refusal(), (404, -32001));
    assert_eq!(ping.clone().header("mcp-protocol-version", "1.0").send().await.refusal(), (400, -32000));
    assert_eq!(ping.clone().without("mcp-protocol-version").send().await.status, 200);
    // The session is of this endpoint and of no other.
    let elsewhere = gateway.post("/mcp/waystation", ping.body.clone()).header("mcp-session-id", &session.id);
    assert_eq!(elsewhere.send().await.status, 404);

    assert_eq!(session.delete().await.status, 200);
    assert_eq!(ping.send().await.refusal(), (404, -32001));
    assert_eq!(session.delete().await.status, 404);
    assert_eq!(session.stream(None).await.status, 404);
    assert_eq!(gateway.delete("/mcp").send().await.status, 405);
    let get = gateway.get("/mcp").header("accept", "text/event-stream");
    assert_eq!(get.send().await.status, 405);
}

#[tokio::test]
async fn a_session_begins_with_initialize_and_only_once() {
    let gateway = Gateway::with("").start().await;
    let session = gateway.legacy("2025-11-25").await;
    let again = session.post(initialize("2025-11-25").to_string()).send().await;
    // An `initialize` is a new session, whatever id comes along.
    assert_ne!(again.headers["mcp-session-id"].to_str().unwrap(), session.id);
    assert_eq!(session.request("ping", json!({})).send().await.status, 200);
}

#[tokio::test]
async fn a_request_with_the_id_of_one_under_way_is_refused() {
    let fake = Fake::builder().start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let session = gateway.legacy("2025-11-25").await;
    let slow = json!({ "name": "a__slow", "arguments": {} });
    let first = tokio::spawn(session.message(json!("x"), "tools/call", slow.clone()).send());
    fake.until_running(1).await;
    assert_eq!(session.message(json!("x"), "tools/call", slow).send().await.refusal(), (400, -32600));
    fake.release();
    assert_eq!(first.await.unwrap().result()["content"][0]["text"], "done");
}

#[tokio::test]
async fn a_session_that_is_idle_ends() {
    let gateway = Gateway::with("[session]\nidle = \"300ms\"").start().await;
    let used = gateway.legacy("2025-11-25").await;
    let idle = gateway.legacy("2025-11-25").await;
    // Its stream ends with it; the other, which is used, lives on.
    let ends = tokio::spawn(idle.stream(None).await.last());
    while !ends.is_finished() {
        assert_eq!(used.request("ping", json!({})).send().await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ends.await.unwrap();
    assert_eq!(idle.request("ping", json!({})).send().await.status, 404);
}

#[tokio::test]
async fn a_session_that_is_used_or_at_work_does_not_end() {
    let fake = Fake::builder().era(Era::Legacy).start().await;
    let gateway = Gateway::with("[session]\nidle = \"400ms\"").backend("a", &fake).start().await;
    let session = gateway.legacy("2025-11-25").await;
    let used = gateway.legacy("2025-11-25").await;
    let call = tokio::spawn(session.call("a__slow", json!({ "ms": 1200 })).send());
    while !call.is_finished() {
        assert_eq!(used.request("ping", json!({})).send().await.status, 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(call.await.unwrap().result()["content"][0]["text"], "done");
    assert_eq!(session.request("ping", json!({})).send().await.status, 200);
}

#[tokio::test]
async fn there_are_no_more_sessions_than_allowed() {
    let gateway = Gateway::with("[session]\nmax = 2").start().await;
    let first = gateway.legacy("2025-11-25").await;
    let _second = gateway.legacy("2025-11-25").await;
    let third = gateway.post("/mcp", initialize("2025-11-25").to_string()).send().await;
    assert_eq!((third.status, third.headers.contains_key("retry-after")), (503, true), "{}", third.text());
    // Clients of the modern era need none.
    gateway.modern("tools/list", json!({})).send().await.result();
    first.delete().await;
    gateway.legacy("2025-11-25").await;
}

#[tokio::test]
async fn in_single_mode_clients_share_a_session_without_an_id() {
    let fake = Fake::builder().start().await;
    let gateway = Gateway::with("[session]\nmode = \"single\"").backend("a", &fake).start().await;
    // Without any greeting.
    let message = |method: &str, params: Value| {
        gateway.post(
            "/mcp",
            json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string(),
        )
    };
    let call = message("tools/call", json!({ "name": "a__echo", "arguments": {} }));
    assert!(call.send().await.result().get("resultType").is_none());
    // With one, and again after that.
    for _ in 0..2 {
        let session = gateway.legacy("2025-06-18").await;
        assert_eq!((session.id.as_str(), session.revision.as_str()), ("", "2025-06-18"));
        session.call("a__echo", json!({})).send().await.result();
    }
    assert_eq!(message("ping", json!({})).header("mcp-session-id", "x").send().await.status, 404);
    gateway.modern("tools/list", json!({})).send().await.result();
}

#[tokio::test]
async fn the_single_session_begins_anew_when_it_was_idle() {
    let gateway = Gateway::with("[session]\nmode = \"single\"\nidle = \"200ms\"").start().await;
    let session = gateway.legacy("2025-03-26").await;
    let batch = json!([{ "jsonrpc": "2.0", "id": 1, "method": "ping" }]).to_string();
    assert_eq!(session.post(batch.clone()).send().await.status, 200);
    tokio::time::sleep(Duration::from_millis(400)).await;
    // A new session knows nothing of 2025-03-26, which alone has batches.
    assert_eq!(session.post(batch).send().await.refusal(), (400, -32600));
}

#[tokio::test]
async fn batches_are_of_2025_03_26_alone() {
    let fake = Fake::builder().start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let call = |id: u64| {
        let params = json!({ "name": "a__echo", "arguments": { "n": id } });
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
    };
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/x" });
    let wrong = json!({ "jsonrpc": "1.0", "id": 9, "method": "ping" });
    let batch = json!([call(1), note, call(2), wrong]).to_string();
    for revision in LEGACY.into_iter().filter(|revision| *revision != "2025-03-26") {
        let session = gateway.legacy(revision).await;
        assert_eq!(session.post(batch.clone()).send().await.refusal(), (400, -32600), "{revision}");
    }
    assert_eq!(gateway.post("/mcp", batch.clone()).send().await.refusal(), (400, -32600));

    let session = gateway.legacy("2025-03-26").await;
    let answers = session.post(batch).send().await.json();
    let answers = answers.as_array().expect("a list");
    let number = |id: u64| answers.iter().find(|one| one["id"] == id).expect("an answer to each request");
    assert_eq!(answers.len(), 3);
    assert_eq!(number(1)["result"]["content"][0]["text"], "{\"n\":1}");
    assert_eq!(number(2)["result"]["content"][0]["text"], "{\"n\":2}");
    assert_eq!(number(9)["error"]["code"], -32600);
    assert_eq!(session.post(json!([note]).to_string()).send().await.status, 202);
    // Its answers come together as JSON, so that its client can be asked nothing meanwhile.
    let asked = gateway.legacy_asked("2025-03-26").await;
    let params = json!({ "method": "sampling/createMessage", "params": { "messages": [], "maxTokens": 1 } });
    let call = json!({ "name": "a__ask", "arguments": params });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call });
    let answers = asked.post(format!("[{call}]")).send().await.json();
    assert_eq!(answers[0]["error"]["code"], 502, "{answers}");
    assert_eq!(session.post("[]").send().await.refusal(), (400, -32600));
}

/// What still comes on a stream until it has been quiet for a while.
pub async fn until_quiet(stream: &mut Opened) -> Vec<Value> {
    let mut heard = Vec::new();
    while let Ok(message) = tokio::time::timeout(Duration::from_millis(400), stream.message()).await {
        heard.push(message.expect("the stream is open"));
    }
    heard
}

#[tokio::test]
async fn the_stream_of_a_session_tells_of_changed_lists_and_only_of_real_changes() {
    let fake = Fake::builder().era(Era::Legacy).start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let session = gateway.legacy("2025-11-25").await;
    let mut stream = session.stream(None).await;
    let mut other = gateway.legacy("2024-11-05").await.stream(None).await;
    until_quiet(&mut stream).await; // The lists that were read at the start.
    until_quiet(&mut other).await;
    fake.until_listening(1).await;
    let changed = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });

    assert_eq!(fake.change_tools(vec![tool("one")]), 1);
    assert_eq!(stream.message().await, Some(changed.clone()));
    assert_eq!(other.message().await, Some(changed.clone()), "every session is told");
    let tools = session.request("tools/list", json!({})).send().await.result();
    assert!(names_of(&tools).contains(&"a__one".to_owned()), "{tools}");
    // The same list again is read, and is no news.
    let lists = fake.seen_of("tools/list").len();
    fake.change_tools(vec![tool("one")]);
    fake.until_seen("tools/list", lists + 1).await;
    assert_eq!(until_quiet(&mut stream).await, [Value::Null; 0]);
    fake.change_tools(vec![tool("two")]);
    assert_eq!(until_quiet(&mut stream).await, [changed]);

    session.delete().await;
    assert_eq!(stream.message().await, None, "the stream ends with the session");
}

#[tokio::test]
async fn a_stream_that_broke_is_gone_on_with_where_it_broke() {
    for era in [Era::Legacy, Era::Modern] {
        let fake = Fake::builder().era(era).sse(true).start().await;
        let gateway = Gateway::with("").backend("a", &fake).start().await;
        for revision in ["2025-03-26", "2025-11-25"] {
            let session = gateway.legacy(revision).await;
            let params = json!({
                "name": "a__progress", "arguments": { "n": 20, "logs": 0, "every_ms": 20 },
                "_meta": { "progressToken": "t" },
            });
            let mut stream = session.message(json!("long"), "tools/call", params).open().await;
            let mut last = String::new();
            while last.is_empty() || last.ends_with("-0") {
                last = stream.event().await.expect("an event").id.expect("an id");
            }
            drop(stream);
            // The rest, from after the last event on: nothing twice, nothing left out.
            let mut stream = session.stream(Some(&last)).await;
            let mut steps = Vec::new();
            let answer = loop {
                let message = stream.message().await.expect("the answer comes");
                match message["params"]["progress"].as_u64() {
                    Some(step) => steps.push(step),
                    None => break message,
                }
            };
            let expected: Vec<u64> = (2..=20).collect();
            assert_eq!(steps, expected, "{era:?} {revision}");
            assert_eq!(
                (&answer["id"], &answer["result"]["content"][0]["text"]),
                (&json!("long"), &json!("20 steps"))
            );
            assert_eq!(stream.message().await, None);
            assert_eq!(session.stream(Some("77-1")).await.status, 400);
            assert_eq!(session.stream(Some("nonsense")).await.status, 400);
        }
        assert!(fake.cancelled().is_empty());
        assert_eq!(fake.seen_of("notifications/cancelled").len(), 0);
    }
}

#[tokio::test]
async fn before_2025_11_25_a_stream_opens_with_its_first_message() {
    let fake = Fake::builder().sse(true).start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    for (revision, opens) in [("2025-06-18", false), ("2025-11-25", true)] {
        let session = gateway.legacy(revision).await;
        let params = json!({ "name": "a__progress", "arguments": {}, "_meta": { "progressToken": 1 } });
        let mut stream = session.request("tools/call", params).open().await;
        let first = stream.event().await.expect("an event");
        assert_eq!(first.data.is_empty(), opens, "{revision}");
        assert!(first.id.is_some());
    }
}

#[tokio::test]
async fn sessions_go_on_after_the_gateway_was_killed() {
    let resource = json!({ "uri": "test://a", "name": "a" });
    let fake = Fake::builder().era(Era::Legacy).resources(vec![resource]).start().await;
    let backend = format!("[backends.files]\nurl = \"{}\"\n", fake.url());
    let gateway = Program::start_kept(&backend);
    let mut sessions = Vec::new();
    for _ in 0..100 {
        sessions.push(Session::open(gateway.address, "/mcp", "2025-11-25").await);
    }
    let gone = sessions.pop().unwrap();
    assert_eq!(gone.delete().await.status, 200);
    let watching = &sessions[0];
    let uri = json!({ "uri": "test://a" });
    let updated = json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": uri });
    watching.request("resources/subscribe", uri).send().await.result();
    fake.until_seen("resources/subscribe", 1).await;
    let mut stream = watching.stream(None).await;
    until_quiet(&mut stream).await; // The lists that were read at the start.
    fake.notify(updated.clone());
    let last = stream.event().await.expect("an event").id.expect("an id");
    // What was noted last is on its way to the disk.
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(stream);
    fake.forget();

    let _gateway = gateway.killed_and_started(&backend);
    for session in &sessions {
        let echo = session.call("files__echo", json!({ "a": 1 })).send().await;
        assert_eq!(echo.result()["structuredContent"], json!({ "a": 1 }));
    }
    assert_eq!(gone.request("ping", json!({})).send().await.status, 404);
    fake.until_seen("resources/subscribe", 1).await;
    let mut stream = watching.stream(Some(&last)).await;
    fake.notify(updated.clone());
    assert_eq!(stream.message().await.expect("a notification"), updated);
}
