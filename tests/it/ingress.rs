//! Which requests are refused for the way their bytes are written?
//!
//! What two readers can read as two different requests lets somebody slip a request past the first.
//! So there is one reading, and what has another is refused: T06, over a socket, byte for byte.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    fake::{Era, Fake},
    support::{Gateway, PATIENCE, battery::Battery, modern_message},
};

/// A call as it should be, of which each row changes something.
const CALL: &str = "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAccept: application/json\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: one__echo\r\nContent-Length: LENGTH\r\n\r\nBODY";
const LENGTH: &str = "Content-Length: LENGTH\r\n\r\nBODY";
const CHUNKS: &str = "Transfer-Encoding: chunked\r\n\r\nHEX\r\nBODY\r\n0\r\n\r\n";
const HOST: &str = "Host: localhost\r\n";

/// What is changed, and with which status it is answered.
const ROWS: &[(&str, &str, &str, &[u16])] = &[
    ("as it should be", "", "", &[200]),
    ("in chunks", LENGTH, CHUNKS, &[200]),
    ("an empty line before it", "POST", "\r\nPOST", &[200]),
    ("to the whole address", "POST /mcp", "POST http://localhost/mcp", &[200]),
    ("a header of others twice", HOST, "Host: localhost\r\nX-A: 1\r\nX-A: 2\r\n", &[200]),
    ("keep-alive", HOST, "Host: localhost\r\nConnection: keep-alive\r\n", &[200]),
    (
        "a way to HTTP/2",
        HOST,
        "Host: localhost\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n",
        &[200],
    ),
    // The 15 shapes.
    (
        "length and chunks",
        LENGTH,
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nHEX\r\nBODY\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "chunks and length",
        LENGTH,
        "Transfer-Encoding: chunked\r\nContent-Length: LENGTH\r\n\r\nHEX\r\nBODY\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "chunked twice",
        LENGTH,
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\nHEX\r\nBODY\r\n0\r\n\r\n",
        &[400],
    ),
    ("all lines end with LF", "\r\n", "\n", &[400]),
    ("one line ends with LF", "localhost\r\n", "localhost\n", &[400]),
    ("the head ends with LF", "LENGTH\r\n\r\n", "LENGTH\r\n\n", &[400]),
    ("no host", HOST, "", &[400]),
    ("no host, HTTP/1.0", "HTTP/1.1\r\nHost: localhost\r\n", "HTTP/1.0\r\n", &[400]),
    ("two hosts", HOST, "Host: localhost\r\nHost: evil.example\r\n", &[400]),
    ("a host twice", HOST, "Host: localhost\r\nHost: localhost\r\n", &[400]),
    ("an empty host", HOST, "Host: \r\n", &[400]),
    ("another host than in the address", "POST /mcp", "POST http://127.0.0.1/mcp", &[400]),
    ("a host with a path", HOST, "Host: localhost/?x=\r\n", &[400]),
    ("a host with a name before it", HOST, "Host: localhost@evil.example\r\n", &[400]),
    ("two hosts in one", HOST, "Host: localhost,evil.example\r\n", &[400]),
    ("a small method", "POST", "post", &[405]),
    ("another method", "POST", "PUT", &[405]),
    (
        "a header behind the body",
        LENGTH,
        "Transfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\nHEX\r\nBODY\r\n0\r\nAuthorization: x\r\n\r\n",
        &[400],
    ),
    (
        "a length behind the body",
        LENGTH,
        "Transfer-Encoding: chunked\r\n\r\nHEX\r\nBODY\r\n0\r\nContent-Length: 5\r\n\r\n",
        &[400],
    ),
    ("Mcp-Method twice", HOST, "Host: localhost\r\nMcp-Method: tools/list\r\n", &[400]),
    ("Mcp-Method twice, alike", HOST, "Host: localhost\r\nMcp-Method: tools/call\r\n", &[400]),
    ("Mcp-Session-Id twice", HOST, "Host: localhost\r\nMcp-Session-Id: a\r\nMcp-Session-Id: b\r\n", &[400]),
    ("Mcp_Method", HOST, "Host: localhost\r\nMcp_Method: tools/list\r\n", &[400]),
    (
        "Authorization twice",
        HOST,
        "Host: localhost\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n",
        &[400],
    ),
    ("Content-Type twice", HOST, "Host: localhost\r\nContent-Type: text/plain\r\n", &[400]),
    ("a length twice", HOST, "Host: localhost\r\nContent-Length: LENGTH\r\n", &[400]),
    ("Connection: Authorization", HOST, "Host: localhost\r\nConnection: Authorization\r\n", &[400]),
    ("Connection: close, mcp-name", HOST, "Host: localhost\r\nConnection: close, mcp-name\r\n", &[400]),
    ("1 GiB, if it may", LENGTH, "Expect: 100-continue\r\nContent-Length: 1073741824\r\n\r\n", &[413]),
    // Too much.
    ("65 headers", HOST, "Host: localhost\r\nMANY", &[431]),
    ("a long header", HOST, "Host: localhost\r\nX-Long: LONG\r\n", &[431]),
    ("a long address", "POST /mcp", "POST /mcp?LONG", &[431]),
    (
        "another request behind chunks",
        LENGTH,
        "Transfer-Encoding: chunked\r\n\r\nHEX\r\nBODY\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[200, 400],
    ),
];

/// What hyper refuses by itself, and is to go on refusing.
const HYPERS: &[(&str, &str, &str)] = &[
    ("a folded header", HOST, "Host: localhost\r\n folded\r\n"),
    ("a blank before the colon", "Content-Length: LENGTH", "Content-Length : LENGTH"),
    ("two lengths", "Content-Length: LENGTH", "Content-Length: LENGTH\r\nContent-Length: 5"),
    ("a list of lengths", "Content-Length: LENGTH", "Content-Length: LENGTH, LENGTH"),
    ("a length with a sign", "Content-Length: LENGTH", "Content-Length: +LENGTH"),
    ("a length below nothing", "Content-Length: LENGTH", "Content-Length: -1"),
    ("a length over 64 bits", "Content-Length: LENGTH", "Content-Length: 99999999999999999999"),
    ("chunks of another kind", LENGTH, "Transfer-Encoding: gzip\r\n\r\nBODY"),
    ("chunks first", LENGTH, "Transfer-Encoding: chunked, gzip\r\n\r\nHEX\r\nBODY\r\n0\r\n\r\n"),
    ("chunks of HTTP/1.0", "HTTP/1.1", "HTTP/1.0\r\nTransfer-Encoding: chunked"),
    ("a chunk without a size", LENGTH, "Transfer-Encoding: chunked\r\n\r\nx\r\nBODY\r\n0\r\n\r\n"),
    (
        "a chunk over 64 bits",
        LENGTH,
        "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nBODY\r\n0\r\n\r\n",
    ),
    ("a chunk longer than it says", LENGTH, "Transfer-Encoding: chunked\r\n\r\n5\r\nBODY\r\n0\r\n\r\n"),
    ("NUL in a header", HOST, "Host: localhost\r\nX-A: a\0b\r\n"),
    ("CR in a header", HOST, "Host: localhost\r\nX-A: a\rb\r\n"),
    ("a header without a name", HOST, "Host: localhost\r\n: x\r\n"),
    ("a blank in a name", HOST, "Host: localhost\r\nX A: x\r\n"),
    ("HTTP/9.9", "HTTP/1.1", "HTTP/9.9"),
    ("no version", " HTTP/1.1", ""),
    ("a blank in the address", "/mcp", "/m cp"),
    ("NUL in the address", "/mcp", "/mcp\0"),
    ("101 headers", HOST, "Host: localhost\r\nMANYMANY"),
    (
        "more than 32 KiB of headers",
        HOST,
        "Host: localhost\r\nA: LONGISHB: LONGISHC: LONGISHD: LONGISHE: LONGISH",
    ),
];

fn written(from: &str, to: &str) -> Vec<u8> {
    let body =
        modern_message(json!(7), "tools/call", json!({ "name": "one__echo", "arguments": {} })).to_string();
    let text = if from.is_empty() { CALL.to_owned() } else { CALL.replace(from, to) };
    let many = |count| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    text.replace("MANYMANY", &many(120))
        .replace("MANY", &many(58))
        .replace("LONGISH", &format!("{}\r\n", "x".repeat(7000)))
        .replace("LONG", &"x".repeat(9000))
        .replace("LENGTH", &body.len().to_string())
        .replace("HEX", &format!("{:x}", body.len()))
        .replace("BODY", &body)
        .into_bytes()
}

/// The statuses of all answers that come on a connection; an end of it comes before the last only if
/// it is the end.
async fn statuses(gateway: &Gateway, bytes: &[u8], expected: usize) -> Vec<u16> {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let _ = stream.write_all(bytes).await; // It may be refused before its end.
    let mut read = Vec::new();
    let all = async {
        while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&read);
            if found(&text).len() >= expected
                && !text.to_lowercase().contains("connection: close")
                && is_whole(&text)
            {
                break;
            }
        }
    };
    timeout(PATIENCE, all).await.expect("an answer or an end in time");
    // One more than should come would come at once.
    let _ = timeout(Duration::from_millis(20), stream.read_buf(&mut read)).await;
    found(&String::from_utf8_lossy(&read))
}

fn found(text: &str) -> Vec<u16> {
    text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok()).collect()
}

/// Has the last answer come to its end?
fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.rsplit("HTTP/1.").next().and_then(|last| last.split_once("\r\n\r\n"))
    else {
        return false;
    };
    let length = head
        .to_lowercase()
        .split_once("content-length: ")
        .map(|(_, rest)| rest.lines().next().unwrap_or_default().parse::<usize>().unwrap());
    body.len() >= length.unwrap_or(0)
}

async fn gateway() -> (Gateway, Fake) {
    let fake = Fake::builder().era(Era::Modern).start().await;
    (Gateway::with("").backend("one", &fake).start().await, fake)
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let battery = Battery::new("T06");
    let (gateway, fake) = gateway().await;
    for (id, from, to, expected) in ROWS {
        fake.forget();
        let statuses = statuses(&gateway, &written(from, to), expected.len()).await;
        let ran = fake.seen_of("tools/call").len();
        let should = expected.iter().filter(|status| **status == 200).count();
        battery.row(*id, statuses == *expected && ran == should, (statuses, ran));
    }
    battery.end(ROWS.len());
}

#[tokio::test]
async fn what_hyper_refuses_stays_refused() {
    let (gateway, fake) = gateway().await;
    for (id, from, to) in HYPERS {
        let statuses = statuses(&gateway, &written(from, to), 1).await;
        // A request that is not even one may be answered with an end.
        assert!(
            statuses.len() <= 1 && statuses.iter().all(|status| (400..500).contains(status)),
            "{id}: {statuses:?}"
        );
        assert_eq!(fake.seen_of("tools/call").len(), 0, "{id}");
    }
}

/// A victim's request behind an attacker's on one connection, as a proxy in front would have it: the
/// victim gets the answer to its own, or the connection ends.
#[tokio::test]
async fn nobody_gets_an_answer_that_is_anothers() {
    let (gateway, _fake) = gateway().await;
    for (id, from, to, expected) in ROWS.iter().filter(|row| row.3.len() == 1) {
        let victim = "GET /health?victim HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let mut bytes = written(from, to);
        bytes.extend_from_slice(victim.as_bytes());
        let statuses = statuses(&gateway, &bytes, 2).await;
        assert_eq!(statuses.first(), expected.first(), "{id}");
        let rest = &statuses[1..];
        assert!(
            rest.is_empty() || rest == [200] || (to.contains("chunked") && rest == [400]),
            "{id}: {statuses:?}"
        );
    }
}
