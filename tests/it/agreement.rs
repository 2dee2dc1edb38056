//! Do headers and body say the same, and is what runs what they say?

use serde_json::{Value, json};

use crate::{
    fake::{Era, Fake, tool},
    json::cases::{Agreement, Change, agreements},
    support::{Gateway, MODERN, Post, battery::Battery},
};

/// The tools that the cases speak of.
fn tools() -> Vec<Value> {
    let mirrored = |kind: &str, header: &str| json!({ "type": kind, "x-mcp-header": header });
    let mut routed = tool("routed");
    routed["inputSchema"]["properties"] = json!({
        "region": mirrored("string", "Region"),
        "count": mirrored("integer", "Count"),
        "dry": mirrored("boolean", "Dry"),
        "place": { "type": "object", "properties": { "zone": mirrored("string", "Zone") } },
    });
    let plain = ["safe", "danger", "two words", "grüße", "=?base64?c2FmZQ==?="];
    plain.into_iter().map(tool).chain([routed]).collect()
}

fn request(gateway: &Gateway, case: &Agreement) -> Post {
    let usual = [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", "safe")];
    let post = gateway.post("/mcp/echo", case.body.clone());
    let post = usual.iter().fold(post, |post, (name, value)| post.header(name, value));
    case.headers.iter().fold(post, |post, change| match change {
        Change::Set(name, value) => post.header(name, value),
        Change::Add(name, value) => post.and(name, value),
        Change::Remove(name) => post.without(name),
    })
}

#[tokio::test]
async fn what_runs_is_what_headers_and_body_say() {
    let battery = Battery::new("T05");
    let fake = Fake::builder().era(Era::Modern).tools(tools()).start().await;
    let gateway = Gateway::with("").backend("echo", &fake).start().await;
    for case in agreements() {
        fake.forget();
        let answer = request(&gateway, &case).send().await;
        let ran: Vec<_> =
            fake.seen_of("tools/call").iter().map(|seen| seen.body["params"]["name"].clone()).collect();
        let held = match case.verdict {
            Ok(name) => answer.status == 200 && answer.text().contains("\"result\"") && ran == [json!(name)],
            Err((status, code)) => {
                let refused = answer.status == status
                    && answer.text().contains("\"error\"")
                    && answer.error()["code"] == json!(code);
                refused && ran.is_empty()
            }
        };
        battery.row(case.name, held, (answer.status, answer.text(), ran));
    }
    battery.end(105);
}
