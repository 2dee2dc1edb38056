//! What is asked, and what must come back?
//!
//! One call of each kind is built once, with holes where its number goes; a number is written into
//! the holes and the bytes are sent. The first answer of a connection is read in full. From then on
//! the same bytes with the next number in the same holes are the expected answer, and comparing
//! them is as strict as reading and costs a tenth. Bytes that differ are read in full again: a
//! subject may order its members as it likes, it may not answer wrongly.
//!
//! The number is the JSON-RPC id and also stands in the text to be echoed, so an answer that went
//! to the wrong call or the wrong connection is seen.

use std::{fmt, net::SocketAddr};

use serde_json::{Value, json};

use crate::http1::Message;

pub const LEGACY: &str = "2025-11-25";
pub const MODERN: &str = "2026-07-28";
/// How many tools the backend has.
pub const TOOLS: usize = 50;
/// How much text the tool `large` adds to what it echoes.
pub const LARGE: usize = 100 * 1024;

const SLOT: &[u8] = b"##########";

/// How client and server speak: with a session, or with everything in each request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Era {
    Legacy,
    Modern,
}

impl fmt::Display for Era {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Era::Legacy => "legacy",
            Era::Modern => "modern",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// `tools/call` with a small answer.
    Echo,
    /// `tools/call` with an answer of [`LARGE`] bytes.
    Large,
    /// `tools/list`.
    List,
}

/// An endpoint, and what it puts before the names of tools.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub path: &'static str,
    pub prefix: &'static str,
    /// The line of the head that says who asks.
    pub proof: &'static str,
}

/// A number of ten digits: never the same twice in one cell of the table.
#[derive(Clone, Copy)]
pub struct Number(u32);

impl Number {
    /// The numbers of one connection lie apart from those of all others.
    pub fn first_of(connection: usize) -> Number {
        let connection = u32::try_from(connection).expect("there are at most a few hundred connections");
        Number(1_000_000_000 + connection * 10_000_000)
    }

    pub fn next(self) -> Number {
        Number(self.0 + 1)
    }

    fn digits(self) -> [u8; SLOT.len()] {
        let mut digits = [0; SLOT.len()];
        let mut rest = self.0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).expect("a remainder of ten is one digit");
            rest /= 10;
        }
        digits
    }
}

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Bytes that carry a number in some places.
struct Numbered {
    bytes: Vec<u8>,
    holes: Vec<usize>,
}

impl Numbered {
    fn new(bytes: Vec<u8>, slot: &[u8]) -> Numbered {
        let holes = (0..bytes.len()).filter(|&at| bytes[at..].starts_with(slot)).collect();
        Numbered { bytes, holes }
    }

    fn with(&mut self, number: Number) -> &[u8] {
        let digits = number.digits();
        for &hole in &self.holes {
            self.bytes[hole..hole + digits.len()].copy_from_slice(&digits);
        }
        &self.bytes
    }
}

/// One kind of call on one connection: its bytes and its expected answer.
pub struct Call {
    era: Era,
    work: Work,
    prefix: &'static str,
    request: Numbered,
    answer: Option<Numbered>,
}

impl Call {
    pub fn new(target: Target, era: Era, work: Work, session: Option<&str>) -> Call {
        let tool = match work {
            Work::Echo => "echo",
            Work::Large => "large",
            Work::List => "",
        };
        let name = format!("{}{tool}", target.prefix);
        let (method, mut params) = match work {
            Work::Echo | Work::Large => {
                ("tools/call", json!({"name": name, "arguments": {"text": "call ##########"}}))
            }
            Work::List => ("tools/list", json!({})),
        };
        let mut headers = match era {
            Era::Legacy => format!("MCP-Protocol-Version: {LEGACY}\r\n"),
            Era::Modern => format!("MCP-Protocol-Version: {MODERN}\r\nMcp-Method: {method}\r\n"),
        };
        if era == Era::Modern {
            params["_meta"] = envelope();
            if work != Work::List {
                headers += &format!("Mcp-Name: {name}\r\n");
            }
        }
        if let Some(session) = session {
            headers += &format!("Mcp-Session-Id: {session}\r\n");
        }
        let body = format!(r#"{{"jsonrpc":"2.0","id":##########,"method":"{method}","params":{params}}}"#);
        let request = Numbered::new(post(target, &headers, &body), SLOT);
        Call { era, work, prefix: target.prefix, request, answer: None }
    }

    pub fn request(&mut self, number: Number) -> &[u8] {
        self.request.with(number)
    }

    /// Whether this is the answer to the call of that number; if not, why not.
    pub fn check(&mut self, number: Number, answer: &Message) -> Result<(), String> {
        let known = self.answer.as_mut().is_some_and(|known| known.with(number) == &answer.body[..]);
        if known && answer.status() == 200 {
            return Ok(());
        }
        self.read(number, answer).map_err(|wrong| {
            let body: String = String::from_utf8_lossy(&answer.body).chars().take(300).collect();
            format!("call {number}: {wrong}; the answer was {} {body}", answer.first_line)
        })?;
        self.answer = Some(Numbered::new(answer.body.to_vec(), &number.digits()));
        Ok(())
    }

    fn read(&self, number: Number, answer: &Message) -> Result<(), String> {
        let message = message(answer)?;
        if answer.status() != 200 || !message["error"].is_null() {
            return Err("it is an error".into());
        }
        if message["jsonrpc"] != "2.0" || message["id"] != number.0 {
            return Err("it carries another id".into());
        }
        let result = &message["result"];
        if self.era == Era::Modern && result["resultType"] != "complete" {
            return Err("resultType is not \"complete\"".into());
        }
        match self.work {
            Work::Echo => says(result, &format!("call {number}")),
            Work::Large => says(result, &format!("call {number}{}", filler())),
            Work::List => lists(result, self.prefix),
        }
    }
}

fn says(result: &Value, text: &str) -> Result<(), String> {
    let said = result["content"][0]["text"].as_str().ok_or("the result has no text")?;
    (said == text).then_some(()).ok_or_else(|| "the text is another".into())
}

fn lists(result: &Value, prefix: &str) -> Result<(), String> {
    let tools = result["tools"].as_array().ok_or("the result has no tools")?;
    let name = |tool: &Value| tool["name"].as_str().unwrap_or_default().to_owned();
    // A gateway may add tools of its own under another prefix.
    let ours: Vec<&Value> = tools.iter().filter(|tool| name(tool).starts_with(prefix)).collect();
    let echo = format!("{prefix}echo");
    if ours.len() != TOOLS || !ours.iter().any(|tool| name(tool) == echo) {
        return Err(format!("there are {} tools, not {TOOLS}, or {echo} is not among them", ours.len()));
    }
    let whole =
        ours.iter().all(|tool| tool["inputSchema"]["type"] == "object" && tool["description"].is_string());
    whole.then_some(()).ok_or_else(|| "a tool has lost its schema or its description".into())
}

/// The JSON-RPC message of an answer, which may also come as the last event of a stream.
pub fn message(answer: &Message) -> Result<Value, String> {
    let streamed = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let body = if streamed {
        let lines = answer.body.split(|&byte| byte == b'\n');
        lines.filter_map(|line| line.strip_prefix(b"data:")).next_back().unwrap_or_default()
    } else {
        &answer.body
    };
    serde_json::from_slice(body).map_err(|error| format!("it is no JSON ({error})"))
}

/// What a modern request says about itself, in `params._meta`.
fn envelope() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "hop", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// The two messages that open a session.
pub fn handshake() -> (Value, Value) {
    let client = json!({"name": "hop", "version": "1"});
    let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client});
    (
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    )
}

pub fn post(target: Target, headers: &str, body: &str) -> Vec<u8> {
    let kinds = "Content-Type: application/json\r\nAccept: application/json, text/event-stream";
    let headers = format!("{}{headers}", target.proof);
    let rest = format!("{kinds}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
    format!("POST {} HTTP/1.1\r\nHost: {}\r\n{rest}", target.path, target.address).into_bytes()
}

/// What the tool `large` appends: lines of text with the quotes and line ends of real results.
pub fn filler() -> String {
    let line = "\n{\"path\": \"src/router/catalog.rs\", \"line\": 118, \"text\": \"let page = merged.slice(from..to);\"}";
    line.chars().cycle().take(LARGE).collect()
}
