//! The gateway is killed again and again while it answers: is anything lost that was acknowledged, anything answered
//! twice, or anything paid for twice?
//!
//! It is run by itself: `tests/run batteries`, or with another number of kills
//! `WAYSTATION_KILLS=1000 cargo test --test it -- --ignored openrouter::crash --nocapture`.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::sync::watch;

use super::{CHAT, Rig, last_said};
use crate::support::{
    MODERN, UNLIMITED, modern_message,
    shipped::{Running, Shipped},
    until,
};

/// Gateways that are killed beside each other, each with a database, a simulator and speakers of its own: a kill is mostly waiting.
const GATEWAYS: usize = 4;
/// Who talk with one at the same time.
const SPEAKERS: usize = 32;
/// Turns of a conversation.
const TURNS: usize = 4;
/// Turns that a killed gateway has left may be taken over after that.
const LEASE: Duration = Duration::from_secs(5);
/// How long everything may take that is left after the last kill.
const CALM: Duration = Duration::from_secs(90);

fn kills() -> usize {
    std::env::var("WAYSTATION_KILLS").map_or(200, |text| text.parse().expect("a number of kills"))
}

/// A turn that its caller was told has ended.
struct Told {
    marker: String,
    keyed: bool,
    said: Value,
}

#[derive(Default)]
struct Tally {
    told: Mutex<Vec<Told>>,
    /// Calls of which nothing was heard.
    cut: AtomicUsize,
    repeated: AtomicUsize,
    refused: AtomicUsize,
    keyed: Mutex<HashSet<String>>,
}

/// Where the gateway is; nowhere while there is none.
type Where = watch::Receiver<Option<SocketAddr>>;

struct Speaker {
    number: usize,
    at: Where,
    client: reqwest::Client,
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
}

fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system has chance");
    u64::from_le_bytes(bytes) % below
}

impl Speaker {
    /// One call; nothing if the gateway went away.
    async fn call(&mut self, arguments: &Value) -> Option<Value> {
        let address = (*self.at.wait_for(Option::is_some).await.ok()?)?;
        let params = json!({ "name": CHAT, "arguments": arguments });
        let message = modern_message(json!(1), "tools/call", params).to_string();
        let post = self.client.post(format!("http://{address}/mcp")).body(message);
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", MODERN),
            ("mcp-method", "tools/call"),
            ("mcp-name", CHAT),
        ];
        let post = headers.into_iter().fold(post, |post, (name, value)| post.header(name, value));
        let text = post.send().await.ok()?.text().await.ok()?;
        let data = text.lines().filter_map(|line| line.strip_prefix("data:")).next_back();
        let response: Value = serde_json::from_str(data.unwrap_or(&text).trim()).ok()?;
        response.get("result").cloned()
    }

    async fn speak(mut self) {
        let (mut conversation, mut turns): (Option<Value>, usize) = (None, 0);
        for number in 0.. {
            if self.stop.load(Relaxed) {
                return;
            }
            let marker = format!("speaker {} says {number}.", self.number);
            let words = [3, 40, 200, 1200][random(4) as usize];
            let mut arguments = json!({ "message": format!("{marker} [[sim:words n={words}]]") });
            if let Some(id) = &conversation {
                arguments["conversation_id"] = id.clone();
            }
            let keyed = random(2) == 0;
            if keyed {
                arguments["idempotency_key"] = marker.clone().into();
                self.tally.keyed.lock().unwrap().insert(marker.clone());
            }
            turns += 1;
            match self.turn(&arguments, keyed).await {
                Some(said) => {
                    conversation = Some(said["conversation_id"].clone()).filter(|_| turns < TURNS);
                    self.tally.told.lock().unwrap().push(Told { marker, keyed, said });
                }
                // It may be left as it is until its lease is over.
                None => conversation = None,
            }
            if conversation.is_none() {
                turns = 0;
            }
        }
    }

    /// One turn. What has a key is repeated until it is known what became of it.
    async fn turn(&mut self, arguments: &Value, keyed: bool) -> Option<Value> {
        loop {
            let Some(result) = self.call(arguments).await else {
                self.tally.cut.fetch_add(1, Relaxed);
                if !keyed {
                    return None;
                }
                self.tally.repeated.fetch_add(1, Relaxed);
                continue;
            };
            if result["isError"] != true {
                return Some(result["structuredContent"].clone());
            }
            let why = &result["_meta"]["io.waystation/error"];
            let may_pass = ["conversation_busy", "storage_unavailable", "internal", "cancelled"];
            assert!(may_pass.contains(&why["code"].as_str().unwrap_or_default()), "{result}");
            self.tally.refused.fetch_add(1, Relaxed);
            if !keyed {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn serve(shipped: Shipped, toml: &str) -> Running {
    let toml = toml.to_owned();
    tokio::task::spawn_blocking(move || shipped.serve(&toml)).await.expect("it starts")
}

/// What a statement gives, which should be nothing.
async fn none(db: &mut SqliteConnection, what: &str, sql: &'static str) {
    let rows = sqlx::query(sql).fetch_all(db).await.unwrap();
    assert!(rows.is_empty(), "{what}: {} rows", rows.len());
}

async fn check_database(path: &Path, told: &[Told]) {
    let mut db = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let intact: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut db).await.unwrap();
    assert_eq!(intact, "ok");
    for (what, sql) in [
        ("turns that nobody ends", "SELECT id FROM turn WHERE state IN ('pending', 'running')"),
        (
            "questions that are answered twice",
            "SELECT conversation FROM message WHERE role = 'assistant' AND superseded_by IS NULL
             GROUP BY conversation, parent HAVING count(*) > 1",
        ),
        (
            "turns that end twice",
            "SELECT turn FROM message WHERE role = 'assistant' GROUP BY turn HAVING count(*) > 1",
        ),
        ("gaps", "SELECT conversation FROM message GROUP BY conversation HAVING count(*) <> max(seq)"),
        (
            "numbers that are not those of the messages",
            "SELECT id FROM conversation c WHERE messages <> (SELECT count(*) FROM message WHERE conversation = c.number)",
        ),
        (
            "turns that are paid for twice",
            "SELECT turn FROM ledger WHERE turn IS NOT NULL AND source <> 'reconciled' GROUP BY turn HAVING count(*) > 1",
        ),
    ] {
        none(&mut db, what, sql).await;
    }
    let mut bodies = HashMap::new();
    for row in sqlx::query("SELECT id, body FROM message").fetch_all(&mut db).await.unwrap() {
        let body: Vec<u8> = row.get("body");
        bodies.insert(row.get::<String, _>("id"), String::from_utf8(body).unwrap());
    }
    let mut lost = Vec::new();
    for Told { marker, said, .. } in told {
        let kept = |member: &str| said[member].as_str().map(|id| bodies.get(id).map_or("", String::as_str));
        let asked = kept("user_message_id").is_some_and(|text| text.starts_with(marker.as_str()));
        let answered = kept("assistant_message_id").unwrap_or("") == said["text"].as_str().unwrap();
        if !asked || !answered {
            lost.push((marker, said));
        }
    }
    assert!(lost.is_empty(), "{} acknowledged turns are lost, first {:?}", lost.len(), lost[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a battery, which tests/run runs by itself"]
async fn what_was_acknowledged_outlives_any_kill_and_nothing_is_paid_for_twice() {
    let shares = (0..GATEWAYS).map(|number| (kills() + number) / GATEWAYS).filter(|kills| *kills > 0);
    let storms = shares.map(|kills| tokio::spawn(storm(kills))).collect::<Vec<_>>();
    for storm in storms {
        storm.await.expect("no panic");
    }
}

/// Kills one gateway so many times while it is talked with.
async fn storm(kills: usize) {
    let rig = Rig::slow(Duration::from_micros(500)).await;
    let models = rig.folder.path().join("models.json");
    let more = format!(
        "lease = \"{}s\"\nmax_conversations = 100000\ncatalog = {{ file = {models:?} }}\n",
        LEASE.as_secs()
    );
    // Turns that a kill has left count as such that run until their lease is over.
    let toml =
        rig.tables(&more).replace("breaker_failures = 0", "breaker_failures = 0, at_once_per_caller = 1000");
    let toml = format!("{UNLIMITED}\n{toml}");
    let (place, at) = watch::channel(None);
    let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
    let speakers: Vec<_> = (0..SPEAKERS)
        .map(|number| {
            let client = reqwest::Client::builder().no_proxy().build().unwrap();
            let (at, tally, stop) = (at.clone(), Arc::clone(&tally), Arc::clone(&stop));
            tokio::spawn(Speaker { number, at, client, tally, stop }.speak())
        })
        .collect();
    let begun = Instant::now();
    let mut gateway = serve(Shipped::default(), &toml).await;
    for kill in 0..kills {
        let before = rig.simulator.stats().chats;
        place.send_replace(Some(gateway.address));
        // Most meet a gateway that answers, however slow the machine is, and some one that has just begun.
        if kill == 0 {
            until("somebody is answered", || !tally.told.lock().unwrap().is_empty()).await;
        } else if random(8) > 0 {
            let some = before + 1 + random(8);
            until("models are asked", || rig.simulator.stats().chats >= some).await;
        }
        tokio::time::sleep(Duration::from_millis(random(150))).await;
        place.send_replace(None);
        let shipped = tokio::task::spawn_blocking(|| gateway.kill()).await.unwrap();
        gateway = serve(shipped, &toml).await;
    }
    let killing = begun.elapsed();
    stop.store(true, Relaxed);
    place.send_replace(Some(gateway.address));
    let ends = futures_util::future::join_all(speakers);
    for end in tokio::time::timeout(CALM, ends).await.expect("no turn is stuck") {
        end.expect("no panic");
    }
    // Whatever was left is ended when its lease is over, though nobody asks for it.
    tokio::time::sleep(3 * LEASE).await;
    let shipped = gateway.stop();

    let told = std::mem::take(&mut *tally.told.lock().unwrap());
    let asked = rig.asked();
    assert_eq!(asked.len() as u64, rig.simulator.stats().chats, "the journal is whole");
    let mut sent: HashMap<String, (usize, usize)> = HashMap::new();
    for entry in &asked {
        let said = last_said(entry);
        let marker = said.trim_start_matches('"').split(" [[").next().unwrap().to_owned();
        let (times, billed) = sent.entry(marker).or_default();
        *times += 1;
        *billed += usize::from(entry.billed);
    }
    let count = |state: &str| told.iter().filter(|told| told.said["status"] == state).count();
    let keyed = told.iter().filter(|told| told.keyed).count();
    println!(
        "{kills} kills in {killing:?}: {} turns acknowledged ({} whole, {} cut short, {keyed} with keys), {} calls cut off, \
         {} repeated by their keys, {} refused; {} requests to models, {} billed",
        told.len(),
        count("completed"),
        count("incomplete"),
        tally.cut.load(Relaxed),
        tally.repeated.load(Relaxed),
        tally.refused.load(Relaxed),
        asked.len(),
        asked.iter().filter(|entry| entry.billed).count(),
    );
    for (marker, (times, billed)) in &sent {
        assert!(*times == 1 && *billed <= 1, "{marker} was sent {times} times and billed {billed} times");
    }
    for Told { marker, said, .. } in &told {
        let recovered = said["incomplete_reason"] == "crash_recovered";
        assert!(recovered || sent.contains_key(marker), "{marker} was answered by nobody: {said}");
    }
    assert_eq!(keyed, tally.keyed.lock().unwrap().len(), "each key came to an end");
    check_database(&shipped.state().join("waystation/waystation.db"), &told).await;
    println!("nothing was lost, nothing answered or billed twice; the database is intact");
    let enough = told.len() > kills && tally.cut.load(Relaxed) > kills / 2 && count("incomplete") > 0;
    assert!(enough, "the kills met hardly any turn");
}
