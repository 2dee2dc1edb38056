//! The OpenRouter simulator from outside: what is on the wire, and what is in its journal.

mod catalogue;
mod faults;
mod keys;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use waystation::simulator::{Entry, KEY, Settings, Simulator};

const TOKEN: &str = "control";
const MODEL: &str = "acme/atlas-70b";
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A simulator, and a client that shows every byte.
struct Rig {
    simulator: Simulator,
}

/// An answer as it came.
struct Answer {
    status: u16,
    head: String,
    /// Without the framing of HTTP, as far as it came.
    body: Vec<u8>,
    /// How HTTP's own framing ended; a reset, or an end too soon, is an error.
    end: io::Result<()>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {}", self.text()))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// What stands after `data: `, line by line.
    fn data(&self) -> Vec<String> {
        self.text().lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    /// All events that are JSON.
    fn events(&self) -> Vec<Value> {
        self.data().iter().filter_map(|data| serde_json::from_str(data).ok()).collect()
    }

    /// The text that the events have brought.
    fn said(&self) -> String {
        let events = self.events();
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
    }
}

impl Rig {
    async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let settings = Settings { control: Some(TOKEN.to_owned()), ..settings };
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        Self { simulator: Simulator::start(settings, address).await.unwrap() }
    }

    /// Sends a request, and leaves the connection open.
    async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.simulator.address()).await.unwrap();
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: sim\r\nconnection: close\r\n");
        text += &format!("content-length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
        stream.write_all(format!("{text}\r\n{body}").as_bytes()).await.unwrap();
        stream
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = self.open(method, path, headers, body).await;
        let mut bytes = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("no end of it");
        taken_apart(&bytes, end.map(drop))
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", &format!("/api/v1/{path}"), &[("authorization", &bearer(KEY))], "").await
    }

    async fn chat(&self, body: &Value, headers: &[(&str, &str)]) -> Answer {
        let authorization = bearer(KEY);
        let mut all = vec![("authorization", authorization.as_str())];
        all.extend_from_slice(headers);
        self.send("POST", "/api/v1/chat/completions", &all, &body.to_string()).await
    }

    /// A stream of the answer to one text.
    async fn stream(&self, text: &str) -> Answer {
        self.chat(&said(text, true), &[]).await
    }

    /// The same without a stream.
    async fn whole(&self, text: &str) -> Answer {
        self.chat(&said(text, false), &[]).await
    }

    async fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        self.send(method, &format!("/__sim/{path}"), &[("x-sim-token", TOKEN)], &body.to_string())
            .await
            .json()
    }

    fn last(&self) -> Entry {
        self.simulator.journal().pop().unwrap()
    }

    /// The last request's entry, once its end is noted.
    async fn ended(&self) -> Entry {
        for _ in 0..6000 {
            let last = self.last();
            if last.done_at.or(last.client_gone_at).is_some() {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never ended: {:?}", self.last());
    }
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

fn said(text: &str, stream: bool) -> Value {
    json!({ "model": MODEL, "stream": stream, "messages": [{ "role": "user", "content": text }] })
}

/// Head and body of an answer, and whether it is whole.
fn taken_apart(bytes: &[u8], end: io::Result<()>) -> Answer {
    let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Answer { status: 0, head: String::new(), body: bytes.to_vec(), end };
    };
    let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let rest = &bytes[at + 4..];
    let (body, whole) = match head.contains("transfer-encoding: chunked") {
        true => dechunked(rest),
        false => (rest.to_vec(), true),
    };
    let end = if whole { end } else { end.and(Err(io::ErrorKind::UnexpectedEof.into())) };
    Answer { status, head, body, end }
}

fn dechunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|window| window == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, true);
        }
        let data = &rest[line + 2..];
        body.extend_from_slice(&data[..size.min(data.len())]);
        let Some(after) = data.get(size + 2..) else { break };
        rest = after;
    }
    (body, false)
}

/// What differs between two runs, though nothing else does: when they were.
fn timeless(text: &str) -> String {
    let mut out = String::new();
    for part in text.split_inclusive(|letter: char| !letter.is_ascii_digit()) {
        let digits = part.chars().take_while(char::is_ascii_digit).count();
        out += if digits == 10 { &part[10..] } else { part };
    }
    out
}

#[tokio::test]
async fn an_answer_is_streamed_as_openrouter_streams_it() {
    let rig = Rig::new().await;
    let answer = rig.stream("hello").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let id = answer.events()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("x-generation-id"), Some(id.to_lowercase().as_str()));
    let text = answer.text();
    assert!(text.starts_with(": OPENROUTER PROCESSING\n\n: OPENROUTER PROCESSING\n\ndata: {"), "{text}");
    assert_eq!(text.matches(": OPENROUTER PROCESSING\n\n").count(), 3);
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let events = answer.events();
    let finish: Vec<_> =
        events.iter().filter(|event| !event["choices"][0]["finish_reason"].is_null()).collect();
    assert_eq!((finish.len(), &finish[0]["choices"][0]["finish_reason"]), (1, &json!("stop")));
    let last = events.last().unwrap();
    assert_eq!(last["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    // Every event but the last two is a token.
    assert_eq!(last["usage"]["completion_tokens"], events.len() - 2);
    assert_eq!(last["usage"]["prompt_tokens"], 3 + 4 + 2);
    let whole = rig.whole("hello").await.json();
    assert_eq!(whole["choices"][0]["message"]["content"], answer.said());
    assert_eq!(whole["usage"], last["usage"]);
    assert!(whole["system_fingerprint"].is_null() && whole["choices"][0]["logprobs"].is_null());
}

#[tokio::test]
async fn the_same_seed_gives_the_same_bytes() {
    let mut seen = Vec::new();
    for seed in [7, 7, 8] {
        let rig = Rig::with(Settings { seed, ..Settings::default() }).await;
        let mut text = String::new();
        for words in ["hello", "[[sim:words n=40]]", "[[sim:flaky p=0.5]] a", "[[sim:flaky p=0.5]] b"] {
            let answer = rig.stream(words).await;
            text += &format!("{} {}", answer.status, timeless(&answer.text()));
        }
        let warm =
            json!({ "model": MODEL, "temperature": 1, "messages": [{ "role": "user", "content": "x" }] });
        text += &timeless(&rig.chat(&warm, &[]).await.text());
        seen.push(text);
    }
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[0], seen[2]);
}

#[tokio::test]
async fn http2_is_spoken_too() {
    let rig = Rig::new().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let post = |text: &str| {
        let url = format!("{}/chat/completions", rig.simulator.base_url());
        client.post(url).bearer_auth(KEY).json(&said(text, true)).send()
    };
    let answer = post("hello").await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_2);
    assert!(answer.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    // A stream that breaks does not break the others.
    assert!(post("[[sim:reset]]").await.unwrap().text().await.is_err());
    assert!(post("again").await.unwrap().text().await.is_ok());
}

#[tokio::test]
async fn lists_come_compressed_and_only_when_they_are_new() {
    let rig = Rig::new().await;
    let plain = rig.get("models").await;
    let small = rig.send("GET", "/v1/models", &[("accept-encoding", "gzip")], "").await;
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    assert!(small.body.len() * 4 < plain.body.len(), "{} of {}", small.body.len(), plain.body.len());
    let tag = plain.header("etag").unwrap();
    let again = rig.send("GET", "/api/v1/models", &[("if-none-match", tag)], "").await;
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[tokio::test]
async fn costs_are_exact_in_answers_journal_and_generation() {
    let rig = Rig::new().await;
    let answer =
        rig.chat(&said("[[sim:words n=100]]", false), &[("http-referer", "https://a.invalid/")]).await.json();
    let (prompt, completion) = (&answer["usage"]["prompt_tokens"], &answer["usage"]["completion_tokens"]);
    // In millionths of a dollar and a half of them, so that the sum is one of whole numbers.
    let halves = prompt.as_u64().unwrap() * 3 + completion.as_u64().unwrap() * 12;
    let entry = rig.ended().await;
    let expected = format!("{:.7}", f64::from(u32::try_from(halves).unwrap()) / 2_000_000.0);
    assert_eq!(entry.cost, expected.trim_end_matches('0'));
    assert_eq!(answer["usage"]["cost"].as_f64().unwrap(), entry.cost.parse::<f64>().unwrap());
    assert!(entry.billed && rig.simulator.stats().cost == entry.cost);
    assert_eq!(rig.simulator.stats().under_way, 0);
    let id = entry.generation_id.unwrap();
    let told = rig.get(&format!("generation?id={id}")).await.json();
    assert_eq!(
        (&told["data"]["total_cost"], &told["data"]["cancelled"]),
        (&answer["usage"]["cost"], &json!(false))
    );
    assert_eq!(told["data"]["http_referer"], "https://a.invalid/");
    let free = json!({ "model": "acme/atlas-8b:free", "messages": [{ "role": "user", "content": "x" }] });
    assert_eq!(rig.chat(&free, &[]).await.json()["usage"]["cost"], 0.0);
    let entry = rig.ended().await;
    assert_eq!((entry.billed, entry.cost.as_str()), (true, "0"));
}

#[tokio::test]
async fn what_is_known_of_a_generation_comes_late() {
    let generation_delay = Duration::from_secs(300);
    let rig = Rig::with(Settings { generation_delay, ..Settings::default() }).await;
    let body = json!({
        "model": MODEL, "user": "u-1", "session_id": "s-1",
        "messages": [{ "role": "user", "content": "x" }],
    });
    let id = rig.chat(&body, &[]).await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(rig.get(&format!("generation?id={id}")).await.status, 404);
    rig.control("POST", "clock/advance", &json!({ "ms": 301_000 })).await;
    let told = rig.get(&format!("generation?id={id}")).await.json();
    assert_eq!((&told["data"]["external_user"], &told["data"]["session_id"]), (&json!("u-1"), &json!("s-1")));
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed_and_pays_for_what_it_got() {
    let rig = Rig::new().await;
    let cases = [
        (said("[[sim:stall after=4]]", true), 4),
        (said("[[sim:stall after=4 comments=off]]", true), 4),
        // Its provider goes on to the end, and the end is what is paid for.
        (
            json!({ "model": "acme/atlas-14b", "stream": true, "messages": [{ "role": "user", "content": "[[sim:stall after=4]]" }] }),
            11,
        ),
        (said("[[sim:slow-tokens ms=60000]]", false), 13),
        (said("[[sim:stall after=0]]", true), 0),
    ];
    for (body, tokens) in cases {
        let authorization = bearer(KEY);
        let headers = [("authorization", authorization.as_str())];
        let mut stream = rig.open("POST", "/api/v1/chat/completions", &headers, &body.to_string()).await;
        // Until it stalls; an answer that is not streamed has not begun by then.
        let mut seen = String::new();
        while body["stream"] == true && seen.matches("data: ").count() < tokens.min(4) {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            seen += &String::from_utf8_lossy(&bytes[..count]);
        }
        while rig.simulator.stats().under_way == 0 || rig.last().body.is_null() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(stream);
        let entry = rig.ended().await;
        assert!(entry.client_gone_at.is_some() && entry.done_at.is_none(), "{entry:?}");
        assert_eq!(entry.billed, tokens > 0, "{entry:?}");
        let id = entry.generation_id.clone().unwrap();
        let told = rig.get(&format!("generation?id={id}")).await.json();
        assert_eq!(told["data"]["cancelled"], true);
        let count = told["data"]["tokens_completion"].as_u64().unwrap();
        assert!(count == tokens as u64 || tokens > 10 && count > 4, "{count} tokens of {body}");
    }
}

#[tokio::test]
async fn the_control_plane_wants_its_token_and_scripts_requests() {
    let rig = Rig::new().await;
    assert_eq!(rig.send("GET", "/__sim/stats", &[], "").await.status, 401);
    assert_eq!(rig.send("GET", "/__sim/stats", &[("x-sim-token", "contro")], "").await.status, 401);
    let rules = json!({ "rules": [
        { "match": { "path": "/models" }, "scenario": "html-502" },
        { "match": { "contains": "needle", "nth": 2 }, "scenario": "529", "params": { "times": 2 } },
    ] });
    assert_eq!(rig.control("POST", "script", &rules).await, json!({ "queued": 2 }));
    let mut seen = Vec::new();
    for text in ["needle", "hay", "needle", "needle", "needle"] {
        seen.push(rig.whole(text).await.status);
    }
    assert_eq!(seen, [200, 200, 529, 529, 200]);
    assert_eq!((rig.get("models").await.status, rig.get("models").await.status), (502, 200));
    let wrong = rig.control("POST", "script", &json!({ "scenario": "nonsense" })).await;
    assert!(wrong["error"]["message"].as_str().unwrap().contains("nonsense"));
    let journal = rig.control("GET", "journal?since=5", &Value::Null).await;
    let entries = journal["entries"].as_array().unwrap();
    assert_eq!((entries.len(), &entries[0]["scenario"]), (2, &json!("html-502")));
    assert!(!journal.to_string().contains(KEY), "{journal}");
    assert_eq!(rig.simulator.stats().requests, 7);
    rig.control("POST", "reset", &Value::Null).await;
    assert!(rig.simulator.journal().is_empty());
    let closed = Simulator::start(Settings::default(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let answer = reqwest::get(format!("http://{}/__sim/stats", closed.address())).await.unwrap();
    assert_eq!(answer.status(), 404);
}

#[tokio::test]
async fn it_listens_on_this_machine_alone_and_ends_when_it_is_dropped() {
    let why = Simulator::start(Settings::default(), "0.0.0.0:0".parse().unwrap()).await.unwrap_err();
    assert!(why.to_string().contains("0.0.0.0"), "{why}");
    let rig = Rig::new().await;
    let address = rig.simulator.address();
    let mut stream =
        rig.open("GET", "/api/v1/models", &[("x-sim-scenario", "slow-headers;ms=600000")], "").await;
    drop(rig);
    let mut left = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut left)).await.unwrap();
    assert!(left.is_empty(), "{ended:?}");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn requests_too_large_and_paths_unknown_are_refused_in_openrouters_words() {
    let rig = Rig::new().await;
    let nothing = json!({ "error": { "message": "Resource not found", "code": 404 } });
    assert_eq!(rig.get("nothing").await.json(), nothing);
    assert_eq!(rig.send("GET", "/", &[], "").await.json(), nothing);
    assert_eq!(rig.send("DELETE", "/api/v1/models", &[], "").await.status, 405);
    assert_eq!(rig.get("chat/completions").await.status, 405);
    let key = bearer(KEY);
    for body in [
        "{",
        "{}",
        r#"{"messages":[]}"#,
        r#"{"messages":[{"role":"cat","content":"x"}]}"#,
        r#"{"messages":3}"#,
    ] {
        let answer = rig.send("POST", "/api/v1/chat/completions", &[("authorization", &key)], body).await;
        assert_eq!(answer.status, 400, "{body}");
    }
    assert_eq!(
        rig.chat(&json!({ "model": "no/such", "messages": [{ "role": "user", "content": "x" }] }), &[])
            .await
            .status,
        400
    );
    let length = (64_usize << 20) + 1;
    let mut stream = TcpStream::connect(rig.simulator.address()).await.unwrap();
    let head = format!(
        "POST /api/v1/chat/completions HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(taken_apart(&bytes, end.map(drop)).status, 413);
}

#[tokio::test]
async fn other_endpoints_answer_and_are_paid_for() {
    let rig = Rig::new().await;
    let key = bearer(KEY);
    let post = async |path: &str, body: Value| {
        rig.send("POST", &format!("/api/v1/{path}"), &[("authorization", &key)], &body.to_string())
            .await
            .json()
    };
    let vectors =
        post("embeddings", json!({ "model": "acme/embed-small", "input": ["a", "b"], "dimensions": 8 }))
            .await;
    assert_eq!(vectors["data"][1]["embedding"].as_array().unwrap().len(), 8);
    assert!(rig.ended().await.billed);
    let packed =
        post("embeddings", json!({ "model": "acme/embed-small", "input": "a", "encoding_format": "base64" }))
            .await;
    assert_eq!(packed["data"][0]["embedding"].as_str().unwrap().len(), 1368);
    let ranked = post(
        "rerank",
        json!({ "model": "acme/rerank-1", "query": "b c", "documents": ["a", "b"], "top_n": 1 }),
    )
    .await;
    assert_eq!(
        ranked["results"],
        json!([{ "index": 1, "relevance_score": 0.5, "document": { "text": "b" } }])
    );
    let painted = post("images", json!({ "model": "acme/atlas-image", "prompt": "sea", "n": 2 })).await;
    assert_eq!(painted["data"].as_array().unwrap().len(), 2);
    assert!(painted["data"][0]["b64_json"].as_str().unwrap().starts_with("iVBORw0KGgo"));
    assert_eq!(rig.ended().await.cost.parse::<f64>().unwrap(), painted["usage"]["cost"].as_f64().unwrap());
    for path in [
        "benchmarks",
        "datasets/rankings-daily",
        "datasets/app-rankings",
        "providers",
        "endpoints/zdr",
        "images/models",
        "embeddings/models",
    ] {
        assert!(!rig.get(path).await.json()["data"].as_array().unwrap().is_empty(), "{path}");
    }
    assert!(rig.get("classifications/task").await.json()["data"]["classifications"].is_array());
}
