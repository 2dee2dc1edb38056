//! What does it cost to keep conversations?
//!
//! `cargo bench --bench conversations` prints how long a page and a path take in a conversation of 100,000
//! messages, in clear and sealed, and what the steps of a turn add to it while a thousand turns run at once,
//! each step as its caller waits for it.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use waystation::store::{
    Settings, Store,
    conversations::{
        Answer, Budget, Conversations, Entry, Finish, Fork, Keys, NewConversation, NewTurn, Options, Owned,
        Place, Principal, Quotas, Reading, Said, Start, open,
    },
};

const MESSAGES: u64 = 100_000;
const TURNS: u32 = 1_000;
/// How long one of the turns is answered.
const ANSWERED: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() {
    for (name, keys) in [("in clear", None), ("sealed", Some(Keys { current: [7; 32], earlier: Vec::new() }))]
    {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = Settings { path: Some(folder.path().join("a.db")) };
        let store = Store::open(&settings).await.expect("a store");
        let quotas =
            Quotas { messages: u64::MAX / 2, bytes: u64::MAX / 2, turns: 10_000, ..Quotas::default() };
        let all = open(&store, Options { quotas, keys, ..Options::default() }).await.expect("conversations");
        println!("{name}:");
        reading(&of(&all, 0)).await;
        turns(&all).await;
    }
}

fn of(all: &Arc<dyn Conversations>, n: u32) -> Arc<dyn Owned> {
    let [tenant, issuer] = ["acme", "https://login.example"].map(str::to_owned);
    all.of(&Principal { tenant, issuer, subject: format!("person {n}"), reads_shared: false })
}

fn say(place: Place, text: String) -> NewTurn {
    NewTurn {
        place,
        said: Said::Message { text, extras: None, tokens: 50 },
        parent: None,
        expected_version: None,
        key: None,
        fingerprint: String::new(),
        model: "a/model".to_owned(),
        system_prompt: None,
        estimate: 0,
    }
}

fn answer(text: String) -> Finish {
    Finish {
        incomplete_reason: None,
        answer: Some(Answer { text, extras: None, tokens: 150, tokens_reported: true }),
        finish_reason: None,
        result: None,
        entry: Entry::default(),
        reservation: None,
    }
}

async fn reading(mine: &Arc<dyn Owned>) {
    let now = Timestamp::now();
    let mut id = mine.create(NewConversation::default(), now).await.expect("a conversation").id;
    let mut messages = 0;
    // A few turns, and then each fork has them twice.
    while messages < MESSAGES {
        let tail = messages.clamp(1_000, 2_000);
        for _ in 0..tail / 2 {
            let turn = say(Place::In(id), "What is the answer to this one, please? ".repeat(5));
            let Ok(Start::Begun(begun)) = mine.begin(turn, now).await else { panic!("not begun") };
            mine.finish(begun.lease, answer("It is forty-two. ".repeat(35)), now).await.expect("finished");
        }
        id = mine.fork(id, Fork::default(), now).await.expect("a fork").id;
        messages = mine.conversation(id).await.expect("a conversation").messages;
    }
    let page = async |limit| {
        let reading = Reading { limit, ..Reading::default() };
        drop(mine.messages(id, reading).await.expect("a page"));
    };
    let path = async |tokens| {
        let budget = Budget { tokens, messages: u32::MAX };
        mine.path(id, None, budget).await.expect("a path").messages.len()
    };
    print("a page of 50", times(50, async || page(50).await).await);
    print("a page of 200", times(50, async || page(200).await).await);
    for tokens in [8_000, 128_000, 1_000_000] {
        let name = format!("a path of {} messages, {tokens} tokens", path(tokens).await);
        print(&name, times(20, async || drop(path(tokens).await)).await);
    }
}

async fn times(count: u32, what: impl AsyncFn()) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        what().await;
        times.push(start.elapsed());
    }
    times
}

/// A thousand turns at once, begun over the time that each is answered, with a checkpoint every two seconds.
async fn turns(all: &Arc<dyn Conversations>) {
    let steps: Arc<Mutex<[Vec<Duration>; 5]>> = Arc::default();
    let running = (0..TURNS).map(|n| {
        let (mine, steps) = (of(all, n), steps.clone());
        tokio::spawn(async move {
            tokio::time::sleep(ANSWERED * n / TURNS).await;
            let note = |step: usize, since: Instant| {
                let mut steps = steps.lock().expect("no code panics while it holds this lock");
                steps[step].push(since.elapsed());
                since.elapsed()
            };
            let start = Instant::now();
            let turn = say(Place::New(NewConversation::default()), "What is this? ".repeat(20));
            let Ok(Start::Begun(begun)) = mine.begin(turn, Timestamp::now()).await else {
                panic!("not begun")
            };
            let mut waited = note(0, start);
            let start = Instant::now();
            mine.sent(begun.lease, Some(format!("gen-{n}")), Timestamp::now()).await.expect("sent");
            note(1, start);
            for part in 1..ANSWERED.as_secs() / 2 {
                tokio::time::sleep(Duration::from_secs(2)).await;
                let start = Instant::now();
                let text = "It is forty-two. ".repeat(part as usize * 50);
                mine.checkpoint(begun.lease, text, Timestamp::now()).await.expect("a checkpoint");
                note(2, start);
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            let start = Instant::now();
            let finish = answer("It is forty-two. ".repeat(250));
            mine.finish(begun.lease, finish, Timestamp::now()).await.expect("finished");
            waited += note(3, start);
            steps.lock().expect("no code panics while it holds this lock")[4].push(waited);
        })
    });
    for turn in running.collect::<Vec<_>>() {
        turn.await.expect("a turn");
    }
    let steps = std::mem::take(&mut *steps.lock().expect("no code panics while it holds this lock"));
    let names = ["begin", "sent", "checkpoint", "finish", "begin and finish together"];
    for (name, times) in names.into_iter().zip(steps) {
        print(&format!("{TURNS} turns at once: {name}"), times);
    }
}

fn print(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1000.0;
    println!("  {name:<50} median {:8.2} ms   p99 {:8.2} ms", at(50), at(99));
}
