//! A gateway that is a socket and answers as the test says, so that what is asked of it can be
//! looked at byte by byte.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Output,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use serde_json::Value;

/// One request.
#[derive(Debug, Clone)]
pub struct Seen {
    pub line: String,
    /// Lower case names.
    headers: Vec<(String, String)>,
    pub body: Value,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A socket that answers requests by a rule.
pub struct Gateway {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// What is answered.
pub enum Reply {
    Json(Value),
    /// The very bytes of a result.
    Raw(&'static str),
    Events(Vec<Value>),
    Status(u16),
    /// Nothing, until the other side goes; then the sender is told.
    Silence(mpsc::Sender<()>),
}

impl Gateway {
    pub fn start(rule: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (kept, rule) = (Arc::clone(&seen), Arc::new(rule));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (kept, rule) = (Arc::clone(&kept), Arc::clone(&rule));
                thread::spawn(move || {
                    // A connection without a request is one that asks whether anybody is there.
                    let Some(request) = read(&stream) else { return };
                    kept.lock().unwrap().push(request.clone());
                    answer(stream, rule(&request));
                });
            }
        });
        Self { address, seen }
    }

    pub fn seen(&self, method: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.body["method"] == method).cloned().collect()
    }

    /// A command that asks this gateway.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let url = format!("http://{}/mcp", self.address);
        super::waystation().args(arguments).args(["--url", &url]).output().unwrap()
    }
}

fn read(stream: &TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.map_or(0, |(_, length)| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    Some(Seen {
        line: line.trim_end().to_owned(),
        headers,
        body: serde_json::from_slice(&body).unwrap_or_default(),
    })
}

fn answer(mut stream: TcpStream, reply: Reply) {
    let (status, kind, body) = match reply {
        Reply::Json(message) => (200, "application/json", message.to_string()),
        Reply::Raw(result) => {
            (200, "application/json", format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{result}}}"))
        }
        Reply::Events(messages) => {
            let events = messages.iter().map(|message| format!("event: message\ndata: {message}\n\n"));
            (200, "text/event-stream", events.collect())
        }
        Reply::Status(status) => (status, "text/plain", "no".to_owned()),
        Reply::Silence(gone) => {
            let _ = stream.read(&mut [0]);
            let _ = gone.send(());
            return;
        }
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all((head + &body).as_bytes());
}
