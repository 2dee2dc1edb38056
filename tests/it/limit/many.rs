//! Far more than is allowed, over HTTP and in real time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use super::gateway;
use crate::support::{battery::Battery, modern_call};

/// As many at once as allowed, and how many a second.
const BURST: u64 = 20;
const PER_SECOND: u64 = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a battery, which tests/run runs by itself"]
async fn ten_times_too_much_for_a_while() {
    let seconds = std::env::var("WAYSTATION_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let (gateway, _fake) =
        gateway(&format!("[limit]\nper_caller = \"{PER_SECOND}/s burst {BURST}\"\n")).await;
    let address = gateway.address;
    let (passed, offered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let clients = (0..16).map(|number| {
        let (passed, offered) = (Arc::clone(&passed), Arc::clone(&offered));
        tokio::spawn(async move {
            // Open loop: each call has its time, and is not made later because another was slow.
            let mut every = tokio::time::interval(Duration::from_micros(16_000_000 / (PER_SECOND * 10)));
            tokio::time::sleep(Duration::from_millis(number)).await;
            while begun.elapsed() < Duration::from_secs(seconds) {
                every.tick().await;
                let answer = modern_call(address, "one__echo", json!({})).send().await;
                offered.fetch_add(1, Ordering::Relaxed);
                passed.fetch_add(u64::from(answer.status == 200), Ordering::Relaxed);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let (passed, offered) = (passed.load(Ordering::Relaxed), offered.load(Ordering::Relaxed));
    let allowed = PER_SECOND as f64 * elapsed + BURST as f64;
    println!("T21: {passed} of {offered} let in over {elapsed:.2} s; {allowed:.1} are allowed");
    let battery = Battery::new("T21-real-time");
    battery.row("no-more", passed as f64 <= allowed + 1.0, (passed, allowed));
    battery.row("no-less", passed as f64 >= allowed * 0.99 - 1.0, (passed, allowed));
    battery.row("offered-enough", offered as f64 > allowed * 3.0 && passed < offered, (offered, allowed));
    battery.end(3);
}
