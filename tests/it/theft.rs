//! Does a handle that is not one's own say no more than one that never was?
//!
//! Each attempt is made twice: with a handle that somebody has, but that is altered, over, or meant for something
//! else, and with one that was made up. Both must be answered alike, to the letter.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    fake::{Era, Fake},
    support::{Answer, Gateway, Session},
    tasks::{call, of_task, takes_tasks},
};

const REVISION: &str = "2025-11-25";

/// How many attempts were made, and what they were answered.
#[derive(Default)]
struct Thefts(usize);

impl Thefts {
    /// `stolen` and `made_up` are answers to the same attempt.
    #[track_caller]
    fn check(&mut self, what: &str, stolen: &Answer, made_up: &Answer, names: [&str; 2]) {
        let plain = |answer: &Answer, name: &str| answer.text().replace(name, "HANDLE");
        let (one, two) = (plain(stolen, names[0]), plain(made_up, names[1]));
        assert_eq!((stolen.status, without_id(&one)), (made_up.status, without_id(&two)), "{what}");
        assert!(stolen.status != 200 || one.contains("error"), "{what}: {one}");
        self.0 += 1;
    }
}

/// A response without its id, which differs from request to request.
fn without_id(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    if let Some(object) = value.as_object_mut() {
        object.remove("id");
    }
    value
}

/// The same text with one letter changed.
fn altered(handle: &str) -> String {
    let middle = handle.len() / 2;
    let other = if handle.as_bytes()[middle] == b'a' { "b" } else { "a" };
    format!("{}{other}{}", &handle[..middle], &handle[middle + 1..])
}

async fn gateway(lines: &str) -> (Gateway, Fake) {
    let resource = json!({ "uri": "test://a", "name": "a" });
    let prompts = vec![json!({ "name": "greet" })];
    let fake =
        Fake::builder().era(Era::Both).sse(true).resources(vec![resource]).prompts(prompts).start().await;
    let gateway = Gateway::with(lines).backend("one", &fake).start().await;
    (gateway, fake)
}

#[tokio::test]
async fn sessions() {
    let (gateway, _fake) = gateway("[session]\nidle = \"400ms\"\n").await;
    let mut thefts = Thefts::default();
    let made_up = "0123456789abcdef0123456789abcdef";
    let expired = gateway.legacy(REVISION).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    let mine = gateway.legacy(REVISION).await;
    let other = gateway.legacy_at("/mcp/one", REVISION).await;
    let deleted = gateway.legacy(REVISION).await;
    assert_eq!(deleted.delete().await.status, 200);
    let unknown = mine.with_id(made_up);
    for (what, thief) in [
        ("of another endpoint", mine.with_id(&other.id)),
        ("altered", mine.with_id(&altered(&mine.id))),
        (
            "in capital letters",
            mine.with_id(&mine.id.to_uppercase().replace(|c: char| c.is_ascii_digit(), "A")),
        ),
        ("cut short", mine.with_id(&mine.id[1..])),
        ("deleted", mine.with_id(&deleted.id)),
        ("idle for too long", mine.with_id(&expired.id)),
    ] {
        let names = [&*thief.id, made_up];
        let post = |session: &Session| session.message(json!(1), "tools/list", json!({})).send();
        thefts.check(what, &post(&thief).await, &post(&unknown).await, names);
        thefts.check(
            what,
            &thief.stream(None).await.answer().await,
            &unknown.stream(None).await.answer().await,
            names,
        );
        thefts.check(what, &thief.delete().await, &unknown.delete().await, names);
    }
    assert_eq!(mine.request("ping", json!({})).send().await.result(), json!({}), "it is there still");
    assert_eq!(thefts.0, 18);
}

#[tokio::test]
async fn what_belongs_to_a_session() {
    let (gateway, fake) = gateway("").await;
    let (mine, other) = (gateway.legacy_asked(REVISION).await, gateway.legacy_asked(REVISION).await);
    let form = json!({ "mode": "form", "message": "Who?", "requestedSchema": { "type": "object", "properties": {} } });
    let arguments = json!({ "method": "elicitation/create", "params": form });
    let ask = json!({ "name": "one__ask", "arguments": arguments });
    let mut stream = mine.message(json!(7), "tools/call", ask).open().await;
    let first = stream.event().await.expect("an event").id.expect("an id");
    let question = loop {
        let message = stream.message().await.expect("a question");
        if message["method"] == "elicitation/create" {
            break message;
        }
    };
    // An answer, a cancellation, progress and an event's number from another session mean nothing.
    let accept = json!({ "action": "accept", "content": { "by": "a thief" } });
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": accept });
    assert_eq!(other.post(answer.to_string()).send().await.status, 202);
    assert_eq!(other.cancel(7).await.status, 202);
    let progress = json!({ "progressToken": 7, "progress": 1 });
    assert_eq!(other.notify("notifications/progress", progress).await.status, 202);
    let (theirs, none) = (other.stream(Some(&first)).await, other.stream(Some("99-1")).await);
    let (theirs, none) = (theirs.answer().await, none.answer().await);
    assert_eq!((theirs.status, theirs.text()), (none.status, none.text()));
    assert_eq!(
        other.request("resources/unsubscribe", json!({ "uri": "test://a" })).send().await.result(),
        json!({})
    );
    let honest = json!({ "action": "accept", "content": { "by": "me" } });
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": honest });
    assert_eq!(mine.post(answer.to_string()).send().await.status, 202);
    let response = stream.last().await.expect("a response");
    let text = response["result"]["content"][0]["text"].as_str().expect("a text");
    assert!(text.contains("\"me\"") && !text.contains("thief"), "{text}");
    assert!(fake.cancelled().is_empty() && fake.seen_of("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn cursors() {
    let (gateway, _fake) = gateway("[listen]\npage_size = 1\n").await;
    let list = |path: &'static str, method: &'static str, cursor: &str| {
        gateway.modern_at(path, method, json!({ "cursor": cursor })).send()
    };
    let page = gateway.modern("tools/list", json!({})).send().await.result();
    let mine = page["nextCursor"].as_str().expect("a second page").to_owned();
    let page = gateway.modern_at("/mcp/one", "tools/list", json!({})).send().await.result();
    let other = page["nextCursor"].as_str().expect("a second page").to_owned();
    let made_up = "bm90aGluZw";
    let mut thefts = Thefts::default();
    for (what, path, method, cursor) in [
        ("for another list", "/mcp", "prompts/list", mine.clone()),
        ("for another list", "/mcp", "resources/list", mine.clone()),
        ("at another endpoint", "/mcp/one", "tools/list", mine.clone()),
        ("of another endpoint", "/mcp", "tools/list", other),
        ("altered", "/mcp", "tools/list", altered(&mine)),
        ("cut short", "/mcp", "tools/list", mine[1..].to_owned()),
        ("empty", "/mcp", "tools/list", String::new()),
    ] {
        let unknown = list(path, method, made_up).await;
        assert_eq!(unknown.refusal(), (200, -32602));
        thefts.check(
            what,
            &list(path, method, &cursor).await,
            &unknown,
            [&cursor, made_up].map(|name| if name.is_empty() { "HANDLE" } else { name }),
        );
    }
    assert!(list("/mcp", "tools/list", &mine).await.result()["tools"].is_array());
    assert_eq!(thefts.0, 7);
}

#[tokio::test]
async fn tasks() {
    let (gateway, fake) = gateway("[deadline]\ntask = \"50ms\"\n[tasks]\nkeep = \"2s\"\n").await;
    let made = async |arguments: Value| {
        let made = call(&gateway, "one__slow", arguments).send().await.result();
        made["taskId"].as_str().expect("a name").to_owned()
    };
    let expired = made(json!({ "n": 0 })).await;
    tokio::time::sleep(Duration::from_millis(2200)).await;
    let mine = made(json!({ "n": 1 })).await;
    let made_up = "0123456789abcdef0123456789abcdef";
    let mut thefts = Thefts::default();
    for (what, path, id) in [
        ("at another endpoint", "/mcp/one", mine.clone()),
        ("altered", "/mcp", altered(&mine)),
        ("kept for too long", "/mcp", expired),
        ("cut short", "/mcp", mine[1..].to_owned()),
    ] {
        for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
            let ask = |id: &str| {
                let params = json!({ "taskId": id, "inputResponses": {}, "_meta": takes_tasks() });
                gateway.modern_at(path, method, params).send()
            };
            thefts.check(what, &ask(&id).await, &ask(made_up).await, [&id, made_up]);
        }
    }
    // Those who take no tasks learn nothing of them either.
    let session = gateway.legacy_at("/mcp/one", REVISION).await;
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        let ask = |id: &str| session.message(json!(1), method, json!({ "taskId": id })).send();
        thefts.check("on a session elsewhere", &ask(&mine).await, &ask(made_up).await, [&mine, made_up]);
    }
    let listed = session.request("tasks/list", json!({})).send().await.result();
    assert_eq!(listed["tasks"], json!([]));
    let filter = json!({ "notifications": { "taskIds": [mine, made_up] }, "_meta": takes_tasks() });
    let mut stream = gateway.modern_at("/mcp/one", "subscriptions/listen", filter).open().await;
    let first = stream.message().await.expect("an acknowledgement");
    assert_eq!(first["params"]["notifications"], json!({ "taskIds": [] }));
    assert_eq!(of_task(&gateway, "tasks/get", &mine).send().await.result()["status"], "working");
    assert_eq!(fake.cancelled().len(), 1, "the one that was kept for too long");
    assert_eq!(thefts.0, 15);
}
