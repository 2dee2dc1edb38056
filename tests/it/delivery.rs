//! Does everything arrive where it belongs, and nothing anywhere else, whoever comes, goes or dies?
//!
//! 200 clients of all kinds share five servers, one of each kind, that are killed every two seconds. All clients
//! number their requests 0, 1, 2, and use these numbers as progress tokens; nearly a third of the calls is aborted.
//!
//! It is run by itself, since it takes all of the machine: `tests/run batteries`, or with another number of requests
//! `WAYSTATION_REQUESTS=1000000 cargo test --release --test it -- --ignored delivery --nocapture`.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    crowd::{
        client::{Crowd, Habits, get},
        server::{Journal, Kind, Local, free_address},
    },
    support::Gateway,
};

const CLIENTS: u64 = 200;
/// Each server is killed this often, one after the other.
const EVERY: Duration = Duration::from_secs(2);
/// How long one over HTTP stays away.
const AWAY: Duration = Duration::from_millis(100);
/// How long after that callers may still hear of it: a failed attempt to connect is followed by a pause of half a second.
const GRACE: Duration = Duration::from_millis(1800);

fn requests() -> u64 {
    std::env::var("WAYSTATION_REQUESTS").map_or(100_000, |text| text.parse().expect("a number of requests"))
}

/// Kills one server after the other, for as long as it is awaited.
async fn kill(crowd: Arc<Crowd>, mut locals: Vec<(Kind, Option<Local>)>, journals: Vec<Arc<Journal>>) {
    loop {
        for (at, (kind, local)) in locals.iter_mut().enumerate() {
            tokio::time::sleep(EVERY / Kind::ALL.len() as u32).await;
            crowd.killed(*kind);
            match local.take() {
                Some(server) => *local = Some(server.killed_for(AWAY).await),
                None => {
                    let process = journals[at].process().and_then(rustix::process::Pid::from_raw);
                    // It may have gone already, when its successor has not begun yet.
                    let _ = rustix::process::kill_process(
                        process.expect("it has begun"),
                        rustix::process::Signal::KILL,
                    );
                }
            }
        }
    }
}

/// Says every minute how far it is, for as long as it is awaited.
async fn report(crowd: &Crowd) {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        println!("so far {}", crowd.tally);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a battery, which tests/run runs by itself"]
async fn nothing_reaches_anyone_it_is_not_meant_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut setup = Gateway::with("");
    let (mut locals, mut journals) = (Vec::new(), Vec::new());
    for kind in Kind::ALL {
        let journal = Arc::new(Journal::new(folder.path().join(kind.name())));
        let address = free_address().await;
        setup = setup.lines(&kind.table(address, journal.path()));
        locals.push((kind, (!kind.is_child()).then(|| Local::start(kind, address, journal.path()))));
        journals.push(journal);
    }
    let gateway = setup.start().await;
    let habits =
        Habits { clients: CLIENTS, requests: requests() / CLIENTS, aborts: 30, looks: 0, grace: GRACE };
    let crowd = Crowd::new(gateway.address, habits);
    let begun = Instant::now();
    let killing = tokio::spawn(kill(Arc::clone(&crowd), locals, journals.clone()));
    tokio::select! {
        () = crowd.run() => {}
        ended = killing => panic!("nobody kills any more: {ended:?}"),
        () = report(&crowd) => {}
    }
    let tally = &crowd.tally;
    println!("{:?}: {tally}", begun.elapsed());
    let wrong = tally.all_wrong();
    assert!(wrong.is_empty(), "{} things are wrong, first {:#?}", wrong.len(), &wrong[..wrong.len().min(20)]);

    let (mut ran, mut cancelled) = (HashSet::new(), 0);
    let may_be = crowd.cancelled();
    for journal in &journals {
        let name = journal.path().display();
        let calls = journal.all("ran");
        assert!(calls.len() as u64 > requests() / 10, "{name} has had {} calls", calls.len());
        calls.into_iter().for_each(|marker| assert!(ran.insert(marker.clone()), "{name} ran {marker} twice"));
        let heard = journal.all("cancelled");
        assert!(heard.len() as u64 > requests() / 200, "{name} has heard of {} cancellations", heard.len());
        cancelled += heard.len();
        for marker in heard {
            assert!(may_be.contains(&marker), "{name}: {marker} was cancelled, but not by its client");
        }
    }
    println!("{} calls ran, {cancelled} cancellations were heard of", ran.len());
    // Else there was nothing to be delivered wrongly.
    let share = |count, of_hundred| assert!(get(count) * 100 >= requests() * of_hundred, "too few: {tally}");
    share(&tally.answers, 35);
    share(&tally.progress, 30);
    share(&tally.logs, 10);
    share(&tally.cancelled, 8);
    share(&tally.dropped, 8);
    assert!(get(&tally.kills) >= begun.elapsed().as_secs() / 3 && get(&tally.errors) > 0, "{tally}");
}
