//! When is a client cut that takes its time, or more than its share?

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    fake::{Era, Fake},
    support::{Gateway, PATIENCE, modern_message},
};

/// Reads to the end of a connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("it is closed in time").ok();
    String::from_utf8_lossy(&read).into_owned()
}

async fn saying(gateway: &Gateway, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

fn limits(lines: &str) -> String {
    format!("[listen.limits]\n{lines}\n")
}

const HEAD: &str =
    "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n";
const HEALTH: &str = "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[tokio::test]
async fn a_client_that_says_nothing_or_half_a_thing_is_cut() {
    // At rest it may be longer, so none of these is taken for one that is.
    let gateway = Gateway::with(&limits("head = \"200ms\"\nidle = \"1h\"")).start().await;
    for text in
        ["", "P", "PRI", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST /mcp HTTP/1.1\r\nHost: local"]
    {
        let mut stream = saying(&gateway, text).await;
        rest(&mut stream).await;
    }
    // And not only in its first request.
    let mut stream = saying(&gateway, HEALTH).await;
    stream.write_all(b"GET /health HT").await.unwrap();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_connection_at_rest_is_closed() {
    let gateway = Gateway::with(&limits("idle = \"200ms\"\nhead = \"1h\"")).start().await;
    let mut stream = saying(&gateway, HEALTH).await;
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 200"));
    let (mut sender, connection) = http2(&gateway).await;
    let running = tokio::spawn(connection);
    assert_eq!(sender.send_request(health(&gateway)).await.unwrap().status(), 200);
    timeout(PATIENCE, running).await.expect("it is closed in time").unwrap().unwrap();
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_is_not_waited_for() {
    for (lines, key) in [
        ("body = \"300ms\"\nbody_rate = \"0 B\"", "listen.limits.body)"),
        ("body = \"2s\"", "listen.limits.body_rate)"),
    ] {
        let gateway = Gateway::with(&limits(lines)).start().await;
        let mut stream = saying(&gateway, &format!("{HEAD}{{")).await;
        let said = rest(&mut stream).await;
        assert!(said.starts_with("HTTP/1.1 408") && said.contains(key), "{said}");
        // Of HTTP/2 it is the stream that ends, not the connection.
        let (mut sender, connection) = http2(&gateway).await;
        let running = tokio::spawn(connection);
        let never = StreamBody::new(futures_util::stream::pending::<
            Result<http_body::Frame<Bytes>, std::io::Error>,
        >());
        let request = http::Request::post(format!("http://{}/mcp", gateway.address));
        let request = request.header("content-type", "application/json").body(never.boxed_unsync()).unwrap();
        let response = timeout(PATIENCE, sender.send_request(request)).await.expect("in time").unwrap();
        assert_eq!(response.status(), 408);
        assert!(
            response
                .into_body()
                .collect()
                .await
                .unwrap()
                .to_bytes()
                .windows(key.len())
                .any(|text| text == key.as_bytes())
        );
        assert_eq!(sender.send_request(health(&gateway)).await.unwrap().status(), 200);
        running.abort();
    }
}

type Unsync = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;
type Sender = hyper::client::conn::http2::SendRequest<Unsync>;

async fn http2(gateway: &Gateway) -> (Sender, impl Future<Output = hyper::Result<()>> + use<>) {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let mut client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    client.initial_stream_window_size(1 << 10);
    let (sender, connection) = client.handshake(TokioIo::new(stream)).await.unwrap();
    (sender, connection)
}

fn health(gateway: &Gateway) -> http::Request<Unsync> {
    request(http::Request::get(format!("http://{}/health", gateway.address)), Bytes::new())
}

fn request(builder: http::request::Builder, body: Bytes) -> http::Request<Unsync> {
    builder.body(Full::new(body).map_err(|never| match never {}).boxed_unsync()).unwrap()
}

/// A call whose answer is as long as its arguments, twice.
fn long_call(length: usize) -> String {
    let params = json!({ "name": "one__echo", "arguments": { "a": "x".repeat(length) } });
    modern_message(json!(1), "tools/call", params).to_string()
}

const CALL: [(&str, &str); 4] = [
    ("content-type", "application/json"),
    ("mcp-protocol-version", "2026-07-28"),
    ("mcp-method", "tools/call"),
    ("mcp-name", "one__echo"),
];

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let fake = Fake::builder().era(Era::Modern).start().await;
    let gateway = Gateway::with(&limits("write = \"300ms\"\nconnections = 1"));
    let gateway = gateway.backend("one", &fake).start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(gateway.address).await.unwrap();
    let body = long_call(4_000_000);
    let headers: String = CALL.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head =
        format!("POST /mcp HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    // Its place is free again.
    let another = async {
        while !rest(&mut saying(&gateway, &HEALTH.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await)
            .await
            .starts_with("HTTP/1.1 200")
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, another).await.expect("it is cut in time");
    drop(stream);
}

#[tokio::test]
async fn a_stream_of_which_nothing_is_taken_ends_alone() {
    let fake = Fake::builder().era(Era::Modern).start().await;
    let gateway = Gateway::with(&limits("write = \"300ms\"")).backend("one", &fake).start().await;
    let (mut sender, connection) = http2(&gateway).await;
    let running = tokio::spawn(connection);
    let mut builder = http::Request::post(format!("http://{}/mcp", gateway.address));
    for (name, value) in CALL {
        builder = builder.header(name, value);
    }
    let response = sender.send_request(request(builder, long_call(100_000).into())).await.unwrap();
    assert_eq!(response.status(), 200);
    let another = sender.clone();
    // Nothing of it is asked for, until the gateway has reset it.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let body = timeout(PATIENCE, response.into_body().collect()).await.expect("in time");
    let why = body.expect_err("it is reset").to_string();
    assert!(why.contains("stream") || why.contains("body"), "{why}");
    let mut another = another;
    assert_eq!(another.send_request(health(&gateway)).await.unwrap().status(), 200);
    running.abort();
}

#[tokio::test]
async fn there_is_room_for_so_many_connections() {
    for (lines, key) in [("connections = 3", "all"), ("connections_per_address = 3", "one address")] {
        let gateway = Gateway::with(&limits(lines)).start().await;
        let mut held = join_all((0..3).map(|_| saying(&gateway, HEALTH))).await;
        for stream in &mut held {
            stream.read_exact(&mut [0; 15]).await.unwrap();
        }
        let mut refused = TcpStream::connect(gateway.address).await.unwrap();
        let said = rest(&mut refused).await;
        assert!(said.starts_with("HTTP/1.1 503") && said.contains("Retry-After"), "{key}: {said}");
        drop(held.pop());
        let free = async {
            loop {
                let mut stream = TcpStream::connect(gateway.address).await.unwrap();
                let _ = stream.write_all(HEALTH.as_bytes()).await;
                let mut status = [0; 12];
                if stream.read_exact(&mut status).await.is_ok() && &status == b"HTTP/1.1 200" {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, free).await.expect("a place that is left is free");
    }
}

#[tokio::test]
async fn heads_are_as_long_as_is_said_and_no_longer() {
    let lines = "headers = 20\nheader_size = \"2 KiB\"\nhead_size = \"4 KiB\"";
    let gateway = Gateway::with(&limits(lines)).start().await;
    let get = |more: String| HEALTH.replace("\r\n\r\n", &format!("\r\n{more}Connection: close\r\n\r\n"));
    let many = |count: usize| (0..count).map(|n| format!("X-{n}: 1\r\n")).collect::<String>();
    let long = |length: usize| format!("X: {}\r\n", "x".repeat(length));
    for (more, status) in [
        (many(18), 200),
        (many(19), 431),
        (long(2000), 200),
        (long(2050), 431),
        (long(1900) + &long(1900), 200),
        (long(1900) + &long(1900) + &long(1900), 431),
    ] {
        let said = rest(&mut saying(&gateway, &get(more.clone())).await).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")), "{status} {}: {said}", more.len());
    }
    let (mut sender, connection) = http2(&gateway).await;
    let running = tokio::spawn(connection);
    for (count, length, status) in [(18, 1, 200), (21, 1, 431), (1, 2050, 431)] {
        let mut builder = http::Request::get(format!("http://{}/health", gateway.address));
        for n in 0..count {
            builder = builder.header(format!("x-{n}"), "x".repeat(length));
        }
        let response = sender.send_request(request(builder, Bytes::new())).await.unwrap();
        assert_eq!(response.status(), status, "{count} {length}");
    }
    running.abort();
}

#[tokio::test]
async fn a_connection_has_so_many_streams() {
    let fake = Fake::builder().era(Era::Modern).start().await;
    let gateway = Gateway::with(&limits("streams = 3")).backend("one", &fake).start().await;
    let (mut sender, connection) = http2(&gateway).await;
    let running = tokio::spawn(connection);
    // From then on the client knows how many there may be.
    assert_eq!(sender.send_request(health(&gateway)).await.unwrap().status(), 200);
    let params = json!({ "name": "one__slow", "arguments": {} });
    let body = modern_message(json!(1), "tools/call", params).to_string();
    let calls = (0..4).map(|_| {
        let mut builder = http::Request::post(format!("http://{}/mcp", gateway.address));
        for (name, value) in CALL {
            builder = builder.header(name, value.replace("echo", "slow"));
        }
        let (mut sender, request) = (sender.clone(), request(builder, body.clone().into()));
        tokio::spawn(async move { sender.send_request(request).await.unwrap().status() })
    });
    let calls: Vec<_> = calls.collect();
    // The client obeys: the fourth waits until one of the others is answered.
    fake.until_running(3).await;
    assert_eq!(fake.running(), 3);
    fake.release();
    fake.until_running(1).await;
    fake.release();
    for call in calls {
        assert_eq!(timeout(PATIENCE, call).await.expect("in time").unwrap(), 200);
    }
    running.abort();
}

#[tokio::test]
async fn a_call_that_never_ends_does_not_keep_the_gateway() {
    let fake = Fake::builder().era(Era::Modern).start().await;
    let gateway = Gateway::with(&limits("drain = \"300ms\"")).backend("one", &fake).start().await;
    let call = tokio::spawn(gateway.call("one__slow", json!({})).open());
    fake.until_running(1).await;
    gateway.stop().await;
    call.abort();
}
