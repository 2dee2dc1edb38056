//! The stage alone, in time that the test makes: exact figures.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::json;
use tower::{Layer as _, Service};
use waystation::{
    call::{Aim, Answer, Call, Caller, Client, Hints, Identity, Reply, Replying, Scope},
    error::{Error, Reached},
    middleware::limit::{LimitLayer, Limited, Limits, MOST, Settings},
    wire::{
        capability::Capabilities,
        json::Limits as Bounds,
        mcp::{Method, Revision},
        message::Message,
    },
};

use crate::support::battery::Battery;

/// A backend that takes its time, and counts whose calls it has done.
#[derive(Debug, Clone, Default)]
pub struct Work {
    takes: Duration,
    pub done: Arc<Mutex<HashMap<String, u64>>>,
}

impl Service<Call> for Work {
    type Response = Reply;
    type Error = Error;
    type Future = Replying;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Replying {
        let (takes, done) = (self.takes, Arc::clone(&self.done));
        Box::pin(async move {
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            *done.lock().unwrap().entry(call.caller.name()).or_default() += 1;
            Ok(Reply::Whole(Answer::Result(Bytes::from_static(b"{}"))))
        })
    }
}

fn settings(toml: serde_json::Value) -> Settings {
    serde_json::from_value(toml).unwrap()
}

fn stage(limits: serde_json::Value, takes: Duration) -> (Limited<Work>, Arc<Limits>, Work) {
    let limits = Limits::new(&settings(limits)).unwrap();
    let work = Work { takes, ..Work::default() };
    (LimitLayer(Arc::clone(&limits)).layer(work.clone()), limits, work)
}

fn known(name: &str, group: &str) -> Caller {
    Caller::Known(Arc::new(Identity {
        issuer: "https://login.example.com".into(),
        subject: name.into(),
        groups: vec![group.into()],
        scopes: Vec::new(),
        claims: serde_json::Map::new(),
    }))
}

fn call(caller: &Caller, method: Method) -> Call {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x__y"}}"#;
    Call {
        aim: Some(Arc::new(Aim { backend: "x".into(), own: "y".into(), hints: Hints::default() })),
        ..Call::new(
            caller.clone(),
            Scope::All,
            method,
            Message::parse(Bytes::from_static(text.as_bytes()), &Bounds::REQUEST).unwrap(),
            Client {
                revision: Revision::NEWEST,
                capabilities: Capabilities::NONE,
                info: Bytes::from_static(b"{}"),
            },
        )
    }
}

/// None if it was let in.
async fn refusal(stage: &Limited<Work>, caller: &Caller) -> Option<Box<Reached>> {
    match stage.clone().call(call(caller, Method::ToolsCall)).await {
        Ok(_) => None,
        Err(Error::Limited(reached)) => Some(reached),
        Err(other) => panic!("{other}"),
    }
}

/// What a limit allows, said without GCRA: what fits in is a store of time that fills as time goes by.
struct Model {
    period: u64,
    full: u64,
    level: u64,
}

impl Model {
    fn pass(&mut self, elapsed: u64) {
        self.level = (self.level + elapsed).min(self.full);
    }

    fn take(&mut self, cost: u64) -> Result<(), Duration> {
        let wanted = self.period * cost;
        let missing = wanted.saturating_sub(self.level);
        self.level = self.level.checked_sub(wanted).ok_or(Duration::from_nanos(missing))?;
        Ok(())
    }
}

/// Does a limit decide like the model, at times that are a third of what it allows apart?
fn agrees(
    (count, window, burst, cost): (u32, (&str, u64), u32, u32),
    pauses: &[u64],
) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let limits = json!({ "all": format!("{count}/{} burst {burst}", window.0), "costs": { "x__*": cost } });
        let (stage, _, _) = stage(json!({ "anonymous": "none", "per_caller": "none", "all": limits["all"], "costs": limits["costs"] }), Duration::ZERO);
        let period = window.1 * 1_000_000_000 / u64::from(count);
        let full = period * u64::from(burst);
        let mut model = Model { period, full, level: full };
        let mut refused = 0;
        for pause in pauses {
            // tokio's clock goes in whole milliseconds.
            let pause = (period * u64::from(cost) * pause / 150).div_ceil(1_000_000) * 1_000_000;
            tokio::time::advance(Duration::from_nanos(pause)).await;
            model.pass(pause);
            let (seen, expected) = (refusal(&stage, &Caller::Local).await.map(|reached| reached.wait), model.take(cost.into()).err());
            if seen != expected {
                return Err(format!("{seen:?} and not {expected:?} after {pause} ns"));
            }
            refused += usize::from(seen.is_some());
        }
        Ok(refused)
    })
}

#[test]
fn a_hundred_limits_decide_like_the_model() {
    let window = prop_oneof![Just(("s", 1)), Just(("min", 60)), Just(("h", 3600)), Just(("day", 86_400))];
    let triple = (1u32..2000, window, 1u32..500)
        .prop_flat_map(|(count, window, burst)| (Just(count), Just(window), Just(burst), 1..=burst.min(40)));
    let cases = (triple, prop::collection::vec(0u64..100, 200));
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let battery = Battery::new("T21-model");
    for number in 0..100 {
        let (triple, mut pauses) = cases.new_tree(&mut runner).unwrap().current();
        // Far more at once than there may be, so that there is something to refuse.
        pauses.splice(100..100, vec![0; triple.2 as usize / triple.3 as usize + 2]);
        let agrees = agrees(triple, &pauses);
        battery.row(
            format!("triple-{number}"),
            agrees.as_ref().is_ok_and(|refused| *refused > 0),
            (triple, agrees),
        );
    }
    battery.end(100);
}

#[tokio::test(start_paused = true)]
async fn ten_times_too_much_is_let_in_as_often_as_allowed_to_the_call() {
    let battery = Battery::new("T21-exact");
    let seconds = 60;
    for (name, rate, burst, per_second) in [("slow", "60/min", 10, 1), ("quick", "100/s burst 50", 50, 100)] {
        let (stage, ..) = stage(json!({ "per_caller": rate }), Duration::ZERO);
        let mut passed = 0;
        for _ in 0..seconds * per_second * 10 {
            passed += u64::from(refusal(&stage, &Caller::Local).await.is_none());
            tokio::time::advance(Duration::from_millis(100 / per_second)).await;
        }
        battery.row(name, passed.abs_diff(per_second * seconds + burst) <= 1, passed);
    }
    battery.end(2);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_as_told_is_let_in_at_the_first_try() {
    let limits = json!({ "per_caller": "12/min burst 5", "all": "5000/min burst 1000" });
    let (stage, ..) = stage(limits, Duration::ZERO);
    let (mut waited, mut passed) = (0, 0);
    for number in 0..50 {
        let caller = known(&number.to_string(), "all");
        for _ in 0..10 {
            let Some(reached) = refusal(&stage, &caller).await else { continue };
            waited += 1;
            let headers = Error::Limited(reached).headers();
            let (_, seconds) = headers.into_iter().find(|(name, _)| *name == "retry-after").unwrap();
            tokio::time::advance(Duration::from_secs(seconds.parse().unwrap())).await;
            passed += usize::from(refusal(&stage, &caller).await.is_none());
        }
    }
    let battery = Battery::new("T21-retry");
    battery.row("at-the-first-try", waited >= 50 && passed * 100 >= waited * 99, (waited, passed));
    battery.end(1);
}

/// How many of each caller's calls were done in four seconds, by how many each makes in a second. There
/// is room for 500 a second. What is before the first second is over does not count: in it the room
/// fills, and the queue begins.
async fn offered(callers: &[(Caller, u64)], limits: serde_json::Value) -> Vec<u64> {
    const SECONDS: u64 = 5;
    let (stage, _, work) = stage(limits, Duration::from_millis(200));
    let mut running = Vec::new();
    for (caller, per_second) in callers {
        let every = Duration::from_nanos(1_000_000_000 / per_second);
        for number in 0..per_second * SECONDS {
            let (stage, caller) = (stage.clone(), caller.clone());
            running.push(tokio::spawn(async move {
                tokio::time::sleep(every * u32::try_from(number).unwrap()).await;
                refusal(&stage, &caller).await
            }));
        }
    }
    let done = |work: &Work| -> Vec<u64> {
        let done = work.done.lock().unwrap();
        callers.iter().map(|(caller, _)| done.get(&caller.name()).copied().unwrap_or(0)).collect()
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = done(&work);
    tokio::time::sleep(Duration::from_secs(SECONDS - 1)).await;
    let after = done(&work);
    running.iter().for_each(tokio::task::JoinHandle::abort);
    after.iter().zip(before).map(|(after, before)| after - before).collect()
}

fn room(more: serde_json::Value) -> serde_json::Value {
    let mut limits =
        json!({ "per_caller": "none", "at_once": 100, "at_once_per_caller": 0, "at_once_per_backend": 0 });
    more.as_object().unwrap().iter().for_each(|(key, value)| limits[key] = value.clone());
    limits
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_too_much_takes_nothing_of_others() {
    let battery = Battery::new("T18-fairness");
    // Ten ask for as much as there is; one of them for ten times as much.
    let tenants: Vec<_> =
        (0..10).map(|n| (known(&n.to_string(), "g"), if n == 0 { 450 } else { 45 })).collect();
    let done = offered(&tenants, room(json!({}))).await;
    for (number, done) in done.iter().enumerate().skip(1) {
        let asked = 45 * 4;
        battery.row(format!("tenant-{number}"), *done as f64 >= 0.95 * f64::from(asked), (done, asked));
    }
    // All ask for more than there is, some for much more.
    let tenants: Vec<_> = (0..10u64).map(|n| (known(&n.to_string(), "g"), 60 + n * 40)).collect();
    let done = offered(&tenants, room(json!({ "queue": 200 }))).await;
    let (sum, squares) =
        done.iter().fold((0.0, 0.0), |(sum, squares), n| (sum + *n as f64, squares + (*n as f64).powi(2)));
    let jain = sum * sum / (squares * done.len() as f64);
    battery.row("jain", jain >= 0.98, (jain, &done));
    println!("T18: Jain {jain:.4} of {done:?}");
    battery.end(10);
}

#[tokio::test(start_paused = true)]
async fn shares_are_kept_to_a_twentieth() {
    let battery = Battery::new("T18-shares");
    let tenants = [("a", 1), ("b", 2), ("c", 4)].map(|(group, _)| (known(group, group), 500));
    let done = offered(&tenants, room(json!({ "shares": { "a": 1, "b": 2, "c": 4 } }))).await;
    let all: u64 = done.iter().sum();
    println!("T18: shares 1:2:4 of {done:?}");
    for (index, share) in [1.0, 2.0, 4.0].into_iter().enumerate() {
        let part = done[index] as f64 / all as f64 * 7.0 / share;
        battery.row(format!("share-{share}"), (0.95..=1.05).contains(&part), (part, &done));
    }
    battery.end(3);
}

#[tokio::test(start_paused = true)]
async fn strangers_together_take_no_more_than_their_part() {
    let battery = Battery::new("T18-strangers");
    let limits = json!({ "anonymous": ["600/min burst 10 per ip", "50/s burst 10"] });
    let (stage, ..) = stage(limits, Duration::ZERO);
    let mut passed = 0;
    // A hundred of them, five times as much as all of them may.
    for number in 0..20u32 * 250 {
        let address = std::net::Ipv4Addr::from_bits(0xc000_0200 + number % 100);
        passed += u32::from(refusal(&stage, &Caller::Stranger(address.into())).await.is_none());
        tokio::time::advance(Duration::from_millis(4)).await;
    }
    battery.row("part", f64::from(passed.abs_diff(20 * 50 + 10)) <= 0.02 * 1010.0, passed);
    let ada = refusal(&stage, &known("ada", "g")).await;
    battery.row("known", ada.is_none(), ada);
    battery.end(2);
}

#[tokio::test(start_paused = true)]
async fn members_of_a_group_have_their_own_limit_in_place_of_the_usual_one() {
    let limits = json!({ "per_caller": "1/h", "groups": { "staff": "3/h per caller", "club": "1/h" } });
    let (stage, limits, _) = stage(limits, Duration::ZERO);
    for (name, group, may) in [
        ("ada", "staff", 3),
        ("bob", "staff", 3),
        ("eve", "other", 1),
        ("joe", "club", 1),
        ("jim", "club", 0),
    ] {
        let caller = known(name, group);
        let mut passed = 0;
        for _ in 0..5 {
            passed += usize::from(refusal(&stage, &caller).await.is_none());
        }
        assert_eq!(passed, may, "{name}");
    }
    assert!(stage.clone().call(call(&known("ada", "staff"), Method::ToolsList)).await.is_ok());
    let lines = limits.describe(&known("ann", "staff"), None);
    assert_eq!(
        lines,
        ["limit.groups.staff 3/h per caller: 3 left", "limit.at_once_per_caller 32 at once: 32 left"]
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_used_of_a_limit_that_stays_is_still_used() {
    let (stage, limits, _) = stage(json!({ "per_caller": "2/h", "calls_per_day": 9 }), Duration::ZERO);
    let ada = known("ada", "g");
    let ask = async || refusal(&stage, &ada).await.map(|reached| reached.limit);
    assert_eq!((ask().await, ask().await), (None, None));
    limits.replace(&settings(json!({ "per_caller": "2/h", "all": "5/h", "calls_per_day": 9 }))).unwrap();
    assert_eq!(ask().await.as_deref(), Some("limit.per_caller"));
    limits.replace(&settings(json!({ "per_caller": "3/h", "calls_per_day": 3 }))).unwrap();
    assert_eq!((ask().await, ask().await.as_deref()), (None, Some("limit.calls_per_day")));
    let why = limits.replace(&settings(json!({ "costs": { "a": 0 } }))).unwrap_err();
    assert!(why[0].contains("counts as nothing"));
    assert_eq!(ask().await.as_deref(), Some("limit.calls_per_day"), "what makes no sense changes nothing");
    limits.replace(&Settings::default()).unwrap();
    assert_eq!(ask().await, None);
}

#[tokio::test(start_paused = true)]
async fn more_addresses_than_can_be_told_apart_share_what_is_left() {
    let battery = Battery::new("T18-addresses");
    let (stage, limits, _) = stage(json!({ "anonymous": "1/h per ip" }), Duration::ZERO);
    let asks = async |number: usize| {
        let address = std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap());
        refusal(&stage, &Caller::Stranger(address.into())).await.is_some()
    };
    for number in 0..MOST {
        asks(number).await;
    }
    let newcomers = (asks(MOST).await, asks(MOST + 1).await, asks(MOST + 2).await);
    battery.row("newcomers-share", newcomers == (false, true, true), newcomers);
    let offenders = (asks(0).await, asks(MOST - 1).await);
    battery.row("offenders-are-known", offenders == (true, true), offenders);
    tokio::time::advance(Duration::from_secs(3601)).await;
    let tending = tokio::spawn(Arc::clone(&limits).tend());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let later = (asks(MOST + 1).await, asks(MOST + 2).await, asks(0).await, asks(0).await);
    battery.row("room-again", later == (false, false, false, true), later);
    tending.abort();
    battery.end(3);
}

#[tokio::test(start_paused = true)]
async fn callers_over_a_network_are_limited_where_nothing_is_said() {
    let battery = Battery::new("T21-defaults");
    let stranger = Caller::Stranger([192, 0, 2, 1].into());
    for (name, caller, may) in
        [("known", known("ada", "g"), 60), ("stranger", stranger, 10), ("local", Caller::Local, 100)]
    {
        let (stage, ..) = stage(json!({}), Duration::ZERO);
        let mut passed = 0;
        for _ in 0..100 {
            passed += usize::from(refusal(&stage, &caller).await.is_none());
        }
        battery.row(name, passed == may, passed);
    }
    battery.end(3);
}
