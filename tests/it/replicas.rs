//! What does it cost callers when one of several servers is killed that are the same?

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    crowd::server::{Journal, Kind, Process, free_address},
    fake::{Era, Fake},
    support::{Gateway, UNLIMITED, until_ok},
};

/// Calls in `cargo test`; another number by the environment.
const REQUESTS: usize = 600;
const AT_ONCE: usize = 24;

/// Waits until somebody listens there.
async fn until_listening(address: SocketAddr) {
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn table(addresses: &[SocketAddr]) -> String {
    let urls: Vec<_> = addresses.iter().map(|address| format!("\"http://{address}/mcp\"")).collect();
    format!("{UNLIMITED}[backends.a]\nurls = [[{}]]\nshare = \"all\"\n", urls.join(", "))
}

async fn status(gateway: &Gateway) -> Value {
    let status = gateway.call("waystation__status", json!({})).send().await.result();
    let backends = status["structuredContent"]["backends"].as_array().unwrap().clone();
    backends.into_iter().find(|backend| backend["name"] == "a").unwrap()
}

async fn one_of_three_is_killed(kind: Kind) {
    let requests = std::env::var("WAYSTATION_REQUESTS").ok().and_then(|text| text.parse().ok());
    let requests: usize = requests.unwrap_or(REQUESTS);
    let folder = tempfile::tempdir().unwrap();
    let (mut addresses, mut journals, mut processes) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..3 {
        let (address, journal) = (free_address().await, Journal::new(folder.path().join(at.to_string())));
        processes.push(Some(Process::start(kind, address, journal.path())));
        until_listening(address).await;
        addresses.push(address);
        journals.push(journal);
    }
    let gateway = Arc::new(Gateway::with(&table(&addresses)).start().await);
    let next = Arc::new(AtomicUsize::new(0));
    let callers = (0..AT_ONCE).map(|_| {
        let (gateway, next) = (Arc::clone(&gateway), Arc::clone(&next));
        tokio::spawn(async move {
            let mut failed = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return failed;
                }
                // One in ten changes something, and half of all answers are streams.
                let tool = if number % 10 == 0 { "work" } else { "look" };
                let arguments = json!({ "marker": format!("{tool}:{number}"), "p": number % 2, "ms": 2 });
                let mut params = json!({ "name": format!("a__{tool}"), "arguments": arguments });
                params["_meta"] = json!({ "progressToken": number });
                let answer = gateway.modern("tools/call", params).send().await;
                if let Some(error) = answer.response().get("error") {
                    failed.push((format!("{tool}:{number}"), error["message"].as_str().unwrap().to_owned()));
                }
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    // Killed in the middle, and started again when two thirds are done.
    let until_made = async |calls: usize| {
        while next.load(Ordering::Relaxed) < calls {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    until_made(requests / 3).await;
    processes[1] = None;
    until_made(requests * 2 / 3).await;
    processes[1] = Some(Process::start(kind, addresses[1], journals[1].path()));
    let mut failed = Vec::new();
    for caller in callers {
        failed.extend(caller.await.expect("no panic"));
    }
    let (idempotent, others): (Vec<_>, Vec<_>) =
        failed.iter().partition(|(marker, _)| marker.starts_with("look"));
    println!(
        "{kind:?}: {requests} calls, {} that only read failed, {} others",
        idempotent.len(),
        others.len()
    );
    assert_eq!(idempotent, [] as [&(String, String); 0]);
    assert!(others.iter().all(|(_, why)| why.contains("the call may have run")), "{others:?}");
    // What changes something ran once at the most, and what was answered ran.
    let mut runs = HashMap::<String, usize>::new();
    journals
        .iter()
        .flat_map(|journal| journal.all("ran"))
        .for_each(|marker| *runs.entry(marker).or_default() += 1);
    for number in (0..requests).step_by(10) {
        let marker = format!("work:{number}");
        let ran = runs.get(&marker).copied().unwrap_or(0);
        let lost = others.iter().any(|(other, _)| *other == marker);
        assert!(ran == 1 || (ran == 0 && lost), "{marker} ran {ran} times");
    }
    let replicas = status(&gateway).await["replicas"].as_array().unwrap().clone();
    assert_eq!(replicas.len(), 3);
    assert!(replicas[1]["failed"].as_u64() > Some(0), "calls met the kill: {replicas:?}");
    let fair = |replica: &Value| replica["calls"].as_u64() > Some(requests as u64 / 10);
    assert!(fair(&replicas[0]) && fair(&replicas[2]), "{replicas:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_killed_under_load_fails_no_call_that_may_be_made_again() {
    for kind in [Kind::HttpNew, Kind::HttpOld] {
        one_of_three_is_killed(kind).await;
    }
}

#[tokio::test]
async fn the_next_in_order_takes_over_and_the_first_is_used_again() {
    let mut fakes = Vec::new();
    for name in ["first", "second"] {
        fakes.push(Some(Fake::builder().name(name).era(Era::Modern).start().await));
    }
    let addresses = [0, 1].map(|at: usize| fakes[at].as_ref().unwrap().address());
    let urls = addresses.map(|address| format!("\"http://{address}/mcp\""));
    let gateway = Gateway::with(&format!("{UNLIMITED}[backends.a]\nurls = [{}]\n", urls.join(", ")));
    let gateway = gateway.start().await;
    let call = || async { gateway.call("a__echo", json!({})).send().await };
    call().await.result();
    assert_eq!(fakes[1].as_ref().unwrap().seen_of("tools/call").len(), 0);
    fakes[0] = None;
    for _ in 0..10 {
        call().await.result(); // Nothing reached the first, so it may be made at the second.
    }
    assert_eq!(fakes[1].as_ref().unwrap().seen_of("tools/call").len(), 10);
    let said = status(&gateway).await;
    assert_eq!((&said["state"], &said["replicas"][0]["state"]), (&json!("ready"), &json!("ejected")));
    let first = Fake::builder().name("first").era(Era::Modern).at(addresses[0]).start().await;
    let begun = std::time::Instant::now();
    while first.seen_of("tools/call").is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", status(&gateway).await);
        call().await.result();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_clients_calls_stay_at_the_server_that_has_its_session() {
    let (one, two) =
        (Fake::builder().era(Era::Legacy).start().await, Fake::builder().era(Era::Legacy).start().await);
    let lines = format!(
        "{UNLIMITED}[backends.a]\nurls = [[\"{}\", \"{}\"]]\nshare = \"session\"\n",
        one.url(),
        two.url()
    );
    let gateway = Gateway::with(&lines).start().await;
    until_ok(|| gateway.call("a__echo", json!({})).send()).await;
    let mut used = [0, 0];
    for _ in 0..12 {
        let session = gateway.legacy("2025-11-25").await;
        one.forget();
        two.forget();
        for _ in 0..4 {
            session.call("a__echo", json!({})).send().await.result();
        }
        let calls = [&one, &two].map(|fake| fake.seen_of("tools/call").len());
        assert!(calls == [4, 0] || calls == [0, 4], "{calls:?}");
        used[usize::from(calls[1] > 0)] += 1;
    }
    assert!(used.iter().all(|sessions| *sessions > 0), "{used:?}");
}
