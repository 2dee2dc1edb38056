//! Who did what: what the trail says of calls, over HTTP and from the command line.

use std::{fs, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::{
    fake::Fake,
    support::{Gateway, modern_call, modern_message, shipped::Shipped, until},
};

/// The lines of a trail, once this many are there.
async fn lines(file: &Path, least: usize) -> Vec<Value> {
    let read = || -> Vec<Value> {
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}")))
            .collect()
    };
    until("the trail is written", || read().len() >= least).await;
    read()
}

fn to(file: &Path) -> String {
    format!("[audit]\nfile = {file:?}\n")
}

#[tokio::test]
async fn every_call_is_noted_with_what_came_of_it() {
    let (fake, folder) = (Fake::builder().start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("audit.jsonl");
    let gateway = Gateway::with(&to(&file)).backend("files", &fake).start().await;
    gateway.call("files__echo", json!({ "secret": "hush" })).send().await.result();
    gateway.call("files__none", json!({})).send().await;
    gateway.modern("tools/list", json!({})).send().await.result();
    let session = gateway.legacy("2025-06-18").await;
    session.call("files__echo", json!({})).send().await.result();
    let slow = gateway.call("files__slow", json!({})).open();
    let _ = tokio::time::timeout(Duration::from_millis(300), slow).await;

    let lines = lines(&file, 6).await;
    let seen: Vec<_> = lines
        .iter()
        .map(|line| {
            let word = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            (word("method"), word("backend"), word("target"), word("outcome"))
        })
        .collect();
    let row = |method: &str, backend: &str, target: &str, outcome: &str| {
        (method.to_owned(), backend.to_owned(), target.to_owned(), outcome.to_owned())
    };
    let expected = [
        row("tools/call", "files", "echo", "ok"),
        row("tools/call", "", "files__none", "unknown"),
        row("tools/list", "", "", "ok"),
        row("initialize", "", "", "ok"),
        row("tools/call", "files", "echo", "ok"),
        row("tools/call", "files", "slow", "cancelled"),
    ];
    assert_eq!(seen, expected);
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains("hush"), "{text}");
    assert!(
        lines.iter().all(|line| line["who"] == "local" && line["took_us"].as_u64().is_some()),
        "{lines:?}"
    );
    let ids: std::collections::BTreeSet<_> = lines.iter().map(|line| line["request"].to_string()).collect();
    assert_eq!(ids.len(), lines.len());
}

#[tokio::test]
async fn requests_that_are_turned_away_are_counted_and_not_listed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let gateway = Gateway::with(&(to(&file) + "[identify]\nanonymous = true\n")).start().await;
    for _ in 0..20 {
        let post = gateway.modern("tools/list", json!({}));
        assert_eq!(post.clone().header("host", "evil.example").send().await.status, 403);
        assert_eq!(post.header("authorization", "Bearer x.y.z").send().await.status, 401);
    }
    gateway.stop().await;
    let lines = lines(&file, 2).await;
    let of = |target: &str| -> i64 {
        let lines = lines.iter().filter(|line| line["target"] == target && line["outcome"] == "denied");
        lines.map(|line| line["count"].as_i64().unwrap()).sum()
    };
    assert_eq!((of("another host or origin"), of("a token that is not good")), (20, 20));
    assert!(lines.len() <= 8, "{lines:?}");
}

#[tokio::test]
async fn a_stranger_is_noted_by_a_name_that_is_no_address() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let gateway = Gateway::with(&(to(&file) + "[identify]\nanonymous = true\n")).start().await;
    for _ in 0..2 {
        gateway.modern("tools/list", json!({})).send().await.result();
    }
    let lines = lines(&file, 2).await;
    let who = lines[0]["who"].as_str().unwrap();
    assert!(who.starts_with("stranger ") && who.len() == 25 && lines[1]["who"] == who, "{lines:?}");
    assert!(!fs::read_to_string(&file).unwrap().contains("127.0.0.1"));
}

#[tokio::test]
async fn a_line_stays_one_whatever_a_client_writes() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.jsonl");
    let gateway = Gateway::with(&to(&file)).start().await;
    let letters = ["\n", "\r\n", "\u{1b}[2J", "\u{2028}", "\u{85}", "\u{202e}", "\u{7f}", "\u{9b}1m"];
    for letter in letters {
        let name = format!("a{letter}{{\"outcome\":\"forged\"}}");
        let mut params = json!({ "name": name, "arguments": {} });
        params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({ "name": name, "version": letter });
        let message = modern_message(json!(1), "tools/call", params).to_string();
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &name);
        let post = gateway.post("/mcp", message).header("mcp-protocol-version", "2026-07-28");
        let post =
            post.header("mcp-method", "tools/call").header("mcp-name", format!("=?base64?{encoded}?="));
        post.send().await;
    }
    let lines = lines(&file, letters.len()).await;
    assert_eq!(lines.len(), letters.len());
    for (line, letter) in lines.iter().zip(letters) {
        assert_eq!(line["outcome"], "unknown");
        assert!(line["target"].as_str().unwrap().starts_with(&format!("a{letter}{{")), "{line}");
    }
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains(['\r', '\u{1b}', '\u{2028}', '\u{85}', '\u{202e}', '\u{7f}', '\u{9b}']));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trail_is_read_from_the_command_line_while_the_gateway_runs() {
    let shipped = Shipped::default();
    let gateway = shipped.serve("[audit]\nstore = true\n");
    for _ in 0..3 {
        modern_call(gateway.address, "waystation__status", json!({})).send().await.result();
    }
    modern_call(gateway.address, "no__such", json!({})).send().await;
    let audit = |arguments: &[&str]| {
        let output = gateway.run(&[&["audit"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    until("the trail is written", || audit(&["--json"]).lines().count() == 4).await;
    let count = |arguments: &[&str]| audit(&[arguments, &["--json"]].concat()).lines().count();
    assert_eq!(count(&["--outcome", "unknown"]), 1);
    assert_eq!(count(&["--tool", "waystation__*", "--who", "local", "--since", "1h"]), 3);
    assert_eq!(count(&["--last", "2"]), 2);
    assert_eq!(count(&["--who", "ada"]), 0);
    let table = audit(&[]);
    assert!(table.starts_with("TIME ") && table.contains("waystation__status"), "{table}");
    assert!(table.contains("unknown -32602"), "{table}");

    // Its gateway has stopped.
    let shipped = gateway.stop();
    let output = shipped.run("", &["audit", "--json"]);
    assert_eq!(output.stdout.split(|b| *b == b'\n').filter(|line| !line.is_empty()).count(), 4);
    let elsewhere = Shipped::default();
    let output = elsewhere.run("", &["audit"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is it the store of a gateway that has run?"));
}

#[tokio::test]
async fn a_trail_begins_when_the_configuration_says_so() {
    let (fake, folder) = (Fake::builder().start().await, tempfile::tempdir().unwrap());
    let file = folder.path().join("audit.jsonl");
    let gateway = Gateway::with("").backend("files", &fake).start().await;
    let ask = async || gateway.call("files__echo", json!({})).send().await.result();
    ask().await;
    let mut wanted = gateway.waystation.config();
    wanted.audit.file = Some(file.clone());
    assert_eq!(gateway.waystation.reload(wanted.clone()).await.unwrap().changed, ["audit"]);
    ask().await;
    let noted = lines(&file, 1).await;
    assert_eq!(
        (noted.len(), &noted[0]["backend"], &noted[0]["target"]),
        (1, &json!("files"), &json!("echo"))
    );
    wanted.audit.rows = 0;
    assert_eq!(gateway.waystation.reload(wanted).await.unwrap_err()[0].at, "audit");
}

#[tokio::test]
async fn a_trail_that_cannot_be_is_told_beforehand() {
    let shipped = Shipped::default();
    let output = shipped.run("[audit]\nfile = \"/no/such/folder/a\"\nkeep = \"0s\"\nrows = 0\n", &["check"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), text.lines().count()), (Some(78), 3), "{text}");
    assert!(text.contains("routes.toml:2:8: audit.file: is in a folder that is not there"), "{text}");
}
