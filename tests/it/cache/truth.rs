//! What makes a kept reply untrue, and how old may it be?

use std::time::Duration;

use serde_json::{Value, json};
use waystation::{
    call::Call,
    config::{Config, Environment},
    error::Error,
    wire::mcp::Method,
};

use super::stage::{Before, call_of, hit, is_hit, read, search, settings, somebody};
use crate::support::{battery::Battery, until};

const CACHE: &str = "[cache.tools]\n\"docs__*\" = { ttl = \"1m\" }\n[cache.backends]\ndocs = { ttl = \"1m\" }\n\
                     [cache.clears]\n\"notes__write*\" = [\"docs__search\", \"docs__test://a*\"]";

fn fine(_: &Call) -> Result<Value, Error> {
    Ok(json!({ "content": "x", "contents": [] }))
}

fn writing() -> Call {
    let call = call_of("notes", &somebody("eve"), Method::ToolsCall, "write_it", json!({ "arguments": {} }));
    let mut aim = (**call.aim.as_ref().unwrap()).clone();
    aim.hints.read_only = false;
    Call { aim: Some(aim.into()), ..call }
}

/// Something happens, and afterwards what was kept before is not used, or is.
async fn check(battery: &Battery, what: &str, untrue: bool, happens: impl AsyncFn(&Before)) {
    let (ada, uri) = (somebody("ada"), "test://a");
    let asks: [&dyn Fn() -> Call; 2] = [&|| search(&ada, "x"), &|| read(&ada, uri)];
    for (ask, kind) in asks.into_iter().zip(["tool", "resource"]) {
        if what.starts_with("updated") && kind == "tool" {
            continue;
        }
        let cache = Before::new(CACHE, fine);
        let _ = cache.ask(ask()).await;
        let before = is_hit(&cache.ask(ask()).await);
        happens(&cache).await;
        let after = is_hit(&cache.ask(ask()).await);
        battery.row(format!("{what}-{kind}"), before && after != untrue, (before, after));
        if !untrue {
            continue;
        }
        // The same while the call is under way.
        let cache = Before::new(CACHE, fine);
        cache.inner.hold();
        let first = cache.spawn(ask());
        until("a call", || cache.inner.running() == 1).await;
        if what != "written" {
            happens(&cache).await;
        } else {
            let write = cache.spawn(writing());
            until("two calls", || cache.inner.running() == 2).await;
            write.abort();
            let _ = write.await; // It may have run.
        }
        // Who asks from now on does not wait for what was asked for before.
        let second = cache.spawn(ask());
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        let apart = cache.inner.running() == 2;
        cache.inner.let_go();
        let _ = (first.await.unwrap(), second.await.unwrap());
        cache.inner.calls();
        // The second's is kept, whichever of them ended last.
        let kept = is_hit(&cache.ask(ask()).await);
        battery.row(format!("{what}-{kind}-under-way"), apart && kept, (apart, kept));
        // And where nobody else asks, nothing is.
        let cache = Before::new(CACHE, fine);
        cache.inner.hold();
        let first = cache.spawn(ask());
        until("a call", || cache.inner.running() == 1).await;
        if what == "written" {
            let write = cache.spawn(writing());
            until("two calls", || cache.inner.running() == 2).await;
            write.abort();
            let _ = write.await;
        } else {
            happens(&cache).await;
        }
        cache.inner.let_go();
        let _ = first.await.unwrap();
        let kept = is_hit(&cache.ask(ask()).await);
        battery.row(format!("{what}-{kind}-not-kept"), !kept, kept);
    }
}

#[tokio::test]
async fn what_is_kept_is_used_until_something_makes_it_untrue() {
    let battery = Battery::new("T10");
    check(&battery, "nothing", false, async |_| {}).await;
    check(&battery, "changed", true, async |cache| cache.replies.changed("docs")).await;
    check(&battery, "changed-another", false, async |cache| cache.replies.changed("notes")).await;
    check(&battery, "updated", true, async |cache| cache.replies.updated("docs", "test://a")).await;
    check(&battery, "updated-below", true, async |cache| cache.replies.updated("docs", "test://a/b")).await;
    check(&battery, "updated-another", false, async |cache| cache.replies.updated("docs", "test://b")).await;
    check(&battery, "cleared", true, async |cache| {
        cache.replies.clear(None);
    })
    .await;
    check(&battery, "cleared-by-name", true, async |cache| {
        cache.replies.clear(Some("docs__*"));
    })
    .await;
    check(&battery, "written", true, async |cache| drop(cache.ask(writing()).await)).await;
    let other = || call_of("notes", &somebody("eve"), Method::ToolsCall, "read", json!({ "arguments": {} }));
    check(&battery, "written-by-no-writer", false, async |cache| drop(cache.ask(other()).await)).await;
    let shorter = format!("[cache]\nlongest = \"2m\"\n{CACHE}");
    check(&battery, "replaced", true, async |cache| cache.replies.replace(&settings(&shorter))).await;
    check(&battery, "replaced-by-the-same", false, async |cache| cache.replies.replace(&settings(CACHE)))
        .await;
    let cache = Before::new(CACHE, fine);
    let _ = cache.ask(search(&somebody("ada"), "x")).await;
    let seen = (cache.replies.clear(Some("notes__*")), cache.replies.clear(Some("docs__*")));
    battery.row("cleared-by-other-names", seen == (0, 1), seen);
    battery.end(39);
}

#[test]
fn what_makes_no_sense_is_told() {
    let toml = r#"
        [cache]
        max = "1 MiB"
        largest = "2 MiB"
        longest = "1m"
        [cache.tools]
        "docs__a" = { share = "all" }
        "dosc__b" = { ttl = "2m" }
        "d__c" = { ttl = "1m", stale_if_error = "0s" }
        [cache.backends]
        dosc = {}
        docs = { read_only = true }
        [cache.clears]
        "docs__write" = []
        [backends.docs]
        url = "http://127.0.0.1:1/mcp"
        prefix = "d"
    "#;
    let Err(complaints) = Config::parse("routes.toml", toml, &Environment::default()) else { panic!("none") };
    let complaints = complaints.to_string();
    for what in [
        "is more than cache.max, which is 1 MiB",
        "does not say how long results are kept",
        "is longer than cache.longest, which is 1m",
        "there is no backend named \"dosc\"",
        "did you mean `docs`?",
        "write docs__, after its table, instead of d__",
        "no time at all",
        "is about tools",
        "names nothing to be forgotten",
    ] {
        assert!(complaints.contains(what), "{what}: {complaints}");
    }
}

#[tokio::test]
async fn settings_can_come_and_go_while_it_runs() {
    let (ada, off) = (somebody("ada"), settings(""));
    let cache = Before::new("", fine);
    assert!(!cache.replies.is_on());
    for _ in 0..2 {
        assert!(!is_hit(&cache.ask(search(&ada, "x")).await));
    }
    cache.replies.replace(&settings(CACHE));
    assert!(cache.replies.is_on());
    let _ = cache.ask(search(&ada, "x")).await;
    assert!(is_hit(&cache.ask(search(&ada, "x")).await));
    cache.replies.replace(&off);
    assert!(!is_hit(&cache.ask(search(&ada, "x")).await));
    // What was counted stays.
    assert_eq!((&cache.replies.status()["hits"], &cache.replies.status()["replies"]), (&json!(1), &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn an_old_reply_is_used_as_long_as_it_may_be() {
    let battery = Battery::new("T10");
    let (ada, second) = (somebody("ada"), Duration::from_secs(1));
    let rule = "ttl = \"10s\", stale_while_revalidate = \"5s\", stale_if_error = \"1m\"";
    let cache = Before::new(&format!("[cache.tools]\n\"docs__*\" = {{ {rule} }}"), fine);
    let ask = || cache.ask(search(&ada, "x"));
    let age = |result: &Result<Value, Error>| hit(result.as_ref().ok()?)["ageMs"].as_u64();

    let _ = ask().await;
    tokio::time::advance(9 * second).await;
    let fresh = ask().await;
    battery.row("old-fresh", age(&fresh) == Some(9000), &fresh);
    battery.row(
        "old-fresh-says-not-stale",
        is_hit(&fresh) && hit(fresh.as_ref().unwrap())["stale"].is_null(),
        &fresh,
    );
    tokio::time::advance(3 * second).await;
    cache.inner.calls();
    let stale = ask().await;
    let says = stale.as_ref().is_ok_and(|stale| hit(stale)["stale"] == true);
    battery.row("old-used-while-renewed", says && age(&stale) == Some(12_000), &stale);
    let again = ask().await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let calls = cache.inner.calls();
    battery.row("old-renewed-once", calls == 1, (calls, again));
    let renewed = ask().await;
    battery.row("old-renewed", age(&renewed) == Some(0), &renewed);
    tokio::time::advance(16 * second).await;
    let late = ask().await;
    battery.row("old-not-used-later", !is_hit(&late), &late);

    cache.inner.says(|_| Err(Error::Busy("away".into())));
    tokio::time::advance(30 * second).await;
    let instead = ask().await;
    battery.row("old-used-where-nothing-better-is", age(&instead) == Some(30_000), &instead);
    tokio::time::advance(41 * second).await;
    let over = ask().await;
    battery.row("old-not-used-for-ever", over.is_err(), &over);

    cache.inner.says(fine);
    let _ = ask().await;
    cache.inner.says(|_| Ok(json!({ "code": -32000, "message": "there is no such thing any more" })));
    tokio::time::advance(20 * second).await;
    let told = ask().await;
    battery.row("old-not-used-for-what-a-backend-says", !is_hit(&told) && told.is_ok(), &told);
    cache.inner.says(fine);
    let _ = ask().await;
    cache.inner.says(|_| Err(Error::Busy("away".into())));
    cache.replies.changed("docs");
    let untrue = ask().await;
    battery.row("old-not-used-when-untrue", untrue.is_err(), &untrue);
    battery.end(10);
}

#[tokio::test]
async fn there_is_never_more_than_there_may_be() {
    let battery = Battery::new("T10");
    let toml =
        "[cache]\nmax = \"2 MiB\"\nlargest = \"16 KiB\"\n[cache.tools]\n\"docs__*\" = { ttl = \"1m\" }";
    let cache = Before::new(toml, |call| {
        let large = if call.message.text().len() % 2 == 0 { 4000 } else { 9000 };
        Ok(json!({ "content": "x".repeat(large) }))
    });
    let ada = somebody("ada");
    let mut most = 0;
    for number in 0..2000 {
        let _ = cache.ask(search(&ada, &format!("{number}"))).await;
        most = most.max(cache.replies.status()["bytes"].as_u64().unwrap());
    }
    battery.row("room-is-bounded", most <= 2 << 20, most);
    battery.row("room-is-used", most > 1 << 20, most);
    let cache = Before::new(toml, |_| Ok(json!({ "content": "x".repeat(17 << 10) })));
    let _ = cache.ask(search(&ada, "x")).await;
    let second = is_hit(&cache.ask(search(&ada, "x")).await);
    battery.row("room-not-for-the-large", !second, second);
    battery.end(3);
}
