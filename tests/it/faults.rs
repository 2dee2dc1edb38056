//! Whatever a server does wrong: what does its caller get, and does it cost anybody else anything?
//!
//! T12 and T13: each fault over each transport on which there is such a thing. What a row is to end with
//! stands beside it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    crowd::{
        between,
        http1::{Connection, chunk},
        number_after,
    },
    fake::{Era, Fake},
    support::{Answer, Gateway, UNLIMITED, battery::Battery, until, until_ok},
};

/// How a call is to end.
#[derive(Debug, Clone, Copy)]
enum Ends {
    /// With the answer that has this text.
    Well(&'static str),
    /// With an error of this code that says this.
    With(i64, &'static str),
}

use Ends::{Well, With};

impl Ends {
    fn is(self, answer: &Answer) -> bool {
        let response = answer.response();
        match self {
            Well(text) => {
                response["result"]["content"][0]["text"].as_str().is_some_and(|said| said.contains(text))
            }
            With(code, words) => {
                let said = response["error"]["message"].as_str().unwrap_or_default();
                response["error"]["code"] == code && said.contains(words) && !said.contains("127.0.0.1")
            }
        }
    }
}

/// Of the fake's faults, how each ends as JSON and as events.
const OVER_HTTP: [(&str, Ends, Ends); 30] = [
    ("reset", With(502, "may have run"), With(502, "may have run")),
    ("hang_body", With(504, "no sign of life"), With(504, "no sign of life")),
    ("drip", Well("good"), Well("good")),
    ("truncated", With(502, "not JSON"), With(502, "not JSON")),
    ("cut", With(502, "cut off"), With(502, "cut off")),
    ("no_answer", With(502, "without an answer"), With(502, "without an answer")),
    ("html", With(502, "text/html"), With(502, "text/html")),
    ("no_content", With(502, "HTTP 204"), With(502, "HTTP 204")),
    ("wrong_type", With(502, "text/plain"), With(502, "text/plain")),
    ("gzip", With(502, "gzip"), With(502, "gzip")),
    ("redirect", With(502, "HTTP 307"), With(502, "HTTP 307")),
    ("unauthorized", With(502, "HTTP 401"), With(502, "HTTP 401")),
    ("forbidden", With(502, "HTTP 403"), With(502, "HTTP 403")),
    (
        "too_many",
        With(502, "HTTP 429 Too Many Requests; it says to wait 7 s"),
        With(502, "it says to wait 7 s"),
    ),
    ("broken", With(502, "HTTP 500"), With(502, "HTTP 500")),
    ("unavailable", With(502, "HTTP 503"), With(502, "HTTP 503")),
    ("not_jsonrpc", With(502, "no response"), With(502, "no response")),
    ("both", With(502, "no response"), With(502, "no response")),
    ("neither", With(502, "no response"), With(502, "no response")),
    ("wrong_id", With(502, "was not asked"), With(502, "was not asked")),
    ("id_as_text", With(502, "was not asked"), With(502, "was not asked")),
    ("twice", Well("second"), Well("good")),
    ("stranger", Well("good"), With(502, "was not asked")),
    ("asks", Well("good"), With(502, "sent a request")),
    ("unknown_kind", With(502, "unknown kind"), With(502, "unknown kind")),
    ("foreign", Well("good"), Well("good")),
    ("oversize", With(502, "16 MiB"), With(502, "event stream")),
    ("endless_line", With(502, "event stream"), With(502, "event stream")),
    ("deep", With(502, "not JSON"), With(502, "not JSON")),
    ("fails", With(4711, "failed as asked"), With(4711, "failed as asked")),
];

/// Lines that a child writes when it is called; `@ID` is the request's.
const OVER_PIPES: [(&str, &str, bool, Ends); 13] = [
    ("not_jsonrpc", r#"{"id":@ID,"result":{}}"#, false, With(502, "is not a JSON-RPC message")),
    (
        "both",
        r#"{"jsonrpc":"2.0","id":@ID,"result":{},"error":{"code":1,"message":"x"}}"#,
        false,
        With(502, ""),
    ),
    ("neither", r#"{"jsonrpc":"2.0","id":@ID}"#, false, With(502, "")),
    ("truncated", r#"{"jsonrpc":"2.0","id":@ID,"result":{"#, false, With(502, "")),
    ("list", r#"{"jsonrpc":"2.0","id":@ID,"result":[]}"#, false, With(502, "no object")),
    (
        "unknown_kind",
        r#"{"jsonrpc":"2.0","id":@ID,"result":{"resultType":"riddle"}}"#,
        false,
        With(502, "unknown kind"),
    ),
    (
        "request",
        r#"{"jsonrpc":"2.0","id":1,"method":"sampling/createMessage"}"#,
        false,
        With(502, "sent a request"),
    ),
    // Right after it comes the right answer.
    ("wrong_id", r#"{"jsonrpc":"2.0","id":999999,"result":{"content":[]}}"#, true, Well("good")),
    ("id_as_text", r#"{"jsonrpc":"2.0","id":"@ID","result":{"content":[]}}"#, true, Well("good")),
    ("stranger", r#"{"jsonrpc":"2.0","id":"x","result":{"content":[]}}"#, true, Well("good")),
    ("banner", "Listening on stdio", true, Well("good")),
    (
        "foreign",
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"x","progress":1}}"#,
        true,
        Well("good"),
    ),
    (
        "twice",
        r#"{"jsonrpc":"2.0","id":@ID,"result":{"resultType":"complete","content":[{"type":"text","text":"first"}]}}"#,
        true,
        Well("first"),
    ),
];

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_of_a_server_ends_as_it_is_to_and_costs_nobody_else_anything() {
    let battery = Battery::new("T13");
    let json = Fake::builder().era(Era::Modern).with_faults().start().await;
    let events = Fake::builder().era(Era::Modern).sse(true).with_faults().start().await;
    let well = Fake::builder().era(Era::Modern).start().await;
    let raw = raw_server().await;
    let deadlines = "[deadline.tools]\n\"*__hang*\" = { idle = \"300ms\" }\n\"*__silent\" = { idle = \"300ms\" }\n\
                     \"raw__endless\" = { total = \"700ms\" }\n";
    let gateway = Gateway::with(&format!("{UNLIMITED}{deadlines}"))
        .backend("json", &json)
        .backend("events", &events)
        .backend("well", &well)
        .server("raw", &format!("http://{raw}/mcp"), "era = \"modern\"\ntransport = \"streamable\"")
        .stdio("pipe", &["--era", "modern"])
        .start()
        .await;
    for (fault, as_json, as_events) in OVER_HTTP {
        for (backend, ends) in [("json", as_json), ("events", as_events)] {
            let arguments = json!({ "every_ms": 1, "bytes": 17 << 20 });
            let answer = gateway.call(&format!("{backend}__{fault}"), arguments).send().await;
            battery.row(format!("{backend}/{fault}"), ends.is(&answer), short(&answer));
        }
    }
    for (fault, line, then, ends) in OVER_PIPES {
        let answer = gateway.call("pipe__raw", json!({ "hex": hex(line), "then": then })).send().await;
        // Where it says `good`, the fake does.
        battery.row(format!("pipe/{fault}"), ends.is(&answer), short(&answer));
    }
    for (fault, ends) in [
        ("flood", Well("flooded")),
        ("endless", With(504, "not done after")),
        ("silent", With(504, "no sign of life")),
        ("half", With(502, "may have run")),
        ("crossed", Well("crossed")),
    ] {
        let mut params = json!({ "name": format!("raw__{fault}"), "arguments": {} });
        params["_meta"] = json!({ "progressToken": 1 });
        let answer = gateway.modern("tools/call", params).send().await;
        battery.row(format!("raw/{fault}"), ends.is(&answer), short(&answer));
    }
    of_children(&battery, &gateway).await;
    until_ok(|| gateway.call("pipe__echo", json!({})).send()).await;
    for backend in ["json", "events", "well"] {
        let answer = gateway.call(&format!("{backend}__echo"), json!({})).send().await;
        battery.row(format!("{backend}/afterwards"), answer.response()["result"].is_object(), short(&answer));
    }
    battery.end(80);
}

fn short(answer: &Answer) -> String {
    answer.text().chars().rev().take(300).collect::<Vec<_>>().into_iter().rev().collect()
}

/// How children end, and what they write too much of.
async fn of_children(battery: &Battery, gateway: &Gateway) {
    let call = async |fault: &str, tool: &str, arguments: Value, ends: Ends| {
        until_ok(|| gateway.call("pipe__echo", json!({})).send()).await;
        let answer = gateway.call(tool, arguments).send().await;
        battery.row(format!("pipe/{fault}"), ends.is(&answer), short(&answer));
    };
    let progress = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":@ID,\"progress\":1}}\n";
    let nested = format!(
        "{{\"content\":[],\"structuredContent\":{{\"a\":{}{}}}}}",
        "[".repeat(1000),
        "]".repeat(1000)
    );
    let exit = |code: i32| json!({ "code": code });
    call("exit-0", "pipe__crash", exit(0), With(502, "may have run: the process ended with exit status 0"))
        .await;
    call("exit-1", "pipe__crash", exit(1), With(502, "may have run: the process ended with exit status 1"))
        .await;
    call(
        "segv",
        "pipe__crash",
        json!({ "signal": 11 }),
        With(502, "may have run: the process ended with signal 11"),
    )
    .await;
    let line = json!({ "hex": "78", "repeat": 17 << 20 });
    call("endless_line", "pipe__raw", line, With(502, "a line of over 16 MiB")).await;
    call("deep", "pipe__raw", json!({ "hex": hex(&nested), "as_result": true }), With(502, "")).await;
    let flood = json!({ "hex": hex(progress), "repeat": 50_000, "then": true });
    call("flood", "pipe__raw", flood, Well("good")).await;
    let slow = gateway.call("pipe__slow", json!({})).open().await;
    let received = || gateway.log("pipe").iter().filter(|line| line.contains("\"slow\"")).count();
    until("the call came", || received() > 0).await;
    drop(slow);
    until("the cancellation came", || gateway.log("pipe").iter().any(|line| line.starts_with("cancelled ")))
        .await;
    battery.row("pipe/cancelled", true, "");
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named_with_the_reason() {
    let battery = Battery::new("T12");
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    // Speaks no TLS, and nothing else either.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let deaf = mute.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = mute.accept().await {
            drop(stream);
        }
    });
    let gateway = Gateway::with("")
        .server("refused", &format!("http://{closed}/mcp"), "")
        .server("dns", "http://no-such-host.invalid/mcp", "")
        .server("tls", &format!("https://{deaf}/mcp"), "")
        .server("reset", &format!("http://{deaf}/mcp"), "")
        .lines("[backends.missing]\ncommand = \"no-such-program-anywhere\"\n")
        .start()
        .await;
    let status = gateway.call("waystation__status", json!({})).send().await.result();
    let backends = status["structuredContent"]["backends"].as_array().unwrap().clone();
    for (name, words) in [
        ("refused", "refused; is the server running?"),
        ("dns", "no connection"),
        ("tls", "TLS"),
        ("reset", "the connection"),
        ("missing", "is not on PATH"),
    ] {
        let backend = backends.iter().find(|backend| backend["name"] == name).unwrap();
        let said = backend["problem"].as_str().unwrap_or_default();
        let fine = backend["state"] == "down" && said.contains(words) && !said.contains("127.0.0.1");
        battery.row(name, fine, backend);
    }
    battery.end(5);
}

/// A server of the modern era whose tools do what no HTTP library would.
async fn raw_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream));
        }
    });
    address
}

async fn converse(stream: TcpStream) -> std::io::Result<()> {
    const EVENTS: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut connection = Connection::of(stream);
    loop {
        let mut head = connection.head().await?;
        let text = connection.body(&mut head).await?;
        let id = number_after(&text, "\"id\":").unwrap_or_default();
        let whole = |result: &str| {
            let text = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\",{result}}}}}"
            );
            let length = text.len();
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{text}"
            )
        };
        let tool = head.header("mcp-name").unwrap_or_default().as_bytes().to_vec();
        let content = |text: &str| whole(&format!("\"content\":[{{\"type\":\"text\",\"text\":\"{text}\"}}]"));
        let progress = format!(
            "data: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{id},\"progress\":1}}}}\n\n"
        );
        let answer = match (between(&text, "\"method\":\"", "\""), &tool[..]) {
            (Some(b"server/discover"), _) => {
                whole("\"supportedVersions\":[\"2026-07-28\"],\"capabilities\":{\"tools\":{}},\"ttlMs\":0")
            }
            (Some(b"tools/list"), _) => {
                let tools = ["flood", "endless", "silent", "half", "crossed"];
                let tools = tools
                    .map(|name| format!("{{\"name\":\"{name}\",\"inputSchema\":{{\"type\":\"object\"}}}}"));
                whole(&format!("\"tools\":[{}],\"ttlMs\":0,\"cacheScope\":\"private\"", tools.join(",")))
            }
            (Some(b"tools/call"), b"flood") => {
                connection.send(EVENTS).await?;
                for _ in 0..200 {
                    connection.send(&chunk(progress.repeat(500).as_bytes())).await?;
                }
                let last = content("flooded");
                let last = last.split("\r\n\r\n").last().unwrap_or_default();
                connection.send(&chunk(format!("data: {last}\n\n").as_bytes())).await?;
                connection.send(b"0\r\n\r\n").await?;
                continue;
            }
            (Some(b"tools/call"), b"endless") => {
                connection.send(EVENTS).await?;
                loop {
                    connection.send(&chunk(progress.repeat(10).as_bytes())).await?;
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
            (Some(b"tools/call"), b"silent") => {
                connection.closed().await;
                return Ok(());
            }
            (Some(b"tools/call"), b"half") => {
                connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n").await?;
                return Ok(());
            }
            // The answer of the call, and after it one that nobody asked for, on the same connection.
            (Some(b"tools/call"), b"crossed") => content("crossed") + &content("of-nobody"),
            _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        };
        connection.send(answer.as_bytes()).await?;
    }
}
