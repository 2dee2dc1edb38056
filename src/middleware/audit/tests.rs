use std::{fs, path::Path};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::{
    call::{Aim, Answer, Caller, Client, Event, Identity, Scope},
    wire::{
        capability::Capabilities,
        json::Limits,
        mcp::{Era, Method, Revision},
        message::Message,
    },
};

fn call(name: &str, arguments: &Value, aimed: bool) -> Call {
    let params = json!({ "name": name, "arguments": arguments });
    let text = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    let identity = Identity {
        issuer: "https://a.example".into(),
        subject: "ada".into(),
        groups: Vec::new(),
        scopes: Vec::new(),
        claims: serde_json::Map::new(),
    };
    Call {
        caller: Caller::Known(Arc::new(identity)),
        session: None,
        scope: Scope::All,
        method: Method::ToolsCall,
        message: Message::parse(text.into(), &Limits::REQUEST).unwrap(),
        client: Client {
            revision: Revision::NEWEST,
            capabilities: Capabilities::NONE,
            info: Bytes::from_static(b"{\"name\":\"test\",\"version\":\"1\"}"),
        },
        log_level: None,
        progress: None,
        trace: None,
        mirrored: None,
        given: None,
        aim: aimed.then(|| {
            let (backend, own) = name.split_once("__").unwrap();
            Arc::new(Aim { backend: backend.into(), own: own.into(), hints: Default::default() })
        }),
        marks: None,
    }
}

/// A backend's response with this result.
fn response(result: &Value) -> Answer {
    let text = json!({ "jsonrpc": "2.0", "id": 1, "result": result }).to_string();
    let message = Message::parse(text.into(), &Limits::REPLY).unwrap();
    Answer::Response { message, written_in: Era::Modern, wrapped: false }
}

fn to_file(file: &Path) -> Settings {
    Settings { file: Some(file.to_owned()), ..Settings::default() }
}

/// The trail's lines after all of this has been noted.
async fn lines(trail: &Trail, file: &Path) -> Vec<Value> {
    trail.flush().await;
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn answered(
    trail: &Arc<Trail>,
    call: Call,
    reply: impl Fn() -> Result<Reply> + Clone + Send + Sync + 'static,
) {
    let next = tower::service_fn(move |call: Call| {
        call.marks.unwrap().from_cache.store(true, Ordering::Relaxed);
        let reply = reply();
        Box::pin(async move { reply }) as Replying
    });
    let reply = AuditLayer(Arc::clone(trail)).layer(next).oneshot(call).await;
    if let Ok(Reply::Stream(events)) = reply {
        events.collect::<Vec<_>>().await;
    }
}

#[tokio::test]
async fn each_end_of_a_call_is_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let trail = Trail::new(&to_file(&file), false).unwrap();
    trail.start(&Store::in_memory().await.unwrap());
    let ask = |name| call(name, &json!({}), true);
    let whole = |answer: Value| move || Ok(Reply::Whole(response(&answer)));
    answered(&trail, ask("time__now"), whole(json!({ "content": [], "_meta": { "usage": { "cost": 1 } } })))
        .await;
    answered(&trail, ask("time__now"), whole(json!({ "isError": true }))).await;
    answered(&trail, ask("time__now"), || Err(Error::backend("time", "away"))).await;
    let unknown = call("nothing", &json!({ "password": "hush" }), false);
    answered(&trail, unknown, || Err(Error::UnknownTool("nothing".into()))).await;
    let streamed = || Ok(Reply::Stream(stream::iter([Ok(Event::Answer(response(&json!({}))))]).boxed()));
    answered(&trail, ask("time__now"), streamed).await;
    let dropped = || Ok(Reply::Stream(stream::iter([Ok(Event::Notification(Bytes::new()))]).boxed()));
    answered(&trail, ask("time__now"), dropped).await;

    let lines = lines(&trail, &file).await;
    let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["ok", "tool-error", "failed", "unknown", "ok", "cancelled"]);
    let mut first = lines[0].clone();
    for changing in ["time", "request", "took_us"] {
        assert!(first.as_object_mut().unwrap().remove(changing).is_some(), "{changing}");
    }
    let expected = json!({
        "who": "ada", "issuer": "https://a.example", "client": "test/1", "endpoint": "/mcp", "method": "tools/call",
        "backend": "time", "target": "now", "outcome": "ok", "cached": true, "usage": { "cost": 1 },
    });
    assert_eq!(first, expected);
    assert_eq!((&lines[2]["code"], &lines[3]["target"]), (&json!(502), &json!("nothing")));
    assert!(lines.iter().all(|line| line.get("arguments").is_none()));
}

#[tokio::test]
async fn settings_are_replaced_while_calls_come_and_the_file_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (file, moved) = (folder.path().join("a"), folder.path().join("b"));
    let trail = Trail::new(&Settings::default(), false).unwrap();
    trail.start(&Store::in_memory().await.unwrap());
    assert!(!trail.is_on());
    let mut settings = to_file(&file);
    trail.replace(&settings, false).unwrap();
    let reply = || Ok(Reply::Whole(response(&json!({}))));
    let next = tower::service_fn(move |_: Call| Box::pin(async move { reply() }) as Replying);
    let stage = AuditLayer(Arc::clone(&trail)).layer(next);
    let ask = async || drop(stage.clone().oneshot(call("pay__now", &json!({ "to": "bob" }), true)).await);
    ask().await;
    assert_eq!(lines(&trail, &file).await.len(), 1);
    fs::rename(&file, &moved).unwrap();
    settings.tools.insert("pay__*".into(), Tool { arguments: true });
    trail.replace(&settings, false).unwrap();
    ask().await;
    assert_eq!(lines(&trail, &file).await[0]["arguments"], json!({ "to": "bob" }));
    assert_eq!(fs::read_to_string(&moved).unwrap().lines().count(), 1);
    settings.rows = 0;
    assert_eq!(trail.replace(&settings, false).unwrap_err().len(), 1);
    trail.replace(&Settings::default(), true).unwrap();
    assert!(trail.is_on(), "it is kept where callers are known");
}

#[tokio::test]
async fn what_the_writer_could_not_follow_is_counted_in_the_trail() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let trail = Trail::new(&to_file(&file), false).unwrap();
    let next = tower::service_fn(|_: Call| Box::pin(async { Err(Error::NoInput) }) as Replying);
    let stage = AuditLayer(Arc::clone(&trail)).layer(next);
    for _ in 0..WAITING + 70 {
        let _ = stage.clone().oneshot(call("time__now", &json!({}), true)).await;
    }
    trail.turned_away(TurnedAway::NotLetIn(Denied::Invalid));
    trail.turned_away(TurnedAway::NotLetIn(Denied::Invalid));
    trail.start(&Store::in_memory().await.unwrap());
    let lines = lines(&trail, &file).await;
    let of = |outcome: &str| lines.iter().find(|line| line["outcome"] == outcome).unwrap()["count"].clone();
    assert_eq!((lines.len(), of("lost"), of("denied")), (WAITING + 2, json!(70), json!(2)));
}

#[tokio::test]
async fn what_could_not_be_written_is_counted_when_something_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let away = folder.path().join("away");
    fs::create_dir(&away).unwrap();
    let trail = Trail::new(&to_file(&away.join("audit.jsonl")), false).unwrap();
    trail.start(&Store::in_memory().await.unwrap());
    fs::remove_dir(&away).unwrap();
    for _ in 0..3 {
        answered(&trail, call("time__now", &json!({}), true), || Err(Error::NoInput)).await;
    }
    trail.flush().await;
    fs::create_dir(&away).unwrap();
    answered(&trail, call("time__now", &json!({}), true), || Err(Error::NoInput)).await;
    let lines = lines(&trail, &away.join("audit.jsonl")).await;
    assert_eq!((lines.len(), &lines[1]["outcome"], &lines[1]["count"]), (2, &json!("lost"), &json!(3)));
}
