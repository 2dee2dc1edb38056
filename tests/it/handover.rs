//! Is any request lost while the gateway reads its files again, and while another program takes over?
//!
//! `WAYSTATION_HANDOVERS`, `WAYSTATION_RELOADS` and `WAYSTATION_REQUESTS` say how often, and how many
//! requests there are at the least.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    fake::{Era, Fake},
    reload::Served,
    support::{PATIENCE, modern_message},
};

const CLIENTS: usize = 16;

fn count(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().expect("a number"))
}

/// What the gateways say on the standard error output that they share.
struct Log {
    lines: mpsc::Receiver<String>,
    said: Vec<String>,
}

impl Log {
    fn of(served: &mut Served) -> Self {
        let (sender, lines) = mpsc::channel();
        let stderr = BufReader::new(served.child.stderr.take().unwrap());
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Self { lines, said: Vec::new() }
    }

    /// The next line with these words.
    async fn line(&mut self, words: &str) -> String {
        let begun = Instant::now();
        loop {
            while let Ok(line) = self.lines.try_recv() {
                self.said.push(line.clone());
                if line.contains(words) {
                    return line;
                }
            }
            assert!(begun.elapsed() < 4 * PATIENCE, "no {words:?} in {:#?}", self.said);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// All gateways that there were. What is left of them is killed at the end.
struct Gateways(Vec<Pid>);

impl Gateways {
    fn signal(&self, signal: Signal) {
        kill_process(*self.0.last().unwrap(), signal).unwrap();
    }

    /// Those that are still there.
    fn left(&self) -> usize {
        let dead = |pid: &&Pid| match std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        {
            Ok(stat) => stat.rsplit(')').next().unwrap().trim_start().starts_with('Z'),
            Err(_) => true,
        };
        self.0.len() - self.0.iter().filter(dead).count()
    }
}

impl Drop for Gateways {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = kill_process(*pid, Signal::KILL);
        }
    }
}

/// Calls one after the other until it is over, on one connection for as long as the gateway keeps it.
async fn call_on(port: u16, client: usize, over: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> usize {
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("no connection is refused");
        stream.set_nodelay(true).unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let running = tokio::spawn(connection);
        while !over.load(Ordering::Relaxed) && sender.ready().await.is_ok() {
            let marker = format!("{client}-{number}");
            let params = json!({ "name": "one__echo", "arguments": { "marker": marker } });
            let request = http::Request::post("/mcp")
                .header("host", "localhost")
                .header("content-type", "application/json")
                .header("mcp-protocol-version", "2026-07-28")
                .header("mcp-method", "tools/call")
                .header("mcp-name", "one__echo")
                .body(Full::new(Bytes::from(
                    modern_message(json!(number), "tools/call", params).to_string(),
                )));
            let response = sender.send_request(request.unwrap()).await;
            let response = response.unwrap_or_else(|why| panic!("{marker} was lost: {why:?}"));
            let status = response.status();
            let body = response.into_body().collect().await.expect("an answer comes whole").to_bytes();
            let answer: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (status.as_u16(), &answer["result"]["structuredContent"]["marker"]),
                (200, &json!(marker)),
                "{answer}"
            );
            number += 1;
            answered.fetch_add(1, Ordering::Relaxed);
        }
        drop(sender);
        running.await.unwrap().expect("no connection is reset");
    }
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_while_files_and_programs_change() {
    let (handovers, reloads) = (count("WAYSTATION_HANDOVERS", 3), count("WAYSTATION_RELOADS", 12));
    let requests = count("WAYSTATION_REQUESTS", 500);
    let fake = Fake::builder().era(Era::Modern).start().await;
    let table = format!("[backends.one]\nurl = \"{}\"\n", fake.url());
    let mut served = Served::with(&table, &["serve", "--no-watch"]);
    let mut log = Log::of(&mut served);
    let mut gateways = Gateways(vec![Pid::from_child(&served.child)]);
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients = (0..CLIENTS).map(|client| {
        tokio::spawn(call_on(served.ports[0], client, Arc::clone(&over), Arc::clone(&answered)))
    });
    let clients: Vec<_> = clients.collect();
    for step in 0..handovers.max(reloads) {
        if step < reloads {
            let wrong = step % 4 == 3;
            let other = if wrong {
                "[listen]\n".to_owned()
            } else {
                format!("[limit]\nall = \"{}/s\"\n", 100_000 + step)
            };
            served.write(&(other + &table));
            gateways.signal(Signal::HUP);
            log.line(if wrong { "is not obeyed" } else { "was read again" }).await;
        }
        if step < handovers {
            served.write(&table);
            gateways.signal(Signal::USR2);
            let line = log.line("has taken over").await;
            let pid = line.split("pid=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            gateways.0.push(pid.and_then(Pid::from_raw).unwrap_or_else(|| panic!("no pid in {line}")));
        }
    }
    let (begun, patience) = (Instant::now(), 8 * PATIENCE + Duration::from_millis(20 * requests as u64));
    while answered.load(Ordering::Relaxed) < requests || gateways.left() > 1 {
        assert!(
            begun.elapsed() < patience,
            "{} answered, {} left",
            answered.load(Ordering::Relaxed),
            gateways.left()
        );
        let _ = served.child.try_wait(); // The first is ours to bury.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut all = 0;
    for client in clients {
        all += client.await.expect("a client has lost a request");
    }
    let seen = fake.seen_of("tools/call");
    let markers: BTreeSet<_> =
        seen.iter().map(|seen| seen.body["params"]["arguments"]["marker"].to_string()).collect();
    assert_eq!((seen.len(), markers.len()), (all, all), "each ran once");
    println!("T19: {all} requests, {handovers} hand-overs, {reloads} reloads: 0 failed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_cannot_begin_takes_nothing_over() {
    let mut served = Served::with("", &["serve", "--no-watch"]);
    let mut log = Log::of(&mut served);
    let gateways = Gateways(vec![Pid::from_child(&served.child)]);
    served.write("[session]\nidle = \"never\"\n");
    gateways.signal(Signal::USR2);
    log.line("does not take over").await;
    assert!(log.said.iter().any(|line| line.contains("session.idle")), "{:#?}", log.said);
    let url = format!("http://127.0.0.1:{}/health", served.ports[0]);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    assert_eq!(http.get(url).send().await.unwrap().status(), 200);
}
