//! Does exactly the call stop that its client cancelled, and soon?

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{
    fake::{Era, Fake, How},
    support::{Answer, Gateway, Session, modern_message},
};

/// A server behind the gateway, as the battery sees it.
enum Behind {
    Http(Fake, How),
    Child,
}

const NAMES: [&str; 5] = ["child-old", "child-new", "http-old", "http-new", "http-both"];
const EACH: usize = 10;

/// A call under way, and how its client would cancel it.
struct UnderWay {
    backend: usize,
    key: String,
    /// The session it was made on; a modern client has its connection alone.
    session: Option<Session>,
    answer: JoinHandle<Answer>,
}

struct Battery {
    gateway: Gateway,
    behind: Vec<Behind>,
}

impl Battery {
    async fn start() -> Self {
        let fake = |era, sse| Fake::builder().era(era).sse(sse).start();
        let old = fake(Era::Legacy, true).await;
        let (new, both) = (fake(Era::Modern, false).await, fake(Era::Both, true).await);
        let gateway = Gateway::with("")
            .stdio(NAMES[0], &["--era", "legacy"])
            .stdio(NAMES[1], &["--era", "modern"])
            .backend(NAMES[2], &old)
            .backend(NAMES[3], &new)
            .backend(NAMES[4], &both)
            .start()
            .await;
        let http = [(old, How::Notification), (new, How::Closed), (both, How::Closed)];
        let mut behind = vec![Behind::Child, Behind::Child];
        behind.extend(http.map(|(fake, how)| Behind::Http(fake, how)));
        Self { gateway, behind }
    }

    /// Begins a call; every client gives it the same id, which is its own business.
    async fn begin(&self, backend: usize, number: usize) -> UnderWay {
        let key = format!("{}-{number}", NAMES[backend]);
        let tool = format!("{}__slow", NAMES[backend]);
        let params = json!({ "name": tool, "arguments": { "key": key } });
        if number.is_multiple_of(2) {
            let session = self.gateway.legacy("2025-11-25").await;
            let answer = tokio::spawn(session.message(json!("x"), "tools/call", params).send());
            return UnderWay { backend, key, session: Some(session), answer };
        }
        let post = self.gateway.call(&tool, json!({}));
        let post = post.body(modern_message(json!("x"), "tools/call", params).to_string());
        UnderWay { backend, key, session: None, answer: tokio::spawn(post.send()) }
    }

    /// How many things a server has seen and noted.
    fn noted(&self) -> Vec<usize> {
        let noted = |(behind, name): (&Behind, &str)| match behind {
            Behind::Http(fake, _) => fake.seen().len() + fake.cancelled().len(),
            Behind::Child => self.gateway.log(name).len(),
        };
        self.behind.iter().zip(NAMES).map(noted).collect()
    }

    async fn until_all_run(&self) {
        for (behind, name) in self.behind.iter().zip(NAMES) {
            let calls = || self.gateway.log(name).iter().filter(|line| line.contains("tools/call")).count();
            match behind {
                Behind::Http(fake, _) => fake.until_running(EACH).await,
                Behind::Child => crate::support::until("the child has all calls", || calls() == EACH).await,
            }
        }
    }

    /// The call with this key that the server has noted as cancelled, and when.
    fn cancelled(&self, backend: usize, key: &str) -> Option<Instant> {
        match &self.behind[backend] {
            Behind::Http(fake, how) => {
                let all = fake.cancelled();
                let found = all.iter().find(|one| one.arguments["key"] == key)?;
                assert_eq!(found.how, *how);
                Some(found.at)
            }
            Behind::Child => {
                let log = self.gateway.log(NAMES[backend]);
                let messages = log.iter().filter_map(|line| line.strip_prefix("received "));
                let call = messages
                    .map(|text| serde_json::from_str::<Value>(text).unwrap())
                    .find(|message| message["params"]["arguments"]["key"] == key)?;
                let line = format!("cancelled {} ", call["id"]);
                log.iter().any(|other| other.starts_with(&line)).then(Instant::now)
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_calls_are_cancelled_one_by_one_and_nobody_else_hears_of_it() {
    let battery = Battery::start().await;
    let mut calls = Vec::new();
    for number in 0..EACH {
        for backend in 0..NAMES.len() {
            calls.push(battery.begin(backend, number).await);
        }
    }
    battery.until_all_run().await;

    let mut slowest = Duration::ZERO;
    for call in calls {
        let UnderWay { backend, key, session, answer } = call;
        let before = battery.noted();
        let begun = Instant::now();
        match &session {
            Some(session) => assert_eq!(session.cancel("x").await.status, 202),
            None => answer.abort(),
        }
        let at = loop {
            if let Some(at) = battery.cancelled(backend, &key) {
                break at;
            }
            assert!(begun.elapsed() < Duration::from_secs(1), "{key} goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        slowest = slowest.max(at.saturating_duration_since(begun));
        if session.is_some() {
            let answer = answer.await.expect("the exchange ends");
            assert_eq!(
                (answer.status, answer.messages().len()),
                (200, 0),
                "no response to what was cancelled"
            );
        }
        let after = battery.noted();
        for other in (0..NAMES.len()).filter(|other| *other != backend) {
            assert_eq!(before[other], after[other], "{} heard of {key}", NAMES[other]);
        }
        let heard = after[backend] - before[backend];
        let closed = matches!(&battery.behind[backend], Behind::Http(_, How::Closed));
        assert_eq!(heard, if closed { 1 } else { 2 }, "{key}: the word and the deed, no more");
    }
    println!("50 cancellations; the slowest took {slowest:?}");
    for behind in &battery.behind {
        if let Behind::Http(fake, _) = behind {
            assert_eq!(fake.running(), 0);
        }
    }
}

#[tokio::test]
async fn a_legacy_client_whose_connection_breaks_has_cancelled_nothing() {
    let fake = Fake::builder().era(Era::Modern).start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let session = gateway.legacy("2025-11-25").await;
    let call = tokio::spawn(session.call("a__slow", json!({})).send());
    fake.until_running(1).await;
    call.abort();
    // Another call comes and goes; the first one still runs.
    session.call("a__echo", json!({})).send().await.result();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((fake.running(), fake.cancelled().len()), (1, 0));
    // The end of the session ends it.
    session.delete().await;
    fake.until_cancelled(1).await;
}

#[tokio::test]
async fn what_is_cancelled_after_its_answer_or_never_was_harms_nobody() {
    let fake = Fake::builder().era(Era::Legacy).start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let session = gateway.legacy("2025-11-25").await;
    session
        .message(json!(5), "tools/call", json!({ "name": "a__echo", "arguments": {} }))
        .send()
        .await
        .result();
    for id in [json!(5), json!("5"), json!(null), json!({}), json!(77)] {
        assert_eq!(session.cancel(id).await.status, 202);
    }
    // Another client's call with that id goes on.
    let other = gateway.legacy("2025-11-25").await;
    let slow = json!({ "name": "a__slow", "arguments": {} });
    let call = tokio::spawn(other.message(json!(5), "tools/call", slow).send());
    fake.until_running(1).await;
    session.cancel(5).await;
    fake.release();
    assert_eq!(call.await.unwrap().result()["content"][0]["text"], "done");
    assert!(fake.seen_of("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn a_client_that_goes_in_the_middle_of_a_stream_has_cancelled_its_call() {
    let fake = Fake::builder().era(Era::Legacy).sse(true).start().await;
    let gateway = Gateway::with("")
        .backend("http", &fake)
        .stdio("old", &["--era", "legacy"])
        .stdio("new", &["--era", "modern"])
        .start()
        .await;
    for backend in ["http", "old", "new"] {
        let arguments = json!({ "n": 200, "every_ms": 20 });
        let meta = json!({ "progressToken": 1 });
        let params = json!({ "name": format!("{backend}__progress"), "arguments": arguments, "_meta": meta });
        let mut stream = gateway.modern("tools/call", params).open().await;
        stream.message().await.expect("progress");
        drop(stream);
    }
    fake.until_seen("notifications/cancelled", 1).await;
    for child in ["old", "new"] {
        let told = || gateway.log(child).iter().any(|line| line.contains("notifications/cancelled"));
        crate::support::until("the child is told", told).await;
    }
}

#[tokio::test]
async fn what_a_cancelled_call_still_says_reaches_nobody_else() {
    let gateway = Gateway::with("").stdio("child", &["--era", "legacy"]).start().await;
    let (first, second) = (gateway.legacy("2025-11-25").await, gateway.legacy("2025-11-25").await);
    // The child goes on with this one, since it heeds no cancellation of it.
    let mut stream = first.call("child__progress", json!({ "n": 20, "every_ms": 20 })).open().await;
    assert_eq!(stream.message().await.expect("a log message")["method"], "notifications/message");
    first.cancel(1).await;
    drop(stream);

    let alone = second.call("child__slow", json!({ "ms": 200 })).send().await;
    assert_eq!(alone.messages().len(), 1, "the first one's log is nobody's: {}", alone.text());
    // Once the first one is answered, it is clear again whose log it is.
    let clear = async || second.call("child__progress", json!({ "n": 2 })).send().await.messages().len() == 3;
    let begun = Instant::now();
    while !clear().await {
        assert!(begun.elapsed() < Duration::from_secs(5), "no log reaches anyone any more");
    }
}
