//! Is what is no message refused, wherever it stands, and does it go no further?

use serde_json::{Value, json};

use crate::{
    fake::{Era, FAULTS, Fake},
    json::cases::{Text, corpus_of, shapes},
    support::{Answer, Gateway, Post, Session, envelope, pipe::Pipe, session::initialize},
};

const PARSE_ERROR: i64 = -32700;
/// In the words of the gateway alone.
const NOT_JSON: &str = "not a JSON text that every reader reads alike";

/// The five places where a text of a stranger's can stand.
struct Places {
    gateway: Gateway,
    fake: Fake,
    session: Session,
    pipe: Pipe,
    sent: u64,
}

impl Places {
    async fn open() -> Self {
        let fake = Fake::builder().era(Era::Modern).start().await;
        let gateway = Gateway::with("").backend("a", &fake).stdio("child", &[]).start().await;
        let session = gateway.legacy("2025-11-25").await;
        let (pipe, _) = Pipe::greeted(&gateway.waystation, "2025-11-25").await;
        Self { gateway, fake, session, pipe, sent: 0 }
    }

    fn body(&self, text: &[u8]) -> Post {
        self.session.post(text.to_vec())
    }

    fn params(&self, text: &[u8]) -> Post {
        self.session
            .post([br#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":"#, text, b"}"].concat())
    }

    fn arguments(&self, text: &[u8]) -> Post {
        let head = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"_meta":{},"name":"a__echo","arguments":"#,
            envelope()
        );
        self.gateway.call("a__echo", json!({})).body([head.as_bytes(), text, b"}}"].concat())
    }

    /// The answer to a call whose result the server writes so.
    async fn result(&self, text: &[u8]) -> Answer {
        self.fake.answer_raw(text.to_vec());
        self.gateway.call("a__raw", json!({})).send().await
    }

    async fn result_of_child(&self, text: &[u8]) -> Answer {
        let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
        self.gateway.call("child__raw", json!({ "hex": hex, "as_result": true })).send().await
    }

    /// All answers to a text on the pipe, where each line is one.
    async fn line(&mut self, text: &[u8]) -> Vec<Value> {
        self.sent += 1;
        let id = json!(format!("after-{}", self.sent));
        self.pipe.line(text).await;
        self.pipe.say(&json!({ "jsonrpc": "2.0", "id": id, "method": "ping" })).await;
        let mut answers = Vec::new();
        loop {
            let message = self.pipe.next().await.expect("the pipe goes on");
            if message["id"] == id {
                return answers;
            }
            // Lists that change meanwhile are told of as well.
            if message.get("method").is_none() {
                answers.push(message);
            }
        }
    }

    /// Is the text taken for JSON, in each place?
    async fn verdicts(&mut self, text: &[u8]) -> [bool; 5] {
        // The fake has an opinion of its own, in other words; and some texts are more than this client reads.
        let not_json = |answer: Answer| answer.text().contains(NOT_JSON);
        // An object, so that only what stands in it can be wrong.
        let inside = [br#"{"content":[],"x":"#, text, b"}"].concat();
        let result = self.result(&inside).await.text();
        let refused = result.contains("answered with a text that is not JSON");
        assert!(refused || !result.contains("\"error\""), "{result}");
        let line = self.line(text).await;
        [
            !not_json(self.body(text).send().await),
            !not_json(self.params(text).send().await),
            !not_json(self.arguments(text).send().await),
            !refused,
            !line.iter().any(|answer| answer.to_string().contains(NOT_JSON)),
        ]
    }
}

/// The texts of the corpus that this letter stands for.
fn texts(verdict: char, count: usize) -> Vec<Text> {
    let texts = corpus_of(verdict);
    assert_eq!(texts.len(), count, "the corpus is whole");
    texts
}

#[tokio::test]
async fn what_every_parser_must_refuse_is_refused_in_each_place() {
    let mut places = Places::open().await;
    let mut refused = 0;
    places.fake.forget();
    for Text { name, bytes } in texts('n', 188) {
        for (place, post) in [
            ("body", places.body(&bytes)),
            ("params", places.params(&bytes)),
            ("arguments", places.arguments(&bytes)),
        ] {
            assert_eq!(post.send().await.refusal(), (400, PARSE_ERROR), "{name} as {place}");
            refused += 1;
        }
        // Lines that are blank mean nothing, and a text of several lines is several texts.
        let answers = places.line(&bytes).await;
        assert!(answers.iter().all(|answer| answer["error"].is_object()), "{name} as a line: {answers:?}");
        assert!(!answers.is_empty() || bytes.trim_ascii().is_empty(), "{name} as a line");
        refused += 1;
    }
    assert!(places.fake.seen().is_empty(), "none of them went on");
    for Text { name, bytes } in texts('n', 188) {
        let mut answers = vec![places.result(&bytes).await];
        if !bytes.contains(&b'\n') {
            answers.push(places.result_of_child(&bytes).await);
        }
        for answer in answers {
            let said = answer.error()["message"].as_str().unwrap().to_owned();
            assert_eq!(answer.refusal(), (200, 502), "{name} as a result: {said}");
            assert!(said.starts_with("backend ") && said.contains("not"), "{name} as a result: {said}");
            refused += 1;
        }
    }
    println!("{refused} refusals of what must be refused");
    places.gateway.call("a__echo", json!({})).send().await.result();
    places.gateway.call("child__echo", json!({})).send().await.result();
}

#[tokio::test]
async fn what_parsers_may_do_either_with_gets_one_verdict_in_all_places() {
    let mut places = Places::open().await;
    let mut taken = Vec::new();
    for Text { name, bytes } in texts('i', 35) {
        let verdicts = places.verdicts(&bytes).await;
        assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]), "{name}: {verdicts:?}");
        taken.extend(verdicts[0].then_some(name));
    }
    println!("taken of the 35 undecided: {taken:?}");
}

#[tokio::test]
async fn what_every_parser_must_take_is_taken_in_each_place_unless_a_key_stands_twice() {
    let mut places = Places::open().await;
    for Text { name, bytes } in texts('y', 95) {
        let twice = name.starts_with("y_object_duplicated_key");
        let mut verdicts = places.verdicts(&bytes).await;
        if bytes.contains(&b'\n') {
            verdicts[4] = !twice; // Several lines are several texts.
        }
        assert_eq!(verdicts, [!twice; 5], "{name}");
    }
}

#[tokio::test]
async fn what_is_no_message_gets_its_code_over_http_and_on_a_pipe() {
    let mut places = Places::open().await;
    places.fake.forget();
    let shapes = shapes();
    assert!(shapes.len() > 80, "only {} shapes", shapes.len());
    for shape in shapes {
        let bare = places.gateway.post("/mcp", shape.body.clone());
        for (with, post) in [("a session", places.body(&shape.body)), ("none", bare)] {
            assert_eq!(post.send().await.refusal(), (400, shape.code), "{} with {with}", shape.name);
        }
        if !shape.body.contains(&b'\n') && !shape.body.trim_ascii().is_empty() {
            let answers = places.line(&shape.body).await;
            let codes: Vec<_> = answers.iter().map(|answer| answer["error"]["code"].as_i64()).collect();
            assert_eq!(codes, [Some(shape.code)], "{} on a pipe", shape.name);
        }
    }
    assert!(places.fake.seen().is_empty(), "none of them went on");
}

#[tokio::test]
async fn a_refusal_names_the_request_where_its_id_could_be_read() {
    let gateway = Gateway::with("").start().await;
    let said = gateway.post("/mcp", r#"{"jsonrpc":"1.0","id":"x","method":"ping"}"#).send().await;
    assert_eq!(said.response()["id"], "x");
    for body in [r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "{", "[]"] {
        let response = gateway.post("/mcp", body).send().await.response();
        assert_eq!(response.get("id"), None, "{body}: {response}");
    }
    let early = initialize("2025-11-25").to_string().replace("initialize", "tools/list");
    let session = gateway.post("/mcp", early).send().await;
    assert_eq!(session.response()["id"], "hello");
}

/// What the answer to a call of this tool must say; none if it is a right answer after all.
fn expected(fault: &str, era: Era, sse: bool) -> Option<&'static str> {
    let modern = era == Era::Modern;
    Some(match fault {
        "html" => "answered with text/html",
        "wrong_type" => "answered with text/plain",
        "no_content" => "HTTP 204",
        "truncated" | "body" => "not JSON",
        "cut" => "cut off",
        "reset" => "the connection broke",
        "no_answer" => "ended without an answer",
        "hang_body" => "no sign of life",
        "gzip" => "gzip",
        "endless_line" => "over 16777216 bytes",
        "oversize" if sse => "over 16777216 bytes",
        "oversize" => "over 16 MiB",
        "redirect" => "HTTP 307",
        "unauthorized" => "HTTP 401",
        "forbidden" => "HTTP 403",
        "too_many" => "HTTP 429",
        "broken" => "HTTP 500",
        "unavailable" => "HTTP 503",
        "wrong_id" | "id_as_text" => "was not asked",
        "both" | "neither" | "not_jsonrpc" => "no response",
        "unknown_kind" if modern => "unknown kind",
        "deep" => "not JSON",
        "fails" => "failed as asked",
        "asks" if modern && sse => "sent a request",
        "stranger" if sse => "was not asked",
        // Right answers: slow ones, and those whose fault is not the era's or was not sent.
        "drip" | "unknown_kind" | "no_kind" | "twice" | "stranger" | "foreign" | "asks" => return None,
        other => panic!("nothing is said of {other}"),
    })
}

#[tokio::test]
async fn a_server_that_answers_wrongly_is_named_with_what_was_wrong() {
    let deadlines = "[deadline.tools]\n\"*__hang_body\" = { idle = \"300ms\" }";
    for (era, sse) in [(Era::Legacy, false), (Era::Legacy, true), (Era::Modern, false), (Era::Modern, true)] {
        let fake = Fake::builder().era(era).sse(sse).with_faults().start().await;
        let gateway = Gateway::with(deadlines).backend("bad", &fake).start().await;
        let session = gateway.legacy("2025-11-25").await;
        for fault in FAULTS {
            if fault == "asks" && era == Era::Legacy && !sse {
                continue; // It waits for the answer to what it had no way to ask.
            }
            let arguments = json!({ "every_ms": 1, "bytes": 17 << 20 });
            let tool = format!("bad__{fault}");
            for answer in [gateway.call(&tool, arguments.clone()), session.call(&tool, arguments)] {
                let answer = answer.send().await;
                let what = format!(
                    "{fault} of {era:?} with events {sse}: {}",
                    &answer.text()[..answer.text().len().min(400)]
                );
                for leaked in ["set-cookie", "www-authenticate", "location", "content-encoding"] {
                    assert!(!answer.headers.contains_key(leaked), "{what}");
                }
                let Some(words) = expected(fault, era, sse) else {
                    assert!(answer.response()["result"].is_object(), "{what}");
                    continue;
                };
                let error = answer.response()["error"].clone();
                let said = error["message"].as_str().unwrap_or_default();
                assert!(said.contains("bad") || fault == "fails", "{what}");
                assert!(said.contains(words), "{what}");
                assert!(matches!(error["code"].as_i64(), Some(502 | 504 | 4711)), "{what}");
                assert!(!said.contains("127.0.0.1"), "no address is told: {what}");
            }
        }
        gateway.call("bad__echo", json!({})).send().await.result();
    }
}
