//! Replicas that do as they are told, in time that stands still.

#[cfg(test)]
use std::sync::atomic::AtomicUsize;

use bytes::Bytes;

use super::*;
use crate::{
    backend::{
        EraKind, Share,
        server::Parts,
        transport::{Connect, Inbox, Incoming, Kind, Outgoing, Transport, Trouble},
    },
    call::{Call, Caller, Client, Scope},
    wire::{
        capability::Capabilities,
        json::Limits,
        mcp::{Method, Revision},
        message::Message,
    },
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// Nothing reaches it.
    Away,
    /// It takes calls and loses their answers.
    Loses,
    /// It answers 503.
    Unavailable,
    Silent,
    /// It says something, and then loses the answer.
    Breaks,
}

/// A server that is in some mood.
#[derive(Debug)]
struct Moody {
    mood: Mutex<Mood>,
    takes: Mutex<Duration>,
    calls: AtomicUsize,
    probes: AtomicUsize,
    sessions: bool,
}

impl Moody {
    fn new(sessions: bool) -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(Mood::Well),
            takes: Mutex::new(Duration::from_millis(1)),
            calls: AtomicUsize::new(0),
            probes: AtomicUsize::new(0),
            sessions,
        })
    }

    fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn takes(&self, time: Duration) {
        *self.takes.lock().unwrap() = time;
    }

    /// Calls since this was asked last.
    fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::Relaxed)
    }

    fn probes(&self) -> usize {
        self.probes.load(Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Way(Arc<Moody>);

#[derive(Debug)]
struct Line(Arc<Moody>);

impl Connect for Way {
    fn connect(&self, _: Inbox) -> BoxFuture<'_, Result<Arc<dyn Transport>, Trouble>> {
        Box::pin(async { Ok(Arc::new(Line(Arc::clone(&self.0))) as Arc<dyn Transport>) })
    }

    fn probe_apart(&self) -> bool {
        false
    }
}

impl Transport for Line {
    fn request(&self, request: Outgoing) -> BoxFuture<'static, Result<Incoming, Trouble>> {
        let server = Arc::clone(&self.0);
        Box::pin(async move {
            let result = match request.method {
                Method::Initialize => "{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{}}",
                Method::Discover => "{\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{}}",
                _ => "{\"content\":[]}",
            };
            let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}", request.id);
            let answer = Message::parse(text.into(), &Limits::REPLY).unwrap();
            match request.method {
                Method::Initialize | Method::Discover => return Ok(Incoming::Whole(answer)),
                Method::ToolsList => drop(server.probes.fetch_add(1, Ordering::Relaxed)),
                _ => drop(server.calls.fetch_add(1, Ordering::Relaxed)),
            }
            let (mood, takes) = (*server.mood.lock().unwrap(), *server.takes.lock().unwrap());
            tokio::time::sleep(takes).await;
            match mood {
                Mood::Well => Ok(Incoming::Whole(answer)),
                Mood::Away => Err(Trouble::new(Kind::NotSent, "away")),
                Mood::Loses => Err(Trouble::new(Kind::Lost, "lost")),
                Mood::Unavailable => Err(Trouble::new(Kind::Status(503), "unavailable")),
                Mood::Silent => std::future::pending().await,
                Mood::Breaks => {
                    let text = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"error\"}}";
                    let first = Message::parse(text.into(), &Limits::REPLY);
                    let broken = Trouble::new(Kind::Lost, "broken off");
                    Ok(Incoming::Stream(stream::iter([Ok(first.unwrap()), Err(broken)]).boxed()))
                }
            }
        })
    }

    fn notify(&self, _: Bytes) -> BoxFuture<'static, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }

    fn lost(&self) -> Option<Trouble> {
        None
    }

    fn keeps_state(&self) -> bool {
        self.0.sessions
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        Box::pin(async {})
    }
}

/// Replicas with these servers, each in the group of the number beside it.
fn replicas(servers: &[(usize, &Arc<Moody>)], hedge: Option<Duration>) -> Arc<Replicas> {
    let sharing =
        Sharing { share: Share::Caller, most: 64, idle: Duration::from_secs(600), usual: Capabilities::NONE };
    let members = servers.iter().map(|(group, server)| {
        let parts = Parts {
            name: "one".into(),
            ways: vec![Arc::new(Way(Arc::clone(server)))],
            kind: "http",
            era: if server.sessions { EraKind::Legacy } else { EraKind::Modern },
            timeout: Duration::from_secs(1),
            notices: Arc::new(|_| {}),
            watches: false,
            spared: true,
        };
        (*group, Profiles::new(parts, sharing, None))
    });
    Replicas::new("one", members.collect(), sharing, Balance::Fastest, hedge)
}

fn call(repeatable: bool, caller: &str) -> Ask {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#;
    let client = Client {
        revision: Revision::V2025_11_25,
        capabilities: Capabilities::NONE,
        info: Bytes::from_static(b"{}"),
    };
    let message = Message::parse(text.into(), &Limits::REQUEST).unwrap();
    let caller = match caller {
        "" => Caller::Local,
        name => Caller::Stranger(std::net::IpAddr::from([127, 0, 0, name.parse().unwrap()])),
    };
    let call = Call::new(caller, Scope::All, Method::ToolsCall, message, client);
    Ask { repeatable, read_only: repeatable, ..Ask::as_is(call) }
}

/// Makes a call and reads its reply to the end.
async fn made(replicas: &Replicas, ask: Ask) -> Result<()> {
    match replicas.answer(ask).await? {
        Reply::Whole(_) => Ok(()),
        Reply::Stream(events) => {
            let events: Vec<_> = events.collect().await;
            let last = events.into_iter().next_back().expect("an answer or an error");
            last.map(|event| assert!(matches!(event, Event::Answer(_))))
        }
    }
}

async fn many(replicas: &Replicas, count: usize, repeatable: bool) -> usize {
    let mut failed = 0;
    for _ in 0..count {
        failed += usize::from(made(replicas, call(repeatable, "")).await.is_err());
    }
    failed
}

#[tokio::test(start_paused = true)]
async fn whatever_a_replica_does_a_call_that_may_be_made_again_does_not_fail() {
    for mood in [Mood::Away, Mood::Loses, Mood::Unavailable, Mood::Breaks] {
        let servers = [0; 3].map(|_| Moody::new(false));
        let one = replicas(&[(0, &servers[0]), (0, &servers[1]), (0, &servers[2])], None);
        assert_eq!(many(&one, 100, true).await, 0);
        servers[1].is(mood);
        assert_eq!(many(&one, 300, true).await, 0, "{mood:?}");
        let status = one.status();
        assert_eq!(status.replicas[1].state, Place::Ejected, "{mood:?}");
        assert_eq!(status.replicas[1].failed, 5, "{mood:?}");
        assert_eq!(status.problem.as_deref(), Some("1 of 3 replicas are out of use"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_have_run_is_not_made_again_unless_it_does_no_harm() {
    for (mood, again) in
        [(Mood::Away, true), (Mood::Loses, false), (Mood::Unavailable, false), (Mood::Breaks, false)]
    {
        let servers = [0; 2].map(|_| Moody::new(false));
        let one = replicas(&[(0, &servers[0]), (1, &servers[1])], None);
        servers[0].is(mood);
        let result = made(&one, call(false, "")).await;
        assert_eq!((result.is_ok(), servers[1].calls()), (again, usize::from(again)), "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejected_replica_is_probed_and_comes_back_by_and_by() {
    let servers = [0; 2].map(|_| Moody::new(false));
    let one = replicas(&[(0, &servers[0]), (0, &servers[1])], None);
    servers[0].is(Mood::Unavailable);
    assert_eq!(many(&one, 100, true).await, 0);
    assert_eq!((servers[0].calls(), servers[0].probes()), (5, 0));
    // 5 s and 10 s later it is probed in vain, once each; nobody else asks it.
    tokio::time::sleep(Duration::from_secs(17)).await;
    assert_eq!(many(&one, 100, true).await, 0);
    assert_eq!((servers[0].calls(), servers[0].probes()), (0, 2));
    servers[0].is(Mood::Well);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(one.status().replicas[0].state, Place::Returning);
    assert_eq!(servers[0].probes(), 3);
    servers.iter().for_each(|server| _ = server.calls());
    many(&one, 200, true).await;
    let soon = servers[0].calls();
    assert!(soon < 70, "{soon} of 200 are less than its part");
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(one.status().replicas[0].state, Place::Ready);
    many(&one, 200, true).await;
    let later = servers[0].calls();
    assert!((70..=130).contains(&later), "{later} of 200 are its part");
}

#[tokio::test(start_paused = true)]
async fn a_later_group_is_for_when_all_earlier_ones_are_out_of_use() {
    let servers = [0; 3].map(|_| Moody::new(false));
    let one = replicas(&[(0, &servers[0]), (0, &servers[1]), (1, &servers[2])], None);
    many(&one, 100, true).await;
    assert_eq!(servers[2].calls(), 0);
    servers[0].is(Mood::Away);
    many(&one, 100, true).await;
    let spare = servers[2].calls();
    servers[1].is(Mood::Away);
    assert_eq!(many(&one, 100, true).await, 0);
    assert!(spare == 0 && servers[2].calls() >= 95);
    // When nobody is of use, they are asked all the same.
    servers.iter().for_each(|server| server.is(Mood::Unavailable));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(many(&one, 100, true).await, 100);
    servers.iter().for_each(|server| server.is(Mood::Well));
    assert_eq!(many(&one, 10, true).await, 0);
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_are_made_again_than_a_fifth_and_a_few() {
    let servers = [0; 4].map(|_| Moody::new(false));
    let all: Vec<_> = servers.iter().map(|server| (0, server)).collect();
    let one = replicas(&all, None);
    servers.iter().for_each(|server| server.is(Mood::Loses));
    let before = tokio::time::Instant::now();
    many(&one, 2000, true).await;
    let seconds = before.elapsed().as_secs_f64();
    let made: usize = servers.iter().map(|server| server.calls()).sum();
    let most = 2000.0 * 1.2 + 100.0 + 10.0 * seconds + 1.0;
    assert!((made as f64) <= most && made > 2100, "{made} calls for 2000, in {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn the_faster_replica_gets_more_calls_and_a_silent_one_hardly_any() {
    let servers = [0; 3].map(|_| Moody::new(false));
    let one = replicas(&[(0, &servers[0]), (0, &servers[1]), (0, &servers[2])], None);
    servers[0].takes(Duration::from_millis(100));
    servers[1].takes(Duration::from_millis(10));
    servers[2].is(Mood::Silent);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let one = Arc::clone(&one);
        calls.spawn(async move {
            let _ = tokio::time::timeout(Duration::from_secs(30), made(&one, call(true, ""))).await;
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let [slow, fast, silent] = [0, 1, 2].map(|at: usize| servers[at].calls());
    assert!(silent < 60 && fast > 2 * slow, "slow {slow}, fast {fast}, silent {silent}");
    calls.join_all().await;
    assert_eq!(one.status().replicas.iter().map(|one| one.under_way).sum::<usize>(), 0);
    let silent = &one.status().replicas[2];
    assert!(silent.failed > 0, "{silent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_stays_where_their_session_is_as_long_as_it_is_of_use() {
    let servers = [0; 3].map(|_| Moody::new(true));
    let all: Vec<_> = servers.iter().map(|server| (0, server)).collect();
    let one = replicas(&all, None);
    let calls = || servers.each_ref().map(|server| server.calls());
    many(&one, 1, true).await; // From now on it is known that there are sessions.
    calls();
    let mut homes = Vec::new();
    for caller in 1..=20 {
        for _ in 0..5 {
            made(&one, call(true, &caller.to_string())).await.unwrap();
        }
        let calls = calls();
        assert_eq!(calls.iter().filter(|calls| **calls > 0).count(), 1, "{calls:?}");
        homes.push(calls.iter().position(|calls| *calls > 0).unwrap());
    }
    assert!((0..3).all(|at| homes.contains(&at)), "{homes:?}");
    // Only those move whose replica is out of use.
    servers[0].is(Mood::Away);
    let moving = homes.iter().position(|home| *home == 0).unwrap() + 1;
    for _ in 0..5 {
        made(&one, call(true, &moving.to_string())).await.unwrap();
    }
    assert_eq!(one.status().replicas[0].state, Place::Ejected);
    for (caller, before) in (1..=20).zip(homes) {
        calls();
        made(&one, call(true, &caller.to_string())).await.unwrap();
        let now = calls().iter().position(|calls| *calls > 0).unwrap();
        assert!(now == before || before == 0, "caller {caller}: {before}, {now}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_sessions_calls_go_anywhere() {
    let servers = [0; 3].map(|_| Moody::new(false));
    let all: Vec<_> = servers.iter().map(|server| (0, server)).collect();
    let one = replicas(&all, None);
    many(&one, 300, true).await;
    let calls = servers.each_ref().map(|server| server.calls());
    assert!(calls.iter().all(|calls| *calls > 50), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_that_only_reads_is_made_at_a_second_replica_too() {
    let servers = [0; 2].map(|_| Moody::new(false));
    let hedge = Some(Duration::from_millis(50));
    let one = replicas(&[(0, &servers[0]), (1, &servers[1])], hedge);
    made(&one, call(true, "")).await.unwrap();
    assert_eq!((servers[0].calls(), servers[1].calls()), (1, 0));
    servers[0].takes(Duration::from_secs(5));
    let begun = tokio::time::Instant::now();
    made(&one, call(true, "")).await.unwrap();
    assert_eq!(begun.elapsed().as_millis(), 51);
    assert_eq!((servers[0].calls(), servers[1].calls()), (1, 1));
    // One that changes something is not.
    made(&one, Ask { read_only: false, ..call(true, "") }).await.unwrap();
    assert_eq!((servers[0].calls(), servers[1].calls()), (1, 0));
    // A failure of one of them is none as long as the other answers.
    servers[1].is(Mood::Loses);
    made(&one, call(true, "")).await.unwrap();
    assert_eq!(one.status().replicas[0].under_way, 0);
}
