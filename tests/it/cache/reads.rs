//! Half a million reads by a hundred people of fifty things, while these change.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use serde_json::{Value, json};
use waystation::{
    call::{Call, Caller},
    error::Error,
    wire::mcp::Method,
};

use super::{
    people::{ISSUERS, People, by},
    stage::{Before, call, hit, known, read},
};
use crate::{
    fake::{Era, Fake, tool},
    support::{
        Gateway,
        battery::{Battery, is_weakened},
        names_of,
    },
};

const CACHE: &str = "[cache]\nmax = \"128 KiB\"\nlargest = \"16 KiB\"\n\
    [cache.backends]\ndocs = { ttl = \"1m\", share = \"all\", stale_if_error = \"1m\" }\n\
    [cache.tools]\n\"docs__*\" = { ttl = \"1m\" }\n\"docs__shared*\" = { ttl = \"1m\", share = \"all\" }\n";

/// What the things are like: of each kind there are five.
const KINDS: [&str; 10] = [
    "private",
    "public",
    "unsaid",
    "zero",
    "negative",
    "enormous",
    "failing",
    "asking",
    "tool",
    "shared-tool",
];
const OF_EACH: usize = 5;

/// Whom a hundred people are: those whose numbers differ in one digit differ in one thing alone.
fn person(number: usize) -> (Caller, String) {
    let digit = |place: u32| number / 3usize.pow(place) % 3;
    let issuer = format!("https://{}.example", digit(0));
    let (subject, tenant) = (format!("s{}-{}", digit(1), number / 81), digit(2));
    let scopes = ["read", "write", "admin"][..=digit(3)].to_vec();
    let name = format!("{issuer} {subject} {tenant} {scopes:?}");
    (known(&issuer, &subject, &scopes, json!({ "tenant": tenant })), name)
}

/// The server: the version of each thing, and how often each was asked.
struct World {
    people: Vec<(Caller, String)>,
    versions: Vec<AtomicU64>,
    /// The versions of which everybody was told.
    told: Vec<AtomicU64>,
}

/// What each person asks of each thing.
type Asks = Vec<Vec<Call>>;

fn ask(kind: usize, thing: usize, caller: &Caller) -> Call {
    let own = format!("test://{}/{thing}", KINDS[kind]);
    match KINDS[kind] {
        "tool" | "asking" => {
            call(caller, Method::ToolsCall, &own, json!({ "arguments": { "thing": thing } }))
        }
        "shared-tool" => call(
            caller,
            Method::ToolsCall,
            &format!("shared {own}"),
            json!({ "arguments": { "thing": thing } }),
        ),
        _ => read(caller, &own),
    }
}

fn says(world: &World, call: &Call) -> Result<Value, Error> {
    let own = &call.aim.as_ref().unwrap().own;
    let (kind, thing) = own.rsplit_once('/').unwrap();
    let kind = kind.rsplit_once('/').unwrap().1;
    let thing: usize = thing.parse().unwrap();
    let place = KINDS.iter().position(|one| *one == kind).unwrap() * OF_EACH + thing;
    let whose = world.people.iter().find(|(caller, _)| same(caller, &call.caller)).map(|(_, name)| name);
    let version = world.versions[place].load(SeqCst);
    let mut result = json!({ "whose": whose, "thing": place, "version": version });
    let hints = match kind {
        "private" => json!({ "ttlMs": 60_000, "cacheScope": "private" }),
        "public" => json!({ "ttlMs": 60_000, "cacheScope": "public" }),
        "zero" => json!({ "ttlMs": 0, "cacheScope": "public" }),
        "negative" => json!({ "ttlMs": i64::MIN, "cacheScope": "public" }),
        "enormous" => json!({ "ttlMs": 1u64 << 63, "cacheScope": "public" }),
        "failing" if version.is_multiple_of(2) => {
            return Ok(json!({ "code": -32000, "message": format!("{whose:?}") }));
        }
        "failing" => json!({ "isError": true }),
        "asking" => json!({ "resultType": "input_required", "inputRequests": {} }),
        _ => json!({}),
    };
    hints.as_object().unwrap().iter().for_each(|(name, value)| result[name] = value.clone());
    Ok(result)
}

/// The same person with the same token.
fn same(one: &Caller, other: &Caller) -> bool {
    match (one, other) {
        (Caller::Known(one), Caller::Known(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

/// What went wrong, by what it is, and how many hits there were of each kind.
#[derive(Default)]
struct Tally {
    foreign: AtomicUsize,
    other: AtomicUsize,
    stale: AtomicUsize,
    hits: [AtomicUsize; KINDS.len()],
    foreign_of: [AtomicUsize; KINDS.len()],
    most: AtomicU64,
}

fn look(tally: &Tally, place: usize, told: u64, who: &str, result: &Value) {
    let kind = place / OF_EACH;
    let is_for_all =
        matches!(KINDS[kind], "public" | "unsaid" | "zero" | "negative" | "enormous" | "shared-tool");
    let is_hit = hit(result)["hit"] == true;
    if is_hit {
        tally.hits[kind].fetch_add(1, SeqCst);
    }
    let error = result["error"]["message"].as_str();
    let own = error.map_or(result["whose"] == who, |text| text == format!("{:?}", Some(who)));
    if !(own || is_for_all && is_hit) {
        tally.foreign.fetch_add(1, SeqCst);
        tally.foreign_of[kind].fetch_add(1, SeqCst);
    }
    if error.is_some() {
        return;
    }
    if result["thing"] != place {
        tally.other.fetch_add(1, SeqCst);
    }
    if result["version"].as_u64().unwrap_or_default() < told {
        tally.stale.fetch_add(1, SeqCst);
    }
}

/// A number that looks as if it were random.
fn next(seed: &mut u64) -> usize {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    (*seed >> 16) as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a battery, which tests/run runs by itself"]
async fn half_a_million_reads_are_answered_rightly() {
    let battery = Battery::new("T10");
    let reads = if is_weakened() { 40_000 } else { 500_000 };
    let numbers = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect::<Vec<_>>();
    let things = KINDS.len() * OF_EACH;
    let people = (0..100).map(person).collect();
    let world = Arc::new(World { people, versions: numbers(things), told: numbers(things) });
    let of_all =
        |place: usize| world.people.iter().map(move |(who, _)| ask(place / OF_EACH, place % OF_EACH, who));
    let asks: Arc<Asks> = Arc::new((0..things).map(|place| of_all(place).collect()).collect());
    let behind = Arc::clone(&world);
    let cache = Arc::new(Before::new(CACHE, move |call| says(&behind, call)));
    let (tally, left) = (Arc::new(Tally::default()), Arc::new(AtomicUsize::new(reads)));
    let turn = Arc::new(Mutex::new(()));
    let readers = (1..=16u64).map(|reader| {
        let (world, cache, tally) = (Arc::clone(&world), Arc::clone(&cache), Arc::clone(&tally));
        let (left, turn, asks) = (Arc::clone(&left), Arc::clone(&turn), Arc::clone(&asks));
        tokio::spawn(async move {
            let mut seed = reader * 0x9e37_79b9_7f4a;
            while left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
                let (place, who) = (next(&mut seed) % things, next(&mut seed) % 100);
                if next(&mut seed).is_multiple_of(200) {
                    change(&cache, &world, &turn, place, next(&mut seed) % 3);
                    let bytes = cache.replies.status()["bytes"].as_u64().unwrap_or_default();
                    tally.most.fetch_max(bytes, SeqCst);
                }
                let name = &world.people[who].1;
                let told = world.told[place].load(SeqCst);
                let result = cache.ask(asks[place][who].clone()).await;
                look(&tally, place, told, name, &result.unwrap());
                if next(&mut seed).is_multiple_of(16) {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    let count = |count: &AtomicUsize| count.load(SeqCst);
    println!(
        "{reads} reads: {} calls, hits by kind {:?}, {} B at the most, {}",
        cache.inner.calls(),
        tally.hits.iter().map(count).collect::<Vec<_>>(),
        tally.most.load(SeqCst),
        cache.replies.status(),
    );
    battery.row("reads-none-across-authorizations", count(&tally.foreign) == 0, count(&tally.foreign));
    battery.row("reads-none-of-something-else", count(&tally.other) == 0, count(&tally.other));
    battery.row("reads-none-from-before-a-change", count(&tally.stale) == 0, count(&tally.stale));
    for (kind, (hits, foreign)) in KINDS.iter().zip(tally.hits.iter().zip(&tally.foreign_of)) {
        let never = matches!(*kind, "zero" | "negative" | "failing" | "asking");
        battery.row(
            format!("reads-{kind}-are-used-again-or-never"),
            (count(hits) == 0) == never,
            count(hits),
        );
        if matches!(*kind, "private" | "tool") {
            battery.row(format!("reads-{kind}-are-their-callers"), count(foreign) == 0, count(foreign));
        }
    }
    battery.row("reads-room", tally.most.load(SeqCst) <= 128 << 10, tally.most.load(SeqCst));
    battery.end(16);
}

/// A thing changes, and the gateway is told: of the thing, of all of its server, or by an operator.
fn change(cache: &Before, world: &World, turn: &Mutex<()>, place: usize, how: usize) {
    let _one_at_a_time = turn.lock().unwrap();
    let version = world.versions[place].fetch_add(1, SeqCst) + 1;
    let own = format!("test://{}/{}", KINDS[place / OF_EACH], place % OF_EACH);
    match how {
        0 if !KINDS[place / OF_EACH].contains("shared") => cache.replies.updated("docs", &own),
        1 => drop(cache.replies.clear(Some(&format!("*{own}")))),
        _ => cache.replies.changed("docs"),
    }
    world.told[place].store(version, SeqCst);
}

/// How much memory this process has, in bytes.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
#[ignore = "a battery, which tests/run runs by itself"]
async fn replies_take_no_more_memory_than_they_may() {
    let battery = Battery::new("T10");
    let size = Arc::new(AtomicUsize::new(0));
    let sized = Arc::clone(&size);
    let toml = "[cache]\nmax = \"64 MiB\"\n[cache.backends]\ndocs = { ttl = \"5m\" }";
    let cache = Before::new(toml, move |_| Ok(json!({ "x": "x".repeat(sized.load(SeqCst)) })));
    let (caller, _) = person(0);
    // What the test itself needs is there before.
    size.store(20_000, SeqCst);
    for number in 0..50 {
        let _ = cache.ask(read(&caller, &format!("test://{number}"))).await;
    }
    cache.replies.clear(None);
    let before = resident();
    for (bytes, count) in [(500, 110_000), (4_000, 18_000), (60_000, 1_300)] {
        size.store(bytes, SeqCst);
        let mut most = 0;
        for number in 0..count {
            let _ = cache.ask(read(&caller, &format!("test://{bytes}/{number}"))).await;
            if number % 500 == 0 {
                most = most.max(resident().saturating_sub(before));
            }
        }
        println!("{count} replies of {bytes} B: {most} B at the most for 64 MiB");
        battery.row(format!("memory-{bytes}"), most <= (64 << 20) * 11 / 10, most);
    }
    battery.end(3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a battery, which tests/run runs by itself"]
async fn twenty_thousand_reads_through_the_whole_gateway_are_answered_rightly() {
    let battery = Battery::new("T10");
    let people = People::new();
    let tools: Vec<_> = (0..10).map(|number| tool(&format!("of_{number}"))).collect();
    let template = vec![json!({ "uriTemplate": "test://{+path}", "name": "any" })];
    let public: Vec<_> = (0..20).map(|number| format!("test://public/{number}")).collect();
    let fake = Fake::builder().era(Era::Modern).ttl_ms(60_000).tools(tools).templates(template);
    let fake = public.iter().fold(fake, |fake, uri| fake.hints(uri, json!({ "cacheScope": "public" })));
    let fake = fake.start().await;
    let rules: String = (0..10)
        .map(|number| {
            format!("[[permit]]\nwho = {{ scope = \"s{number}\" }}\nallow = [\"docs__of_{number}\"]\n")
        })
        .collect();
    let rest = "[[permit]]\nallow = [\"docs__test://*\"]\n[cache.backends]\ndocs = { share = \"all\" }\n";
    let gateway = Gateway::with(&format!("{}{rules}{rest}", people.tables())).backend("docs", &fake);
    let gateway = Arc::new(gateway.start().await);
    let tokens: Vec<_> = (0..100)
        .map(|number| {
            let said = json!({ "scope": format!("s{}", number % 10), "tenant": number / 50 });
            people.token(ISSUERS[number / 10 % 2], &format!("p{}", number % 50 / 20), said)
        })
        .collect();
    let tokens = Arc::new(tokens);
    let reads = if is_weakened() { 2_000 } else { 20_000 };
    let (wrong_lists, wrong, hits) =
        (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let readers = (0..16).map(|reader| {
        let (gateway, tokens, public) = (Arc::clone(&gateway), Arc::clone(&tokens), public.clone());
        let (wrong_lists, wrong, hits) = (Arc::clone(&wrong_lists), Arc::clone(&wrong), Arc::clone(&hits));
        tokio::spawn(async move {
            let mut seed = (reader + 1) * 0x9e37_79b9_7f4a_u64;
            for _ in 0..reads / 16 {
                let (who, what) = (next(&mut seed) % 100, next(&mut seed) % 50);
                if what >= 40 {
                    let listed =
                        by(&tokens[who], gateway.modern("tools/list", json!({}))).send().await.result();
                    let own = names_of(&listed) == [format!("docs__of_{}", who % 10)];
                    wrong_lists.fetch_add(usize::from(!own || listed["cacheScope"] != "private"), SeqCst);
                    continue;
                }
                let uri = if what < 20 {
                    public[what].clone()
                } else {
                    format!("test://private/{}/{who}", what % 2)
                };
                let read = by(&tokens[who], gateway.modern("resources/read", json!({ "uri": uri })))
                    .send()
                    .await
                    .result();
                let scope = if what < 20 { "public" } else { "private" };
                let right = read["contents"][0]["uri"] == uri && read["cacheScope"] == scope;
                wrong.fetch_add(usize::from(!right), SeqCst);
                hits.fetch_add(usize::from(hit(&read)["hit"] == true), SeqCst);
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        tokio::time::timeout(Duration::from_secs(300), reader).await.unwrap().unwrap();
    }
    let (asked, hits) = (fake.seen_of("resources/read").len(), hits.load(SeqCst));
    println!("{reads} reads over HTTP: {hits} hits, {asked} asked of the server");
    assert_eq!(wrong_lists.load(SeqCst), 0, "lists are not kept, and each is its caller's");
    battery.row("http-every-read-is-right", wrong.load(SeqCst) == 0, wrong.load(SeqCst));
    // Twenty public things, and two private ones for each of a hundred: each asked once.
    battery.row("http-asked-once", asked <= 20 + 2 * 100 && hits > reads / 2, asked);
    battery.end(2);
}
