//! Does a client on a pipe get what one over HTTP gets, and nothing else?

use std::time::Duration;

use serde_json::json;

use crate::{
    fake::{Era, Fake, tool},
    support::{Gateway, LEGACY, MODERN, modern_message, names_of, pipe::Pipe},
};

#[tokio::test]
async fn every_legacy_revision_is_spoken_on_a_pipe() {
    let fake = Fake::builder().start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let asked = LEGACY.into_iter().chain([MODERN, "x"]);
    for revision in asked {
        let (mut pipe, hello) = Pipe::greeted(&gateway.waystation, revision).await;
        let agreed = if LEGACY.contains(&revision) { revision } else { "2025-11-25" };
        assert_eq!(hello["protocolVersion"], agreed);
        let list = pipe.ask("tools/list", json!({})).await;
        assert!(names_of(&list["result"]).contains(&"a__echo".to_owned()), "{list}");
        let answer = pipe.ask("tools/call", json!({ "name": "a__echo", "arguments": { "é": 1 } })).await;
        assert_eq!(answer["result"]["content"][0]["text"], r#"{"é":1}"#);
        assert_eq!(pipe.ask("ping", json!({})).await["result"], json!({}));
        assert_eq!(pipe.ask("nonsense", json!({})).await["error"]["code"], -32601);
        assert_eq!(pipe.end().await, [json!(null); 0]);
    }
}

#[tokio::test]
async fn modern_requests_come_on_the_same_pipe_without_a_greeting() {
    let fake = Fake::builder().start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let mut pipe = Pipe::open(&gateway.waystation);
    pipe.say(&modern_message(json!("d"), "server/discover", json!({}))).await;
    let discovered = pipe.answer(&json!("d")).await;
    assert_eq!(discovered["result"]["supportedVersions"], json!([MODERN]));
    let params = json!({ "name": "a__echo", "arguments": {} });
    pipe.say(&modern_message(json!(2), "tools/call", params)).await;
    assert_eq!(pipe.answer(&json!(2)).await["result"]["resultType"], "complete");
    let newer = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2099-01-01" } });
    pipe.say(&modern_message(json!(3), "tools/list", newer)).await;
    assert_eq!(pipe.answer(&json!(3)).await["error"]["code"], -32022);
    // A legacy request wants its greeting first, which then may still come.
    assert_eq!(pipe.ask("tools/list", json!({})).await["error"]["code"], -32600);
    pipe.say(&crate::support::session::initialize("2025-06-18")).await;
    assert_eq!(pipe.answer(&json!("hello")).await["result"]["protocolVersion"], "2025-06-18");
    assert!(pipe.ask("tools/list", json!({})).await["result"].get("resultType").is_none());
    assert_eq!(pipe.ask("initialize", json!({})).await["error"]["code"], -32600);
}

#[tokio::test]
async fn a_call_on_a_pipe_is_cancelled_by_its_notification_in_either_era() {
    for era in [Era::Legacy, Era::Modern] {
        let fake = Fake::builder().era(era).start().await;
        let gateway = Gateway::with("").backend("a", &fake).start().await;
        let (mut pipe, _) = Pipe::greeted(&gateway.waystation, "2025-11-25").await;
        let slow = |key: &str| json!({ "name": "a__slow", "arguments": { "key": key } });
        let old = pipe.request("tools/call", slow("old")).await;
        pipe.say(&modern_message(json!("new"), "tools/call", slow("new"))).await;
        let stays = pipe.request("tools/call", slow("stays")).await;
        fake.until_running(3).await;
        for id in [old, json!("new"), json!("unknown")] {
            let params = json!({ "requestId": id });
            let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
            pipe.say(&cancel).await;
        }
        let mut cancelled: Vec<_> =
            fake.until_cancelled(2).await.iter().map(|one| one.arguments["key"].clone()).collect();
        cancelled.sort_by_key(ToString::to_string);
        assert_eq!(cancelled, ["new", "old"], "{era:?}");
        fake.release();
        assert_eq!(pipe.answer(&stays).await["result"]["content"][0]["text"], "done");
        // A request that was cancelled has no answer.
        assert_eq!(pipe.end().await, [json!(null); 0]);
    }
}

#[tokio::test]
async fn progress_and_changes_come_between_answers() {
    let fake = Fake::builder().era(Era::Legacy).sse(true).start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let (mut pipe, _) = Pipe::greeted(&gateway.waystation, "2025-11-25").await;
    let params = json!({
        "name": "a__progress", "arguments": { "n": 2, "logs": 1 }, "_meta": { "progressToken": "mine" },
    });
    let id = pipe.request("tools/call", params).await;
    let mut seen = Vec::new();
    let answer = loop {
        let message = pipe.next().await.expect("a message");
        if message["id"] == id {
            break message;
        }
        if message["method"] == "notifications/tools/list_changed" {
            continue; // Of the lists that were read at the start.
        }
        seen.push((
            message["method"].as_str().unwrap().to_owned(),
            message["params"]["progressToken"].clone(),
        ));
    };
    assert_eq!(answer["result"]["content"][0]["text"], "2 steps");
    let progress = ("notifications/progress".to_owned(), json!("mine"));
    assert_eq!(seen, [progress.clone(), ("notifications/message".to_owned(), json!(null)), progress]);
    fake.until_listening(1).await;
    fake.change_tools(vec![tool("other")]);
    assert_eq!(pipe.next().await.unwrap()["method"], "notifications/tools/list_changed");
}

#[tokio::test]
async fn lines_that_are_no_messages_are_refused_and_the_pipe_goes_on() {
    let gateway = Gateway::with("[listen]\nbody_limit = \"1 KiB\"").start().await;
    let (mut pipe, _) = Pipe::greeted(&gateway.waystation, "2025-06-18").await;
    let long =
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":"{}"}}}}"#, "x".repeat(2000));
    for (line, code) in [
        ("{", -32700),
        ("[", -32700),
        ("\u{feff}{}", -32700),
        ("{}", -32600),
        ("[]", -32600),
        ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", -32600),
        (long.as_str(), -32600),
    ] {
        pipe.line(line.as_bytes()).await;
        let mut answer = pipe.next().await.unwrap();
        while answer["method"] == "notifications/tools/list_changed" {
            answer = pipe.next().await.unwrap();
        }
        assert_eq!((&answer["error"]["code"], answer.get("id")), (&json!(code), None), "{line}");
    }
    pipe.line(b"").await;
    pipe.line(b"  \r").await;
    pipe.line(b" {\"jsonrpc\":\"2.0\",\"id\":\"last\",\"method\":\"ping\"} \r").await;
    assert_eq!(pipe.next().await, Some(json!({ "jsonrpc": "2.0", "id": "last", "result": {} })));
}

#[tokio::test]
async fn a_pipe_does_not_end_by_being_idle() {
    let gateway = Gateway::with("[session]\nidle = \"100ms\"").start().await;
    let (mut pipe, _) = Pipe::greeted(&gateway.waystation, "2025-11-25").await;
    let idle = gateway.legacy("2025-11-25").await;
    // When a session over HTTP has ended for it, the pipe has been idle as long.
    idle.stream(None).await.last().await;
    assert_eq!(pipe.ask("ping", json!({})).await["result"], json!({}));
}

#[tokio::test]
async fn what_was_asked_before_the_input_ended_is_answered() {
    let fake = Fake::builder().slow(Duration::from_millis(50)).start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let (mut pipe, _) = Pipe::greeted(&gateway.waystation, "2025-11-25").await;
    for n in 0..5 {
        pipe.request("tools/call", json!({ "name": "a__echo", "arguments": { "n": n } })).await;
    }
    let rest = pipe.end().await;
    assert_eq!(rest.len(), 5);
    assert!(rest.iter().all(|answer| answer["result"].is_object()), "{rest:?}");
}
