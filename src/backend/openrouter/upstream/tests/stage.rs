//! How does a test say what the upstream does, byte by byte?

#[cfg(test)]
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
};

use super::super::{Keys, Settings, Upstream};
use crate::settings::Duration as Length;

/// So long nothing takes that works.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What is done for one request, in order.
#[derive(Debug, Clone)]
pub enum Step {
    Say(Vec<u8>),
    Pause(Duration),
    /// The same again and again, until the client has gone.
    Repeat(Vec<u8>, Duration),
    /// Nothing more, until the client has gone.
    Stall,
    /// The connection is torn off.
    Reset,
}

/// Answers requests, each on a connection of its own, as the script says.
pub struct Stage {
    pub upstream: Upstream,
    heard: Arc<Mutex<Vec<String>>>,
    gone: Arc<Notify>,
}

impl Stage {
    pub async fn new(scripts: Vec<Vec<Step>>) -> Self {
        Self::with(scripts, |_| ()).await
    }

    pub async fn with(scripts: Vec<Vec<Step>>, change: impl FnOnce(&mut Settings)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = Settings {
            base_url: format!("http://{}/api/v1", listener.local_addr().unwrap()),
            title: Some("Stage".into()),
            referer: Some("https://stage.invalid/".into()),
            ..Settings::default()
        };
        change(&mut settings);
        let key = super::super::Key::new("sk-or-v1-stage").unwrap();
        let upstream = Upstream::new(&settings, Keys { inference: Some(key), management: None }).unwrap();
        let (heard, gone) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let (say, leave) = (Arc::clone(&heard), Arc::clone(&gone));
        tokio::spawn(async move {
            for script in scripts {
                let Ok((socket, _)) = listener.accept().await else { return };
                tokio::spawn(serve(socket, script, Arc::clone(&say), Arc::clone(&leave)));
            }
        });
        Self { upstream, heard, gone }
    }

    /// The requests so far, with head and body.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// Until a client has closed its connection while it was being answered.
    pub async fn left(&self) {
        timeout(PATIENCE, self.gone.notified()).await.expect("the client keeps its connection open");
    }
}

async fn serve(mut socket: TcpStream, script: Vec<Step>, heard: Arc<Mutex<Vec<String>>>, gone: Arc<Notify>) {
    let request = request(&mut socket).await;
    heard.lock().unwrap().push(request);
    for step in script {
        match step {
            Step::Say(bytes) => {
                if socket.write_all(&bytes).await.is_err() {
                    return gone.notify_one();
                }
            }
            Step::Pause(time) => tokio::time::sleep(time).await,
            Step::Repeat(bytes, pause) => {
                while socket.write_all(&bytes).await.is_ok() {
                    tokio::time::sleep(pause).await;
                }
                return gone.notify_one();
            }
            Step::Stall => {
                let _ = socket.read(&mut [0; 64]).await;
                return gone.notify_one();
            }
            Step::Reset => {
                socket.set_zero_linger().unwrap();
                return;
            }
        }
    }
    let _ = socket.shutdown().await;
    // Whoever closes before all was read tears the connection off.
    while socket.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
}

/// Reads a request with its body.
async fn request(socket: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let read = socket.read(&mut piece).await.unwrap();
        text.extend_from_slice(&piece[..read]);
        let said = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = said.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split_once("content-length: ").map_or("0", |(_, rest)| rest);
            let length: usize = length.lines().next().unwrap_or("0").trim().parse().unwrap();
            if body.len() >= length {
                return said;
            }
        }
        assert!(read > 0, "the request has no end: {said}");
    }
}

/// A head, after which the body goes on until the connection ends.
pub fn head(status: &str, headers: &str) -> Step {
    Step::Say(format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n").into_bytes())
}

/// The head of a stream.
pub fn stream() -> Step {
    head("200 OK", "content-type: text/event-stream\r\nx-generation-id: gen-1-abc\r\n")
}

/// A whole answer that is no stream.
pub fn answer(status: &str, headers: &str, body: &str) -> Vec<Step> {
    let headers = format!("content-type: application/json\r\ncontent-length: {}\r\n{headers}", body.len());
    vec![head(status, &headers), say(body)]
}

pub fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

/// A chunk that says something.
pub fn said(text: &str) -> String {
    let text = serde_json::to_string(text).unwrap();
    format!(
        "data: {{\"id\":\"gen-1-abc\",\"provider\":\"Acme Cloud\",\"model\":\"acme/atlas-70b\",\"object\":\"chat.completion.chunk\",\"created\":1,\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":{text}}},\"finish_reason\":null,\"native_finish_reason\":null,\"logprobs\":null}}]}}\n\n"
    )
}

/// The chunk that ends an answer.
pub fn finish(reason: &str) -> String {
    format!(
        "data: {{\"id\":\"gen-1-abc\",\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"}},\"finish_reason\":\"{reason}\",\"native_finish_reason\":\"{reason}\"}}]}}\n\n"
    )
}

/// What was used, as traffic shows it: with one choice.
pub const USAGE: &str = "data: {\"id\":\"gen-1-abc\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}],\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":9,\"total_tokens\":30,\"cost\":0.0000855,\"is_byok\":false,\"prompt_tokens_details\":{\"cached_tokens\":0}}}\n\n";
/// The same as the documentation has it: with none.
pub const USAGE_ALONE: &str = "data: {\"id\":\"gen-1-abc\",\"choices\":[],\"usage\":{\"prompt_tokens\":21,\"completion_tokens\":9,\"total_tokens\":30,\"cost\":0.0000855}}\n\n";
pub const DONE: &str = "data: [DONE]\n\n";
pub const ALIVE: &str = ": OPENROUTER PROCESSING\n\n";

pub fn short(time: Duration) -> Length {
    Length(time)
}
