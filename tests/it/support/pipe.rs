//! A client on a pipe.

use std::{collections::VecDeque, io};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, Lines},
    task::JoinHandle,
};
use waystation::engine::Waystation;

use super::{PATIENCE, session::initialize};

/// Both ends that a client has of a pipe to the gateway.
pub struct Pipe {
    input: Option<DuplexStream>,
    output: Lines<BufReader<DuplexStream>>,
    served: JoinHandle<io::Result<()>>,
    last_id: u64,
    /// What was read while something else was waited for.
    aside: VecDeque<Value>,
}

impl Pipe {
    pub fn open(gateway: &Waystation) -> Self {
        let (input, theirs) = tokio::io::duplex(1 << 16);
        let (output, ours) = tokio::io::duplex(1 << 16);
        let gateway = gateway.clone();
        let served = tokio::spawn(async move { gateway.pipe(BufReader::new(theirs), output).await });
        let output = BufReader::new(ours).lines();
        Self { input: Some(input), output, served, last_id: 0, aside: VecDeque::new() }
    }

    /// A pipe on which the handshake is done; gives its result as well.
    pub async fn greeted(gateway: &Waystation, revision: &str) -> (Self, Value) {
        let mut pipe = Self::open(gateway);
        pipe.say(&initialize(revision)).await;
        let hello = pipe.answer(&json!("hello")).await["result"].clone();
        pipe.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        (pipe, hello)
    }

    pub async fn line(&mut self, line: &[u8]) {
        let input = self.input.as_mut().expect("the pipe is open");
        input.write_all(line).await.expect("the gateway reads");
        input.write_all(b"\n").await.expect("the gateway reads");
    }

    pub async fn say(&mut self, message: &Value) {
        self.line(message.to_string().as_bytes()).await;
    }

    /// Sends a request; gives its id.
    pub async fn request(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = json!(self.last_id);
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })).await;
        id
    }

    /// Sends a request, and waits for its response.
    pub async fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params).await;
        self.answer(&id).await
    }

    /// The next message, which must be one; none at the end.
    pub async fn next(&mut self) -> Option<Value> {
        if let Some(message) = self.aside.pop_front() {
            return Some(message);
        }
        self.read().await
    }

    async fn read(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await.expect("a line in time");
        let line = line.expect("the output is UTF-8")?;
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "nothing but the protocol: {line}");
        Some(message)
    }

    /// The response to this request; what comes before it is kept.
    pub async fn answer(&mut self, id: &Value) -> Value {
        let is_it = |message: &Value| message["id"] == *id && message.get("method").is_none();
        if let Some(at) = self.aside.iter().position(is_it) {
            return self.aside.remove(at).expect("it is there");
        }
        loop {
            let message = self.read().await.expect("an answer before the end");
            if is_it(&message) {
                return message;
            }
            self.aside.push_back(message);
        }
    }

    /// Closes the input, and gives the responses that still come.
    pub async fn end(mut self) -> Vec<Value> {
        drop(self.input.take());
        let mut rest = Vec::from(std::mem::take(&mut self.aside));
        while let Some(message) = self.read().await {
            rest.push(message);
        }
        self.served.await.expect("no panic").expect("the pipe ends well");
        rest.retain(|message| message.get("method").is_none());
        rest
    }
}
