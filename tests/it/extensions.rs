//! Do extensions that a server has work through the gateway, under names of ours and under its own?

use serde_json::{Value, json};

use crate::{
    fake::{Era, Fake},
    support::{Gateway, Session},
};

const APPS: &str = "io.modelcontextprotocol/ui";
const SKILLS: &str = "io.modelcontextprotocol/skills";

fn shows_pages() -> Value {
    json!({ "extensions": { APPS: { "mimeTypes": ["text/html;profile=mcp-app"] } } })
}

/// A server whose tool is shown by a page that it does not list.
async fn app(era: Era) -> Fake {
    let tool = json!({
        "name": "weather", "inputSchema": { "type": "object" },
        "_meta": { "ui": { "resourceUri": "ui://weather/view.html", "visibility": ["model", "app"] } },
    });
    let template = json!({ "uriTemplate": "ui://weather/{file}", "name": "pages" });
    let extensions = json!({ APPS: {} });
    Fake::builder().era(era).tools(vec![tool]).templates(vec![template]).extensions(extensions).start().await
}

#[tokio::test]
async fn an_app_is_shown_and_calls_its_tools_by_their_own_names() {
    for era in [Era::Legacy, Era::Modern] {
        let fake = app(era).await;
        let other =
            Fake::builder().resources(vec![json!({ "uri": "ui://other/a.html", "name": "a" })]).start().await;
        let gateway = Gateway::with("").backend("sky", &fake).backend("other", &other).start().await;
        let capabilities = json!({ "io.modelcontextprotocol/clientCapabilities": shows_pages() });
        let with = |mut params: Value| {
            params["_meta"] = capabilities.clone();
            params
        };
        let hello = gateway.modern("server/discover", with(json!({}))).send().await.result();
        assert!(hello["capabilities"]["extensions"][APPS].is_object(), "{hello}");
        let session = Session::open_as(gateway.address, "/mcp/sky", "2025-11-25", shows_pages()).await;
        assert!(session.hello["capabilities"]["extensions"][APPS].is_object(), "{:?}", session.hello);
        let tools = gateway.modern("tools/list", with(json!({}))).send().await.result();
        let tool =
            tools["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "sky__weather").unwrap();
        let page = tool["_meta"]["ui"]["resourceUri"].clone();
        let read = with(json!({ "uri": page }));
        for path in ["/mcp", "/mcp/sky"] {
            let shown = gateway.modern_at(path, "resources/read", read.clone()).send().await.result();
            assert_eq!(shown["contents"][0]["text"], "fake has ui://weather/view.html", "{path}");
        }
        let shown = session.request("resources/read", json!({ "uri": page })).send().await.result();
        assert_eq!(shown["contents"][0]["uri"], page);
        // The page knows its tool by the server's own name.
        let own = json!({ "name": "weather", "arguments": { "at": "sea" } });
        let called = gateway.modern_at("/mcp/sky", "tools/call", with(own.clone())).send().await.result();
        assert_eq!(called["structuredContent"], json!({ "at": "sea" }));
        assert_eq!(
            session.call("weather", json!({ "at": "sea" })).send().await.result()["content"],
            called["content"]
        );
        // The server was told that its client shows pages.
        let declared = if era == Era::Modern {
            let call = fake.seen_of("tools/call").pop().unwrap();
            call.body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"].clone()
        } else {
            fake.seen_of("initialize").pop().unwrap().body["params"]["capabilities"].clone()
        };
        assert_eq!(declared, shows_pages(), "{era:?}");
    }
}

fn skill(server: &str, name: &str) -> Value {
    let uri = format!("skill://{server}/{name}/SKILL.md");
    json!({
        "uri": uri, "frontmatter": { "name": name, "description": "A skill." },
        "resources": [{ "uri": uri, "digest": format!("sha256:{}", "0".repeat(64)), "size": 3 }],
    })
}

#[tokio::test]
async fn skills_of_all_servers_are_one_list_and_each_is_read_where_it_is() {
    let build = |server: &str, names: [&str; 2]| {
        let template = json!({ "uriTemplate": format!("skill://{server}/{{+path}}"), "name": "files" });
        let skills = names.map(|name| skill(server, name)).to_vec();
        let extensions = json!({ SKILLS: { "directoryRead": true } });
        let fake = Fake::builder().era(Era::Modern).name(server).templates(vec![template]);
        fake.skills(skills).extensions(extensions).page_size(1)
    };
    let (one, two) =
        (build("one", ["bake", "cook"]).start().await, build("two", ["plant", "water"]).start().await);
    let gateway = Gateway::with("").backend("one", &one).backend("two", &two).start().await;
    let hello = gateway.modern("server/discover", json!({})).send().await.result();
    assert_eq!(hello["capabilities"]["extensions"][SKILLS], json!({ "directoryRead": true }));
    let listed = gateway.modern("skills/list", json!({})).send().await.result();
    let expected = [("one", "bake"), ("one", "cook"), ("two", "plant"), ("two", "water")];
    let expected = expected.map(|(server, name)| skill(server, name));
    assert_eq!(listed["skills"], json!(expected), "whole, to the letter");
    assert!(listed["ttlMs"].is_u64() && listed["cacheScope"] == "private");
    let own = gateway.modern_at("/mcp/two", "skills/list", json!({})).send().await.result();
    assert_eq!(own["skills"], json!(expected[2..]));
    for (server, name) in [("one", "cook"), ("two", "plant")] {
        let uri = format!("skill://{server}/{name}/SKILL.md");
        let found = gateway.modern("skills/get", json!({ "uri": uri })).send().await.result();
        assert_eq!(found["skill"], skill(server, name));
        assert!(found["ttlMs"].is_u64() && found["cacheScope"].is_string(), "{found}");
        for file in ["SKILL.md", "scripts/run.sh"] {
            let uri = format!("skill://{server}/{name}/{file}");
            let read = gateway.modern("resources/read", json!({ "uri": uri })).send().await.result();
            assert_eq!(read["contents"][0]["text"], format!("{server} has {uri}"));
        }
        let folder = json!({ "uri": format!("skill://{server}/{name}") });
        let children = gateway.modern("resources/directory/read", folder.clone()).send().await.result();
        assert_eq!(children["resources"][0]["uri"], folder["uri"]);
    }
    let unknown = gateway.modern("skills/get", json!({ "uri": "skill://none/x/SKILL.md" })).send().await;
    assert_eq!(unknown.refusal(), (200, -32602));
    let session = gateway.legacy("2025-11-25").await;
    assert_eq!(session.request("skills/list", json!({})).send().await.refusal(), (200, -32601));
}
