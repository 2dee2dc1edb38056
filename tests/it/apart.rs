//! Does a question that comes apart from its call reach the client whose call it must be, and else nobody?

use serde_json::{Value, json};

use crate::{
    fake::{Era, Fake},
    support::{Gateway, Session},
};

const LEGACY: &str = "2025-11-25";

/// Has the tool `ask` ask on the session's own stream.
fn question(note: &str) -> Value {
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    let params = json!({ "message": note, "requestedSchema": schema });
    json!({ "method": "elicitation/create", "params": params, "apart": true })
}

/// The same once it is let.
fn later(note: &str) -> Value {
    let mut question = question(note);
    question["wait"] = json!(true);
    question
}

fn accept() -> Value {
    json!({ "action": "accept", "content": { "name": "Ada" } })
}

/// What the tool says came back to it.
fn given(response: &Value) -> Value {
    let text = response["result"]["content"][0]["text"].as_str();
    serde_json::from_str(text.unwrap_or_else(|| panic!("no text: {response}"))).unwrap()
}

/// Calls the tool, answers its question, and gives the question and the response.
async fn asked(session: &Session, tool: &str, arguments: Value) -> (Value, Value) {
    let mut open = session.call(tool, arguments).open().await;
    let question = open.message().await.expect("a question");
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": accept() });
    assert_eq!(session.post(answer.to_string()).send().await.status, 202);
    (question, open.last().await.expect("a response"))
}

#[tokio::test]
async fn a_question_on_the_sessions_own_stream_is_of_the_only_call_under_way() {
    for sse in [true, false] {
        let old = Fake::builder().era(Era::Legacy).sse(sse).start().await;
        let gateway = Gateway::with("").backend("old", &old).start().await;
        let session = gateway.legacy_asked(LEGACY).await;
        for note in ["first", "second"] {
            let (question, response) = asked(&session, "old__ask", question(note)).await;
            assert_eq!(question["params"]["message"], note);
            assert_eq!(given(&response)["result"], accept(), "events: {sse}");
        }
        let capabilities = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": {} } });
        let mut call = json!({ "name": "old__ask", "arguments": question("modern"), "_meta": capabilities });
        let first = gateway.modern("tools/call", call.clone()).send().await.result();
        assert_eq!(first["inputRequests"]["question-1"]["params"]["message"], "modern", "{first}");
        call["inputResponses"] = json!({ "question-1": accept() });
        call["requestState"] = first["requestState"].clone();
        let second = gateway.modern("tools/call", call).send().await.response();
        assert_eq!(given(&second)["result"], accept(), "events: {sse}");
    }
}

#[tokio::test]
async fn a_question_that_may_be_of_either_of_two_calls_is_refused() {
    for sse in [true, false] {
        let old = Fake::builder().era(Era::Legacy).sse(sse).start().await;
        let gateway = Gateway::with("").backend("old", &old).start().await;
        let (one, two) = (gateway.legacy_asked(LEGACY).await, gateway.legacy_asked(LEGACY).await);
        let both = async {
            tokio::join!(
                one.call("old__ask", later("one")).send(),
                two.call("old__ask", later("two")).send(),
                async {
                    old.until_seen("tools/call", 2).await;
                    old.let_ask();
                },
            )
        };
        let (one_hears, two_hears, ()) = both.await;
        for heard in [one_hears, two_hears] {
            let messages = heard.messages();
            assert_eq!(messages.len(), 1, "nothing but the response: {messages:?}");
            assert_eq!(given(&messages[0])["error"]["code"], -32601, "{messages:?}");
        }
        let calls = old.seen_of("tools/call");
        let session = |index: usize| calls[index].headers.get("mcp-session-id");
        assert_eq!(session(0), session(1), "they were under way in one session");
        // When one is alone again, the question is its own.
        let (_, response) = asked(&one, "old__ask", question("alone")).await;
        assert_eq!(given(&response)["result"], accept());
    }
}

#[tokio::test]
async fn the_late_question_of_a_call_that_was_given_up_reaches_nobody() {
    let (old, pair) = (Fake::builder().era(Era::Legacy).sse(true), Fake::builder().era(Era::Legacy));
    let (old, pair) = (old.start().await, pair.start().await);
    let gateway = Gateway::with("").backend("old", &old);
    let gateway = gateway.server("pair", &pair.sse_url(), "transport = \"sse\"").start().await;
    for (backend, fake) in [("old", &old), ("pair", &pair)] {
        let (one, two) = (gateway.legacy_asked(LEGACY).await, gateway.legacy_asked(LEGACY).await);
        let ask = format!("{backend}__ask");
        let call = json!({ "name": ask, "arguments": later("given up") });
        let given_up = one.message(json!("mine"), "tools/call", call);
        let waiting = tokio::spawn(given_up.send());
        fake.until_seen("tools/call", 1).await;
        one.cancel("mine").await;
        fake.until_seen("notifications/cancelled", 1).await;
        waiting.abort();
        // Another call is the only one now; but the server is not done with the first.
        let slow = two.call(&format!("{backend}__slow"), json!({})).send();
        let (heard, ()) = tokio::join!(slow, async {
            fake.until_running(1).await;
            let before = fake.seen().len();
            fake.let_ask();
            fake.until("a refusal", |fake| fake.seen()[before..].iter().any(|seen| seen.method.is_empty()))
                .await;
            let refused = fake.seen().into_iter().rfind(|seen| seen.method.is_empty()).expect("it is there");
            assert_eq!(refused.body["error"]["code"], -32601, "{backend}: {}", refused.body);
            fake.release();
        });
        let messages = heard.messages();
        assert_eq!(messages.len(), 1, "{backend}: nothing but the response: {messages:?}");
        // From now on nobody would know whose a question is there, so the next call gets another connection.
        let (question, response) = asked(&two, &ask, question("own")).await;
        assert_eq!(question["params"]["message"], "own");
        assert_eq!(given(&response)["result"], accept(), "{backend}");
    }
}
