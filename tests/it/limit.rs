//! How often may callers do what, seen from outside?

mod many;
mod stage;

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    fake::Fake,
    support::{Answer, Gateway, Post, Session, battery::Battery},
};

/// Lets strangers in, who say by a header who they are, as behind a proxy on this machine.
const STRANGERS: &str = "[listen]\ntrusted_proxies = [\"127.0.0.0/8\"]\n[identify]\nanonymous = true\n";

async fn gateway(lines: &str) -> (Gateway, Fake) {
    let fake = Fake::builder().start().await;
    let gateway = Gateway::with(lines).backend("one", &fake).start().await;
    (gateway, fake)
}

fn from(address: &str, post: Post) -> Post {
    post.header("x-forwarded-for", address)
}

/// A call of a tool, from this address.
async fn echo(gateway: &Gateway, address: &str) -> Answer {
    from(address, gateway.call("one__echo", json!({}))).send().await
}

/// Was it refused by this limit, and by how much?
fn limited(answer: &Answer, limit: &str) -> bool {
    let error = &answer.response()["error"];
    error["code"] == 429 && error["data"]["limit"] == limit
}

#[tokio::test]
async fn a_refusal_says_which_limit_and_when_to_come_back() {
    let (gateway, _fake) = gateway("[limit]\nper_caller = \"30/min burst 2\"\n").await;
    let battery = Battery::new("T21-refusals");
    for number in 0..2 {
        let answer = gateway.call("one__echo", json!({})).send().await;
        battery.row(format!("within-{number}"), answer.status == 200, &answer);
    }
    let modern = gateway.call("one__echo", json!({})).send().await;
    let session = gateway.legacy("2025-11-25").await;
    let legacy = session.call("one__echo", json!({})).send().await;
    for (era, answer, status) in [("modern", modern, 429), ("legacy", legacy, 200)] {
        let header = |name: &str| {
            let value = answer.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (error, row) = (answer.response()["error"].clone(), |what: &str| format!("{era}-{what}"));
        battery.row(row("code"), answer.status == status && limited(&answer, "limit.per_caller"), &answer);
        let wait = error["data"]["retryAfterMs"].as_u64().unwrap_or(0);
        battery.row(row("wait"), (1..=2000).contains(&wait), &error);
        battery.row(
            row("retry-after"),
            header("retry-after") == wait.div_ceil(1000).to_string() && wait > 0,
            &answer,
        );
        let seconds = wait.div_ceil(1000);
        let rate = format!("\"limit.per_caller\";r=0;t={seconds}");
        battery.row(row("ratelimit"), header("ratelimit") == rate, &answer);
        let policy = "\"limit.per_caller\";q=30;w=60";
        battery.row(row("policy"), header("ratelimit-policy") == policy, &answer);
        let text = error["message"].as_str().unwrap_or_default();
        battery.row(
            row("words"),
            text.contains("limit.per_caller allows 30/min burst 2") && text.contains("wait "),
            text,
        );
    }
    battery.end(14);
}

#[tokio::test]
async fn a_client_that_called_too_often_can_still_connect() {
    let (gateway, _fake) = gateway("[limit]\nper_caller = \"1/h\"\ndiscovery = \"1/h burst 12\"\n").await;
    let battery = Battery::new("T21-discovery");
    battery.row("first", gateway.call("one__echo", json!({})).send().await.status == 200, ());
    let over = gateway.call("one__echo", json!({})).send().await;
    battery.row("over", limited(&over, "limit.per_caller"), &over);
    for method in
        ["server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list"]
    {
        let answer = gateway.modern(method, json!({})).send().await;
        battery.row(method, answer.status == 200, &answer);
    }
    let hello = crate::support::session::initialize("2025-06-18").to_string();
    let opened = gateway.post("/mcp", hello.clone()).send().await;
    battery.row("initialize", opened.response()["result"].is_object(), &opened);
    let filter = json!({ "notifications": { "toolsListChanged": true } });
    let mut listening = gateway.modern("subscriptions/listen", filter).open().await;
    battery.row("listen", listening.status == 200 && listening.event().await.is_some(), ());
    // That is bounded, too.
    let mut last = gateway.modern("tools/list", json!({})).send().await;
    for _ in 0..12 {
        last = gateway.modern("tools/list", json!({})).send().await;
    }
    battery.row("discovery-over", limited(&last, "limit.discovery"), &last);
    battery.end(10);
}

#[tokio::test]
async fn a_call_that_one_limit_refuses_costs_nothing_of_the_others() {
    let lines = "[limit]\nall = \"1/h burst 5\"\ntools = { \"one__echo\" = \"1/h\" }\n[limit.costs]\n\"one__raw\" = 1\n";
    let (gateway, _fake) = gateway(lines).await;
    let battery = Battery::new("T21-all-or-none");
    battery.row("first", gateway.call("one__echo", json!({})).send().await.status == 200, ());
    for number in 0..8 {
        // By whichever name the tool is called.
        let again = match number % 2 {
            0 => gateway.call("one__echo", json!({})),
            _ => gateway.modern_at("/mcp/one", "tools/call", json!({ "name": "echo", "arguments": {} })),
        };
        let again = again.send().await;
        battery.row(format!("refused-{number}"), limited(&again, "limit.tools.one__echo"), &again);
    }
    for number in 0..4 {
        let other = gateway.call("one__slow", json!({ "ms": 1 })).send().await;
        battery.row(format!("others-{number}"), other.status == 200, &other);
    }
    let over = gateway.call("one__slow", json!({ "ms": 1 })).send().await;
    battery.row("all-over", limited(&over, "limit.all"), &over);
    battery.end(14);
}

#[tokio::test]
async fn strangers_are_limited_where_nothing_is_said_and_others_are_not() {
    let (gateway, _fake) = gateway(STRANGERS).await;
    let battery = Battery::new("T21-strangers");
    for number in 0..10 {
        let answer = echo(&gateway, "192.0.2.1").await;
        battery.row(format!("burst-{number}"), answer.status == 200, &answer);
    }
    let over = echo(&gateway, "192.0.2.1").await;
    battery.row("over", limited(&over, "limit.anonymous"), &over);
    let other = echo(&gateway, "192.0.2.2").await;
    battery.row("another", other.status == 200, &other);
    for number in 0..10 {
        echo(&gateway, &format!("2001:db8::{number}")).await;
    }
    let same = echo(&gateway, "2001:db8::ffff:1").await;
    battery.row("same-64", limited(&same, "limit.anonymous"), &same);
    let next = echo(&gateway, "2001:db8:0:1::1").await;
    battery.row("next-64", next.status == 200, &next);
    battery.end(14);
}

#[tokio::test]
async fn without_identity_nothing_is_limited_that_nobody_wrote() {
    let (gateway, _fake) = gateway("").await;
    for _ in 0..150 {
        assert_eq!(gateway.call("one__echo", json!({})).send().await.status, 200);
    }
}

/// What a sender who has used up his own tries to be taken for another, beside his own address,
/// which the proxy puts at the end.
const SPOOFS: [(&str, &[(&str, &str)]); 20] = [
    ("one", &[("x-forwarded-for", "198.51.100.1")]),
    ("two", &[("x-forwarded-for", "198.51.100.1, 198.51.100.2")]),
    ("loopback", &[("x-forwarded-for", "127.0.0.1")]),
    ("private", &[("x-forwarded-for", "10.0.0.1")]),
    ("six", &[("x-forwarded-for", "2001:db8::1")]),
    ("brackets", &[("x-forwarded-for", "[2001:db8::1]:80")]),
    ("port", &[("x-forwarded-for", "198.51.100.1:80")]),
    ("mapped", &[("x-forwarded-for", "::ffff:198.51.100.1")]),
    ("empty", &[("x-forwarded-for", "")]),
    ("commas", &[("x-forwarded-for", ",,,")]),
    ("words", &[("x-forwarded-for", "unknown")]),
    ("twice", &[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "198.51.100.2")]),
    ("many", &[("x-forwarded-for", "1.1.1.1,2.2.2.2,3.3.3.3,4.4.4.4,5.5.5.5,6.6.6.6,7.7.7.7,8.8.8.8")]),
    ("forwarded", &[("forwarded", "for=198.51.100.1")]),
    ("forwarded-six", &[("forwarded", "for=\"[2001:db8::1]\"")]),
    ("forwarded-two", &[("forwarded", "for=198.51.100.1, for=198.51.100.2")]),
    ("real-ip", &[("x-real-ip", "198.51.100.1")]),
    ("client-ip", &[("x-client-ip", "198.51.100.1"), ("true-client-ip", "198.51.100.1")]),
    ("cloud", &[("cf-connecting-ip", "198.51.100.1")]),
    ("via", &[("via", "1.1 198.51.100.1"), ("x-forwarded-host", "198.51.100.1")]),
];

#[tokio::test]
async fn nobody_becomes_another_by_a_header() {
    let limit = "[identify]\nanonymous = true\n[limit]\nanonymous = \"1/h per ip\"\n";
    let battery = Battery::new("T21-spoofs");
    // Whoever reaches the gateway itself: the test, from 127.0.0.1, and no proxy is trusted.
    let (plain, _fake) = gateway(limit).await;
    plain.call("one__echo", json!({})).send().await;
    for (name, headers) in SPOOFS {
        let mut post = plain.call("one__echo", json!({}));
        for (header, value) in headers {
            post = post.and(header, value);
        }
        let answer = post.send().await;
        battery.row(format!("direct-{name}"), limited(&answer, "limit.anonymous"), &answer);
    }
    // Through a proxy that adds the address which it sees.
    let (behind, _fake) = gateway(&format!("[listen]\ntrusted_proxies = [\"127.0.0.1\"]\n{limit}")).await;
    behind.call("one__echo", json!({})).send().await;
    for (number, (name, headers)) in SPOOFS.iter().enumerate() {
        let own = format!("203.0.113.{number}");
        let first = echo(&behind, &own).await;
        battery.row(format!("told-apart-{name}"), first.status == 200, &first);
        let mut post = behind.call("one__echo", json!({}));
        for (header, value) in *headers {
            post = post.and(header, value);
        }
        let answer = post.and("x-forwarded-for", &own).send().await;
        // Where two headers say it, it is the proxy's own, and that is used up.
        battery.row(format!("behind-{name}"), limited(&answer, "limit.anonymous"), &answer);
    }
    battery.end(60);
}

#[tokio::test]
async fn a_new_session_is_no_new_caller() {
    let (gateway, _fake) = gateway("[limit]\nper_caller = \"1/h burst 3\"\n").await;
    let battery = Battery::new("T21-sessions");
    let mut passed = 0;
    for _ in 0..1000 {
        let session = Session::open(gateway.address, "/mcp", "2025-11-25").await;
        let answer = session.call("one__echo", json!({})).send().await;
        passed += usize::from(!limited(&answer, "limit.per_caller"));
        assert_eq!(gateway.delete("/mcp").header("mcp-session-id", &session.id).send().await.status, 200);
    }
    battery.row("a-thousand-sessions", passed == 3, passed);
    battery.end(1);
}

fn raw(result: &Value) -> Value {
    let hex: String = result.to_string().bytes().map(|byte| format!("{byte:02x}")).collect();
    json!({ "hex": hex })
}

#[tokio::test]
async fn what_was_used_in_a_day_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("a.db");
    let fake = Fake::builder().start().await;
    let start = |limits: &str| {
        Gateway::with(&format!("[limit]\n{limits}\n")).backend("one", &fake).store(&store).start()
    };
    let battery = Battery::new("T21-days");
    let cost = json!({ "content": [], "resultType": "complete", "_meta": { "io.waystation/usage": {
        "inputTokens": 60, "outputTokens": 40, "costUsd": 0.25 } } });
    let gateway = start("calls_per_day = 3").await;
    for number in 0..2 {
        let answer = gateway.call("one__raw", raw(&cost)).send().await;
        battery.row(format!("counted-{number}"), answer.status == 200, &answer);
    }
    // What came to nothing is not counted.
    gateway.call("one__none", json!({})).send().await;
    gateway.stop().await;
    for (limits, limit) in [
        ("tokens_per_day = 200", "limit.tokens_per_day"),
        ("usd_per_day = 0.5", "limit.usd_per_day"),
        ("calls_per_day = 2", "limit.calls_per_day"),
    ] {
        let gateway = start(limits).await;
        let answer = gateway.call("one__echo", json!({})).send().await;
        battery.row(limit, limited(&answer, limit) && answer.status == 429, &answer);
        let wait = answer.response()["error"]["data"]["retryAfterMs"].as_u64().unwrap_or_default();
        battery.row(format!("{limit}-until-midnight"), (1..=86_400_000).contains(&wait), wait);
        gateway.stop().await;
    }
    let gateway = start("calls_per_day = 3\ntokens_per_day = 201\nusd_per_day = 0.51").await;
    let answer = gateway.call("one__echo", json!({})).send().await;
    battery.row("one-left", answer.status == 200, &answer);
    battery.end(9);
}

#[tokio::test]
async fn calls_wait_a_moment_for_room_and_then_are_told() {
    let lines = "[limit]\nat_once_per_backend = 1\nwait = \"300ms\"\n";
    let (gateway, _fake) = gateway(lines).await;
    let battery = Battery::new("T18-room");
    let slow = |ms: u64| gateway.call("one__slow", json!({ "ms": ms })).send();
    let (first, second) = tokio::join!(slow(150), slow(1));
    battery.row("first", first.status == 200, &first);
    battery.row("waited", second.status == 200, &second);
    let (long, refused) = tokio::join!(slow(1500), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        slow(1).await
    });
    battery.row("long", long.status == 200, &long);
    battery.row("refused", limited(&refused, "limit.at_once_per_backend"), &refused);
    let after = slow(1).await;
    battery.row("after", after.status == 200, &after);
    battery.end(5);
}
