//! Does a call come through, with all that belongs to it, between any two eras?

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    fake::{Era, Fake},
    support::{Gateway, META, Post, Session},
};

/// The four kinds of server, in one gateway; the fakes of HTTP answer with event streams.
async fn four() -> (Gateway, [Fake; 2]) {
    let old = Fake::builder().era(Era::Legacy).sse(true).with_faults().start().await;
    let new = Fake::builder().era(Era::Modern).sse(true).with_faults().start().await;
    let gateway = Gateway::with("")
        .backend("http-old", &old)
        .backend("http-new", &new)
        .stdio("child-old", &["--era", "legacy"])
        .stdio("child-new", &["--era", "modern"])
        .start()
        .await;
    (gateway, [old, new])
}

const BACKENDS: [&str; 4] = ["http-old", "http-new", "child-old", "child-new"];

/// A client of one era or the other.
enum Client<'a> {
    Old(Session),
    New(&'a Gateway),
}

impl<'a> Client<'a> {
    async fn both(gateway: &'a Gateway) -> [Self; 2] {
        [Self::Old(gateway.legacy("2025-11-25").await), Self::New(gateway)]
    }

    fn name(&self) -> &'static str {
        if matches!(self, Self::Old(_)) { "a legacy client" } else { "a modern client" }
    }

    fn request(&self, method: &str, params: Value) -> Post {
        match self {
            Self::Old(session) => session.request(method, params),
            Self::New(gateway) => gateway.modern(method, params),
        }
    }

    fn call(&self, tool: &str, arguments: Value) -> Post {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// Wants progress under this token, and logs as `meta` says.
    fn progress(&self, backend: &str, token: Value, mut meta: Value) -> Post {
        meta["progressToken"] = token;
        let arguments = json!({ "n": 3, "logs": 1 });
        let params = json!({ "name": format!("{backend}__progress"), "arguments": arguments, "_meta": meta });
        self.request("tools/call", params)
    }
}

/// Messages in short: `p1` for progress, `log` for a log message, and the text of the answer.
fn in_short(messages: &[Value], token: &Value) -> Vec<String> {
    let short = |message: &Value| match message["method"].as_str() {
        Some("notifications/progress") => {
            assert_eq!(message["params"]["progressToken"], *token, "the client's own token");
            format!("p{}", message["params"]["progress"])
        }
        Some("notifications/message") => "log".to_owned(),
        Some(other) => other.to_owned(),
        None => message["result"]["content"][0]["text"].as_str().unwrap_or("?").to_owned(),
    };
    messages.iter().map(short).collect()
}

#[tokio::test]
async fn progress_and_logs_come_before_the_answer_in_every_pairing() {
    let (gateway, fakes) = four().await;
    for client in Client::both(&gateway).await {
        for backend in BACKENDS {
            let pair = format!("{} of {backend}", client.name());
            for token in [json!("text-token"), json!(7)] {
                let meta = json!({ format!("{META}logLevel"): "info" });
                let answer = client.progress(backend, token.clone(), meta).send().await;
                let said = in_short(&answer.messages(), &token);
                assert_eq!(said, ["p1", "log", "p2", "p3", "3 steps"], "{pair}");
            }
        }
    }
    // No two calls have one token on the way to a server.
    for fake in &fakes {
        let calls = fake.seen_of("tools/call");
        let tokens: Vec<_> =
            calls.iter().map(|seen| &seen.body["params"]["_meta"]["progressToken"]).collect();
        assert_eq!(tokens.len(), 4);
        assert!((1..4).all(|n| !tokens[..n].contains(&tokens[n])), "{tokens:?}");
    }
}

#[tokio::test]
async fn nobody_hears_of_progress_or_logs_they_did_not_ask_for() {
    let (gateway, _fakes) = four().await;
    let [old, new] = Client::both(&gateway).await;
    for backend in BACKENDS {
        let tool = format!("{backend}__progress");
        // A modern client asks for logs with each request.
        let silent = new.call(&tool, json!({ "n": 2 })).send().await;
        assert_eq!(in_short(&silent.messages(), &json!(null)), ["2 steps"], "{backend}");
        let loud = json!({ format!("{META}logLevel"): "error" });
        let answer = new.progress(backend, json!(1), loud).send().await;
        assert_eq!(in_short(&answer.messages(), &json!(1)), ["p1", "p2", "p3", "3 steps"], "{backend}");
        // A legacy client hears what there is, until it says otherwise.
        let answer = old.call(&tool, json!({ "n": 2 })).send().await;
        assert_eq!(in_short(&answer.messages(), &json!(null)), ["log", "log", "2 steps"], "{backend}");
    }
    let level = |level: &str| old.request("logging/setLevel", json!({ "level": level }));
    assert_eq!(level("loud").send().await.refusal(), (200, -32602));
    assert_eq!(level("error").send().await.result(), json!({}));
    for backend in BACKENDS {
        let answer = old.call(&format!("{backend}__progress"), json!({ "n": 2 })).send().await;
        assert_eq!(in_short(&answer.messages(), &json!(null)), ["2 steps"], "{backend}");
    }
}

#[tokio::test]
async fn a_client_that_takes_no_events_gets_the_answer_alone() {
    let (gateway, _fakes) = four().await;
    for client in Client::both(&gateway).await {
        for backend in BACKENDS {
            let post = client.progress(backend, json!("t"), json!({}));
            let answer = post.header("accept", "application/json").send().await;
            assert!(answer.kind().starts_with("application/json"), "{}", answer.kind());
            assert_eq!(answer.result()["content"][0]["text"], "3 steps");
        }
    }
}

#[tokio::test]
async fn arguments_and_results_come_through_as_they_were_written() {
    let (gateway, fakes) = four().await;
    let literal =
        r#"{ "é\u00e9":1.50e+2 , "big":123456789012345678901234567890,"s":"\/\ud83d\ude00","n":[ ] }"#;
    for client in Client::both(&gateway).await {
        for backend in BACKENDS {
            let post = client.call(&format!("{backend}__echo"), json!("HERE"));
            let body = String::from_utf8(post.body.to_vec()).unwrap().replace("\"HERE\"", literal);
            let answer = post.body(body).send().await;
            let text = answer.result()["content"][0]["text"].as_str().unwrap().to_owned();
            // The child reads them as Python does; the others give back the bytes.
            if backend.starts_with("http") {
                assert_eq!(text, literal, "{} of {backend}", client.name());
            } else {
                assert!(text.contains("123456789012345678901234567890"), "{text}");
            }
            let modern = matches!(client, Client::New(_));
            assert_eq!(answer.result().get("resultType").is_some(), modern, "{} of {backend}", client.name());
        }
    }
    for fake in fakes {
        assert_eq!(fake.seen_of("tools/call").len(), 2);
    }
}

#[tokio::test]
async fn an_error_of_the_servers_own_is_passed_on() {
    let (gateway, _fakes) = four().await;
    for client in Client::both(&gateway).await {
        for backend in ["http-old", "http-new"] {
            let answer = client.call(&format!("{backend}__fails"), json!({})).send().await;
            let expected =
                json!({ "code": 4711, "message": "failed as asked", "data": { "why": "asked to" } });
            assert_eq!((answer.status, answer.error()), (200, expected));
        }
    }
}

#[tokio::test]
async fn ids_come_back_as_the_client_wrote_them() {
    let (gateway, _fakes) = four().await;
    let session = gateway.legacy("2025-11-25").await;
    for id in
        [json!("text"), json!(""), json!(0), json!(-7), json!(9_007_199_254_740_993_i64), json!("\u{e9}\"")]
    {
        let call = json!({ "name": "http-old__echo", "arguments": {} });
        let answer = session.message(id.clone(), "tools/call", call.clone()).send().await;
        assert_eq!(answer.response()["id"], id);
        let message = crate::support::modern_message(id.clone(), "tools/call", call);
        let post = gateway.call("http-old__echo", json!({})).body(message.to_string());
        assert_eq!(post.send().await.response()["id"], id);
    }
}

#[tokio::test]
async fn prompts_resources_and_completions_go_to_whoever_has_them() {
    let builder = |name: &'static str, era| {
        Fake::builder()
            .name(name)
            .era(era)
            .prompts(vec![json!({ "name": "greet" })])
            .resources(vec![
                json!({ "uri": format!("{name}://one"), "name": "one" }),
                json!({ "uri": "same://x", "name": "x" }),
            ])
            .templates(vec![json!({ "uriTemplate": format!("{name}://t/{{id}}"), "name": "t" })])
    };
    let (old, new) = (builder("old", Era::Legacy).start().await, builder("new", Era::Modern).start().await);
    let gateway = Gateway::with("").backend("old", &old).backend("new", &new).start().await;
    for client in Client::both(&gateway).await {
        for name in ["old", "new"] {
            let prompt = json!({ "name": format!("{name}__greet"), "arguments": { "a": "b" } });
            let result = client.request("prompts/get", prompt.clone()).send().await.result();
            assert_eq!(result["messages"][0]["content"]["text"], r#"greet {"a":"b"}"#);
            for uri in [format!("{name}://one"), format!("{name}://t/7")] {
                let result = client.request("resources/read", json!({ "uri": uri })).send().await.result();
                assert_eq!(result["contents"][0]["text"], format!("{name} has {uri}"));
                assert_eq!(result["contents"][0]["uri"], uri);
            }
            for reference in [
                json!({ "type": "ref/prompt", "name": format!("{name}__greet") }),
                json!({ "type": "ref/resource", "uri": format!("{name}://t/{{id}}") }),
            ] {
                let params = json!({ "ref": reference, "argument": { "name": "a", "value": "x" } });
                let result = client.request("completion/complete", params).send().await.result();
                assert_eq!(result["completion"]["values"], json!(["x-one", "x-two"]));
            }
        }
        // One that both have is told apart, read from each, and comes back as it was asked for.
        let list = client.request("resources/list", json!({})).send().await.result();
        let uris: Vec<_> =
            list["resources"].as_array().unwrap().iter().map(|one| one["uri"].as_str().unwrap()).collect();
        assert!(uris.contains(&"same://x") && uris.iter().any(|uri| uri.ends_with("+same://x")), "{uris:?}");
        for uri in uris.iter().filter(|uri| uri.ends_with("same://x")) {
            let result = client.request("resources/read", json!({ "uri": uri })).send().await.result();
            assert_eq!(result["contents"][0]["uri"], *uri);
            assert!(result["contents"][0]["text"].as_str().unwrap().ends_with(" has same://x"), "{result}");
        }
    }
    assert_eq!(old.seen_of("prompts/get").len(), 2);
    assert_eq!(new.seen_of("completion/complete").len(), 4);
}

const DEADLINES: &str = r#"
[deadline]
idle = "20s"
total = "30s"
[deadline.tools]
"*__slow" = { idle = "300ms" }
"*__progress" = { idle = "700ms", total = "1500ms" }
"#;

/// Slow, silent and talkative calls of each era of client to these backends, all at once.
async fn check_deadlines(gateway: &Gateway, backends: &[&str]) {
    let clients = Client::both(gateway).await;
    let pairs = clients.iter().flat_map(|client| backends.iter().map(move |backend| (client, *backend)));
    futures_util::future::join_all(pairs.map(|(client, backend)| check_deadlines_of(client, backend))).await;
}

async fn check_deadlines_of(client: &Client<'_>, backend: &str) {
    let who = format!("{} of {backend}", client.name());
    let begun = Instant::now();
    let silent = client.call(&format!("{backend}__slow"), json!({})).send().await;
    let said = silent.error()["message"].as_str().unwrap().to_owned();
    assert_eq!(silent.refusal(), (200, 504), "{who}");
    assert!(said.contains("no sign of life for 0.3 s") && said.contains("__slow"), "{said}");
    assert!(begun.elapsed() >= Duration::from_millis(300), "{who}");

    let params = |n: u64| {
        json!({
            "name": format!("{backend}__progress"), "arguments": { "n": n, "every_ms": 150, "logs": 0 },
            "_meta": { "progressToken": 1 },
        })
    };
    let alive = client.request("tools/call", params(6)).send().await.response();
    assert_eq!(alive["result"]["content"][0]["text"], "6 steps", "{who}: {alive}");
    let endless = client.request("tools/call", params(40)).send().await;
    let error = endless.error();
    assert_eq!(error["code"], 504, "{who}");
    assert!(error["message"].as_str().unwrap().contains("not done after 1.5 s"), "{error}");
}

#[tokio::test]
async fn a_call_over_http_has_an_idle_and_a_total_deadline() {
    let fakes = [
        Fake::builder().era(Era::Legacy).sse(true).start().await,
        Fake::builder().era(Era::Modern).sse(true).start().await,
    ];
    let gateway = Gateway::with(DEADLINES).backend("old", &fakes[0]).backend("new", &fakes[1]).start().await;
    check_deadlines(&gateway, &["old", "new"]).await;
    for fake in fakes {
        fake.until_cancelled(2).await; // What took too long was told so.
    }
}

#[tokio::test]
async fn a_call_to_a_child_has_an_idle_and_a_total_deadline() {
    let gateway = Gateway::with(DEADLINES)
        .stdio("old", &["--era", "legacy"])
        .stdio("new", &["--era", "modern"])
        .start()
        .await;
    check_deadlines(&gateway, &["old", "new"]).await;
    for backend in ["old", "new"] {
        let told = || gateway.log(backend).iter().filter(|line| line.starts_with("cancelled ")).count() == 2;
        crate::support::until("the child is told", told).await;
    }
}

#[tokio::test]
async fn a_client_with_a_token_hears_of_a_silent_call_and_only_of_rising_progress() {
    let fakes = [
        Fake::builder().era(Era::Legacy).sse(true).start().await,
        Fake::builder().era(Era::Modern).sse(true).start().await,
    ];
    let deadlines = "[deadline]\nheartbeat = \"100ms\"\n[deadline.tools]\n\"*__slow\" = { idle = \"450ms\" }";
    let gateway = Gateway::with(deadlines).backend("old", &fakes[0]).backend("new", &fakes[1]).start().await;
    for client in Client::both(&gateway).await {
        for backend in ["old", "new"] {
            let who = format!("{} of {backend}", client.name());
            let call = |tool: &str, arguments: Value, meta: Value| {
                let name = format!("{backend}__{tool}");
                client.request("tools/call", json!({ "name": name, "arguments": arguments, "_meta": meta }))
            };
            let token = json!({ "progressToken": "t" });
            let arguments = json!({ "n": 3, "every_ms": 350, "logs": 0 });
            let answer = call("progress", arguments, token.clone()).send().await;
            let messages = answer.messages();
            let (answer, progress) = messages.split_last().unwrap();
            assert_eq!(answer["result"]["content"][0]["text"], "3 steps", "{who}");
            let of =
                |member: &str| progress.iter().map(|one| one["params"][member].clone()).collect::<Vec<_>>();
            let values: Vec<_> = of("progress").iter().map(|value| value.as_f64().unwrap()).collect();
            assert!(values.is_sorted_by(|a, b| a < b) && values[0] == 0.000001, "{who}: {values:?}");
            assert!(
                values.len() > 5 && [1.0, 2.0, 3.0].iter().all(|step| values.contains(step)),
                "{values:?}"
            );
            assert!(of("progressToken").iter().all(|token| token == "t"), "{who}");

            let silent = call("slow", json!({}), token).send().await;
            assert!(silent.messages().len() > 2, "{who}: {}", silent.text());
            assert_eq!(silent.error()["code"], 504, "{who}");
            let without = call("slow", json!({}), json!({})).send().await;
            assert_eq!((without.messages().len(), &without.error()["code"]), (1, &json!(504)), "{who}");
        }
    }
}
