//! What does it cost its callers when a server is killed, or forgets them?

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::{
    crowd::{
        between,
        client::{Crowd, Habits, get},
        http1::Connection,
        number_after,
        server::{Journal, Kind, Process, free_address},
    },
    fake::{Era, Fake},
    support::Gateway,
};

const EVERY: Duration = Duration::from_millis(300);
const KILLS: usize = 50;
/// After this long without a kill all servers answer.
const CALM: Duration = Duration::from_secs(2);

/// The servers, each a process of its own.
struct Servers {
    journals: Vec<Journal>,
    /// Those over HTTP; the others are children of the gateway.
    processes: HashMap<&'static str, Process>,
    addresses: HashMap<&'static str, SocketAddr>,
}

impl Servers {
    async fn start(folder: &std::path::Path) -> Self {
        let journals = Kind::ALL.map(|kind| Journal::new(folder.join(kind.name()))).into();
        let mut servers = Self { journals, processes: HashMap::new(), addresses: HashMap::new() };
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            let address = free_address().await;
            servers.addresses.insert(kind.name(), address);
            if !kind.is_child() {
                servers.begin(at, kind);
                while TcpStream::connect(address).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        }
        servers
    }

    fn begin(&mut self, at: usize, kind: Kind) {
        let address = self.addresses[kind.name()];
        self.processes.insert(kind.name(), Process::start(kind, address, self.journals[at].path()));
    }

    fn kill(&mut self, at: usize, kind: Kind) {
        if kind.is_child() {
            let process = self.journals[at].process().and_then(Pid::from_raw).expect("it has begun");
            // It may have gone already, while its successor has not begun yet.
            let _ = kill_process(process, Signal::KILL);
        } else {
            drop(self.processes.remove(kind.name()));
            self.begin(at, kind);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a battery, which tests/run runs by itself"]
async fn a_killed_server_runs_no_call_twice_and_leaves_none_without_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut servers = Servers::start(folder.path()).await;
    // An error for that reason would be another one than those that are right.
    let mut setup = Gateway::with("[deadline]\nidle = \"20s\"\ntotal = \"20s\"");
    for (kind, journal) in Kind::ALL.into_iter().zip(&servers.journals) {
        setup = setup.lines(&kind.table(servers.addresses[kind.name()], journal.path()));
    }
    let gateway = setup.start().await;
    let crowd = Crowd::new(
        gateway.address,
        Habits { clients: 64, requests: u64::MAX, aborts: 0, looks: 50, grace: CALM },
    );
    let load = tokio::spawn({
        let crowd = Arc::clone(&crowd);
        async move { crowd.run().await }
    });
    for kill in 0..KILLS {
        tokio::time::sleep(EVERY).await;
        let at = kill % Kind::ALL.len();
        crowd.killed(Kind::ALL[at]);
        servers.kill(at, Kind::ALL[at]);
    }
    tokio::time::sleep(CALM).await;
    let (errors, answers) = (get(&crowd.tally.errors), get(&crowd.tally.answers));
    tokio::time::sleep(CALM).await;
    crowd.stop();
    load.await.expect("no panic");

    let tally = &crowd.tally;
    assert_eq!(tally.all_wrong(), [""; 0]);
    assert_eq!(get(&tally.requests), get(&tally.answers) + get(&tally.errors));
    let ran: Vec<String> = servers.journals.iter().flat_map(|journal| journal.all("ran")).collect();
    let mut runs: HashMap<&str, usize> = HashMap::new();
    ran.iter().for_each(|marker| *runs.entry(marker).or_default() += 1);
    let runs_of = |marker: &str| runs.get(marker).copied().unwrap_or(0);
    for (marker, count) in &runs {
        assert!(*count == 1 || marker.starts_with("look:"), "{marker} ran {count} times");
    }
    for marker in crowd.answered() {
        assert!(runs_of(&marker) > 0, "{marker} was answered and never ran");
    }
    let (mut unsent, mut unknown) = (0, 0);
    for (marker, error) in crowd.failed() {
        if error.contains(": the call did not reach it: ") {
            unsent += 1;
            assert_eq!(runs_of(&marker), 0, "{marker} ran, and its client was told that it did not: {error}");
        } else {
            unknown += 1;
            assert!(error.contains(": the call may have run: "), "{error}");
        }
    }
    println!(
        "{KILLS} kills: {} calls, {} answers (the slowest of all after {} ms), {unsent} not sent, {unknown} cut off",
        get(&tally.requests),
        get(&tally.answers),
        get(&tally.slowest)
    );
    println!("the latest call that failed began {} ms after a kill", get(&tally.latest_error));
    assert_eq!(get(&tally.errors), errors, "all works again");
    assert!(get(&tally.answers) > answers + 500, "and much of it");
    assert!(unsent > 0 && unknown > 20, "calls met the kills");
}

#[tokio::test]
async fn a_forgotten_session_is_begun_anew_once_and_its_calls_are_made_once() {
    let fake = Fake::builder().era(Era::Legacy).start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let mut refused = 0;
    for round in 0..5 {
        fake.forget();
        fake.forget_sessions();
        let calls: Vec<_> = (0..40)
            .map(|number| tokio::spawn(gateway.call("a__echo", json!({ "n": number })).send()))
            .collect();
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().result()["structuredContent"]["n"], number);
        }
        assert_eq!(fake.seen_of("initialize").len(), 1, "round {round}");
        // Those of the old session were refused, all others done.
        let calls = fake.seen_of("tools/call");
        let session = calls.last().unwrap().headers["mcp-session-id"].clone();
        let done = calls.iter().filter(|call| call.headers["mcp-session-id"] == session);
        let mut numbers: Vec<_> = done.map(|call| call.body["params"]["arguments"]["n"].as_u64()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..40).map(Some).collect::<Vec<_>>());
        refused += calls.len() - 40;
    }
    assert!(refused > 0, "nobody met a session that was forgotten");
}

/// A server that has forgotten every session by the time that its one tool is called; and how often it was greeted,
/// and called.
async fn forgetful() -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let counting = Arc::clone(&counts);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(forget(Connection::of(stream), Arc::clone(&counting)));
        }
    });
    (address, counts)
}

async fn forget(mut connection: Connection, counts: Arc<[AtomicUsize; 2]>) -> std::io::Result<()> {
    loop {
        let mut head = connection.head().await?;
        let text = connection.body(&mut head).await?;
        let result = match between(&text, "\"method\":\"", "\"") {
            Some(b"initialize") => {
                counts[0].fetch_add(1, Ordering::Relaxed);
                "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{\"tools\":{}},\"serverInfo\":{\"name\":\"f\",\"version\":\"1\"}}"
            }
            Some(b"tools/list") => "{\"tools\":[{\"name\":\"t\",\"inputSchema\":{\"type\":\"object\"}}]}",
            Some(b"notifications/initialized") => "",
            other => {
                counts[1].fetch_add(usize::from(other == Some(b"tools/call")), Ordering::Relaxed);
                connection.send(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?;
                continue;
            }
        };
        let id = number_after(&text, "\"id\":").unwrap_or_default();
        let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}");
        let answer = if result.is_empty() { "" } else { &answer };
        let status = if result.is_empty() { "202 Accepted" } else { "200 OK" };
        let headers = format!(
            "content-type: application/json\r\nmcp-session-id: s\r\ncontent-length: {}",
            answer.len()
        );
        connection.send(format!("HTTP/1.1 {status}\r\n{headers}\r\n\r\n{answer}").as_bytes()).await?;
    }
}

#[tokio::test]
async fn a_call_whose_session_is_always_forgotten_is_made_once_more_and_no_oftener() {
    let (address, counts) = forgetful().await;
    let gateway =
        Gateway::with("").server("a", &format!("http://{address}/mcp"), "era = \"legacy\"").start().await;
    let counted = || [0, 1].map(|at: usize| counts[at].load(Ordering::Relaxed));
    let before = counted();
    let answer = gateway.call("a__t", json!({})).send().await;
    assert_eq!(answer.refusal(), (200, 502));
    let said = answer.error()["message"].as_str().unwrap().to_owned();
    assert!(said.starts_with("backend a: the call did not reach it: "), "{said}");
    // The catalog may greet the server as well, to read its lists anew.
    let after = counted();
    assert!(after[0] > before[0] && after[1] == before[1] + 2, "{before:?} {after:?}");
}

#[tokio::test]
async fn what_may_be_repeated_is_made_again_once_when_its_answer_is_lost() {
    let cases = [
        (json!({}), 1),
        (json!({ "destructiveHint": true }), 1),
        (json!({ "idempotentHint": false, "readOnlyHint": false }), 1),
        (json!({ "idempotentHint": true }), 2),
        (json!({ "readOnlyHint": true }), 2),
    ];
    for era in [Era::Legacy, Era::Modern] {
        for (annotations, times) in &cases {
            let tool =
                json!({ "name": "reset", "inputSchema": { "type": "object" }, "annotations": annotations });
            let fake = Fake::builder().era(era).tools(vec![tool]).start().await;
            let gateway = Gateway::with("").backend("one", &fake).start().await;
            let answer = gateway.call("one__reset", json!({})).send().await;
            assert_eq!(answer.refusal(), (200, 502));
            let why = answer.error()["message"].as_str().unwrap().to_owned();
            assert!(why.contains("may have run"), "{why}");
            assert_eq!(fake.seen_of("tools/call").len(), *times, "{era:?} {annotations}");
        }
    }
}
