//! Servers that want a text of a model, and clients that have none: the gateway's models write it, and whoever made
//! the call pays.

use std::{fs, path::Path, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{Rig, answered};
use crate::{
    fake::{Era, Fake},
    identify::{Issuer, with},
    support::{Answer, Gateway, LEGACY, Post, Session, Setup, until},
    tasks::takes_tasks,
};

const SAMPLER: &str = "sampler = { backend = \"chat\" }";
/// Longer than any test waits.
const ENDLESS: &str = "[[sim:slow-tokens ms=50]] [[sim:words n=2000]]";

fn texts(text: &str, more: &Value) -> Value {
    let mut params = json!({
        "messages": [{ "role": "user", "content": { "type": "text", "text": text } }], "maxTokens": 100,
    });
    more.as_object().unwrap().iter().for_each(|(name, value)| params[name] = value.clone());
    json!({ "method": "sampling/createMessage", "params": params })
}

fn text(text: &str) -> Value {
    texts(text, &json!({}))
}

fn form() -> Value {
    let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "Who?", "requestedSchema": schema } })
}

/// What the fake's tool `ask` says came back to it.
#[track_caller]
fn given(result: &Value) -> Value {
    let text = result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {result}"));
    serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"))
}

/// Servers of both eras, over Streamable HTTP.
struct Servers {
    old: Fake,
    new: Fake,
}

impl Servers {
    async fn start() -> Self {
        let old = Fake::builder().era(Era::Legacy).sse(true).start().await;
        let new = Fake::builder().era(Era::Modern).start().await;
        Self { old, new }
    }

    /// Behind a gateway, with these lines in their tables.
    fn behind(&self, setup: Setup, lines: &str) -> Setup {
        setup.server("old", &self.old.url(), lines).server("new", &self.new.url(), lines)
    }
}

/// A call of a modern client that has these capabilities.
fn call(gateway: &Gateway, tool: &str, arguments: &Value, capabilities: &Value, more: &Value) -> Post {
    let mut params = json!({
        "name": tool, "arguments": arguments,
        "_meta": { "io.modelcontextprotocol/clientCapabilities": capabilities },
    });
    more.as_object().unwrap().iter().for_each(|(key, value)| params[key] = value.clone());
    gateway.modern("tools/call", params)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_server_gets_its_text_for_every_client() {
    let (rig, servers) = (Rig::new().await, Servers::start().await);
    let mut setup = servers.behind(rig.setup(""), SAMPLER).server("pair", &servers.old.sse_url(), SAMPLER);
    for era in ["legacy", "modern"] {
        setup = setup.child(&format!("{era}-child"), &["--era", era], SAMPLER);
    }
    let gateway = setup.start().await;
    let backends = ["old", "pair", "new", "legacy-child", "modern-child"];
    let check = |backend: &str, client: &str, answer: &Answer| {
        let given = given(&answer.result());
        let written = if given["model"].is_string() { &given } else { &given["result"] };
        let shown = format!("{client} {backend}: {given}");
        assert_eq!(
            (&written["role"], &written["content"]["type"]),
            (&json!("assistant"), &json!("text")),
            "{shown}"
        );
        assert_eq!(
            (&written["model"], &written["stopReason"]),
            (&json!("acme/atlas-70b"), &json!("endTurn"))
        );
        let text = written["content"]["text"].as_str().unwrap();
        assert!(text.contains(&format!("for {client} by {backend}")), "{shown}");
        assert!(written["_meta"].is_null(), "there is a key: {shown}");
    };
    for backend in backends {
        let tool = format!("{backend}__ask");
        let question = |client: &str| text(&format!("for {client} by {backend}"));
        check(backend, "modern", &gateway.call(&tool, question("modern")).send().await);
        for revision in LEGACY {
            let session = gateway.legacy(revision).await;
            check(backend, revision, &session.call(&tool, question(revision)).send().await);
        }
    }
    assert_eq!(rig.asked().len(), backends.len() * 5);
    let report = answered(&gateway.call("chat__usage_report", json!({})).send().await);
    assert_eq!(report["total"]["requests"], backends.len() * 5, "{report}");
}

#[tokio::test]
async fn the_question_is_put_as_it_was_asked() {
    let (rig, servers) = (Rig::new().await, Servers::start().await);
    let gateway = servers.behind(rig.setup("deny = [\"*opus*\"]"), SAMPLER).start().await;
    let question = texts(
        "hello",
        &json!({
            "systemPrompt": "Be brief.", "temperature": 0.25, "maxTokens": 33, "stopSequences": ["END"],
            "includeContext": "allServers", "metadata": { "x": 1 },
            "modelPreferences": { "hints": [{ "name": "claude-opus" }, { "name": "Claude Sonnet" }], "costPriority": 0.2 },
        }),
    );
    let written = given(&gateway.call("new__ask", question).send().await.result())["result"].clone();
    let body = &rig.asked()[0].body;
    let messages = json!([
        { "role": "system", "content": "Be brief." }, { "role": "user", "content": "hello" },
    ]);
    assert_eq!(body["messages"], messages);
    assert_eq!((&body["temperature"], &body["max_completion_tokens"]), (&json!(0.25), &json!(33)));
    assert_eq!(body["stop"], json!(["END"]));
    assert!(
        body["model"].as_str().unwrap().contains("sonnet"),
        "the first is not allowed: {}",
        body["model"]
    );
    assert!(written["model"].as_str().unwrap().contains("sonnet"), "{written}");
    assert!(body.get("metadata").is_none() && body.get("includeContext").is_none());
}

#[tokio::test]
async fn a_model_may_want_tools_of_the_servers_used() {
    let (rig, servers) = (Rig::new().await, Servers::start().await);
    let gateway = servers.behind(rig.setup(""), SAMPLER).start().await;
    let tools = json!([{ "name": "look", "description": "Looks.", "inputSchema": { "type": "object" } }]);
    let with_tools = json!({ "tools": tools, "toolChoice": { "mode": "required" } });
    for (number, backend) in ["old", "new"].into_iter().enumerate() {
        let question = texts("what is there?", &with_tools);
        // The client has a model, but none that takes tools.
        let client = json!({ "sampling": {} });
        let answer = call(&gateway, &format!("{backend}__ask"), &question, &client, &json!({})).send().await;
        let written = given(&answer.result())["result"].clone();
        let used = &written["content"][0];
        assert_eq!((&used["type"], &used["name"]), (&json!("tool_use"), &json!("look")), "{written}");
        assert!(used["input"].is_object() && written["stopReason"] == "toolUse", "{written}");
        let result = json!({ "type": "tool_result", "toolUseId": used["id"], "content": [{ "type": "text", "text": "a hat" }] });
        let question = texts(
            "",
            &json!({ "tools": tools, "messages": [
            { "role": "user", "content": { "type": "text", "text": "what is there?" } },
            { "role": "assistant", "content": [used] },
            { "role": "user", "content": [result] },
        ] }),
        );
        let answer = gateway.call(&format!("{backend}__ask"), question).send().await;
        let written = given(&answer.result())["result"].clone();
        assert!(
            written["content"][0]["text"].as_str().unwrap().contains("the tool said: a hat"),
            "{written}"
        );
        assert_eq!(rig.asked().len(), 2 * (number + 1));
    }
}

#[tokio::test]
async fn a_client_with_a_model_of_its_own_is_asked_itself() {
    let (rig, servers) = (Rig::new().await, Servers::start().await);
    let gateway = servers.behind(rig.setup(""), SAMPLER).start().await;
    let session = gateway.legacy_asked("2025-11-25").await;
    let said = json!({ "role": "assistant", "content": { "type": "text", "text": "7" }, "model": "its own" });
    for backend in ["old", "new"] {
        let tool = format!("{backend}__ask");
        let client = json!({ "sampling": {} });
        let first = call(&gateway, &tool, &text("hello"), &client, &json!({})).send().await.result();
        let (key, request) = first["inputRequests"].as_object().unwrap().iter().next().unwrap();
        assert_eq!(request["method"], "sampling/createMessage");
        let more = json!({ "inputResponses": { key: said }, "requestState": first["requestState"] });
        let second = call(&gateway, &tool, &text("hello"), &client, &more).send().await.result();
        assert_eq!(given(&second)["result"], said);
        let response = talk(&session, &tool, text("hello"), &said).await;
        assert_eq!(given(&response["result"])["result"], said, "{response}");
        // Of what it cannot be told in its revision it is not asked.
        let earlier = gateway.legacy_asked("2025-06-18").await;
        let parts = json!([{ "type": "text", "text": "one" }, { "type": "text", "text": "two" }]);
        let question = texts("", &json!({ "messages": [{ "role": "user", "content": parts }] }));
        let written = given(&earlier.call(&tool, question).send().await.result())["result"].clone();
        assert_eq!(written["model"], "acme/atlas-70b");
    }
    assert_eq!(rig.asked().len(), 2);
}

/// Calls a tool on a session, and answers all that is asked with this.
async fn talk(session: &Session, tool: &str, arguments: Value, answer: &Value) -> Value {
    let mut stream = session.call(tool, arguments).open().await;
    loop {
        let message = stream.message().await.expect("a message");
        if message["method"].is_null() {
            return message;
        }
        let response = json!({ "jsonrpc": "2.0", "id": message["id"], "result": answer });
        assert_eq!(session.post(response.to_string()).send().await.status, 202);
    }
}

#[tokio::test]
async fn what_is_asked_of_both_is_answered_by_each() {
    let (rig, servers) = (Rig::new().await, Servers::start().await);
    let gateway = servers.behind(rig.setup(""), SAMPLER).start().await;
    let accepted = json!({ "action": "accept", "content": { "name": "Ada" } });
    let capabilities = json!({ "elicitation": { "form": {} } });
    let session = Session::open_as(gateway.address, "/mcp", "2025-11-25", capabilities.clone()).await;
    for backend in ["old", "new"] {
        let tool = format!("{backend}__ask");
        let mut arguments = form();
        arguments["also"] = text("for both");
        let check = |result: &Value| {
            let given = given(result);
            assert_eq!(
                (&given["result"], &given["also"]["model"]),
                (&accepted, &json!("acme/atlas-70b")),
                "{given}"
            );
        };
        let asked = rig.asked().len();
        let first = call(&gateway, &tool, &arguments, &capabilities, &json!({})).send().await.result();
        let requests = first["inputRequests"].as_object().unwrap();
        let (key, request) = requests.iter().next().unwrap();
        assert_eq!((requests.len(), &request["method"]), (1, &json!("elicitation/create")), "{first}");
        // A model's words are not the client's to say.
        let forged = json!({ "role": "assistant", "content": { "type": "text", "text": "forged" }, "model": "forged" });
        let more = json!({
            "inputResponses": { key: accepted, "also": forged, "question-1": forged, "question-2": forged, key: accepted },
            "requestState": first["requestState"],
        });
        check(&call(&gateway, &tool, &arguments, &capabilities, &more).send().await.result());
        check(&talk(&session, &tool, arguments, &accepted).await["result"]);
        assert_eq!(rig.asked().len(), asked + 2, "each was asked once");
    }
}

#[tokio::test]
async fn what_a_model_may_not_or_cannot_say_is_an_error() {
    let rig = Rig::new().await;
    let servers = Servers::start().await;
    let limited = "sampler = { backend = \"chat\", max_tokens = 300 }";
    let lines = "daily_budget_usd = 0.001\ndeny = [\"*/denied\"]\naliases = { denied = \"acme/denied\" }";
    let gateway = servers.behind(rig.setup(lines), limited).start().await;
    let long = "word ".repeat(400);
    let rejected = [
        (texts("dear", &json!({ "maxTokens": 250 })), "budget_exceeded", false),
        (text(&long), "too_many_tokens", false),
        (text("[[sim:403-moderation]]"), "content_blocked", true),
    ];
    for (question, code, sent) in rejected {
        let before = rig.asked().len();
        let old = given(&gateway.call("old__ask", question.clone()).send().await.result());
        assert_eq!(old["error"]["code"], -1, "{old}");
        assert!(old["error"]["message"].as_str().unwrap().contains(code), "{old}");
        assert!(
            !old["error"]["message"].as_str().unwrap().contains("dollars"),
            "it is no business of servers: {old}"
        );
        let new = gateway.call("new__ask", question).send().await.error();
        assert!(new["message"].as_str().unwrap().contains("no model wrote what it asks for"), "{new}");
        assert_eq!(rig.asked().len() > before, sent, "{code}");
    }
    let twice = json!({ "role": "user", "content": [
        { "type": "tool_result", "toolUseId": "1", "content": [] }, { "type": "text", "text": "and" },
    ] });
    for (wrong, word) in [
        (json!({ "messages": [] }), "messages"),
        (json!({ "maxTokens": 0 }), "maxTokens"),
        (json!({ "maxTokens": "many" }), "parameters"),
        (json!({ "messages": [twice] }), "results of tools"),
    ] {
        let old = given(&gateway.call("old__ask", texts("", &wrong)).send().await.result());
        assert_eq!(old["error"]["code"], -32602, "{old}");
        assert!(old["error"]["message"].as_str().unwrap().contains(word), "{old}");
    }
}

#[tokio::test]
async fn a_model_that_is_not_allowed_is_not_asked() {
    let (rig, servers) = (Rig::new().await, Servers::start().await);
    let gateway = servers.behind(rig.setup("deny = [\"acme/atlas-70b\"]"), SAMPLER).start().await;
    let old = given(&gateway.call("old__ask", text("hello")).send().await.result());
    assert!(old["error"]["message"].as_str().unwrap().contains("model_not_allowed"), "{old}");
    let cheap = texts("hello", &json!({ "modelPreferences": { "hints": [{ "name": "atlas-8b" }] } }));
    let old = given(&gateway.call("old__ask", cheap).send().await.result());
    assert_eq!(old["result"]["model"], "acme/atlas-8b", "{old}");
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test]
async fn a_call_asks_only_so_often() {
    let (rig, servers) = (Rig::new().await, Servers::start().await);
    let lines = "sampler = { backend = \"chat\", max_requests = 3 }";
    let gateway = servers.behind(rig.setup(""), lines).start().await;
    let says = gateway.explain("old__ask").await["says"].to_string();
    assert!(says.contains("a model of chat writes it"), "{says}");
    for (backend, times, fine) in [("old", 3, true), ("old", 5, false), ("new", 3, true), ("new", 5, false)] {
        let before = rig.asked().len();
        let mut question = text("again");
        question["times"] = json!(times);
        let answer = gateway.call(&format!("{backend}__ask"), question).send().await.response();
        let (given, why) = match answer.get("result") {
            Some(result) => (given(result), given(result)["error"]["message"].clone()),
            None => (Value::Null, answer["error"]["message"].clone()),
        };
        assert_eq!(given["result"]["model"] == "acme/atlas-70b", fine, "{answer}");
        let says = why.as_str().unwrap_or_default();
        assert!(fine || says.contains("too_many_requests") || says.contains("max_requests"), "{answer}");
        assert_eq!(rig.asked().len(), before + 3, "{backend} {times}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_is_cancelled_everywhere() {
    let (rig, servers) = (Rig::new().await, Servers::start().await);
    let gateway = servers.behind(rig.setup(""), SAMPLER).start().await;
    let begun = async |count: usize| until("the model is asked", || rig.asked().len() == count).await;
    let session = gateway.legacy("2025-11-25").await;
    let question = texts(ENDLESS, &json!({ "maxTokens": 4000 }));
    let mut count = 0;
    for backend in ["old", "new"] {
        let params = json!({ "name": format!("{backend}__ask"), "arguments": question });
        let asking = tokio::spawn(session.message(json!(backend), "tools/call", params).open());
        count += 1;
        begun(count).await;
        session.cancel(backend).await;
        let gone = || rig.asked().iter().all(|entry| entry.client_gone_at.is_some());
        until("the model is stopped", gone).await;
        asking.abort();
        let post = gateway.call(&format!("{backend}__ask"), question.clone());
        let asking = tokio::spawn(async move { post.send().await });
        count += 1;
        begun(count).await;
        asking.abort();
        until("the model is stopped again", gone).await;
    }
    servers.old.until_seen("notifications/cancelled", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_caller_pays_for_its_own_calls() {
    let (rig, servers, issuer) = (Rig::new().await, Servers::start().await, Issuer::new());
    let trail = rig.folder.path().join("audit.jsonl");
    // The room of the call itself is enough for what is asked in it.
    let tables = issuer.tables().replace("at_once_per_caller = 0", "at_once_per_caller = 1");
    let setup = Gateway::with(&tables).lines(&rig.tables("")).lines(&format!("[audit]\nfile = {trail:?}"));
    let setup = servers.behind(setup, SAMPLER);
    let gateway = setup.store(rig.folder.path().join("a.db")).start().await;
    let callers = ["ada", "eve"].map(|subject| (subject, issuer.of(subject, &[])));
    let ask = async |(subject, token): &(&str, String), times: usize| {
        for number in 0..times {
            let backend = if number % 2 == 0 { "old" } else { "new" };
            let question = text(&format!("[[sim:slow-first ms=50]] said by {subject}"));
            let answer = with(gateway.call(&format!("{backend}__ask"), question), token).send().await;
            let given = given(&answer.result());
            let text = given["result"]["content"]["text"].as_str().unwrap().to_owned();
            assert!(text.contains(&format!("said by {subject}")), "{text}");
        }
    };
    join_all([ask(&callers[0], 4), ask(&callers[1], 2)]).await;
    for ((subject, token), requests) in callers.iter().zip([4, 2]) {
        let report = with(gateway.call("chat__usage_report", json!({})), token).send().await;
        let total = answered(&report)["total"].clone();
        assert_eq!(total["requests"], requests, "{subject}: {total}");
        let users: Vec<_> = rig
            .asked_about(&format!("said by {subject}"))
            .iter()
            .map(|one| one.body["user"].clone())
            .collect();
        assert!(users.len() == requests && users.iter().all(|user| *user == users[0]), "{users:?}");
    }
    let noted = || lines(&trail).into_iter().filter(|line| line["target"] == "complete").collect::<Vec<_>>();
    until("the trail is written", || noted().len() == 6).await;
    for line in noted() {
        let by = line["asked_by"].as_str().unwrap();
        assert!(["old", "new"].contains(&by) && line["backend"] == "chat", "{line}");
        assert!(
            ["ada", "eve"].contains(&line["who"].as_str().unwrap()) && line["usage"].is_object(),
            "{line}"
        );
    }
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn who_may_not_ask_the_model_has_no_sampler() {
    let (rig, servers, issuer) = (Rig::new().await, Servers::start().await, Issuer::new());
    let rules = "[[permit]]\nwho = { subject = \"ada\" }\nallow = [\"*\"]\n[[permit]]\nallow = [\"old__*\", \"new__*\", \"chat__chat\"]";
    let setup = Gateway::with(&issuer.tables()).lines(&rig.tables("")).lines(rules);
    let gateway = servers.behind(setup, SAMPLER).store(rig.folder.path().join("a.db")).start().await;
    let (ada, eve) = (issuer.of("ada", &[]), issuer.of("eve", &[]));
    for (token, may) in [(&ada, true), (&eve, false)] {
        servers.new.forget();
        let new = with(gateway.call("new__ask", text("hello")), token).send().await.response();
        assert_eq!(new.get("error").is_none(), may, "{new}");
        let told = &servers.new.seen_of("tools/call")[0].body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
        assert_eq!(*told, if may { json!({ "sampling": { "tools": {} } }) } else { json!({}) });
        servers.old.forget();
        let old = given(&with(gateway.call("old__ask", text("hello")), token).send().await.result());
        assert_eq!(old["error"].is_null(), may, "{old}");
        let told = &servers.old.seen_of("initialize")[0].body["params"]["capabilities"];
        assert_eq!(told.get("sampling").is_some(), may, "{told}");
    }
    assert_eq!(rig.asked().len(), 2);
}

#[tokio::test]
async fn without_a_sampler_a_server_is_told_of_the_client_alone() {
    let (rig, servers) = (Rig::new().await, Servers::start().await);
    let gateway = servers.behind(rig.setup(""), "").start().await;
    let old = given(&gateway.call("old__ask", text("hello")).send().await.result());
    assert_eq!(old["error"]["code"], -32601, "{old}");
    gateway.call("new__ask", text("hello")).send().await.error();
    let told =
        servers.old.seen_of("initialize").into_iter().map(|seen| seen.body["params"]["capabilities"].clone());
    assert!(told.into_iter().all(|told| told == json!({})));
    assert_eq!(rig.asked().len(), 0);
}

#[tokio::test]
async fn tasks_have_their_texts_too() {
    let (rig, servers) = (Rig::new().await, Servers::start().await);
    let setup = servers.behind(rig.setup(""), SAMPLER).lines("[deadline]\ntask = \"50ms\"");
    let gateway = setup.start().await;
    let session = gateway.legacy("2025-11-25").await;
    for backend in ["old", "new"] {
        let tool = format!("{backend}__ask");
        let params = json!({ "name": tool, "arguments": text("for a task"), "task": {} });
        let made = session.request("tools/call", params).send().await.result();
        let id = json!({ "taskId": made["task"]["taskId"] });
        let result = session.request("tasks/result", id).send().await.result();
        assert_eq!(given(&result)["result"]["model"], "acme/atlas-70b", "{result}");
        // One that becomes a task because the model is slow.
        let question = text("[[sim:slow-first ms=1000]] for a late one");
        let params = json!({ "name": tool, "arguments": question, "_meta": takes_tasks() });
        let made = gateway.modern("tools/call", params).send().await.result();
        assert_eq!(made["resultType"], "task", "{made}");
        let id = made["taskId"].as_str().unwrap();
        let mut task = Value::Null;
        for _ in 0..500 {
            let of_task = json!({ "taskId": id, "_meta": takes_tasks() });
            task = gateway.modern("tasks/get", of_task).send().await.result();
            if task["status"] != "working" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(given(&task["result"])["result"]["model"], "acme/atlas-70b", "{task}");
    }
}

#[tokio::test]
async fn a_simulated_text_says_so() {
    let servers = Servers::start().await;
    let setup = Gateway::with("[backends.models]\nopenrouter = {}");
    let gateway = servers.behind(setup, "sampler = { backend = \"models\" }").start().await;
    for backend in ["old", "new"] {
        let result = gateway.call(&format!("{backend}__ask"), text("hello")).send().await.result();
        assert_eq!(given(&result)["result"]["_meta"], json!({ "io.waystation/simulated": true }), "{result}");
    }
}

#[tokio::test]
async fn a_tool_that_wants_a_model_is_listed_where_there_is_one() {
    let (rig, servers) = (Rig::new().await, Servers::start().await);
    let gateway = servers.behind(rig.setup(""), SAMPLER).start().await;
    let listing = servers.old.seen_of("initialize");
    assert_eq!(listing.len(), 1, "it was only read what there is");
    assert_eq!(listing[0].body["params"]["capabilities"], json!({ "sampling": { "tools": {} } }));
    for _ in 0..3 {
        gateway.call("old__ask", text("hello")).send().await.result();
    }
    assert_eq!(servers.old.seen_of("initialize").len(), 2, "all calls that may ask the same share a session");
}
