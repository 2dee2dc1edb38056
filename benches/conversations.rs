//! What does it cost to keep conversations?
//!
//! `cargo bench --bench conversations` prints how long a page and a path take in a conversation of 100,000
//! messages, in clear and sealed, and what the steps of a turn add to it while a thousand turns run at once,
//! each step as its caller waits for it.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use waystation::store::{
    Settings, Store,
    conversations::{
        Answer, Budget, ConversationId, Conversations, Entry, Finish, Keys, NewConversation, NewTurn,
        Options, Owned, Place, Principal, Quotas, Reading, Said, Start, open,
    },
};

const MESSAGES: u32 = 100_000;
const TURNS: u32 = 1_000;
/// How long one of the turns is answered.
const ANSWERED: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a.db");
    let store = Store::open(&Settings { path: Some(file.clone()) }).await.expect("a store");
    let quotas = Quotas { messages: u64::MAX / 2, bytes: u64::MAX / 2, turns: 10_000, ..Quotas::default() };
    let clear = Options { quotas, ..Options::default() };
    let keys = Some(Keys { current: [7; 32], earlier: Vec::new() });
    let sealed = Options { keys, ..clear.clone() };
    let all = open(&store, clear).await.expect("conversations");
    let id = a_long_one(&of(&all, 0), &file).await;
    println!("in clear:");
    reading(&of(&all, 0), id).await;
    turns(&all).await;
    let start = Instant::now();
    let all = open(&store, sealed).await.expect("sealed conversations");
    println!("sealed, which took {:.1} s:", start.elapsed().as_secs_f64());
    reading(&of(&all, 0), id).await;
    turns(&all).await;
}

/// A conversation of 100,000 messages, written as rows: through turns it would take the disk an hour.
async fn a_long_one(mine: &Arc<dyn Owned>, file: &Path) -> ConversationId {
    let id = mine.create(NewConversation::default(), Timestamp::now()).await.expect("a conversation").id;
    let rows = format!(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {MESSAGES})
         INSERT INTO message (id, conversation, seq, parent, parent_id, depth, role, body, tokens, reported, created)
         SELECT printf('msg_%022d', n), 1, n, nullif(n - 1, 0), iif(n = 1, NULL, printf('msg_%022d', n - 1)), n - 1,
         iif(n % 2, 'user', 'assistant'), CAST(replace(hex(zeroblob(iif(n % 2, 50, 150))), '00', 'word') AS BLOB),
         iif(n % 2, 50, 150), 1, 0 FROM n;
         INSERT INTO message_text (rowid, owner, body) SELECT m.number, c.owner, CAST(m.body AS TEXT)
         FROM message m JOIN conversation c ON c.number = m.conversation;
         UPDATE conversation SET messages = {MESSAGES}, head = {MESSAGES}"
    );
    let options = SqliteConnectOptions::new().filename(file);
    let mut connection = SqliteConnection::connect_with(&options).await.expect("the rows");
    sqlx::raw_sql(sqlx::AssertSqlSafe(rows)).execute(&mut connection).await.expect("a long conversation");
    id
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

async fn reading(mine: &Arc<dyn Owned>, id: ConversationId) {
    let page = async |limit| {
        let reading = Reading { limit, ..Reading::default() };
        drop(mine.messages(id, reading).await.expect("a page"));
    };
    let path = async |budget| mine.path(id, None, budget).await.expect("a path").messages.len();
    print("a page of 50", times(50, async || page(50).await).await);
    print("a page of 200", times(50, async || page(200).await).await);
    for tokens in [8_000, 128_000, 1_000_000] {
        let budget = Budget { tokens, messages: u32::MAX };
        let name = format!("{tokens} tokens: choosing by sizes, twice as far back");
        let twice = Budget { tokens: tokens * 2, messages: u32::MAX };
        print(
            &name,
            times(20, async || drop(mine.outline(id, None, twice).await.expect("an outline"))).await,
        );
        let name = format!("{tokens} tokens: reading {} messages", path(budget).await);
        print(&name, times(20, async || assert!(path(budget).await > 0)).await);
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
