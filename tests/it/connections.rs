//! Is a connection served however its bytes come, and does it end when the gateway does?

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Gateway, modern_message};

const PATIENCE: Duration = Duration::from_secs(10);

/// A request of the modern era for the tools, and its headers.
fn listing(headers: &str) -> (String, String) {
    let body = modern_message(json!(1), "tools/list", json!({})).to_string();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/list\r\n{headers}\r\n"
    );
    (head, body)
}

fn with_length() -> (String, String) {
    let (_, body) = listing("");
    listing(&format!("Content-Length: {}\r\n", body.len()))
}

/// Reads until so many answers have come, of which all are lists of tools.
async fn answers(stream: &mut TcpStream, count: usize) {
    let mut read = Vec::new();
    let whole = async {
        while read.windows(8).filter(|text| text == b"\"tools\":").count() < count {
            assert!(
                stream.read_buf(&mut read).await.unwrap() > 0,
                "closed after {:?}",
                String::from_utf8_lossy(&read)
            );
        }
    };
    timeout(PATIENCE, whole).await.expect("the answers come in time");
    let text = String::from_utf8_lossy(&read);
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), count, "{text}");
}

#[tokio::test]
async fn a_request_may_come_in_pieces() {
    let gateway = Gateway::with("").start().await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for _ in 0..2 {
        let (head, body) = with_length();
        for piece in [head.as_bytes(), body.as_bytes()].concat().chunks(7) {
            stream.write_all(piece).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        answers(&mut stream, 1).await;
    }
}

#[tokio::test]
async fn a_body_may_come_in_chunks() {
    let gateway = Gateway::with("").start().await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let (head, body) = listing("Transfer-Encoding: chunked\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for piece in body.as_bytes().chunks(50) {
        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await.unwrap();
        stream.write_all(&[piece, b"\r\n"].concat()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    answers(&mut stream, 1).await;
}

#[tokio::test]
async fn many_requests_may_come_at_once() {
    let gateway = Gateway::with("").start().await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let (head, body) = with_length();
    stream.write_all((head + &body).repeat(20).as_bytes()).await.unwrap();
    answers(&mut stream, 20).await;
}

#[tokio::test]
async fn a_client_that_asks_whether_to_go_on_is_told_so() {
    let gateway = Gateway::with("").start().await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let (_, body) = listing("");
    let (head, _) = listing(&format!("Content-Length: {}\r\nExpect: 100-continue\r\n", body.len()));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut said = [0; 25];
    timeout(PATIENCE, stream.read_exact(&mut said)).await.expect("it is told in time").unwrap();
    assert_eq!(said, *b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).await.unwrap();
    answers(&mut stream, 1).await;
}

#[tokio::test]
async fn a_client_may_begin_with_http_2() {
    let gateway = Gateway::with("").start().await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = made.unwrap();
    tokio::spawn(connection);
    for _ in 0..3 {
        let (_, body) = listing("");
        let request = http::Request::post(format!("http://{}/mcp", gateway.address))
            .header("content-type", "application/json")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/list")
            .body(Full::new(Bytes::from(body)));
        let response = timeout(PATIENCE, sender.send_request(request.unwrap())).await.expect("in time");
        let response = response.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.windows(8).any(|text| text == b"\"tools\":"), "{body:?}");
    }
}

#[tokio::test]
async fn connections_at_rest_end_with_the_gateway() {
    let gateway = Gateway::with("").start().await;
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    let mut used = TcpStream::connect(gateway.address).await.unwrap();
    let (head, body) = with_length();
    used.write_all((head + &body).as_bytes()).await.unwrap();
    answers(&mut used, 1).await;
    let stopped = tokio::spawn(gateway.stop());
    for stream in [&mut silent, &mut used] {
        let rest = timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new())).await;
        rest.expect("it is closed in time").ok();
    }
    stopped.await.unwrap();
}
