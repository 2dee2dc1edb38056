//! Who shares a child process or an upstream session, how many are there, and when do they end?

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    fake::{Era, Fake},
    support::{Gateway, Post, Session, until},
};

const LEGACY: &str = "2025-11-25";

/// A gateway before one child process, which says which one it is and how often it was called.
struct Counting {
    gateway: Gateway,
    log: PathBuf,
    _folder: TempDir,
}

impl Counting {
    async fn start(era: &str, lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/counting.py");
        let args = ["-S", "-E", script, "--era", era];
        let table = format!(
            "[backends.child]\ncommand = \"python3\"\nargs = {args:?}\nenv = {{ FAKE_LOG = {log:?} }}\nera = {era:?}\n{lines}"
        );
        let gateway = Gateway::with("").lines(&table).start().await;
        Self { gateway, log, _folder: folder }
    }

    /// The processes that were started, in their order.
    fn started(&self) -> Vec<u32> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().filter_map(|line| line.strip_prefix("start ")?.parse().ok()).collect()
    }

    /// Those of them that the kernel still knows, if only as zombies.
    fn there(&self) -> Vec<u32> {
        let there = |pid: &u32| PathBuf::from(format!("/proc/{pid}")).exists();
        self.started().into_iter().filter(there).collect()
    }

    async fn until_there(&self, expected: usize) {
        until(&format!("{expected} processes"), || self.there().len() == expected).await;
    }

    async fn session(&self) -> Session {
        self.gateway.legacy(LEGACY).await
    }

    /// A call of a modern client.
    async fn count(&self) -> (u32, u64) {
        said(&self.gateway.call("child__count", json!({})).send().await.result())
    }

    async fn until_called(&self, tool: &str, times: usize) {
        let calls = || {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            log.lines().filter(|line| line.contains("tools/call") && line.contains(tool)).count()
        };
        until(&format!("{times} calls of {tool}"), || calls() == times).await;
    }
}

/// The process, and how often it was called.
fn said(result: &Value) -> (u32, u64) {
    let said = &result["structuredContent"];
    let number = |name: &str| said[name].as_u64().unwrap_or_else(|| panic!("no {name}: {result}"));
    (u32::try_from(number("pid")).unwrap(), number("count"))
}

async fn count(session: &Session) -> (u32, u64) {
    said(&session.call("child__count", json!({})).send().await.result())
}

/// The call that asks back, of a modern client that can be asked.
fn ask(gateway: &Gateway, more: &Value) -> Post {
    let capabilities = json!({ "elicitation": { "form": {} } });
    let mut params = json!({
        "name": "child__ask", "arguments": {},
        "_meta": { "io.modelcontextprotocol/clientCapabilities": capabilities },
    });
    more.as_object().unwrap().iter().for_each(|(key, value)| params[key] = value.clone());
    gateway.modern("tools/call", params)
}

#[tokio::test]
async fn a_caller_has_one_process_which_is_the_gateways_own() {
    for lines in ["", "share = \"caller\"", "share = \"all\""] {
        let counting = Counting::start("legacy", lines).await;
        let (one, two) = (counting.session().await, counting.session().await);
        let (pid, first) = count(&one).await;
        assert_eq!((first, count(&two).await, counting.count().await), (1, (pid, 2), (pid, 3)), "{lines}");
        assert_eq!(counting.started(), [pid], "{lines}");
    }
}

#[tokio::test]
async fn what_clients_can_be_asked_keeps_their_processes_apart() {
    let counting = Counting::start("legacy", "").await;
    let (plain, _) = count(&counting.session().await).await;
    let (one, two) =
        (counting.gateway.legacy_asked(LEGACY).await, counting.gateway.legacy_asked(LEGACY).await);
    let (asked, first) = count(&one).await;
    assert!(asked != plain && first == 1);
    assert_eq!(count(&two).await, (asked, 2), "one after the other they use the same");
    assert_eq!(counting.started(), [plain, asked]);
}

#[tokio::test]
async fn a_session_has_a_process_of_its_own_until_it_ends() {
    for era in ["legacy", "modern"] {
        let counting = Counting::start(era, "share = \"session\"").await;
        let own = counting.started()[0];
        let (one, two) = (counting.session().await, counting.session().await);
        let ((first, _), (second, _)) = (count(&one).await, count(&two).await);
        assert!(first != second && first != own && second != own, "{era}");
        assert_eq!((count(&one).await, count(&two).await), ((first, 2), (second, 2)), "{era}");
        assert_eq!(counting.count().await, (own, 1), "who has no session shares with its caller");
        assert_eq!(one.delete().await.status, 200);
        counting.until_there(2).await;
        assert_eq!(counting.there(), [own, second], "{era}");
        assert_eq!(count(&two).await, (second, 3), "{era}");
    }
}

#[tokio::test]
async fn a_call_has_a_process_of_its_own_which_ends_with_it() {
    let counting = Counting::start("legacy", "share = \"call\"").await;
    let session = counting.session().await;
    let own = counting.started()[0];
    let mut pids = vec![own];
    for _ in 0..2 {
        for (pid, times) in [count(&session).await, counting.count().await] {
            assert!(times == 1 && !pids.contains(&pid), "{pid} of {pids:?}");
            pids.push(pid);
        }
    }
    counting.until_there(1).await;
    // One that nobody waits for any more.
    let call = session.message(json!("long"), "tools/call", json!({ "name": "child__slow" }));
    let waiting = tokio::spawn(call.open());
    counting.until_called("slow", 1).await;
    assert_eq!(counting.there().len(), 2);
    session.cancel("long").await;
    counting.until_there(1).await;
    assert_eq!(counting.there(), [own]);
    drop(waiting);
    assert_eq!(counting.gateway.status_of("child").await["connections"], 6);
}

#[tokio::test]
async fn a_call_that_waits_for_its_client_keeps_its_process() {
    let counting = Counting::start("legacy", "share = \"call\"").await;
    let first = ask(&counting.gateway, &json!({})).send().await.result();
    assert_eq!(first["resultType"], "input_required", "{first}");
    counting.count().await;
    counting.until_there(2).await;
    let (own, asking) = (counting.there()[0], counting.there()[1]);
    let key = first["inputRequests"].as_object().unwrap().keys().next().unwrap();
    let answers = json!({ key: { "action": "accept", "content": { "name": "Ada" } } });
    let more = json!({ "inputResponses": answers, "requestState": first["requestState"] });
    let second = ask(&counting.gateway, &more).send().await.result();
    assert_eq!(said(&second), (asking, 1));
    let again = ask(&counting.gateway, &more).send().await;
    assert_eq!(again.refusal(), (200, -32602), "{}", again.text());
    counting.until_there(1).await;
    assert_eq!(counting.there(), [own]);
    assert_eq!(counting.started().len(), 3, "a state that serves no more starts no process");
}

#[tokio::test]
async fn questions_at_the_same_time_have_processes_apart_from_the_first_on() {
    let counting = Counting::start("legacy", "").await;
    let asks = [(); 3].map(|()| ask(&counting.gateway, &json!({})).send());
    let asked = tokio::time::timeout(Duration::from_secs(10), futures_util::future::join_all(asks));
    for first in asked.await.expect("none waits for the answer of another") {
        assert_eq!(first.result()["resultType"], "input_required");
    }
    assert_eq!(counting.there().len(), 4, "the gateway's own besides");
}

#[tokio::test]
async fn a_call_that_finds_all_processes_at_work_waits_for_one() {
    let counting = Counting::start("legacy", "share = \"session\"\nmax_connections = 3").await;
    let (one, two, three) = (counting.session().await, counting.session().await, counting.session().await);
    let slow = |session: &Session| {
        let call = session.message(json!("slow"), "tools/call", json!({ "name": "child__slow" }));
        tokio::spawn(call.open())
    };
    let (first, second) = (slow(&one), slow(&two));
    counting.until_called("slow", 2).await;
    let mut waiting = tokio::spawn(three.call("child__count", json!({})).send());
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(counting.started().len(), 3, "one is the gateway's own");
    one.cancel("slow").await;
    let (pid, _) = said(&waiting.await.unwrap().result());
    assert_eq!(counting.started().last(), Some(&pid));
    assert_eq!(counting.there().len(), 3);
    // The one that was used longest ago makes room; the one at work stays.
    let (again, times) = count(&one).await;
    assert!(again != pid && times == 1 && counting.there().len() == 3);
    two.cancel("slow").await;
    drop((first, second));
}

#[tokio::test]
async fn an_idle_process_ends() {
    let counting = Counting::start("legacy", "share = \"session\"\nidle = \"300ms\"").await;
    let session = counting.session().await;
    let (pid, _) = count(&session).await;
    assert_eq!(counting.there().len(), 2);
    counting.until_there(1).await;
    let (other, times) = count(&session).await;
    assert!(other != pid && times == 1, "it has another when it comes again");
    let Counting { gateway, log, _folder } = counting;
    gateway.stop().await;
    let log = fs::read_to_string(log).unwrap();
    let pids = log.lines().filter_map(|line| line.strip_prefix("start "));
    let there: Vec<_> = pids.filter(|pid| PathBuf::from(format!("/proc/{pid}")).exists()).collect();
    assert!(there.is_empty(), "{there:?} are left");
}

#[tokio::test]
async fn a_server_over_http_has_sessions_as_a_program_has_processes() {
    for (era, share, expected) in [
        (Era::Legacy, "caller", 1),
        (Era::Legacy, "session", 3),
        (Era::Legacy, "call", 5),
        (Era::Modern, "session", 0),
        (Era::Modern, "call", 0),
    ] {
        let fake = Fake::builder().era(era).start().await;
        let gateway =
            Gateway::with("").server("one", &fake.url(), &format!("share = \"{share}\"")).start().await;
        for session in [gateway.legacy(LEGACY).await, gateway.legacy(LEGACY).await] {
            for _ in 0..2 {
                session.call("one__echo", json!({ "a": 1 })).send().await.result();
            }
        }
        assert_eq!(fake.seen_of("initialize").len(), expected, "{era:?} {share}");
        if share == "call" {
            fake.until("the others were ended", |fake| fake.sessions() == expected.min(1)).await;
        }
    }
}
