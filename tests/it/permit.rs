//! Who sees and calls what, over every transport and in every revision?

mod client;

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use serde_json::{Value, json};
use waystation::config::{Config, Environment};

use crate::{
    fake::{Era, Fake, tool},
    support::{
        Gateway, LEGACY, MODERN,
        battery::{Battery, is_weakened},
        names_of,
    },
};
use client::{AUDIENCE, Client, Issuer, TRANSPORTS, Transport, with};

const SERVERS: usize = 4;
const TOOLS: usize = 40;
/// Names as long as those that exist.
const MISSING: &str = "b9__gone_00";

/// A role: what its token says, or none, and which tools, by server and number, it may call.
struct Role {
    name: &'static str,
    claims: Option<Value>,
    may: fn(usize, usize) -> bool,
}

/// What the rules below say, a second time.
const ROLES: [fn() -> Role; 6] = [
    || Role { name: "admin", claims: Some(json!({ "sub": "root" })), may: |_, _| true },
    || Role { name: "reader", claims: Some(json!({ "groups": ["readers"] })), may: |_, tool| tool % 2 == 0 },
    || Role {
        name: "dev",
        claims: Some(json!({ "groups": ["dev"] })),
        may: |server, tool| server == 0 && tool / 10 != 3,
    },
    || Role {
        name: "sales",
        claims: Some(json!({ "department": ["it", "sales"] })),
        may: |server, tool| server == 1 && tool < 20,
    },
    || Role {
        name: "nobody",
        claims: Some(json!({ "sub": "eve", "department": "Sales" })),
        may: |_, _| false,
    },
    || Role { name: "stranger", claims: None, may: |server, tool| server == 2 && tool < 10 },
];

/// Who is on this machine.
const LOCAL: Role = Role { name: "local", claims: None, may: |server, tool| server == 3 && tool < 10 };

const RULES: &str = r#"
    [[permit]]
    who = { subject = "root" }
    allow = ["*"]
    [[permit]]
    who = { group = "readers" }
    only = "read-only"
    allow = ["b*"]
    [[permit]]
    who = { group = "dev" }
    backend = "b0"
    deny = ["*_3*"]
    allow = ["*"]
    [[permit]]
    who = { claim = { department = "sales" } }
    allow = ["b1__*_0*", "b1__*_1*"]
    [[permit]]
    who = { anonymous = true }
    allow = ["b2__*_0*"]
    [[permit]]
    when = 'caller.issuer == "" && !caller.anonymous'
    deny = ["b0__*", "b1__*", "b2__*"]
    allow = ["b3__*_0*"]
    [[permit]]
    who = { group = "nobody" }
    allow = ["*"]
"#;

/// A server with tools of which every other one reads, and one prompt, resource and template for each
/// ten of them, which reads and is called like the first of the ten.
async fn server(index: usize) -> Fake {
    server_of(index, Era::Both).await
}

async fn server_of(index: usize, era: Era) -> Fake {
    let tools = (0..TOOLS).map(|number| {
        let mut tool = tool(&format!("tool_{number:02}"));
        tool["annotations"] = json!({ "readOnlyHint": number % 2 == 0 });
        tool
    });
    let tens = || (0..TOOLS / 10).map(|ten| format!("tool_{ten}0"));
    let prompts = tens().map(|name| json!({ "name": name }));
    let resources = tens().map(|name| json!({ "uri": format!("s{index}://{name}"), "name": name }));
    let templates =
        tens().map(|name| json!({ "uriTemplate": format!("s{index}://{{any}}/{name}"), "name": name }));
    let fake = Fake::builder().era(era).name(&format!("b{index}")).tools(tools.collect());
    fake.prompts(prompts.collect())
        .resources(resources.collect())
        .templates(templates.collect())
        .start()
        .await
}

async fn servers() -> Vec<Fake> {
    futures_util::future::join_all((0..SERVERS).map(server)).await
}

async fn gateway(issuer: &Issuer, rules: &str, servers: &[Fake]) -> Gateway {
    let setup = Gateway::with(&format!("{}{rules}", issuer.tables()));
    let setup = servers
        .iter()
        .enumerate()
        .fold(setup, |setup, (index, fake)| setup.backend(&format!("b{index}"), fake));
    setup.start().await
}

fn revisions() -> impl Iterator<Item = &'static str> {
    LEGACY.into_iter().chain([MODERN])
}

/// Does an answer to something hidden read like that to what does not exist?
fn alike(hidden: &Value, name: &str, missing: &Value, gone: &str) -> bool {
    hidden.get("error").is_some()
        && hidden.to_string().replace(name, "X") == missing.to_string().replace(gone, "X")
}

/// One client's walk through everything there is; what is not as it should be.
struct Walk<'a> {
    client: Client<'a>,
    role: &'a Role,
    wrong: Vec<String>,
}

impl Walk<'_> {
    fn expect(&mut self, held: bool, what: impl FnOnce() -> String) {
        if !held {
            self.wrong.push(what());
        }
    }

    async fn lists(&mut self) {
        let (may, all) =
            (self.role.may, (0..SERVERS).flat_map(|server| (0..TOOLS).map(move |tool| (server, tool))));
        let allowed: Vec<_> = all.filter(|(server, tool)| may(*server, *tool)).collect();
        let tens: Vec<_> = allowed.iter().filter(|(_, tool)| tool % 10 == 0).collect();
        let tools: Vec<_> =
            allowed.iter().map(|(server, tool)| format!("b{server}__tool_{tool:02}")).collect();
        let prompts = tens.iter().map(|(server, tool)| format!("b{server}__tool_{tool:02}")).collect();
        let resources = tens.iter().map(|(server, tool)| format!("s{server}://tool_{tool:02}")).collect();
        let templates =
            tens.iter().map(|(server, tool)| format!("s{server}://{{any}}/tool_{tool:02}")).collect();
        for (method, member, key, mut expected) in [
            ("tools/list", "tools", "name", tools),
            ("prompts/list", "prompts", "name", prompts),
            ("resources/list", "resources", "uri", resources),
            ("resources/templates/list", "resourceTemplates", "uriTemplate", templates),
        ] {
            let mut listed = self.client.names(method, member, key).await;
            listed.retain(|name| !name.starts_with("waystation__"));
            listed.sort();
            expected.sort();
            self.expect(listed == expected, || format!("{method}: {listed:?}, not {expected:?}"));
        }
    }

    /// Uses a thing, and one that does not exist: both are answered alike unless it may be used.
    async fn uses(
        &mut self,
        method: &str,
        allowed: bool,
        name: &str,
        gone: &str,
        params: impl Fn(&str) -> Value,
    ) {
        let used = self.client.ask(method, params(name)).await;
        if allowed {
            return self.expect(used.get("result").is_some(), || format!("{method} {name}: {used}"));
        }
        let missing = self.client.ask(method, params(gone)).await;
        self.expect(alike(&used, name, &missing, gone), || format!("{method} {name}: {used}, not {missing}"));
    }

    async fn tools(&mut self) {
        for server in 0..SERVERS {
            for number in (0..TOOLS).step_by(if is_weakened() { 5 } else { 1 }) {
                let (name, may) = (format!("b{server}__tool_{number:02}"), (self.role.may)(server, number));
                let params = |name: &str| json!({ "name": name, "arguments": {} });
                self.uses("tools/call", may, &name, MISSING, params).await;
            }
        }
    }

    async fn prompts(&mut self, method: &str) {
        for (server, number) in tens() {
            let (name, may) = (format!("b{server}__tool_{number:02}"), (self.role.may)(server, number));
            let params = |name: &str| match method {
                "prompts/get" => json!({ "name": name }),
                _ => {
                    json!({ "ref": { "type": "ref/prompt", "name": name }, "argument": { "name": "a", "value": "b" } })
                }
            };
            self.uses(method, may, &name, MISSING, params).await;
        }
    }

    async fn resources(&mut self) {
        for (server, number) in tens() {
            let may = (self.role.may)(server, number);
            for uri in [format!("s{server}://tool_{number:02}"), format!("s{server}://x/tool_{number:02}")] {
                let gone = uri.replacen('s', "q", 1);
                self.uses("resources/read", may, &uri, &gone, |uri| json!({ "uri": uri })).await;
            }
        }
    }

    async fn watches(&mut self) {
        for (server, number) in tens() {
            let (uri, may) = (format!("s{server}://tool_{number:02}"), (self.role.may)(server, number));
            let (watched, seen) = self.client.watches(&uri).await;
            self.expect(watched == may, || format!("subscribe {uri}: {seen}"));
            if !may {
                let gone = uri.replacen('s', "q", 1);
                let (_, missing) = self.client.watches(&gone).await;
                let same = seen.to_string().replace(&uri, "X") == missing.to_string().replace(&gone, "X");
                self.expect(same, || format!("subscribe {uri}: {seen}, not {missing}"));
            }
        }
    }
}

fn tens() -> impl Iterator<Item = (usize, usize)> {
    (0..SERVERS).flat_map(|server| (0..TOOLS).step_by(10).map(move |tool| (server, tool)))
}

/// T02: six roles, 160 tools, four servers, six ways to use things, five revisions, three transports.
async fn everything(battery: &Battery, gateway: &Gateway, issuer: &Issuer, role: &Role) {
    let token = role.claims.as_ref().map(|claims| issuer.token(claims));
    for transport in TRANSPORTS {
        if (transport == Transport::Stdio) != (role.name == LOCAL.name) {
            continue; // Who is on a pipe has no token.
        }
        for revision in revisions() {
            let client = Client::open(gateway, transport, revision, "/mcp", token.as_deref()).await;
            let mut walk = Walk { client, role, wrong: Vec::new() };
            for part in ["list", "call", "get", "read", "complete", "subscribe"] {
                match part {
                    "list" => walk.lists().await,
                    "call" => walk.tools().await,
                    "get" => walk.prompts("prompts/get").await,
                    "read" => walk.resources().await,
                    "complete" => walk.prompts("completion/complete").await,
                    _ => walk.watches().await,
                }
                let wrong = std::mem::take(&mut walk.wrong);
                let id = format!("{} {transport:?} {revision} {part}", role.name);
                battery.row(id, wrong.is_empty(), wrong.iter().take(3).collect::<Vec<_>>());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a battery, which tests/run runs by itself"]
async fn t02_whoever_asks_and_however() {
    let (battery, issuer, servers) = (Battery::new("T02"), Issuer::new(), servers().await);
    let gateway = gateway(&issuer, RULES, &servers).await;
    let roles: Vec<_> = ROLES.iter().map(|role| role()).chain([LOCAL]).collect();
    let walks = roles.iter().map(|role| everything(&battery, &gateway, &issuer, role));
    futures_util::future::join_all(walks).await;
    battery.end(6 * 5 * 2 * 6 + 5 * 6);
}

/// The part of it that each build is asked.
#[tokio::test]
async fn what_is_listed_can_be_called_in_every_revision() {
    let (battery, issuer, servers) = (Battery::new("T02 short"), Issuer::new(), servers().await);
    let gateway = gateway(&issuer, RULES, &servers).await;
    for role in ROLES.iter().map(|role| role()).filter(|role| ["dev", "nobody"].contains(&role.name)) {
        let token = role.claims.as_ref().map(|claims| issuer.token(claims));
        for revision in [LEGACY[0], LEGACY[3], MODERN] {
            let client = Client::open(&gateway, Transport::Http, revision, "/mcp", token.as_deref()).await;
            let mut walk = Walk { client, role: &role, wrong: Vec::new() };
            walk.lists().await;
            walk.prompts("prompts/get").await;
            walk.resources().await;
            walk.watches().await;
            let wrong = std::mem::take(&mut walk.wrong);
            battery.row(format!("{} {revision}", role.name), wrong.is_empty(), wrong);
        }
    }
    battery.end(6);
}

fn config(issuer: &Issuer, rules: &str, servers: &[Fake]) -> Config {
    let backends = servers
        .iter()
        .enumerate()
        .map(|(index, fake)| format!("[backends.b{index}]\nurl = \"{}\"\n", fake.url()));
    let toml = format!("{}{rules}\n{}", issuer.tables(), backends.collect::<String>());
    let environment: Environment = std::iter::empty::<(&str, &str)>().collect();
    Config::parse("routes.toml", &toml, &environment).unwrap_or_else(|why| panic!("{why}")).0
}

const NEEDS: &str = r#"
    [[permit]]
    who = { group = "dev" }
    needs = ["repo", "repo:write"]
    allow = ["b0__tool_00", "b0__s0://tool_00"]
    [[permit]]
    who = { group = "dev" }
    when = 'arguments.repo.startsWith("acme/")'
    allow = ["b0__tool_01"]
    [[permit]]
    who = { group = "dev" }
    allow = ["b0__tool_02"]
    [sets.some]
    tools = ["b0__tool_0*", "b1__tool_00"]
    prompts = ["b0__tool_00"]
    resources = ["b0__s0://*"]
    [sets.other]
    tools = ["b1__*"]
"#;

#[tokio::test]
async fn scopes_that_are_missing_are_asked_for() {
    let (battery, issuer, servers) = (Battery::new("T02 scopes"), Issuer::new(), vec![server(0).await]);
    let gateway = gateway(&issuer, NEEDS, &servers).await;
    let few = issuer.token(&json!({ "groups": ["dev"], "scope": "repo" }));
    let all = issuer.token(&json!({ "groups": ["dev"], "scope": "repo:write repo" }));
    for transport in [Transport::Http, Transport::Pair] {
        for revision in revisions() {
            let row = |what: &str| format!("{transport:?} {revision} {what}");
            let mut client = Client::open(&gateway, transport, revision, "/mcp", Some(&few)).await;
            let listed = client.names("tools/list", "tools", "name").await;
            battery.row(row("listed"), listed.contains(&"b0__tool_00".to_owned()), listed);
            let call = json!({ "name": "b0__tool_00", "arguments": {} });
            let refused = client.ask("tools/call", call.clone()).await;
            let error = &refused["error"];
            let needed = json!({ "requiredScopes": ["repo", "repo:write"] });
            battery.row(row("refused"), error["code"] == 403 && error["data"] == needed, &refused);
            if transport == Transport::Http {
                let answer = client.answer("tools/call", call.clone()).await;
                let challenge =
                    answer.headers.get("www-authenticate").map(|text| text.to_str().unwrap().to_owned());
                let challenge = challenge.unwrap_or_default();
                let whole = "Bearer error=\"insufficient_scope\", scope=\"repo repo:write\", \
                             resource_metadata=\"https://mcp.example.com/.well-known/oauth-protected-resource/mcp\", \
                             error_description=";
                battery.row(
                    row("challenge"),
                    answer.status == 403 && challenge.starts_with(whole),
                    (answer.status, challenge),
                );
            }
            let (watched, said) = client.watches("s0://tool_00").await;
            battery.row(row("subscribe"), !watched && said.to_string().contains("repo:write"), said);
            let mut client = Client::open(&gateway, transport, revision, "/mcp", Some(&all)).await;
            let called = client.ask("tools/call", call).await;
            battery.row(row("with all scopes"), called.get("result").is_some(), called);
        }
    }
    battery.end(45);
}

#[tokio::test]
async fn arguments_that_are_not_allowed_go_nowhere() {
    let (battery, issuer, servers) = (Battery::new("T02 arguments"), Issuer::new(), vec![server(0).await]);
    let gateway = gateway(&issuer, NEEDS, &servers).await;
    let token = issuer.token(&json!({ "groups": ["dev"] }));
    for transport in [Transport::Http, Transport::Pair] {
        for revision in revisions() {
            let mut client = Client::open(&gateway, transport, revision, "/mcp", Some(&token)).await;
            for (what, arguments) in [
                ("another", json!({ "repo": "evil/x" })),
                ("none", json!({})),
                ("a number", json!({ "repo": 7 })),
                ("two spellings", json!({ "repo": "acme/x", "Repo": "evil/x" })),
            ] {
                let before = servers[0].seen_of("tools/call").len();
                let refused =
                    client.ask("tools/call", json!({ "name": "b0__tool_01", "arguments": arguments })).await;
                let said = refused["error"]["message"].as_str().unwrap_or_default();
                let held =
                    refused["error"]["code"] == 403 && said.contains("these arguments are not allowed");
                let nowhere = servers[0].seen_of("tools/call").len() == before;
                battery.row(format!("{transport:?} {revision} {what}"), held && nowhere, &refused);
            }
            let allowed = client
                .ask("tools/call", json!({ "name": "b0__tool_01", "arguments": { "repo": "acme/x" } }))
                .await;
            battery.row(
                format!("{transport:?} {revision} right ones"),
                allowed.get("result").is_some(),
                &allowed,
            );
        }
    }
    battery.end(50);
}

#[tokio::test]
async fn a_set_has_what_it_names_and_nothing_else() {
    let (battery, issuer) = (Battery::new("T02 sets"), Issuer::new());
    let servers = vec![server(0).await, server(1).await];
    let gateway = gateway(&issuer, NEEDS, &servers).await;
    let token = issuer.token(&json!({ "groups": ["dev"] }));
    for transport in [Transport::Http, Transport::Pair] {
        for revision in revisions() {
            let row = |what: &str| format!("{transport:?} {revision} {what}");
            let mut client = Client::open(&gateway, transport, revision, "/mcp/@some", Some(&token)).await;
            let listed = client.names("tools/list", "tools", "name").await;
            battery.row(row("tools"), listed == ["b0__tool_00", "b0__tool_01", "b0__tool_02"], listed);
            let prompts = client.names("prompts/list", "prompts", "name").await;
            battery.row(row("prompts"), prompts == ["b0__tool_00"], prompts);
            let resources = client.names("resources/list", "resources", "uri").await;
            battery.row(row("resources"), resources == ["s0://tool_00"], resources);
            let called = client.ask("tools/call", json!({ "name": "b0__tool_02", "arguments": {} })).await;
            battery.row(row("call"), called.get("result").is_some(), called);
            let outside =
                client.ask("tools/call", json!({ "name": "waystation__status", "arguments": {} })).await;
            let missing =
                client.ask("tools/call", json!({ "name": "waystation__gone_x", "arguments": {} })).await;
            let same = alike(&outside, "waystation__status", &missing, "waystation__gone_x");
            battery.row(row("outside"), same, outside);
        }
    }
    for (what, path, token, there) in [
        ("a set at which one may use nothing", "/mcp/@other", &token, false),
        ("no such set", "/mcp/@none", &token, false),
        ("a backend as a set", "/mcp/@b0", &token, false),
    ] {
        let post = with(gateway.modern_at(path, "tools/list", json!({})), Some(token));
        let answer = post.send().await;
        battery.row(what, (answer.status == 200) == there, answer.text());
    }
    let metadata = gateway.get("/.well-known/oauth-protected-resource/mcp/@some").send().await;
    assert_eq!(metadata.json()["resource"], format!("{AUDIENCE}/@some"));
    battery.end(53);
}

#[tokio::test]
async fn a_session_of_a_set_is_of_no_other_endpoint() {
    let (issuer, servers) = (Issuer::new(), vec![server(0).await]);
    let gateway = gateway(&issuer, NEEDS, &servers).await;
    let token = issuer.token(&json!({ "groups": ["dev"] }));
    let hello = crate::support::session::initialize("2025-11-25").to_string();
    let opened = with(gateway.post("/mcp/@some", hello), Some(&token)).send().await;
    let id = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string();
    for (path, status) in [("/mcp/@some", 200), ("/mcp", 404), ("/mcp/b0", 404), ("/mcp/@other", 404)] {
        let post = gateway.post(path, ping.clone()).header("mcp-session-id", &id);
        assert_eq!(with(post, Some(&token)).send().await.status, status, "{path}");
    }
}

/// Only what `who` says differs, so that what was allowed is known from it.
fn one_rule(group: &str) -> String {
    format!("[[permit]]\nwho = {{ group = \"{group}\" }}\nallow = [\"b0__*\"]\n")
}

#[tokio::test]
async fn a_rule_that_is_gone_allows_nothing_from_the_next_request_on() {
    revoked("T02 revoked short", 10).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a battery, which tests/run runs by itself"]
async fn t02_revoked_ten_thousand_times() {
    revoked("T02 revoked", if is_weakened() { 25 } else { 250 }).await;
}

/// Forty requests at once after each reload, of sessions that were opened before and of all kinds.
async fn revoked(name: &'static str, reloads: usize) {
    let (battery, issuer, servers) = (Battery::new(name), Issuer::new(), vec![server(0).await]);
    let gateway = gateway(&issuer, &one_rule("dev"), &servers).await;
    let token = issuer.token(&json!({ "groups": ["dev"] }));
    let mut clients = Vec::new();
    for revision in revisions() {
        clients.push(Client::open(&gateway, Transport::Http, revision, "/mcp", Some(&token)).await);
    }
    let (gone, here) =
        (config(&issuer, &one_rule("ops"), &servers), config(&issuer, &one_rule("dev"), &servers));
    let (mut passed, mut asked, mut kept_out) = (0, 0, 0);
    for _ in 0..reloads {
        gateway.waystation.reload(gone.clone()).await.unwrap();
        let calls = clients.iter().flat_map(|client| {
            (0..8).map(move |number| match number {
                0 => client.answer("tools/list", json!({})),
                _ => client.answer(
                    "tools/call",
                    json!({ "name": format!("b0__tool_{number:02}"), "arguments": {} }),
                ),
            })
        });
        let calls: Vec<_> = calls.collect();
        asked += calls.len();
        for answer in futures_util::future::join_all(calls).await {
            let shown = answer.response()["result"]["tools"].as_array().map_or(0, Vec::len);
            let called = answer.response()["result"].get("content").is_some();
            passed += usize::from(shown > 0 || called);
        }
        gateway.waystation.reload(here.clone()).await.unwrap();
        let call = clients[4].answer("tools/call", json!({ "name": "b0__tool_01", "arguments": {} })).await;
        kept_out += usize::from(call.response().get("result").is_none());
    }
    println!("{name}: {passed} of {asked} passed by rules that were gone");
    battery.row("gone", passed == 0, passed);
    battery.row("here again", kept_out == 0, kept_out);
    battery.end(2);
}

#[tokio::test]
async fn whoever_sees_other_lists_after_a_reload_is_told_and_nobody_else() {
    let (battery, issuer, servers) = (Battery::new("T02 told"), Issuer::new(), vec![server(0).await]);
    let rules = |dev: &str| {
        format!("{}[[permit]]\nwho = {{ group = \"ops\" }}\nallow = [\"b0__tool_01\"]\n", one_rule(dev))
    };
    let gateway = gateway(&issuer, &rules("dev"), &servers).await;
    for (revision, group, told) in [
        ("2025-11-25", "dev", true),
        (MODERN, "dev", true),
        ("2025-11-25", "ops", false),
        (MODERN, "ops", false),
    ] {
        gateway.waystation.reload(config(&issuer, &rules("dev"), &servers)).await.unwrap();
        let token = issuer.token(&json!({ "groups": [group] }));
        let client = Client::open(&gateway, Transport::Http, revision, "/mcp", Some(&token)).await;
        let filter = json!({ "notifications": { "toolsListChanged": true, "resourceSubscriptions": ["s0://tool_00"] } });
        let mut stream = match revision {
            MODERN => {
                let mut stream = client.post("subscriptions/listen", filter).open().await;
                stream.message().await.expect("an acknowledgement");
                stream
            }
            _ => {
                let get = client.post("ping", json!({})).verb("GET").without("content-type");
                get.header("accept", "text/event-stream").open().await
            }
        };
        // What was told of lists that were read at the start is over.
        while tokio::time::timeout(Duration::from_millis(300), stream.message()).await.is_ok() {}
        gateway.waystation.reload(config(&issuer, &rules("nobody"), &servers)).await.unwrap();
        let told_of = async {
            loop {
                let message = stream.message().await.unwrap_or_default();
                if message["method"] == "notifications/tools/list_changed" {
                    return;
                }
            }
        };
        let patience = if told { Duration::from_secs(5) } else { Duration::from_millis(300) };
        let heard = tokio::time::timeout(patience, told_of).await.is_ok();
        battery.row(format!("{revision} {group}"), heard == told, heard);
    }
    battery.end(4);
}

#[tokio::test]
async fn of_what_one_may_not_see_any_more_one_hears_nothing() {
    let servers = vec![server_of(0, Era::Legacy).await];
    let (battery, issuer) = (Battery::new("T02 watched"), Issuer::new());
    let gateway = gateway(&issuer, &one_rule("dev"), &servers).await;
    let token = issuer.token(&json!({ "groups": ["dev"] }));
    let client = Client::open(&gateway, Transport::Http, MODERN, "/mcp", Some(&token)).await;
    let filter = json!({ "notifications": { "resourceSubscriptions": ["s0://tool_00"] } });
    let mut stream = client.post("subscriptions/listen", filter).open().await;
    let honoured = stream.message().await.expect("an acknowledgement");
    let watched = honoured["params"]["notifications"].get("resourceSubscriptions").is_some();
    battery.row("before", watched, honoured);
    if watched {
        servers[0].until_seen("resources/subscribe", 1).await;
        let uri = json!({ "uri": "s0://tool_00" });
        let updated = json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": uri });
        servers[0].notify(updated.clone());
        let first = stream.message().await.expect("an update");
        assert_eq!(first["method"], "notifications/resources/updated", "{first}");
        gateway.waystation.reload(config(&issuer, &one_rule("ops"), &servers)).await.unwrap();
        servers[0].notify(updated);
        let second = tokio::time::timeout(Duration::from_millis(500), stream.message()).await;
        battery.row("after", second.is_err(), second);
    }
    battery.end(2);
}

/// Random policies through the whole gateway: what is listed can be called, and nothing else.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a battery, which tests/run runs by itself"]
async fn t02_random_policies_list_what_can_be_called() {
    let (battery, issuer) = (Battery::new("T02 random"), Issuer::new());
    let servers = vec![server(0).await, server(1).await];
    let gateway = gateway(&issuer, &one_rule("dev"), &servers).await;
    let tokens: Vec<_> =
        ["g0", "g1"].iter().map(|group| issuer.token(&json!({ "groups": [group] }))).collect();
    let mut runner = TestRunner::deterministic();
    let one = (
        "g[0-2]",
        "b[01*]__(tool_0[0-3]|tool_[0-3]\\*|\\*)",
        "b[01]__tool_[0-3](\\*|[0-3])",
        proptest::bool::ANY,
    );
    let policies = proptest::collection::vec(one, 1..5);
    let (mut pairs, mut allowed, mut wrong) = (0, 0, Vec::new());
    for _ in 0..if is_weakened() { 50 } else { 200 } {
        let policy = policies.new_tree(&mut runner).unwrap().current();
        let rules = policy.iter().map(|(group, allow, deny, reads)| {
            let only = if *reads { "only = \"read-only\"\n" } else { "" };
            format!("[[permit]]\nwho = {{ group = \"{group}\" }}\n{only}allow = [\"{allow}\"]\ndeny = [\"{deny}\"]\n")
        });
        let rules = rules.collect::<String>();
        gateway.waystation.reload(config(&issuer, &rules, &servers)).await.unwrap();
        for (index, token) in tokens.iter().enumerate() {
            let revision = if index == 0 { "2025-06-18" } else { MODERN };
            let mut client = Client::open(&gateway, Transport::Http, revision, "/mcp", Some(token)).await;
            let listed = client.names("tools/list", "tools", "name").await;
            for name in ["b0__tool_00", "b0__tool_01", "b0__tool_13", "b1__tool_02", "b1__tool_31"] {
                let called = client.ask("tools/call", json!({ "name": name, "arguments": {} })).await;
                let (is_listed, can) = (listed.contains(&name.to_owned()), called.get("result").is_some());
                (pairs, allowed) = (pairs + 1, allowed + usize::from(can));
                if is_listed != can {
                    wrong.push(format!("{name}: listed {is_listed}, called {can}\n{rules}"));
                }
            }
        }
    }
    println!("T02 random: {pairs} pairs, {allowed} of them allowed");
    battery.row("listed is callable", wrong.is_empty() && allowed > 50, wrong.first());
    battery.end(1);
}

/// How long the gateway takes to say that a tool is hidden, and that one does not exist.
#[tokio::test]
#[ignore = "a battery, which tests/run runs by itself"]
async fn t02_hidden_and_missing_take_the_same_time() {
    const SAMPLES: usize = 4000;
    let (battery, issuer, servers) = (Battery::new("T02 time"), Issuer::new(), servers().await);
    let gateway = gateway(&issuer, RULES, &servers).await;
    let token = issuer.token(&json!({ "groups": ["dev"] }));
    let address = gateway.address.to_string();
    let mut taken = [Vec::new(), Vec::new()];
    for sample in 0..2 * SAMPLES {
        let which = sample % 2;
        let name = ["b1__tool_00", MISSING][which];
        let message =
            crate::support::modern_message(json!(1), "tools/call", json!({ "name": name, "arguments": {} }));
        let request = http::Request::post("/mcp")
            .header("host", &address)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", MODERN)
            .header("mcp-method", "tools/call")
            .header("mcp-name", name)
            .header("authorization", format!("Bearer {token}"))
            .body(Full::new(Bytes::from(message.to_string())))
            .unwrap();
        let begun = Instant::now();
        let answer = gateway.waystation.handle(request).await;
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        taken[which].push(begun.elapsed());
        assert!(body.windows(13).any(|part| part == b"there is no t"), "{body:?}");
    }
    taken.iter_mut().for_each(|taken| taken.sort());
    let median = |which: usize| taken[which][SAMPLES / 2].as_nanos() as f64;
    let difference = (median(0) / median(1) - 1.0).abs() * 100.0;
    println!("T02 time: medians {:.0} and {:.0} ns, {difference:.2} % apart", median(0), median(1));
    battery.row("hidden and missing", difference < 5.0, difference);
    battery.end(1);
}

#[tokio::test]
async fn explain_says_which_rule_decides() {
    let (issuer, servers) = (Issuer::new(), vec![server(0).await]);
    let rules =
        format!("[[permit]]\nwho = {{ group = \"dev\" }}\nallow = [\"waystation__explain\"]\n{NEEDS}");
    let gateway = gateway(&issuer, &rules, &servers).await;
    let token = issuer.token(&json!({ "groups": ["dev"] }));
    let explain = async |tool: &str| {
        let call = gateway.call("waystation__explain", json!({ "tool": tool }));
        with(call, Some(&token)).send().await.result()["structuredContent"].clone()
    };
    for (tool, verdict, rule, words) in [
        ("b0__tool_00", "needs scopes", json!(2), "repo repo:write"),
        ("b0__tool_01", "allowed with some arguments", json!(3), "arguments.repo.startsWith"),
        ("b0__tool_02", "allowed", json!(4), "Rule 4"),
        ("b0__tool_03", "denied", json!(null), "none speaks of it"),
        ("s0://tool_00", "needs scopes", json!(2), "is the resource"),
    ] {
        let told = explain(tool).await;
        let says = told["says"].to_string();
        assert_eq!((&told["verdict"], &told["rule"]), (&json!(verdict), &rule), "{told}");
        assert!(says.contains(words) && says.contains("The backend b0 is ready"), "{told}");
        assert!(rule.is_null() || told["line"].is_u64(), "{told}");
    }
    let none = explain("b7__x").await;
    assert!(none["found"] == false && none["says"].to_string().contains("[backends]"), "{none}");
}

#[tokio::test]
async fn a_name_that_another_brings_is_no_way_into_its_rules() {
    let (issuer, trusted) = (Issuer::new(), server(0).await);
    let evil = Fake::builder().name("evil").tools(vec![tool("b0__tool_77")]).start().await;
    let rules = "[[permit]]\nbackend = \"b0\"\nallow = [\"b0__*\"]\n";
    let setup = Gateway::with(&format!("{}{rules}", issuer.tables())).backend("b0", &trusted);
    let gateway = setup.server("evil", &evil.url(), "prefix = \"\"").start().await;
    let token = issuer.token(&json!({}));
    let listed = with(gateway.modern("tools/list", json!({})), Some(&token)).send().await.result();
    let listed = names_of(&listed);
    assert!(listed.len() == TOOLS && !listed.contains(&"b0__tool_77".to_owned()), "{listed:?}");
}
