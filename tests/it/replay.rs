//! What becomes of messages that a client had not read when the gateway was killed or stopped?

use std::time::Duration;

use serde_json::{Value, json};
use waystation::{app, config::Config};

use crate::{
    children::Program,
    fake::{Era, Fake},
    sessions::until_quiet,
    support::{Gateway, Opened, Session, until_ok},
};

const RESOURCES: u64 = 6;
const STEPS: u64 = 10;

/// The next event that is a message: the number of its stream, its own, and the message.
async fn next(stream: &mut Opened) -> Option<(u64, u64, Value)> {
    loop {
        let event = stream.event().await?;
        let id = event.id.expect("an id");
        let (number, event_number) = id.split_once('-').expect("an id of two numbers");
        if !event.data.is_empty() {
            let message = serde_json::from_slice(&event.data).expect("a message is JSON");
            return Some((number.parse().unwrap(), event_number.parse().unwrap(), message));
        }
    }
}

fn uri(number: u64) -> Value {
    json!({ "uri": format!("test://{number}") })
}

fn updated(number: u64) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": uri(number) })
}

/// A client that watches resources, or one that has made a call; what it has read last; and its
/// stream, unless that broke early.
struct Client {
    session: Session,
    last: (u64, u64),
    stream: Option<Opened>,
}

impl Client {
    async fn watching(gateway: &Program) -> Self {
        let session = Session::open(gateway.address, "/mcp", "2025-11-25").await;
        for number in 0..RESOURCES {
            session.request("resources/subscribe", uri(number)).send().await.result();
        }
        let stream = session.stream(None).await;
        Self { session, last: (0, 0), stream: Some(stream) }
    }

    async fn calling(gateway: &Program, steps: u64) -> Self {
        let session = Session::open(gateway.address, "/mcp", "2025-11-25").await;
        let arguments = json!({ "n": steps, "logs": 0, "every_ms": 5, "hangs": true });
        let params =
            json!({ "name": "files__progress", "arguments": arguments, "_meta": { "progressToken": 1 } });
        let stream = session.message(json!("long"), "tools/call", params).open().await;
        Self { session, last: (0, 0), stream: Some(stream) }
    }

    async fn read(&mut self) -> Value {
        let (stream, event, message) = next(self.stream.as_mut().unwrap()).await.expect("an event");
        self.last = (stream, event);
        message
    }

    async fn resume(&mut self) -> &mut Opened {
        let (stream, event) = self.last;
        let stream = self.session.stream(Some(&format!("{stream}-{event}"))).await;
        assert_eq!(stream.status, 200);
        self.stream.insert(stream)
    }
}

/// After a kill in the middle of 100 sessions: each second client has lost its connection
/// before, and some of its messages with it.
#[tokio::test]
async fn what_was_missed_before_the_gateway_was_killed_can_be_had_after() {
    let resources = (0..RESOURCES).map(|number| json!({ "uri": format!("test://{number}"), "name": "a" }));
    let fake = Fake::builder().era(Era::Legacy).sse(true).resources(resources.collect()).start().await;
    let backend = format!("[backends.files]\nurl = \"{}\"\n", fake.url());
    let gateway = Program::start_kept(&backend);
    let mut watching = Vec::new();
    let first = Session::open(gateway.address, "/mcp", "2025-11-25").await;
    until_ok(|| first.request("resources/subscribe", uri(0)).send()).await;
    until_quiet(&mut first.stream(None).await).await; // The lists that were read at the start.
    for _ in 0..50 {
        watching.push(Client::watching(&gateway).await);
    }
    fake.until_seen("resources/subscribe", RESOURCES as usize).await;
    let mut calling = Vec::new();
    for _ in 0..50 {
        calling.push(Client::calling(&gateway, STEPS).await);
    }
    let early = |index: usize| index.is_multiple_of(2);
    for number in 0..RESOURCES {
        fake.notify(updated(number));
        for (index, client) in watching.iter_mut().enumerate() {
            if number < 2 || !early(index) {
                assert_eq!(client.read().await, updated(number));
            } else {
                client.stream = None;
            }
        }
    }
    for (index, client) in calling.iter_mut().enumerate() {
        for step in 1..=(if early(index) { 3 } else { STEPS }) {
            assert_eq!(client.read().await["params"]["progress"], step);
        }
        if early(index) {
            client.stream = None;
        }
    }
    // What was noted last is on its way to the disk.
    tokio::time::sleep(Duration::from_millis(500)).await;
    fake.forget();

    let _gateway = gateway.killed_and_started(&backend);
    for client in &mut calling {
        let (number, last) = client.last;
        let stream = client.resume().await;
        for step in last + 1..=STEPS {
            let (of, event, message) = next(stream).await.expect("what was missed");
            assert_eq!((of, event, &message["params"]["progress"]), (number, step, &json!(step)));
        }
        let (of, event, message) = next(stream).await.expect("how it ended");
        assert_eq!((of, &message["id"], &message["error"]["code"]), (number, &json!("long"), &json!(500)));
        assert!(message["error"]["message"].as_str().unwrap().contains("may have run"), "{message}");
        assert!(event > 1 << 40, "{event}");
        assert_eq!(next(stream).await, None);
        // It is over, and is told once.
        client.last = (number, event);
        assert_eq!(next(client.resume().await).await, None);
    }
    fake.until_seen("resources/subscribe", RESOURCES as usize).await;
    fake.notify(updated(0));
    for (index, client) in watching.iter_mut().enumerate() {
        let stream = client.resume().await;
        for number in if early(index) { 2..RESOURCES } else { 0..0 } {
            assert_eq!(next(stream).await, Some((0, number + 1, updated(number))));
        }
        let (_, event, _) = next(stream).await.expect("what is new");
        assert!(event > 1 << 40, "{event}");
    }
    for client in watching.iter().chain(&calling) {
        let echo = client.session.call("files__echo", json!({ "a": 1 })).send().await;
        assert_eq!(echo.result()["structuredContent"], json!({ "a": 1 }));
    }
}

/// What came in the last moment before the kill may be lost, and nothing before it.
#[tokio::test]
async fn wherever_the_kill_falls_what_is_sent_again_has_no_gaps() {
    let fake = Fake::builder().era(Era::Legacy).sse(true).start().await;
    let backend = format!("[backends.files]\nurl = \"{}\"\n", fake.url());
    let gateway = Program::start_kept(&backend);
    let first = Session::open(gateway.address, "/mcp", "2025-11-25").await;
    until_ok(|| first.call("files__echo", json!({})).send()).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Client::calling(&gateway, 1_000_000).await;
        for step in 1..=3 {
            assert_eq!(client.read().await["params"]["progress"], step);
        }
        client.stream = None;
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;

    let _gateway = gateway.killed_and_started(&backend);
    for client in &mut clients {
        let stream = client.resume().await;
        let mut step = 3;
        let answer = loop {
            let (_, event, message) = next(stream).await.expect("it ends with an answer");
            if message["params"].is_null() {
                break message;
            }
            step += 1;
            assert_eq!((event, &message["params"]["progress"]), (step, &json!(step)));
        };
        assert!(step > 10, "of what came in a second most is on disk: {step}");
        assert_eq!(answer["error"]["code"], 500);
        assert_eq!(next(stream).await, None);
    }
}

#[tokio::test]
async fn a_gateway_that_is_stopped_keeps_what_was_missed_as_well() {
    let fake = Fake::builder().era(Era::Legacy).sse(true).start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("a.db");
    let gateway = Gateway::with("").backend("a", &fake).store(&store).start().await;
    let session = gateway.legacy("2025-06-18").await;
    let call = |arguments: Value| json!({ "name": "a__progress", "arguments": arguments, "_meta": { "progressToken": 1 } });
    let done = session.request("tools/call", call(json!({ "n": 2, "logs": 0 }))).send().await;
    assert_eq!(done.messages().len(), 3);
    let hangs = call(json!({ "n": 2, "logs": 0, "hangs": true }));
    let mut stream = session.message(json!(77), "tools/call", hangs).open().await;
    for step in 1..=2 {
        let (number, event, _) = next(&mut stream).await.expect("progress");
        assert_eq!((number, event), (2, step));
    }
    gateway.stop().await;
    assert_eq!(stream.message().await, None);

    let again = Gateway::with("").backend("a", &fake).store(&store).start().await;
    let session = session.at(again.address);
    assert_eq!(session.stream(Some("1-1")).await.status, 400, "what was read to its end is not kept");
    let mut stream = session.stream(Some("2-1")).await;
    assert_eq!(stream.status, 200);
    let (_, event, progress) = next(&mut stream).await.expect("what may have been missed");
    assert_eq!((event, &progress["params"]["progress"]), (2, &json!(2)));
    let answer = stream.message().await.expect("how it ended");
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(77), &json!(500)));
    assert_eq!(stream.message().await, None);
}

/// `waystation stdio` and `waystation list` are gateways of their own with the same database.
#[tokio::test]
async fn a_gateway_for_one_client_leaves_the_sessions_of_another_alone() {
    let fake = Fake::builder().era(Era::Legacy).sse(true).start().await;
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("a.db");
    let setup = || Gateway::with("").backend("a", &fake).store(&store);
    let gateway = setup().start().await;
    let session = gateway.legacy("2025-06-18").await;
    let arguments = json!({ "n": 1, "logs": 0, "hangs": true });
    let call = json!({ "name": "a__progress", "arguments": arguments, "_meta": { "progressToken": 1 } });
    let mut stream = session.message(json!("long"), "tools/call", call).open().await;
    assert_eq!(next(&mut stream).await.map(|(number, event, _)| (number, event)), Some((1, 1)));
    // What was noted last is on its way to the disk.
    tokio::time::sleep(Duration::from_millis(500)).await;

    let mut config = Config::default();
    config.store.path = Some(store.clone());
    let (other, [address, _]) = app::ephemeral(config).await.expect("it starts");
    let address = address.strip_prefix("http://").unwrap().parse().unwrap();
    let elsewhere = session.at(address);
    assert_eq!(elsewhere.request("ping", json!({})).send().await.status, 404);
    other.stop().await;
    gateway.stop().await;

    let gateway = setup().start().await;
    let mut stream = elsewhere.at(gateway.address).stream(Some("1-1")).await;
    assert_eq!(stream.message().await.expect("how it ended")["error"]["code"], 500);
    assert_eq!(stream.message().await, None, "once");
}
