//! Requests over HTTP, each on a connection of its own, so that a test decides when it breaks.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpStream, task::AbortHandle};
use waystation::wire::sse;

use super::PATIENCE;

/// A request that is still to be sent.
#[derive(Debug, Clone)]
pub struct Post {
    address: SocketAddr,
    verb: &'static str,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
}

impl Post {
    /// A POST with the headers that JSON-RPC over HTTP has.
    pub fn new(address: SocketAddr, path: &str, body: impl Into<Bytes>) -> Self {
        let headers = [
            ("host", address.to_string()),
            ("content-type", "application/json".to_owned()),
            ("accept", "application/json, text/event-stream".to_owned()),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.into_bytes()));
        Self { address, verb: "POST", path: path.to_owned(), headers: headers.into(), body: body.into() }
    }

    pub fn verb(self, verb: &'static str) -> Self {
        Self { verb, ..self }
    }

    /// Sets a header, in place of one of that name.
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).and(name, value)
    }

    /// Adds a header beside one of that name.
    pub fn and(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Sends it, and reads the answer to its end.
    pub async fn send(self) -> Answer {
        let opened = self.open().await;
        tokio::time::timeout(PATIENCE, opened.answer()).await.expect("the answer ends in time")
    }

    /// Sends it, and gives the answer once its head has come.
    pub async fn open(self) -> Opened {
        let what = format!(
            "{} {} {}",
            self.verb,
            self.path,
            String::from_utf8_lossy(&self.body[..self.body.len().min(300)])
        );
        let head = tokio::time::timeout(PATIENCE, self.begin());
        head.await.unwrap_or_else(|_| panic!("no answer in time to {what}"))
    }

    async fn begin(self) -> Opened {
        let socket = TcpStream::connect(self.address).await.expect("the gateway listens");
        socket.set_nodelay(true).expect("a socket");
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.expect("HTTP");
        let task = tokio::spawn(async {
            let _ = connection.await; // A test that breaks it means to.
        });
        let connection = Connection(task.abort_handle());
        let mut request = Request::builder().method(self.verb).uri(self.path);
        for (name, value) in self.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(self.body)).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        Opened {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            decoder: sse::Decoder::new(1 << 30),
            waiting: Vec::new(),
            _connection: connection,
        }
    }
}

/// Breaks off with its owner.
#[derive(Debug)]
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer whose body is still to come. Dropped, its connection breaks.
#[derive(Debug)]
pub struct Opened {
    pub status: u16,
    pub headers: HeaderMap,
    body: Incoming,
    decoder: sse::Decoder,
    waiting: Vec<sse::Event>,
    _connection: Connection,
}

impl Opened {
    /// The whole of it, for one that ends.
    pub async fn answer(self) -> Answer {
        let Self { status, headers, body, _connection, .. } = self;
        let body = body.collect().await.expect("the body comes whole").to_bytes();
        Answer { status, headers, body }
    }

    /// The next event; none at the end of the stream.
    pub async fn event(&mut self) -> Option<sse::Event> {
        let next = async {
            loop {
                if !self.waiting.is_empty() {
                    return Some(self.waiting.remove(0));
                }
                let frame = self.body.frame().await?.expect("the body comes whole");
                if let Ok(data) = frame.into_data() {
                    self.waiting = self.decoder.push(&data).expect("events");
                }
            }
        };
        tokio::time::timeout(PATIENCE, next).await.expect("an event in time")
    }

    /// The next message on the stream; none at its end.
    pub async fn message(&mut self) -> Option<Value> {
        loop {
            let event = self.event().await?;
            if !event.data.is_empty() {
                return Some(serde_json::from_slice(&event.data).expect("a message is JSON"));
            }
        }
    }

    /// The last message on the stream.
    pub async fn last(mut self) -> Option<Value> {
        let mut last = None;
        while let Some(message) = self.message().await {
            last = Some(message);
        }
        last
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn kind(&self) -> &str {
        self.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default()
    }

    /// All messages: of the stream, or the one there is.
    pub fn messages(&self) -> Vec<Value> {
        if !self.kind().starts_with("text/event-stream") {
            return vec![self.json()];
        }
        let events = sse::Decoder::new(1 << 30).push(&self.body).expect("events");
        let messages = events.into_iter().filter(|event| !event.data.is_empty());
        messages.map(|event| serde_json::from_slice(&event.data).expect("a message is JSON")).collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|why| panic!("{why} in {} {}", self.status, self.text()))
    }

    /// The response, which is the last message.
    pub fn response(&self) -> Value {
        self.messages().pop().unwrap_or_else(|| panic!("no message in {} {}", self.status, self.text()))
    }

    #[track_caller]
    pub fn result(&self) -> Value {
        let response = self.response();
        assert_eq!((self.status, response.get("error")), (200, None), "{response}");
        response["result"].clone()
    }

    #[track_caller]
    pub fn error(&self) -> Value {
        let response = self.response();
        assert!(response["error"].is_object(), "no error but {} {response}", self.status);
        response["error"].clone()
    }

    /// Status and code of a refusal.
    #[track_caller]
    pub fn refusal(&self) -> (u16, i64) {
        (self.status, self.error()["code"].as_i64().expect("a code"))
    }
}
