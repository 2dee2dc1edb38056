//! Does what a backend asks reach the client whose call it is, and nobody else, in every pairing of eras?

use serde_json::{Value, json};

use crate::{
    fake::{Era, Fake},
    support::{Gateway, Post, Session, until},
};

const LEGACY: &str = "2025-11-25";

async fn gateway() -> (Gateway, Fake, Fake) {
    let old = Fake::builder().era(Era::Legacy).sse(true).start().await;
    let new = Fake::builder().era(Era::Modern).start().await;
    let gateway = Gateway::with("").backend("old", &old).backend("new", &new).start().await;
    (gateway, old, new)
}

fn form(note: &str) -> Value {
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    let params = json!({ "mode": "form", "message": "Who?", "requestedSchema": schema });
    json!({ "method": "elicitation/create", "params": params, "note": note })
}

/// A call of a modern client that can be asked all there is.
fn call(gateway: &Gateway, tool: &str, arguments: &Value, more: &Value) -> Post {
    let capabilities = json!({ "elicitation": { "form": {} }, "sampling": {}, "roots": {} });
    let mut params = json!({
        "name": tool, "arguments": arguments,
        "_meta": { "io.modelcontextprotocol/clientCapabilities": capabilities },
    });
    more.as_object().unwrap().iter().for_each(|(key, value)| params[key] = value.clone());
    gateway.modern("tools/call", params)
}

/// What the tool says came back to it.
fn given(result: &Value) -> Value {
    let text = result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {result}"));
    serde_json::from_str(text).unwrap()
}

fn accept(name: &str) -> Value {
    json!({ "action": "accept", "content": { "name": name } })
}

/// Calls `ask` on a session, answers what it asks with `answer`, and gives the response.
async fn asked(session: &Session, tool: &str, arguments: Value, answer: Value) -> Value {
    let mut stream = session.call(tool, arguments).open().await;
    loop {
        let message = stream.message().await.expect("a message");
        if message["method"].is_null() {
            return message;
        }
        let mut response = json!({ "jsonrpc": "2.0", "id": message["id"] });
        response.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
        assert_eq!(session.post(response.to_string()).send().await.status, 202);
    }
}

#[tokio::test]
async fn a_modern_client_answers_in_a_second_round() {
    let (gateway, _old, _new) = gateway().await;
    for backend in ["old", "new"] {
        let tool = format!("{backend}__ask");
        let first = call(&gateway, &tool, &form("a"), &json!({})).send().await.result();
        assert_eq!(first["resultType"], "input_required", "{first}");
        let requests = first["inputRequests"].as_object().expect("requests");
        let (key, request) = requests.iter().next().expect("one request");
        assert_eq!(request["method"], "elicitation/create");
        assert_eq!(request["params"]["message"], "Who?");
        assert!(request.get("id").is_none() && request.get("jsonrpc").is_none(), "{request}");
        let state = first["requestState"].as_str().expect("a state");
        assert!(!state.contains("state of"), "the backend's own state is sealed: {state}");
        let more = json!({ "inputResponses": { key: accept("Ada") }, "requestState": state });
        let second = call(&gateway, &tool, &form("a"), &more).send().await.result();
        assert_eq!(second["resultType"], "complete", "{second}");
        assert_eq!(given(&second)["result"], accept("Ada"), "{backend}");
        if backend == "new" {
            assert_eq!(given(&second)["state"], "state of \"a\"", "it comes back as the backend wrote it");
        }
        let again = call(&gateway, &tool, &form("a"), &more).send().await;
        assert_eq!(again.refusal(), (200, -32602), "a state serves once");
    }
}

#[tokio::test]
async fn a_state_serves_the_call_it_was_given_for_and_no_other() {
    let (gateway, _old, _new) = gateway().await;
    for backend in ["old", "new"] {
        let tool = format!("{backend}__ask");
        let first = call(&gateway, &tool, &form("a"), &json!({})).send().await.result();
        let key = first["inputRequests"].as_object().unwrap().keys().next().unwrap().clone();
        let state = first["requestState"].as_str().unwrap().to_owned();
        let with = |state: &str| json!({ "inputResponses": { &key: accept("Eve") }, "requestState": state });
        let other = format!("{}__ask", if backend == "old" { "new" } else { "old" });
        let mut altered = state.clone().into_bytes();
        altered[30] = if altered[30] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        for (tool, arguments, state) in [
            (&other, form("a"), &state),
            (&format!("{backend}__echo"), form("a"), &state),
            (&tool, form("b"), &state),
            (&tool, form("a"), &altered),
            (&tool, form("a"), &"made-up".to_owned()),
            (&tool, form("a"), &String::new()),
        ] {
            let answer = call(&gateway, tool, &arguments, &with(state)).send().await;
            assert_eq!(answer.refusal(), (200, -32602), "{tool} {arguments} {state}");
        }
        let right = call(&gateway, &tool, &form("a"), &with(&state)).send().await.result();
        assert_eq!(given(&right)["result"], accept("Eve"), "what was tried in vain has not used it up");
    }
}

#[tokio::test]
async fn a_state_is_used_once_even_over_a_restart() {
    let new = Fake::builder().era(Era::Modern).start().await;
    let folder = tempfile::tempdir().unwrap();
    let setup = || Gateway::with("").backend("new", &new).store(folder.path().join("a.db"));
    let gateway = setup().start().await;
    let mut rounds = Vec::new();
    for _ in 0..2 {
        let first = call(&gateway, "new__ask", &form("a"), &json!({})).send().await.result();
        let responses = json!({ "answer": accept("Ada") });
        rounds.push(json!({ "inputResponses": responses, "requestState": first["requestState"] }));
    }
    call(&gateway, "new__ask", &form("a"), &rounds[0]).send().await.result();
    gateway.stop().await;

    let gateway = setup().start().await;
    assert_eq!(call(&gateway, "new__ask", &form("a"), &rounds[0]).send().await.refusal(), (200, -32602));
    let other = call(&gateway, "new__ask", &form("a"), &rounds[1]).send().await.result();
    assert_eq!(given(&other)["result"], accept("Ada"), "one that was not used is still good");
}

#[tokio::test]
async fn a_legacy_client_is_asked_on_its_open_call() {
    let (gateway, _old, _new) = gateway().await;
    let session = gateway.legacy_asked(LEGACY).await;
    for backend in ["old", "new"] {
        let tool = format!("{backend}__ask");
        let response = asked(&session, &tool, form("a"), json!({ "result": accept("Ada") })).await;
        assert_eq!(given(&response["result"])["result"], accept("Ada"), "{backend}");
        let sampling =
            json!({ "method": "sampling/createMessage", "params": { "messages": [], "maxTokens": 1 } });
        let said = json!({ "role": "assistant", "content": { "type": "text", "text": "7" }, "model": "m" });
        let response = asked(&session, &tool, sampling.clone(), json!({ "result": said })).await;
        assert_eq!(given(&response["result"])["result"], said, "{backend}");
        let refused = json!({ "error": { "code": -1, "message": "rather not" } });
        let response = asked(&session, &tool, form("a"), refused.clone()).await;
        assert_eq!(given(&response["result"])["result"], json!({ "action": "cancel" }), "{backend}");
        let response = asked(&session, &tool, sampling, refused).await;
        let text = response.to_string();
        assert!(text.contains("rather not"), "{backend}: {text}");
    }
}

#[tokio::test]
async fn a_page_that_a_server_wants_visited_first_is_an_input_request_to_a_modern_client() {
    let (gateway, old, _new) = gateway().await;
    let page =
        json!({ "mode": "url", "elicitationId": "e1", "url": "https://example.com/", "message": "Sign in" });
    let error = json!({ "code": -32042, "message": "first sign in", "data": { "elicitations": [page] } });
    let meta = json!({ "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "url": {} } } });
    let arguments = json!({ "message": { "error": error } });
    let params = json!({ "name": "old__fails_with", "arguments": arguments, "_meta": meta });
    let first = gateway.modern("tools/call", params.clone()).send().await.result();
    let request = &first["inputRequests"]["question-1"];
    assert_eq!(
        request["params"],
        json!({ "mode": "url", "url": "https://example.com/", "message": "Sign in" })
    );
    let mut again = params;
    again["inputResponses"] = json!({ "question-1": { "action": "accept" } });
    again["requestState"] = first["requestState"].clone();
    old.forget();
    let second = gateway.modern("tools/call", again).send().await.result();
    assert_eq!(second["resultType"], "input_required", "the call was made anew, and wants the same");
    let sent = old.seen_of("tools/call");
    assert!(sent.len() == 1 && sent[0].body["params"].get("inputResponses").is_none(), "{sent:?}");
    let session = gateway.legacy_asked(LEGACY).await;
    let answer = session.call("old__fails_with", arguments).send().await;
    assert_eq!(answer.error()["code"], -32042, "who has the code is given it");
}

#[tokio::test]
async fn nobody_is_asked_what_they_did_not_offer() {
    let (gateway, _old, _new) = gateway().await;
    let session = gateway.legacy(LEGACY).await;
    // A server of the legacy era that asks all the same hears that there is no such method.
    let response = session.call("old__ask", form("a")).send().await.result();
    assert_eq!(given(&response)["error"]["code"], -32601);
    let plain = gateway.call("old__ask", form("a")).send().await.result();
    assert_eq!(given(&plain)["error"]["code"], -32601);
    // One of the modern era has answered with something that cannot be passed on.
    assert_eq!(session.call("new__ask", form("a")).send().await.refusal(), (200, 502));
    assert_eq!(gateway.call("new__ask", form("a")).send().await.refusal(), (200, 502));
}

#[tokio::test]
async fn of_a_thousand_interleaved_questions_each_reaches_the_client_whose_call_it_is() {
    let (old, new) = (
        Fake::builder().era(Era::Legacy).sse(true).start().await,
        Fake::builder().era(Era::Modern).start().await,
    );
    let pair = Fake::builder().era(Era::Legacy).start().await;
    let gateway = Gateway::with("").backend("old", &old).backend("new", &new);
    let gateway = gateway.server("pair", &pair.sse_url(), "transport = \"sse\"").start().await;
    let gateway = &gateway;
    let client = |name: &'static str| async move {
        let session = &gateway.legacy_asked(LEGACY).await;
        let backend = |backend: &'static str| async move {
            for round in 0..170 {
                // All use the same ids, and none of the same names.
                let own = format!("{name}-{backend}-{round}");
                let (tool, answer) = (format!("{backend}__ask"), json!({ "result": accept(&own) }));
                let response = asked(session, &tool, form(&own), answer).await;
                assert_eq!(given(&response["result"])["result"], accept(&own));
            }
        };
        tokio::join!(backend("old"), backend("new"), backend("pair"));
    };
    tokio::join!(client("one"), client("two"));
}

#[tokio::test]
async fn a_backend_hears_that_a_client_has_gone_which_it_had_asked() {
    let (gateway, old, _new) = gateway().await;
    let session = gateway.legacy_asked(LEGACY).await;
    let mut stream =
        session.message(json!("mine"), "tools/call", json!({ "name": "old__ask", "arguments": form("a") }));
    let mut stream = {
        stream = stream.header("x-test", "1");
        stream.open().await
    };
    assert_eq!(stream.message().await.expect("a question")["method"], "elicitation/create");
    session.cancel("mine").await;
    let told = old.until_seen("notifications/cancelled", 1).await;
    let call = old.seen_of("tools/call").pop().expect("the call");
    assert_eq!(told[0].body["params"]["requestId"], call.body["id"]);
}

#[tokio::test]
async fn a_watched_resource_is_watched_once_however_many_watch_it() {
    let resource = json!({ "uri": "test://a", "name": "a" });
    let old = Fake::builder().era(Era::Legacy).resources(vec![resource.clone()]).start().await;
    let gateway = Gateway::with("").backend("old", &old).start().await;
    let (one, two) = (gateway.legacy(LEGACY).await, gateway.legacy(LEGACY).await);
    let mut heard = one.stream(None).await;
    let uri = json!({ "uri": "test://a" });
    for session in [&one, &two] {
        assert_eq!(session.request("resources/subscribe", uri.clone()).send().await.result(), json!({}));
    }
    old.until_seen("resources/subscribe", 1).await;
    old.until_listening(1).await;
    let updated = json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": uri });
    assert_eq!(old.notify(updated.clone()), 1);
    assert_eq!(heard.message().await.expect("a notification"), updated);
    let unknown = one.request("resources/subscribe", json!({ "uri": "none://x" })).send().await;
    assert_eq!(unknown.refusal(), (200, -32002));
    assert_eq!(one.request("resources/unsubscribe", uri.clone()).send().await.result(), json!({}));
    assert_eq!(two.delete().await.status, 200);
    old.until_seen("resources/unsubscribe", 1).await;
    assert_eq!(old.seen_of("resources/subscribe").len(), 1);
}

#[tokio::test]
async fn a_subscription_says_what_it_honours_and_then_what_changes() {
    let resource = json!({ "uri": "test://a", "name": "a" });
    for era in [Era::Legacy, Era::Modern] {
        let fake = Fake::builder().era(era).resources(vec![resource.clone()]).start().await;
        let gateway = Gateway::with("").backend("one", &fake).start().await;
        fake.until_listening(1).await;
        let filter = json!({ "toolsListChanged": true, "resourceSubscriptions": ["test://a", "none://x"] });
        let mut stream =
            gateway.modern("subscriptions/listen", json!({ "notifications": filter })).open().await;
        let first = stream.message().await.expect("an acknowledgement");
        assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
        let honoured = json!({ "toolsListChanged": true, "resourceSubscriptions": ["test://a"] });
        assert_eq!(first["params"]["notifications"], honoured);
        let tag = &first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"];
        assert!(tag.is_number(), "{first}");
        if era == Era::Legacy {
            fake.until_seen("resources/subscribe", 1).await;
        } else {
            fake.until("a wider subscription", |fake| fake.seen_of("subscriptions/listen").len() >= 2).await;
        }
        let params = json!({ "uri": "test://a" });
        let updated =
            json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": params });
        while fake.notify(updated.clone()) == 0 {
            tokio::task::yield_now().await;
        }
        let heard = stream.message().await.expect("a notification");
        assert_eq!(heard["params"]["uri"], "test://a", "{heard}");
        assert_eq!(heard["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], *tag);
        fake.change_tools(vec![json!({ "name": "new", "inputSchema": { "type": "object" } })]);
        loop {
            let heard = stream.message().await.expect("a notification");
            let changed = heard["method"] == "notifications/tools/list_changed";
            if changed && gateway.tools().await.contains(&"one__new".to_owned()) {
                break; // What is told is there already.
            }
        }
    }
}

#[tokio::test]
async fn a_question_that_waits_for_its_answer_delays_nobody() {
    let pair = Fake::builder().era(Era::Legacy).start().await;
    let gateway = Gateway::with("").server("pair", &pair.sse_url(), "transport = \"sse\"").start().await;
    let (one, two) = (gateway.legacy_asked(LEGACY).await, gateway.legacy_asked(LEGACY).await);
    let mut open = one.call("pair__ask", form("a")).open().await;
    let question = open.message().await.expect("a question");
    // Nobody knows whose a question would be on that connection, so the others have another.
    for _ in 0..3 {
        let echo = two.call("pair__echo", json!({ "a": 1 })).send().await.result();
        assert_eq!(echo["structuredContent"], json!({ "a": 1 }));
    }
    let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": accept("Ada") });
    assert_eq!(one.post(answer.to_string()).send().await.status, 202);
    let response = open.last().await.expect("a response");
    assert_eq!(given(&response["result"])["result"], accept("Ada"));
    // The gateway's own, the one with the question, and the other; none for each call.
    assert_eq!(pair.sessions(), 3);
}

#[tokio::test]
async fn what_a_cancelled_call_still_asks_reaches_nobody_else() {
    let gateway = Gateway::with("").stdio("child", &["--era", "legacy"]).start().await;
    let (first, second) = (gateway.legacy_asked(LEGACY).await, gateway.legacy_asked(LEGACY).await);
    let asking = tokio::spawn(first.call("child__ask", json!({ "ms": 300 })).send());
    until("the child has the call", || gateway.log("child").iter().any(|line| line.contains("\"ask\"")))
        .await;
    first.cancel(1).await;
    assert_eq!(asking.await.unwrap().messages().len(), 0);

    // On the same connection, while the question comes.
    let alone = second.call("child__slow", json!({ "ms": 600 })).send().await;
    assert_eq!(alone.messages().len(), 1, "{}", alone.text());
    let refused = || gateway.log("child").iter().any(|line| line.contains("-32601") && line.contains("ask-"));
    until("the question is refused", refused).await;
    // What is asked later is answered by whose call it is; also while a server that is known to ask may do so for a
    // call that is no more.
    let answer = asked(&second, "child__ask", json!({}), json!({ "result": accept("Ada") })).await;
    assert_eq!(given(&answer["result"]), accept("Ada"));
    let asking = tokio::spawn(first.call("child__ask", json!({ "ms": 60_000 })).send());
    until("the child has the call", || gateway.log("child").iter().any(|line| line.contains("60000"))).await;
    first.cancel(2).await;
    assert_eq!(asking.await.unwrap().messages().len(), 0);
    let answer = asked(&second, "child__ask", json!({}), json!({ "result": accept("Eve") })).await;
    assert_eq!(given(&answer["result"]), accept("Eve"));
}

#[tokio::test]
async fn of_a_server_that_asks_any_process_is_known_to_ask() {
    let gateway =
        Gateway::with("").stdio("child", &["--era", "legacy"]).lines("share = \"session\"").start().await;
    let (first, second) = (gateway.legacy_asked(LEGACY).await, gateway.legacy_asked(LEGACY).await);
    let answer = asked(&first, "child__ask", json!({}), json!({ "result": accept("Ada") })).await;
    assert_eq!(given(&answer["result"]), accept("Ada"));
    // The process of the second session has asked nothing, and never answers what is cancelled.
    let slow = tokio::spawn(second.call("child__slow", json!({ "ms": 60_000 })).send());
    until("the child has the call", || gateway.log("child").iter().any(|line| line.contains("60000"))).await;
    second.cancel(1).await;
    assert_eq!(slow.await.unwrap().messages().len(), 0);
    let answer = asked(&second, "child__ask", json!({}), json!({ "result": accept("Eve") })).await;
    assert_eq!(given(&answer["result"]), accept("Eve"));
}
