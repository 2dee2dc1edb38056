//! Are the lists whole, at once, and in order, whatever the backends do?

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    fake::{Era, Fake, numbered, tool},
    support::{Gateway, PATIENCE, Post, Setup, names_of, until},
};

/// Waits until the gateway lists so many tools.
async fn until_known(gateway: &Gateway, tools: usize) {
    let begun = Instant::now();
    while gateway.tools().await.len() != tools {
        assert!(begun.elapsed() < PATIENCE, "in vain: {tools} tools; {:?}", gateway.waystation.status());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_wait_for_no_backend() {
    let mut setup = Gateway::with("");
    let mut fakes = Vec::new();
    for number in 0..8 {
        let fake = Fake::builder().tools(numbered(20)).start().await;
        setup = setup.backend(&format!("fine-{number}"), &fake);
        fakes.push(fake);
    }
    for number in 0..10 {
        let fake = Fake::builder().hang().start().await;
        setup = setup.backend(&format!("hung-{number}"), &fake);
        fakes.push(fake);
    }
    for number in 0..2 {
        setup = setup.server(&format!("gone-{number}"), "http://127.0.0.1:1/mcp", "");
    }
    let gateway = setup.start_at_once().await;
    until_known(&gateway, 8 * 20 + 3).await;

    // Beside it, in turns, one that has only those that are fine: the machine is never quiet.
    let mut fine = Gateway::with("");
    for (number, fake) in fakes.iter().take(8).enumerate() {
        fine = fine.backend(&format!("fine-{number}"), fake);
    }
    let fine = fine.start().await;
    until_known(&fine, 8 * 20 + 3).await;
    let mut took = [Vec::new(), Vec::new()];
    for _ in 0..200 {
        for (gateway, took) in [&gateway, &fine].into_iter().zip(&mut took) {
            let list = gateway.modern("tools/list", json!({}));
            let begun = Instant::now();
            let answer = list.send().await;
            took.push(begun.elapsed());
            assert_eq!(names_of(&answer.result()).len(), 8 * 20 + 3);
        }
    }
    took.iter_mut().for_each(|took| took.sort());
    let [median, p99] = [100, 197].map(|at| [took[0][at], took[1][at]]);
    println!("tools/list with 10 backends hung and 2 gone, and without them: median {median:?}, p99 {p99:?}");
    let aim = Duration::from_millis(10);
    assert!(median[0] < aim.max(2 * median[1]) && p99[0] < aim.max(3 * p99[1]), "{median:?} {p99:?}");

    let status = gateway.status().await;
    let mut stale: Vec<_> =
        status["stale"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    stale.sort_unstable();
    let mut expected: Vec<_> = (0..2).map(|n| format!("gone-{n}")).collect();
    expected.extend((0..10).map(|n| format!("hung-{n}")));
    assert_eq!(stale, expected);
    assert_eq!(status["ready"], 9);
    // A call to one that is fine waits for no other either.
    gateway.call("fine-3__tool_0007", json!({})).send().await.result();
    let refused = gateway.call("gone-0__x", json!({})).send().await;
    assert_eq!(refused.refusal(), (200, -32602));
}

#[tokio::test]
async fn the_pages_of_a_backend_are_read_to_the_last() {
    for era in [Era::Legacy, Era::Modern] {
        for page_size in [25, 2500] {
            let fake = Fake::builder().era(era).tools(numbered(2500)).page_size(page_size).start().await;
            let gateway = Gateway::with("").backend("a", &fake).start().await;
            let tools = gateway.tools().await;
            let mut expected: Vec<_> = (0..2500).map(|n| format!("a__tool_{n:04}")).collect();
            expected.extend(["backends", "explain", "status"].map(|name| format!("waystation__{name}")));
            assert!(tools == expected, "{era:?} by {page_size}: {} tools", tools.len());
            assert_eq!(fake.seen_of("tools/list").len(), 2500_usize.div_ceil(page_size));
        }
    }
}

#[tokio::test]
async fn the_pages_of_a_child_process_are_read_to_the_last() {
    let flags = ["--tools", "494", "--page-size", "50"];
    let gateway = Gateway::with("").stdio("a", &flags).start().await;
    assert_eq!(gateway.tools().await.len(), 500 + 3);
}

#[tokio::test]
async fn a_cursor_that_repeats_is_a_problem_and_no_loop() {
    for era in [Era::Legacy, Era::Modern] {
        let bad = Fake::builder().era(era).tools(numbered(50)).page_size(10).repeat_cursor().start().await;
        let good = Fake::builder().start().await;
        let gateway = Gateway::with("").backend("bad", &bad).backend("good", &good).start().await;
        let problem = gateway.status_of("bad").await;
        let said = problem["problem"].as_str().expect("a problem");
        assert!(said.contains("bad") && said.contains("tools/list repeats a cursor"), "{said}");
        assert_eq!((&problem["tools"], &problem["stale"]), (&json!(0), &json!(true)));
        assert!(bad.seen_of("tools/list").len() <= 4, "{} pages", bad.seen_of("tools/list").len());
        assert!(gateway.tools().await.contains(&"good__echo".to_owned()));
        let explained = gateway.explain("bad__tool_0001").await;
        assert!(explained["why"].as_str().unwrap().contains("repeats a cursor"), "{explained}");
    }
    let gateway = Gateway::with("").stdio("bad", &["--page-size", "2", "--repeat-cursor"]).start().await;
    let problem = gateway.status_of("bad").await["problem"].to_string();
    assert!(problem.contains("repeats a cursor"), "{problem}");
}

#[tokio::test]
async fn a_cursor_that_expires_once_costs_nothing_and_one_that_always_does_is_a_problem() {
    for era in [Era::Legacy, Era::Modern] {
        let builder = || Fake::builder().era(era).tools(numbered(95)).page_size(10);
        let (once, always) =
            (builder().expire_cursor_once().start().await, builder().expire_cursor_always().start().await);
        let gateway = Gateway::with("").backend("once", &once).backend("always", &always).start().await;
        assert_eq!(gateway.status_of("once").await["tools"], 95);
        let problem = gateway.status_of("always").await;
        let said = problem["problem"].as_str().expect("a problem");
        assert!(said.contains("always") && said.contains("Invalid cursor"), "{said}");
        assert_eq!((&problem["tools"], &problem["stale"]), (&json!(0), &json!(true)), "no half list");
    }
}

/// Pages of ten, kept in this file.
fn paged(store: &Path) -> Setup {
    Gateway::with("[listen]\npage_size = 10").store(store)
}

async fn page(gateway: &Gateway, cursor: &Value) -> Value {
    let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
    gateway.modern("tools/list", params).send().await.result()
}

#[tokio::test]
async fn a_cursor_leads_on_after_a_restart_and_in_a_list_that_changed() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.db");
    let fake = Fake::builder().tools(numbered(35)).start().await;
    let gateway = paged(&store).backend("a", &fake).start().await;
    let first = page(&gateway, &Value::Null).await;
    let second = page(&gateway, &first["nextCursor"]).await;
    assert_eq!(names_of(&second), (10..20).map(|n| format!("a__tool_{n:04}")).collect::<Vec<_>>());
    gateway.stop().await;

    // The last entry given and one before it are gone; there are two more.
    let mut tools = numbered(35);
    tools.remove(19);
    tools.remove(3);
    tools.extend([tool("tool_0019b"), tool("a_new_one")]);
    let fake = Fake::builder().at(vacated(fake).await).tools(tools).start().await;
    let gateway = paged(&store).backend("a", &fake).start().await;
    until_known(&gateway, 35 + 3).await;
    let third = page(&gateway, &second["nextCursor"]).await;
    let mut expected = vec!["a__tool_0019b".to_owned()];
    expected.extend((20..29).map(|n| format!("a__tool_{n:04}")));
    assert_eq!(names_of(&third), expected);
    let fourth = page(&gateway, &third["nextCursor"]).await;
    assert_eq!((names_of(&fourth).len(), &fourth["nextCursor"]), (9, &Value::Null));
}

/// Stops a fake, and gives the address that is free now.
async fn vacated(fake: Fake) -> SocketAddr {
    let address = fake.address();
    fake.stop();
    until("the port is free", || std::net::TcpListener::bind(address).is_ok()).await;
    address
}

#[tokio::test]
async fn a_cursor_of_another_list_another_endpoint_or_none_of_ours_is_refused() {
    let prompts = (0..30).map(|n| json!({ "name": format!("p{n:02}") })).collect();
    let fake = Fake::builder().tools(numbered(30)).prompts(prompts).start().await;
    let gateway = Gateway::with("[listen]\npage_size = 10").backend("a", &fake).start().await;
    let session = gateway.legacy("2025-11-25").await;
    let cursor = page(&gateway, &Value::Null).await["nextCursor"].as_str().unwrap().to_owned();
    let list = |method: &str, cursor: Value| {
        [
            gateway.modern(method, json!({ "cursor": cursor })),
            session.request(method, json!({ "cursor": cursor })),
        ]
    };
    for post in list("tools/list", json!(cursor)) {
        assert_eq!(names_of(&post.send().await.result())[0], "a__tool_0010");
    }
    let altered = [
        format!("{cursor}A"),
        cursor[1..].to_owned(),
        cursor.to_uppercase(),
        "from-10".into(),
        String::new(),
    ];
    let mut bad = altered.map(|cursor| ("tools/list", json!(cursor))).to_vec();
    bad.extend([
        ("tools/list", json!(10)),
        ("prompts/list", json!(cursor)),
        ("resources/list", json!(cursor)),
    ]);
    for (method, cursor) in bad {
        for post in list(method, cursor.clone()) {
            assert_eq!(post.send().await.refusal(), (200, -32602), "{method} {cursor}");
        }
    }
    let elsewhere = gateway.modern_at("/mcp/a", "tools/list", json!({ "cursor": cursor }));
    assert_eq!(elsewhere.send().await.refusal(), (200, -32602));
}

#[tokio::test]
async fn what_was_known_is_listed_at_once_after_a_restart_though_the_backend_is_dead() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.db");
    let prompts = vec![json!({ "name": "greet" })];
    let resources = vec![json!({ "uri": "test://one", "name": "one" })];
    let fake = Fake::builder().tools(numbered(12)).prompts(prompts).resources(resources).start().await;
    let url = fake.url();
    let setup = || Gateway::with("").store(&store).server("a", &url, "");
    let gateway = setup().start().await;
    assert_eq!(gateway.status_of("a").await["stale"], false);
    gateway.stop().await;
    fake.stop();

    let gateway = setup().start_at_once().await;
    let tools = gateway.tools().await;
    assert_eq!(tools.iter().filter(|name| name.starts_with("a__tool_")).count(), 12);
    for (method, member) in [("prompts/list", "prompts"), ("resources/list", "resources")] {
        let list = gateway.modern(method, json!({})).send().await.result();
        assert_eq!(list[member].as_array().unwrap().len(), 1, "{list}");
    }
    gateway.waystation.settle(Duration::from_secs(10)).await;
    let status = gateway.status_of("a").await;
    assert_eq!((&status["stale"], &status["state"]), (&json!(true), &json!("down")));
    let error = gateway.call("a__tool_0001", json!({})).send().await.error();
    let said = error["message"].as_str().unwrap();
    assert!(said.contains("backend a") && said.contains("refused"), "{said}");
    // Another backend of the same name has another catalog.
    gateway.stop().await;
    let gateway =
        Gateway::with("").store(&store).server("a", "http://127.0.0.1:1/mcp", "").start_at_once().await;
    assert!(!gateway.tools().await.iter().any(|name| name.starts_with("a__")));
}

#[tokio::test]
async fn names_that_collide_are_both_there_and_explained() {
    let one = Fake::builder().name("one").start().await;
    let two = Fake::builder().name("two").start().await;
    let gateway = Gateway::with("")
        .server("one", &one.url(), "prefix = \"\"")
        .server("two", &two.url(), "prefix = \"\"")
        .start()
        .await;
    let tools = gateway.tools().await;
    for name in ["echo", "slow", "progress", "raw", "two__echo", "two__slow", "two__progress", "two__raw"] {
        assert!(tools.contains(&name.to_owned()), "{name} of {tools:?}");
    }
    let echo = gateway.explain("echo").await;
    assert_eq!((&echo["backend"], &echo["found"]), (&json!("one"), &json!(true)));
    gateway.call("echo", json!({})).send().await.result();
    gateway.call("two__echo", json!({})).send().await.result();
    assert_eq!((one.seen_of("tools/call").len(), two.seen_of("tools/call").len()), (1, 1));
    for name in ["echo", "two__echo"] {
        let notes = gateway.explain(name).await["notes"].clone();
        assert_eq!(
            (&notes[0]["backend"], &notes[0]["shown_as"]),
            (&json!("two"), &json!("two__echo")),
            "{notes}"
        );
        assert!(notes[0]["why"].as_str().unwrap().contains("another backend's already"), "{notes}");
    }
}

#[tokio::test]
async fn long_names_are_cut_to_what_every_model_takes_and_still_lead_to_their_tools() {
    let long = |n: usize| tool(&format!("{}_{n}", "long".repeat(25)));
    let fake = Fake::builder().tools((0..20).map(long).collect()).start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let tools: Vec<_> = gateway.tools().await.into_iter().filter(|name| name.starts_with("a__")).collect();
    assert_eq!(tools.len(), 20);
    for name in &tools {
        assert!(name.len() <= 64, "{name}");
        gateway.call(name, json!({})).send().await.result();
    }
    let called: std::collections::HashSet<_> =
        fake.seen_of("tools/call").iter().map(|seen| seen.body["params"]["name"].to_string()).collect();
    assert_eq!(called.len(), 20);
}

#[tokio::test]
async fn entries_that_cannot_be_shown_are_left_out_and_said_to_be() {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "string", "x-mcp-header": "" } } });
    let mut bad_header = tool("header");
    bad_header["inputSchema"] = schema;
    let tools =
        vec![tool("fine"), tool("has blank"), json!({ "title": "no name" }), bad_header, tool("fine")];
    let fake = Fake::builder().tools(tools).start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    let own: Vec<_> = gateway.tools().await.into_iter().filter(|name| name.starts_with("a__")).collect();
    assert_eq!(own, ["a__fine"]);
    let status = gateway.status_of("a").await;
    let faults = status["faults"].as_array().unwrap().iter().map(|fault| fault.as_str().unwrap());
    let why = [
        "no text \"name\"",
        "\"has blank\" is left out: ",
        "\"header\" is left out: x-mcp-header \"\"",
        "twice",
    ];
    for (fault, why) in faults.zip(why) {
        assert!(fault.contains(why), "{fault}");
    }
    assert_eq!(status["faults"].as_array().unwrap().len(), why.len(), "{status}");
    let explained = gateway.explain("a__has blank").await.to_string();
    assert!(explained.contains("characters besides"), "{explained}");
}

#[tokio::test]
async fn a_call_waits_for_a_backend_that_is_just_starting_and_for_no_other() {
    let slow = |era| Fake::builder().era(era).slow(Duration::from_millis(50));
    let prompts = vec![json!({ "name": "greet", "arguments": [{ "name": "who" }] })];
    let resources = vec![json!({ "uri": "test://a", "name": "a" })];
    let old = slow(Era::Legacy).prompts(prompts).resources(resources).start().await;
    let new = slow(Era::Modern).start().await;
    let hung = Fake::builder().hang().start().await;
    let setup = Gateway::with("").backend("old", &old).backend("new", &new);
    let setup = setup.server("hung", &hung.url(), "connect_timeout = \"3s\"");
    let gateway = setup.server("gone", "http://127.0.0.1:1/mcp", "").start_at_once().await;
    let calls = [
        gateway.call("old__echo", json!({})),
        gateway.call("new__echo", json!({})),
        gateway.modern_at("/mcp/new", "tools/call", json!({ "name": "echo", "arguments": {} })),
        gateway.modern("prompts/get", json!({ "name": "old__greet", "arguments": { "who": "Ada" } })),
        gateway.modern("resources/read", json!({ "uri": "test://a" })),
        gateway.modern("completion/complete", {
            let of = json!({ "type": "ref/prompt", "name": "old__greet" });
            json!({ "ref": of, "argument": { "name": "who", "value": "A" } })
        }),
    ];
    let begun = Instant::now();
    for answer in futures_util::future::join_all(calls.map(Post::send)).await {
        answer.result();
    }
    println!("answered after {:?}", begun.elapsed());
    // Of a name that none of them could have, nobody is asked; nor is one waited for that is known.
    let quick = async |tool: &str| {
        let begun = Instant::now();
        let answer = gateway.call(tool, json!({})).send().await;
        assert_eq!(answer.refusal(), (200, -32602), "{tool}");
        begun.elapsed()
    };
    assert_eq!(gateway.status_of("hung").await["state"], "starting");
    for tool in ["old__none", "nobody__x", "plain", "hung_x"] {
        let took = quick(tool).await;
        assert!(took < Duration::from_millis(500), "{tool}: {took:?}");
    }
    // One that never answers is waited for as long as connecting to it may take.
    let took = quick("hung__x").await;
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");
    assert!(quick("hung__x").await < Duration::from_millis(500), "now it is down");
    assert!(quick("gone__x").await < Duration::from_millis(500));
}

#[tokio::test]
async fn what_is_known_from_an_earlier_run_is_waited_for_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("kept.db");
    let fake = Fake::builder().start().await;
    let lines = "connect_timeout = \"20s\"";
    let first = Gateway::with("").server("one", &fake.url(), lines).store(&store).start().await;
    first.call("one__echo", json!({})).send().await.result();
    first.stop().await;
    let hung = Fake::builder().hang().at(vacated(fake).await).start().await;
    let second = Gateway::with("").server("one", &hung.url(), lines).store(&store).start_at_once().await;
    let begun = Instant::now();
    assert_eq!(second.call("one__none", json!({})).send().await.refusal(), (200, -32602));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
