//! Which MCP server stands behind every subject?
//!
//! A small one that is strict and fast. It checks what a server checks (sessions, the agreement of
//! headers and body), so a subject cannot win time by leaving something out, and it serves more
//! than any subject can carry, so it is never the reason for a figure. The path says which eras it
//! speaks: `/legacy`, `/modern`, or both at `/mcp`.

use std::{
    borrow::Cow,
    cell::{Cell, RefCell},
    collections::HashSet,
    io::{self, Read, Write},
    net::Ipv4Addr,
    rc::Rc,
};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Value, json, value::RawValue};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{LocalSet, spawn_local},
};

use crate::{
    call::{Era, LEGACY, MODERN, TOOLS, filler},
    http1::{self, Message},
};

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Params<'a>,
}

#[derive(Deserialize, Default)]
struct Params<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Arguments<'a>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Meta<'a>,
}

#[derive(Deserialize, Default)]
struct Arguments<'a> {
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

#[derive(Deserialize, Default)]
struct Meta<'a> {
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    version: Cow<'a, str>,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: Option<IgnoredAny>,
}

/// How a request ends: its HTTP status, a new session if there is one, and `result` or `error` with
/// its text in pieces, so that the long ones are copied only once. No member means no body.
struct Outcome<'s> {
    status: &'static str,
    session: Option<String>,
    member: Option<&'static str>,
    pieces: [Cow<'s, str>; 3],
}

struct Server {
    sessions: RefCell<HashSet<String>>,
    opened: Cell<u64>,
    /// The result of `tools/list`, legacy and modern.
    tools: [String; 2],
    /// [`filler`], ready to stand in a JSON string.
    filler: String,
}

/// Serves until standard input ends, that is until the process that started this one is gone. The
/// first line of standard output is the port.
pub fn serve() -> io::Result<()> {
    std::thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?.port());
        io::stdout().flush()?;
        let server = Rc::new(Server::new());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let server = Rc::clone(&server);
            spawn_local(async move {
                if let Err(error) = server.converse(stream).await {
                    eprintln!("a connection ended: {error}");
                }
            });
        }
    })
}

impl Server {
    fn new() -> Server {
        let tools = Value::Array(tools());
        let modern =
            json!({"resultType": "complete", "ttlMs": 300_000, "cacheScope": "public", "tools": tools});
        Server {
            sessions: RefCell::default(),
            opened: Cell::new(0),
            tools: [json!({"tools": tools}).to_string(), modern.to_string()],
            filler: inside(&filler()),
        }
    }

    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        let (mut input, mut output) = (Vec::with_capacity(16 * 1024), Vec::with_capacity(16 * 1024));
        while stream.read_buf(&mut input).await? > 0 {
            while let Some(frame) = http1::frame(&input).map_err(io::Error::other)? {
                self.answer(&frame.of(&input), &mut output);
                input.drain(..frame.end);
            }
            stream.write_all(&output).await?;
            output.clear();
        }
        Ok(())
    }

    fn answer(&self, request: &Message, output: &mut Vec<u8>) {
        let mut line = request.first_line.split(' ');
        let (verb, path) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
        let only = match path {
            "/mcp" => None,
            "/legacy" => Some(Era::Legacy),
            "/modern" => Some(Era::Modern),
            _ => return write(output, None, &Outcome::empty("404 Not Found")),
        };
        if verb != "POST" {
            let closed = verb == "DELETE" && only != Some(Era::Modern) && self.close(request);
            let status = if closed { "200 OK" } else { "405 Method Not Allowed" };
            return write(output, None, &Outcome::empty(status));
        }
        let Ok(asked) = serde_json::from_slice::<Asked>(&request.body) else {
            return write(output, None, &Outcome::error("400 Bad Request", -32700, "not a request"));
        };
        let modern = match only {
            Some(era) => era == Era::Modern,
            None => {
                !asked.params.meta.version.is_empty()
                    || request.header("mcp-protocol-version") == Some(MODERN)
            }
        };
        let outcome = if modern { self.modern(request, &asked) } else { self.legacy(request, &asked) };
        write(output, asked.id, &outcome);
    }

    fn legacy(&self, request: &Message, asked: &Asked) -> Outcome<'_> {
        if asked.method == "initialize" {
            return self.open();
        }
        match request.header("mcp-session-id") {
            None => return Outcome::error("400 Bad Request", -32000, "no session"),
            Some(session) if !self.sessions.borrow().contains(session) => {
                return Outcome::error("404 Not Found", -32001, "no such session");
            }
            Some(_) => {}
        }
        if request.header("mcp-protocol-version").is_some_and(|version| version != LEGACY) {
            return Outcome::error("400 Bad Request", -32000, "not the version of this session");
        }
        match (&*asked.method, asked.id) {
            (_, None) => Outcome::empty("202 Accepted"),
            ("ping", _) => Outcome::result("{}"),
            ("tools/list", _) => Outcome::result(&*self.tools[0]),
            ("tools/call", _) => self.call(asked, ""),
            _ => Outcome::error("200 OK", -32601, "no such method"),
        }
    }

    fn modern(&self, request: &Message, asked: &Asked) -> Outcome<'_> {
        const BAD: &str = "400 Bad Request";
        let meta = &asked.params.meta;
        if asked.method == "initialize" || !matches!(&*meta.version, "" | MODERN) {
            return Outcome::unsupported(&meta.version);
        }
        if meta.version.is_empty() || meta.capabilities.is_none() {
            return Outcome::error(BAD, -32602, "the envelope is not complete");
        }
        let named = asked.method != "tools/call" || request.header("mcp-name") == Some(&asked.params.name);
        let agrees = request.header("mcp-protocol-version") == Some(MODERN)
            && request.header("mcp-method") == Some(&asked.method)
            && named;
        if !agrees {
            return Outcome::error(BAD, -32020, "headers and body disagree");
        }
        match (&*asked.method, asked.id) {
            (_, None) => Outcome::empty("202 Accepted"),
            ("server/discover", _) => Outcome::discovery(),
            ("tools/list", _) => Outcome::result(&*self.tools[1]),
            ("tools/call", _) => self.call(asked, r#""resultType":"complete","#),
            _ => Outcome::error("404 Not Found", -32601, "no such method"),
        }
    }

    fn call(&self, asked: &Asked, kind: &str) -> Outcome<'_> {
        let rest = match &*asked.params.name {
            "echo" => "",
            "large" => &self.filler,
            _ => return Outcome::error("200 OK", -32602, "unknown tool"),
        };
        let text = inside(&asked.params.arguments.text);
        let start = format!(r#"{{{kind}"content":[{{"type":"text","text":"{text}"#);
        Outcome {
            pieces: [start.into(), rest.into(), r#""}],"isError":false}"#.into()],
            ..Outcome::result("")
        }
    }

    fn open(&self) -> Outcome<'_> {
        self.opened.set(self.opened.get() + 1);
        let session = format!("hop-{:016x}", self.opened.get());
        self.sessions.borrow_mut().insert(session.clone());
        let result = json!({
            "protocolVersion": LEGACY,
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "hop-backend", "version": "1"},
        });
        Outcome { session: Some(session), ..Outcome::result(result.to_string()) }
    }

    fn close(&self, request: &Message) -> bool {
        request.header("mcp-session-id").is_some_and(|session| self.sessions.borrow_mut().remove(session))
    }
}

impl<'s> Outcome<'s> {
    fn empty(status: &'static str) -> Outcome<'s> {
        Outcome { status, session: None, member: None, pieces: Default::default() }
    }

    fn result(text: impl Into<Cow<'s, str>>) -> Outcome<'s> {
        let pieces = [text.into(), "".into(), "".into()];
        Outcome { member: Some("result"), pieces, ..Outcome::empty("200 OK") }
    }

    fn error(status: &'static str, code: i32, message: &str) -> Outcome<'s> {
        let error = json!({"code": code, "message": message}).to_string();
        Outcome { status, member: Some("error"), ..Outcome::result(error) }
    }

    fn unsupported(requested: &str) -> Outcome<'s> {
        let data = json!({"supported": [MODERN], "requested": requested});
        let error = json!({"code": -32022, "message": "unsupported version", "data": data}).to_string();
        Outcome { status: "400 Bad Request", member: Some("error"), ..Outcome::result(error) }
    }

    fn discovery() -> Outcome<'s> {
        let result = json!({
            "resultType": "complete",
            "ttlMs": 300_000,
            "cacheScope": "public",
            "supportedVersions": [MODERN],
            "capabilities": {"tools": {}},
            "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "hop-backend", "version": "1"}},
        });
        Outcome::result(result.to_string())
    }
}

fn write(output: &mut Vec<u8>, id: Option<&RawValue>, outcome: &Outcome) {
    let session = outcome.session.as_ref().map(|id| format!("Mcp-Session-Id: {id}\r\n")).unwrap_or_default();
    let head = format!("HTTP/1.1 {}\r\n{session}", outcome.status);
    output.extend_from_slice(head.as_bytes());
    let Some(member) = outcome.member else {
        return output.extend_from_slice(b"Content-Length: 0\r\n\r\n");
    };
    let start = format!(r#"{{"jsonrpc":"2.0","id":{},"{member}":"#, id.map_or("null", RawValue::get));
    let length = start.len() + outcome.pieces.iter().map(|piece| piece.len()).sum::<usize>() + 1;
    let rest = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{start}");
    output.extend_from_slice(rest.as_bytes());
    for piece in &outcome.pieces {
        output.extend_from_slice(piece.as_bytes());
    }
    output.push(b'}');
}

/// A text as it stands between the quotes of a JSON string.
fn inside(text: &str) -> String {
    let mut quoted = Value::from(text).to_string();
    quoted.pop();
    quoted.remove(0);
    quoted
}

/// The two tools that are called here, and as many as a large real server has.
fn tools() -> Vec<Value> {
    let verbs = ["create", "update", "delete", "get", "list", "search"];
    let nouns =
        ["issue", "branch", "pull_request", "release", "workflow_run", "discussion", "label", "milestone"];
    let others = verbs.iter().flat_map(|verb| nouns.iter().map(move |noun| tool(verb, noun)));
    let text = json!({"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]});
    let own = ["echo", "large"]
        .map(|name| json!({"name": name, "description": "Says the given text again.", "inputSchema": text}));
    own.into_iter().chain(others).take(TOOLS).collect()
}

fn tool(verb: &str, noun: &str) -> Value {
    json!({
        "name": format!("{verb}_{noun}"),
        "title": format!("{verb} {noun}"),
        "description": format!(
            "Use this to {verb} a {noun} of a repository. The caller needs read access at least. \
             Answers with the {noun} as JSON, or with an error that says what is missing."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "owner": {"type": "string", "description": "The account that owns the repository."},
                "repo": {"type": "string", "description": "The name of the repository."},
                "number": {"type": "integer", "minimum": 1, "description": format!("The number of the {noun}.")},
                "state": {"type": "string", "enum": ["open", "closed", "all"], "default": "open"},
                "per_page": {"type": "integer", "minimum": 1, "maximum": 100, "default": 30},
            },
            "required": ["owner", "repo"],
        },
        "annotations": {"readOnlyHint": matches!(verb, "get" | "list" | "search"), "openWorldHint": true},
    })
}
