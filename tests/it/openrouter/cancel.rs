//! Nobody waits for an answer any more: the model is stopped, what it said is kept, and the conversation goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    Rig, answered, chat, messages, say,
    stream::{Heard, params},
};
use crate::support::{Gateway, MODERN, PATIENCE, modern_message, pipe::Pipe, until};

/// Longer than any test waits.
const ENDLESS: &str = "[[sim:slow-tokens ms=50]] [[sim:words n=2000]]";

async fn begun(gateway: &Gateway) -> Value {
    say(gateway, None, "hello").await["conversation_id"].clone()
}

/// The simulator heard that its client has gone. How long after it did go?
async fn gone(rig: &Rig, since: Instant) {
    let left = || rig.asked_about("words n=2000").iter().all(|entry| entry.client_gone_at.is_some());
    until("the model is stopped", left).await;
    println!("the model heard of it after {:?}", since.elapsed());
}

/// What was heard is kept, and the next message is answered at once.
async fn kept(gateway: &Gateway, conversation: &Value, heard: &str) {
    let begun = Instant::now();
    let next = say(gateway, Some(conversation), "and now?").await;
    assert!(next["text"].as_str().unwrap().contains("turn 3:"), "{next}");
    // A turn that was left would be waited for twice as long as that.
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    let all = messages(gateway, conversation).await;
    let partial = &all[3];
    assert_eq!((&partial["role"], all.len()), (&json!("assistant"), 6), "{all:?}");
    assert!(partial["text"].as_str().unwrap().starts_with(heard) && !heard.is_empty(), "{partial}");
    let arguments = json!({ "conversation_id": conversation, "include_turns": true });
    let turns = answered(&gateway.call("chat__conversation_get", arguments).send().await)["turns"].clone();
    let turn = turns.as_array().unwrap().iter().find(|turn| turn["turn_id"] == partial["turn_id"]).unwrap();
    assert_eq!((&turn["state"], &turn["incomplete_reason"]), (&json!("incomplete"), &json!("cancelled")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_is_closed() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let id = begun(&gateway).await;
    let call = gateway.modern("tools/call", params(json!({ "message": ENDLESS, "conversation_id": id })));
    let mut stream = call.open().await;
    let mut heard = Heard::default();
    while heard.pieces < 3 {
        heard.take(&stream.message().await.unwrap());
    }
    drop(stream);
    gone(&rig, Instant::now()).await;
    kept(&gateway, &id, &heard.text).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_cancelled_by_a_notification() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    for revision in ["2025-03-26", "2025-11-25"] {
        let id = begun(&gateway).await;
        let session = gateway.legacy(revision).await;
        let arguments = params(json!({ "message": format!("{ENDLESS} {revision}"), "conversation_id": id }));
        let mut stream = session.message(json!("the call"), "tools/call", arguments).open().await;
        let mut heard = Heard::default();
        while heard.pieces < 3 {
            heard.take(&stream.message().await.unwrap());
        }
        session.cancel("the call").await;
        let now = Instant::now();
        gone(&rig, now).await;
        kept(&gateway, &id, &heard.text).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_cancelled_over_standard_input() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let mut pipe = Pipe::open(&gateway.waystation);
    let ask = |id: &str, arguments: Value| modern_message(json!(id), "tools/call", params(arguments));
    pipe.say(&ask("first", json!({ "message": "hello" }))).await;
    let first = pipe.answer(&json!("first")).await["result"]["structuredContent"].clone();
    let id = first["conversation_id"].clone();
    pipe.say(&ask("second", json!({ "message": ENDLESS, "conversation_id": id }))).await;
    let mut heard = Heard::default();
    while heard.pieces < 3 {
        let message = pipe.next().await.unwrap();
        if message["params"]["_meta"]["io.waystation/chat"]["kind"] == "delta" && heard.pieces == 0 {
            heard = Heard::default();
        }
        heard.take(&message);
    }
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": MODERN });
    let cancelled = json!({ "requestId": "second", "_meta": meta });
    pipe.say(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancelled })).await;
    gone(&rig, Instant::now()).await;
    pipe.say(&ask("third", json!({ "message": "and now?", "conversation_id": id }))).await;
    let third = pipe.answer(&json!("third")).await["result"]["structuredContent"].clone();
    assert!(third["text"].as_str().unwrap().contains("turn 3:"), "{third}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_cancelled_before_the_first_word() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let id = begun(&gateway).await;
    let silent = json!({ "message": "[[sim:slow-first ms=60000]]", "conversation_id": id });
    let stream = gateway.modern("tools/call", params(silent)).open().await;
    until("the model is asked", || rig.asked_about("slow-first").len() == 1).await;
    drop(stream);
    until("the model is stopped", || rig.asked_about("slow-first")[0].client_gone_at.is_some()).await;
    let next = say(&gateway, Some(&id), "and now?").await;
    // Nothing came of it, so the model is not told of it.
    assert!(next["text"].as_str().unwrap().contains("turn 2:"), "{next}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_leaves_the_line_is_not_asked_for() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let id = begun(&gateway).await;
    let say = |message: &str| params(json!({ "message": message, "conversation_id": id }));
    let long = "[[sim:slow-tokens ms=20]] [[sim:words n=40]]";
    let first = tokio::spawn(gateway.modern("tools/call", say(long)).send());
    until("the model is asked", || rig.asked_about("words n=40").len() == 1).await;
    let mut second = gateway.modern("tools/call", say("never said")).open().await;
    let waits = second.message().await.unwrap();
    assert!(waits["params"]["message"].as_str().unwrap().starts_with("queued behind"), "{waits}");
    drop(second);
    let first = answered(&first.await.unwrap());
    assert_eq!(first["status"], "completed");
    super::say(&gateway, Some(&id), "after all").await;
    assert!(rig.asked_about("never said").is_empty());
    assert_eq!(messages(&gateway, &id).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_cancelled_at_any_moment_and_the_conversation_goes_on() {
    let rig = Rig::slow(Duration::from_millis(1)).await;
    let gateway = rig.gateway("").await;
    let id = begun(&gateway).await;
    for pause in 0..40 {
        let arguments = json!({ "message": format!("[[sim:words n=30]] {pause}"), "conversation_id": id });
        let call = tokio::spawn(chat(&gateway, arguments).send());
        tokio::time::sleep(Duration::from_millis(pause)).await;
        call.abort();
    }
    // None of them was begun and left: that would hold the conversation for half a minute.
    let last = say(&gateway, Some(&id), "at last").await;
    assert_eq!(last["status"], "completed");
    until("nothing is under way", || rig.simulator.stats().under_way == 0).await;
    let arguments = json!({ "conversation_id": id, "include_turns": true });
    let turns = answered(&gateway.call("chat__conversation_get", arguments).send().await)["turns"].clone();
    for turn in turns.as_array().unwrap() {
        assert!(["completed", "incomplete", "failed"].contains(&turn["state"].as_str().unwrap()), "{turn}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_stops_in_the_middle_of_an_answer() {
    let rig = Rig::new().await;
    let gateway = rig.setup("").lines("[listen.limits]\ndrain = \"1s\"\n").start().await;
    let id = begun(&gateway).await;
    let call = gateway.modern("tools/call", params(json!({ "message": ENDLESS, "conversation_id": id })));
    let mut stream = call.open().await;
    let mut heard = Heard::default();
    while heard.pieces < 3 {
        heard.take(&stream.message().await.unwrap());
    }
    let reading = tokio::spawn(async move { while stream.message().await.is_some() {} });
    gateway.stop().await;
    gone(&rig, Instant::now()).await;
    reading.abort();
    let gateway = rig.gateway("").await;
    kept(&gateway, &id, &heard.text).await;
}
