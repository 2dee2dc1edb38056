//! Is an answer heard whose event stream ended before it, as 2025-11-25 lets servers end it?

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    fake::{Era, Fake, Seen},
    support::Gateway,
};

const LEGACY: &str = "2025-11-25";

/// Has the tool `body` answer with this text as an event stream.
fn stream(text: &str) -> Value {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    json!({ "type": "text/event-stream", "hex": hex })
}

fn resumptions(fake: &Fake) -> Vec<Seen> {
    fake.seen().into_iter().filter(|seen| seen.headers.contains_key("last-event-id")).collect()
}

/// The event of an answer to the call that came last.
fn answer(fake: &Fake, text: &str) -> String {
    let id = fake.seen_of("tools/call").pop().expect("a call").body["id"].clone();
    let result = json!({ "content": [{ "type": "text", "text": text }] });
    format!("id: last\ndata: {}\n\n", json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

async fn start() -> (Fake, Gateway) {
    let tools = vec![crate::fake::tool("body")];
    let fake = Fake::builder().era(Era::Legacy).sse(true).tools(tools).start().await;
    let gateway = Gateway::with("").backend("a", &fake).start().await;
    (fake, gateway)
}

#[tokio::test]
async fn a_stream_that_ends_before_the_answer_is_gone_on_with_after_the_time_it_said() {
    let (fake, gateway) = start().await;
    let session = gateway.legacy(LEGACY).await;
    let call = session.call("a__body", stream("id: s-1\nretry: 400\ndata: \n\n"));
    let (heard, ()) = tokio::join!(call.send(), async {
        fake.until_seen("tools/call", 1).await;
        fake.answer_later("id: s-2\nretry: 200\ndata: \n\n");
        fake.answer_later(answer(&fake, "at last"));
    });
    assert_eq!(heard.result()["content"][0]["text"], "at last");
    let calls = fake.seen_of("tools/call");
    assert_eq!(calls.len(), 1, "the call was made once");
    let gets = resumptions(&fake);
    let after: Vec<_> = gets.iter().map(|get| get.headers["last-event-id"].to_str().unwrap()).collect();
    assert_eq!(after, ["s-1", "s-2"]);
    assert_eq!(gets[0].verb, "GET");
    assert_eq!(gets[0].headers.get("mcp-session-id"), calls[0].headers.get("mcp-session-id"));
    assert!(gets[0].at - calls[0].at >= Duration::from_millis(400), "not before the time it said");
    assert!(gets[1].at - gets[0].at >= Duration::from_millis(200), "nor the second time");
}

#[tokio::test]
async fn a_stream_that_nobody_knows_any_more_or_never_had_an_id_is_an_error() {
    let (fake, gateway) = start().await;
    let session = gateway.legacy(LEGACY).await;
    for (text, asked) in [("id: s-1\nretry: 100\ndata: \n\n", 1), (": nothing\n\n", 0)] {
        fake.forget();
        let heard = session.call("a__body", stream(text)).send().await;
        assert_eq!(heard.refusal(), (200, 502), "{}", heard.text());
        assert_eq!(resumptions(&fake).len(), asked, "{text:?}");
        assert_eq!(fake.seen_of("tools/call").len(), 1, "a call is never repeated");
    }
}
