//! What becomes of a call that its client does not wait for?

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    children::Program,
    fake::{Era, Fake},
    support::{Gateway, Post, modern_message, until_ok},
};

const LATE: &str = "[deadline]\ntask = \"50ms\"\n";

/// The `_meta` of a client that takes tasks, and can be asked by forms.
pub fn takes_tasks() -> Value {
    let extensions = json!({ "io.modelcontextprotocol/tasks": {} });
    let capabilities = json!({ "extensions": extensions, "elicitation": { "form": {} } });
    json!({ "io.modelcontextprotocol/clientCapabilities": capabilities })
}

pub fn call(gateway: &Gateway, tool: &str, arguments: Value) -> Post {
    gateway.modern("tools/call", json!({ "name": tool, "arguments": arguments, "_meta": takes_tasks() }))
}

pub fn of_task(gateway: &Gateway, method: &str, id: &str) -> Post {
    gateway.modern(method, json!({ "taskId": id, "_meta": takes_tasks() }))
}

/// The task when its status is one of these.
pub async fn until_status(gateway: &Gateway, id: &str, wanted: &[&str]) -> Value {
    for _ in 0..500 {
        let task = of_task(gateway, "tasks/get", id).send().await.result();
        if wanted.contains(&task["status"].as_str().unwrap()) {
            return task;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{id} never was {wanted:?}");
}

#[tokio::test]
async fn a_call_that_takes_too_long_becomes_a_task_for_a_client_that_takes_tasks() {
    for era in [Era::Legacy, Era::Modern] {
        let fake = Fake::builder().era(era).start().await;
        let gateway = Gateway::with(LATE).backend("one", &fake).start().await;
        let quick = call(&gateway, "one__echo", json!({ "a": 1 })).send().await.result();
        assert_eq!(
            (&quick["resultType"], &quick["structuredContent"]),
            (&json!("complete"), &json!({ "a": 1 }))
        );
        let made = call(&gateway, "one__slow", json!({})).send().await.result();
        assert_eq!((&made["resultType"], &made["status"]), (&json!("task"), &json!("working")), "{made}");
        assert!(
            made["ttlMs"].is_u64() && made["pollIntervalMs"].is_u64() && made["result"].is_null(),
            "{made}"
        );
        let id = made["taskId"].as_str().expect("a name").to_owned();
        let working = of_task(&gateway, "tasks/get", &id).send().await.result();
        assert_eq!((&working["resultType"], &working["status"]), (&json!("complete"), &json!("working")));
        fake.release();
        let done = until_status(&gateway, &id, &["completed", "failed"]).await;
        assert_eq!(done["status"], "completed", "{done}");
        assert!(done["result"]["content"][0]["text"].is_string(), "{done}");
        assert_eq!(fake.seen_of("tools/call").len(), 2, "nothing was called twice");
    }
}

#[tokio::test]
async fn a_client_that_takes_no_tasks_waits_as_ever() {
    let fake = Fake::builder().start().await;
    let gateway = Gateway::with(LATE).backend("one", &fake).start().await;
    let plain = gateway.call("one__slow", json!({ "ms": 200 })).send().await.result();
    assert_eq!(plain["resultType"], "complete");
    let session = gateway.legacy("2025-11-25").await;
    let old = session.call("one__slow", json!({ "ms": 200 })).send().await.result();
    assert!(old["content"].is_array() && old["task"].is_null(), "{old}");
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let answer = gateway.modern(method, json!({ "taskId": "x", "inputResponses": {} })).send().await;
        assert_eq!(answer.refusal(), (400, -32021), "{method}");
        let needed = &answer.error()["data"]["requiredCapabilities"]["extensions"];
        assert_eq!(*needed, json!({ "io.modelcontextprotocol/tasks": {} }));
    }
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18"] {
        let session = gateway.legacy(revision).await;
        assert!(session.hello["capabilities"]["tasks"].is_null());
        let answer = session.request("tasks/list", json!({})).send().await;
        assert_eq!(answer.refusal(), (200, -32601), "{revision}");
    }
}

#[tokio::test]
async fn a_task_can_be_configured_away_for_a_tool() {
    let fake = Fake::builder().start().await;
    let toml = "[deadline]\nidle = \"100ms\"\n[deadline.tools]\n\"one__slow\" = { task = \"never\" }\n";
    let gateway = Gateway::with(toml).backend("one", &fake).start().await;
    assert_eq!(call(&gateway, "one__slow", json!({})).send().await.refusal(), (200, 504));
    let toml = "[deadline]\nidle = \"100ms\"\n";
    let gateway = Gateway::with(toml).backend("one", &fake).start().await;
    let late = call(&gateway, "one__slow", json!({})).send().await.result();
    assert_eq!(late["resultType"], "task", "instead of the error");
}

#[tokio::test]
async fn cancelling_a_task_cancels_its_call_at_the_server() {
    for era in [Era::Legacy, Era::Modern] {
        let fake = Fake::builder().era(era).start().await;
        let gateway = Gateway::with(LATE).backend("one", &fake).start().await;
        let made = call(&gateway, "one__slow", json!({ "n": 7 })).send().await.result();
        let id = made["taskId"].as_str().unwrap();
        let acknowledged = of_task(&gateway, "tasks/cancel", id).send().await.result();
        assert!(acknowledged["resultType"] == "complete" && acknowledged["status"].is_null());
        let heard = fake.until_cancelled(1).await;
        assert_eq!(heard[0].arguments, json!({ "n": 7 }), "{era:?}");
        let task = of_task(&gateway, "tasks/get", id).send().await.result();
        assert_eq!(task["status"], "cancelled");
        let again = of_task(&gateway, "tasks/cancel", id).send().await.result();
        assert_eq!(again["resultType"], "complete", "cancelling what is done changes nothing");
    }
}

#[tokio::test]
async fn a_client_of_2025_11_25_asks_for_a_task_call_by_call() {
    for era in [Era::Legacy, Era::Modern] {
        let fake = Fake::builder().era(era).start().await;
        let gateway = Gateway::with("").backend("one", &fake).start().await;
        let session = gateway.legacy_asked("2025-11-25").await;
        assert!(session.hello["capabilities"]["tasks"]["requests"]["tools"]["call"].is_object());
        let params = json!({ "name": "one__slow", "arguments": {}, "task": { "ttl": 60_000 } });
        let made = session.request("tools/call", params).send().await.result();
        let task = &made["task"];
        assert_eq!((&task["status"], &task["ttl"]), (&json!("working"), &json!(60_000)), "{made}");
        let id = json!({ "taskId": task["taskId"] });
        let listed = session.request("tasks/list", json!({})).send().await.result();
        assert_eq!(listed["tasks"][0]["taskId"], task["taskId"]);
        let waiting = session.request("tasks/result", id.clone()).open();
        let (mut waiting, ()) = tokio::join!(waiting, async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            fake.release();
        });
        let response = loop {
            let message = waiting.message().await.expect("a result");
            if message["method"].is_null() {
                break message;
            }
        };
        let related = &response["result"]["_meta"]["io.modelcontextprotocol/related-task"];
        assert_eq!(related["taskId"], task["taskId"], "{response}");
        assert!(response["result"]["content"].is_array() && response["result"]["resultType"].is_null());
        let done = session.request("tasks/get", id.clone()).send().await.result();
        assert_eq!((&done["status"], &done["result"]), (&json!("completed"), &Value::Null));
        let late = session.request("tasks/cancel", id).send().await;
        assert_eq!(late.refusal(), (200, -32602), "what is done cannot be cancelled");
        let sent = fake.seen_of("tools/call");
        assert!(era == Era::Modern || sent[0].body["params"]["task"].is_null(), "it has no tasks: {sent:?}");
        let unknown = json!({ "name": "one__none", "arguments": {}, "task": {} });
        assert_eq!(session.request("tools/call", unknown).send().await.refusal(), (200, -32602));
    }
}

#[tokio::test]
async fn a_task_asks_its_client_and_goes_on_with_the_answer() {
    for era in [Era::Legacy, Era::Modern] {
        let fake = Fake::builder().era(era).sse(true).start().await;
        let gateway = Gateway::with("").backend("one", &fake).start().await;
        let session = gateway.legacy_asked("2025-11-25").await;
        let form = json!({ "mode": "form", "message": "Who?", "requestedSchema": { "type": "object", "properties": {} } });
        let arguments = json!({ "method": "elicitation/create", "params": form });
        let params = json!({ "name": "one__ask", "arguments": arguments, "task": {} });
        let made = session.request("tools/call", params).send().await.result();
        let id = json!({ "taskId": made["task"]["taskId"] });
        let mut stream = session.request("tasks/result", id.clone()).open().await;
        let question = stream.message().await.expect("a question");
        assert_eq!(question["method"], "elicitation/create", "{question}");
        let related = &question["params"]["_meta"]["io.modelcontextprotocol/related-task"];
        assert_eq!(related["taskId"], id["taskId"], "{era:?} {question}");
        let state = session.request("tasks/get", id.clone()).send().await.result();
        assert_eq!(state["status"], "input_required");
        let accept = json!({ "action": "accept", "content": {} });
        let answer = json!({ "jsonrpc": "2.0", "id": question["id"], "result": accept });
        assert_eq!(session.post(answer.to_string()).send().await.status, 202);
        let response = stream.last().await.expect("a result");
        let text = response["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{response}"));
        assert!(text.contains("accept"), "{era:?}: {text}");
    }
}

#[tokio::test]
async fn whoever_subscribes_to_a_task_hears_how_it_ends() {
    let fake = Fake::builder().start().await;
    let gateway = Gateway::with(LATE).backend("one", &fake).start().await;
    let made = call(&gateway, "one__slow", json!({})).send().await.result();
    let id = &made["taskId"];
    let filter = json!({ "toolsListChanged": true, "taskIds": [id, "unknown"] });
    let params = json!({ "notifications": filter, "_meta": takes_tasks() });
    let mut stream = gateway.modern("subscriptions/listen", params).open().await;
    let first = stream.message().await.expect("an acknowledgement");
    let honoured = json!({ "toolsListChanged": true, "taskIds": [id] });
    assert_eq!(first["params"]["notifications"], honoured);
    fake.release();
    let heard = loop {
        let heard = stream.message().await.expect("a notification");
        // That the server's tools have come may be told late.
        if heard["method"] != "notifications/tools/list_changed" {
            break heard;
        }
    };
    assert_eq!(heard["method"], "notifications/tasks");
    assert_eq!((&heard["params"]["taskId"], &heard["params"]["status"]), (id, &json!("completed")));
    assert!(heard["params"]["result"]["content"].is_array(), "{heard}");
    let tag = "io.modelcontextprotocol/subscriptionId";
    assert_eq!(heard["params"]["_meta"][tag], first["params"]["_meta"][tag]);
}

#[tokio::test]
async fn tasks_outlive_the_gateway_or_say_that_they_did_not() {
    let fake = Fake::builder().start().await;
    let backend = format!("{LATE}[backends.one]\nurl = \"{}\"\n", fake.url());
    let gateway = Program::start_kept(&backend);
    let post = |address, method: &str, mut params: Value| {
        params["_meta"] = takes_tasks();
        let message = modern_message(json!(1), method, params);
        let target = ["name", "taskId"].iter().find_map(|key| message["params"][key].as_str());
        Post::new(address, "/mcp", message.to_string())
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", method)
            .header("mcp-name", target.unwrap_or_default())
    };
    let slow = json!({ "name": "one__slow", "arguments": {} });
    let address = gateway.address;
    until_ok(|| post(address, "tools/call", json!({ "name": "one__echo", "arguments": {} })).send()).await;
    let finished = post(address, "tools/call", slow.clone()).send().await.result();
    fake.release();
    let get = |task: &Value| post(address, "tasks/get", json!({ "taskId": task["taskId"] })).send();
    let done = loop {
        let task = get(&finished).await.result();
        if task["status"] == "completed" {
            break task;
        }
    };
    let lost = post(address, "tools/call", slow).send().await.result();
    let _gateway = gateway.killed_and_started(&backend);
    assert_eq!(get(&finished).await.result(), done, "word for word");
    let task = get(&lost).await.result();
    assert_eq!(task["status"], "failed", "{task}");
    assert!(task["error"]["message"].as_str().unwrap().contains("may have run"), "{task}");
}
