//! Many who ask for the same at the same time.

use serde_json::{Value, json};
use waystation::{call::Caller, error::Error};

use super::stage::{Before, hit, is_hit, known, older, read, search, somebody, with_progress};
use crate::support::{battery::Battery, until};

const CALLER: &str = "[cache.tools]\n\"docs__*\" = { ttl = \"1m\" }";
const ALL: &str = "[cache.tools]\n\"docs__*\" = { ttl = \"1m\", share = \"all\" }";

/// A hundred people, of whom no two have the same authorization.
fn hundred() -> Vec<Caller> {
    let people = (0..100).map(|number| {
        let (issuer, subject) =
            (["https://a.example", "https://b.example"][number % 2], format!("s{}", number / 8));
        let scopes: &[&str] = if number % 4 < 2 { &["read"] } else { &["read", "write"] };
        known(issuer, &subject, scopes, json!({ "tenant": number % 8 / 4 }))
    });
    people.collect()
}

/// A thousand calls of a hundred people at once: how many came through, and how many got an answer.
async fn thousand(cache: &Before, with_tokens: bool) -> (usize, usize) {
    cache.inner.hold();
    let people = hundred();
    let calls = (0..1000).map(|number| {
        let call = search(&people[number % 100], "x");
        cache.spawn(if with_tokens { with_progress(call, number) } else { call })
    });
    let calls: Vec<_> = calls.collect();
    until("calls", || cache.inner.running() > 0).await;
    for _ in 0..50 {
        tokio::task::yield_now().await; // All have asked by then: there is one thread.
    }
    cache.inner.let_go();
    let mut answered = 0;
    for call in calls {
        answered += usize::from(call.await.unwrap().is_ok_and(|result| result["content"] == "x"));
    }
    (cache.inner.calls(), answered)
}

fn content(_: &waystation::call::Call) -> Result<Value, Error> {
    Ok(json!({ "content": "x" }))
}

#[tokio::test]
async fn a_thousand_who_ask_for_the_same_make_one_call() {
    let battery = Battery::new("T10");
    let seen = thousand(&Before::new(ALL, content), false).await;
    battery.row("crowd-all", seen == (1, 1000), seen);
    let seen = thousand(&Before::new(ALL, content), true).await;
    battery.row("crowd-all-with-progress-tokens", seen == (1, 1000), seen);
    let seen = thousand(&Before::new(CALLER, content), false).await;
    battery.row("crowd-one-call-for-each-authorization", seen == (100, 1000), seen);
    battery.end(3);
}

#[tokio::test]
async fn a_call_goes_on_as_long_as_anybody_waits_for_it() {
    let battery = Battery::new("T10");
    let ada = somebody("ada");
    let cache = Before::new(CALLER, content);
    cache.inner.hold();
    let calls: Vec<_> = (0..10).map(|_| cache.spawn(search(&ada, "x"))).collect();
    until("a call", || cache.inner.running() > 0).await;
    tokio::task::yield_now().await;
    let mut calls = calls.into_iter();
    let first = calls.next().unwrap();
    first.abort();
    let _ = first.await;
    calls.next().unwrap().abort();
    cache.inner.let_go();
    let mut good = 0;
    for call in calls {
        good += usize::from(call.await.unwrap().is_ok());
    }
    let seen = (cache.inner.calls(), good);
    battery.row("crowd-the-first-goes-away", seen == (1, 8), seen);

    cache.inner.hold();
    let calls: Vec<_> = (0..10).map(|_| cache.spawn(search(&ada, "y"))).collect();
    until("a call", || cache.inner.running() > 0).await;
    tokio::task::yield_now().await;
    for call in calls {
        call.abort();
        let _ = call.await;
    }
    let seen = (cache.inner.calls(), cache.inner.running());
    battery.row("crowd-all-go-away", seen == (1, 0), seen);
    cache.inner.let_go();
    let answer = cache.ask(search(&ada, "y")).await;
    let seen = (cache.inner.calls(), is_hit(&answer));
    battery.row("crowd-nothing-is-left-of-it", seen == (1, false), seen);
    battery.end(3);
}

#[tokio::test]
async fn a_failure_is_for_those_who_waited_and_for_nobody_else() {
    let battery = Battery::new("T10");
    let (ada, eve) = (somebody("ada"), somebody("eve"));
    for (what, failure) in [
        ("our-error", Err(Error::Busy("no".into()))),
        ("an-error", Ok(json!({ "code": -32000, "message": "no" }))),
        ("an-error-of-a-tool", Ok(json!({ "isError": true, "content": "no" }))),
    ] {
        // Ada's call fails, and nobody else's does.
        let again = failure.clone();
        let cache = Before::new(ALL, move |call| match &call.caller {
            Caller::Known(who) if who.subject == "ada" => failure.clone(),
            _ => Ok(json!({ "content": "good" })),
        });
        cache.inner.hold();
        let calls: Vec<_> = (0..5).map(|_| cache.spawn(search(&ada, "x"))).collect();
        until("a call", || cache.inner.running() > 0).await;
        let another = cache.spawn(search(&eve, "x"));
        tokio::task::yield_now().await;
        cache.inner.let_go();
        let mut bad = 0;
        for call in calls {
            bad += usize::from(call.await.unwrap().map_or(true, |result| result["content"] != "good"));
        }
        let another = another.await.unwrap();
        let good = another.is_ok_and(|result| result["content"] == "good");
        let seen = (cache.inner.calls(), bad, good);
        battery.row(format!("crowd-{what}-is-shared-by-the-same"), seen == (2, 5, true), seen);
        if let Ok(failure) = again {
            let cache = Before::new(ALL, move |_| Ok(failure.clone()));
            let both = (cache.ask(search(&ada, "x")).await, cache.ask(search(&ada, "x")).await);
            let seen = cache.inner.calls();
            battery.row(format!("crowd-{what}-is-not-kept"), seen == 2, (seen, both));
        }
    }
    battery.end(5);
}

#[tokio::test]
async fn what_is_private_is_for_nobody_else_who_waited() {
    let battery = Battery::new("T10");
    let people = hundred();
    let toml = "[cache.backends]\ndocs = { share = \"all\" }";
    let cache = Before::new(toml, |call| {
        let whose = format!("{:?}", call.caller);
        Ok(json!({ "contents": [whose], "ttlMs": 60_000, "cacheScope": "private" }))
    });
    cache.inner.hold();
    let calls: Vec<_> = (0..300).map(|n| cache.spawn(read(&people[n % 100], "test://a"))).collect();
    until("calls", || cache.inner.running() > 0).await;
    tokio::task::yield_now().await;
    cache.inner.let_go();
    let mut foreign = 0;
    for (number, call) in calls.into_iter().enumerate() {
        let whose = format!("{:?}", people[number % 100]);
        foreign += usize::from(call.await.unwrap().unwrap()["contents"][0] != whose);
    }
    battery.row("crowd-private-goes-to-its-own", foreign == 0, foreign);
    let seen = cache.inner.calls();
    battery.row("crowd-private-is-one-call-each", seen == 100, seen);
    battery.end(2);
}

#[tokio::test]
async fn clients_of_both_eras_share_a_call_and_each_has_its_words() {
    let battery = Battery::new("T10");
    let ada = somebody("ada");
    let toml = "[cache.backends]\ndocs = {}";
    let cache =
        Before::new(toml, |_| Ok(json!({ "contents": [1], "ttlMs": 60_000, "cacheScope": "public" })));
    cache.inner.hold();
    let first = cache.spawn(read(&ada, "test://a"));
    until("a call", || cache.inner.running() > 0).await;
    let others = [cache.spawn(read(&ada, "test://a")), cache.spawn(older(read(&ada, "test://a")))];
    tokio::task::yield_now().await;
    cache.inner.let_go();
    let first = first.await.unwrap().unwrap();
    battery.row(
        "crowd-public-is-private-without-the-operators-word",
        first["cacheScope"] == "private" && hit(&first).is_null(),
        &first,
    );
    let [newer, older] = others;
    let (newer, older) = (newer.await.unwrap().unwrap(), older.await.unwrap().unwrap());
    let seen = cache.inner.calls();
    battery.row("crowd-eras-share-a-call", seen == 1, seen);
    let hints = newer["ttlMs"].as_u64().is_some_and(|ms| (59_000..=60_000).contains(&ms));
    battery.row(
        "crowd-newer-hears-how-long",
        hints && newer["cacheScope"] == "private" && !hit(&newer).is_null(),
        &newer,
    );
    let none = older["ttlMs"].is_null() && older["cacheScope"].is_null();
    battery.row("crowd-older-hears-nothing-new", none && hit(&older)["hit"] == true, &older);
    battery.end(4);
}
