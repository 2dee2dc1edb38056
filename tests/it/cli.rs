//! What do the commands do that ask a gateway, and how do they end?

mod gateway;

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    process::{Command, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use gateway::{Gateway, Reply, Seen};
use serde_json::{Value, json};

fn waystation() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
    command.current_dir(env!("CARGO_TARGET_TMPDIR")).env_clear().stdin(Stdio::null());
    command
}

fn result(result: Value) -> Reply {
    Reply::Json(json!({ "jsonrpc": "2.0", "id": 1, "result": result }))
}

fn error(code: i64, message: &str) -> Reply {
    Reply::Json(json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": code, "message": message } }))
}

fn tools() -> Value {
    json!([
        { "name": "docs__search", "description": "Searches. And more.", "inputSchema": { "properties": {
            "n": { "type": "integer" }, "city": { "type": "string", "x-mcp-header": "City" } } } },
        { "name": "tür", "inputSchema": { "type": "object" } },
    ])
}

/// A gateway with two tools, which answers a call by the rule.
fn with_tools(call: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Gateway {
    Gateway::start(move |seen| match seen.body["method"].as_str() {
        Some("tools/list") => result(json!({ "tools": tools(), "resultType": "complete" })),
        Some("tools/call") => call(seen),
        _ => error(-32601, "no such method"),
    })
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[track_caller]
fn ends_with(output: &Output, code: i32, words: &str) {
    let told = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.contains(words), "{words:?} is not in: {told}");
}

#[test]
fn a_list_is_read_page_after_page() {
    let gateway =
        Gateway::start(|seen| match (seen.body["method"].as_str(), seen.body["params"]["cursor"].as_str()) {
            (Some("tools/list"), None) => result(json!({ "tools": [{ "name": "a" }], "nextCursor": "two" })),
            (Some("tools/list"), Some("two")) => {
                result(json!({ "tools": [{ "name": "b" }], "nextCursor": null }))
            }
            (Some("resources/list"), _) => {
                result(json!({ "resources": [{ "uri": "file:///x", "name": "X" }] }))
            }
            _ => error(-32601, "no such method"),
        });
    let output = gateway.run(&["list"]);
    ends_with(&output, 0, "TOOLS (2)");
    assert_eq!(
        text(&output.stdout),
        "TOOLS (2)\na          a\nb          b\n\nRESOURCES (1)\nfile:///x      X\n"
    );
    let output = gateway.run(&["list", "--json", "--kind", "tools"]);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(listed, json!({ "tools": [{ "name": "a" }, { "name": "b" }] }));
}

#[test]
fn a_request_is_whole_by_itself() {
    let gateway = with_tools(|_| result(json!({ "content": [] })));
    ends_with(&gateway.run(&["list", "--kind", "tools"]), 0, "docs__search");
    let seen = gateway.seen("tools/list").remove(0);
    assert_eq!(seen.line, "POST /mcp HTTP/1.1");
    assert_eq!(seen.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(seen.header("mcp-method"), Some("tools/list"));
    assert_eq!(seen.header("accept"), Some("application/json, text/event-stream"));
    let meta = &seen.body["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({}));
}

#[test]
fn a_list_that_never_ends_is_given_up() {
    let gateway = Gateway::start(|_| result(json!({ "tools": [], "nextCursor": "again" })));
    ends_with(&gateway.run(&["list", "--kind", "tools"]), 1, "never ends");
}

#[test]
fn a_call_has_the_arguments_that_the_schema_wants() {
    let gateway = with_tools(|_| result(json!({ "content": [{ "type": "text", "text": "found" }] })));
    let output = gateway.run(&["call", "docs__search", "--arg", "n=3", "-a", "city=Tür 7"]);
    ends_with(&output, 0, "");
    assert_eq!(text(&output.stdout), "found\n");
    let seen = gateway.seen("tools/call").remove(0);
    assert_eq!(seen.body["params"]["arguments"], json!({ "n": 3, "city": "Tür 7" }));
    assert_eq!(seen.header("mcp-name"), Some("docs__search"));
    assert_eq!(seen.header("mcp-param-city"), Some("=?base64?VMO8ciA3?="));

    ends_with(&gateway.run(&["call", "tür", "--json", "{\"x\": [1]}"]), 0, "found");
    let seen = gateway.seen("tools/call").remove(1);
    assert_eq!(
        (seen.header("mcp-name"), &seen.body["params"]["arguments"]),
        (Some("=?base64?dMO8cg==?="), &json!({ "x": [1] }))
    );
}

#[test]
fn a_tool_that_does_not_exist_is_told_with_the_one_that_was_meant() {
    let gateway = with_tools(|_| result(json!({})));
    ends_with(&gateway.run(&["call", "docs__serch"]), 1, "did you mean `docs__search`?");
    ends_with(&gateway.run(&["call", "nothing"]), 1, "`waystation list` has them all");
    assert_eq!(gateway.seen("tools/call").len(), 0);
}

#[test]
fn what_a_tool_says_went_wrong_ends_the_command_with_1() {
    let said = json!({ "content": [{ "type": "text", "text": "no such city" }], "isError": true });
    let gateway = with_tools(move |_| result(said.clone()));
    let output = gateway.run(&["call", "docs__search"]);
    ends_with(&output, 1, "no such city");
    assert_eq!(text(&output.stdout), "");
    let output = gateway.run(&["call", "docs__search", "--raw"]);
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), false));

    let refusing = with_tools(|_| error(-32602, "backend docs: away\u{1b}[2J"));
    let output = refusing.run(&["call", "docs__search"]);
    ends_with(&output, 1, "error: backend docs: away[2J\n");
}

#[test]
fn a_result_is_printed_as_it_came_if_asked_for() {
    let gateway =
        with_tools(|_| Reply::Raw("{\"content\":[],  \"structuredContent\":{\"n\":1.00000000000000000001}}"));
    let output = gateway.run(&["call", "docs__search", "--raw"]);
    assert_eq!(
        text(&output.stdout),
        "{\"content\":[],  \"structuredContent\":{\"n\":1.00000000000000000001}}\n"
    );
}

#[test]
fn a_result_without_text_is_printed_as_what_it_is() {
    let gateway = with_tools(|_| Reply::Raw("{\"content\":[], \"structuredContent\":{\"n\":1}}"));
    assert_eq!(text(&gateway.run(&["call", "docs__search"]).stdout), "{\n  \"n\": 1\n}\n");
    let gateway = with_tools(|_| {
        Reply::Raw("{\"content\":[{\"type\":\"image\",\"data\":\"\",\"mimeType\":\"image/png\"}]}")
    });
    ends_with(
        &gateway.run(&["call", "docs__search"]),
        0,
        "note: a part of type \"image\" (image/png) is left out",
    );
}

#[test]
fn an_answer_may_come_behind_progress() {
    let gateway = with_tools(|seen| {
        let token = &seen.body["params"]["_meta"]["progressToken"];
        let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress",
            "params": { "progressToken": token, "progress": 1, "total": 2, "message": "half" } });
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [{ "type": "text", "text": "done" }] } });
        Reply::Events(vec![progress, answer])
    });
    let output = gateway.run(&["call", "docs__search"]);
    assert_eq!((text(&output.stdout), text(&output.stderr)), ("done\n".into(), String::new()));

    let broken = with_tools(|_| Reply::Events(Vec::new()));
    ends_with(&broken.run(&["call", "docs__search"]), 1, "ended the answer before its end");
}

#[test]
fn a_call_that_takes_too_long_is_cancelled() {
    let (gone, heard) = mpsc::channel();
    let gateway = with_tools(move |_| Reply::Silence(gone.clone()));
    ends_with(&gateway.run(&["call", "docs__search", "--timeout", "2s"]), 1, "no answer after 2s");
    heard.recv_timeout(Duration::from_secs(5)).expect("the connection is closed");
}

#[cfg(unix)]
#[test]
fn an_interrupted_call_is_cancelled() {
    let (gone, heard) = mpsc::channel();
    let (called, calls) = mpsc::channel();
    let gateway = with_tools(move |_| {
        called.send(()).unwrap();
        Reply::Silence(gone.clone())
    });
    let url = format!("http://{}/mcp", gateway.address);
    let mut child = waystation().args(["call", "docs__search", "--url", &url]).spawn().unwrap();
    calls.recv_timeout(Duration::from_secs(10)).expect("the tool is called");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    heard.recv_timeout(Duration::from_secs(5)).expect("the connection is closed");
}

#[test]
fn what_is_no_gateway_is_told() {
    ends_with(&Gateway::start(|_| Reply::Status(404)).run(&["list"]), 1, "is no MCP server (HTTP 404");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = waystation().args(["list", "--url", &format!("http://{nobody}/mcp")]).output().unwrap();
    ends_with(&output, 1, "does not answer");
    ends_with(&waystation().args(["list", "--url", "nowhere"]).output().unwrap(), 1, "is no URL");
}

/// A configuration whose gateway is at these addresses.
fn configuration(address: SocketAddr, admin: SocketAddr) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "[listen]\naddress = \"{address}\"\nadmin = \"{admin}\"\n").unwrap();
    file
}

fn status() -> Value {
    json!({ "version": "0.1.0", "address": "127.0.0.1:8080", "uptime_s": 5, "backends": [
        { "name": "docs", "state": "ready", "transport": "http", "revision": "2025-11-25", "tools": 12,
          "prompts": 0, "resources": 3, "stale": false }] })
}

#[test]
fn the_status_comes_from_the_operators_address() {
    let admin = Gateway::start(|seen| {
        assert_eq!(seen.line, "GET /status HTTP/1.1");
        Reply::Json(status())
    });
    let front = Gateway::start(|_| Reply::Status(500));
    let file = configuration(front.address, admin.address);
    let command = ["status", "--config", file.path().to_str().unwrap()];
    let output = waystation().args(command).output().unwrap();
    ends_with(&output, 0, "docs     ready  http       2025-11-25     12        0          3");
    let output = waystation().args(command).arg("--json").output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), status());
}

#[test]
fn the_status_comes_from_the_tool_where_the_operators_address_is_closed() {
    let front = Gateway::start(|seen| {
        assert_eq!(seen.body["params"]["name"], "waystation__status");
        result(json!({ "content": [], "structuredContent": status() }))
    });
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = configuration(front.address, closed);
    let output = waystation().args(["status", "-c", file.path().to_str().unwrap()]).output().unwrap();
    ends_with(&output, 0, "waystation 0.1.0 at 127.0.0.1:8080, up 5 s");
}

#[test]
fn a_gateway_is_started_for_a_command_where_none_runs() {
    let folder = tempfile::tempdir().unwrap();
    let none: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let file = configuration(none, none);
    let run = |arguments: &[&str]| {
        let state = folder.path().join("state.db");
        let command = &mut waystation();
        command
            .env("WAYSTATION_STORE__PATH", state)
            .args(arguments)
            .arg("-c")
            .arg(file.path())
            .output()
            .unwrap()
    };
    ends_with(&run(&["call", "waystation__status"]), 0, "starting one for this command");
    ends_with(&run(&["list", "--kind", "tools"]), 0, "waystation__explain");
    ends_with(&run(&["status"]), 0, "waystation  ready  built-in");
    let output = run(&["call", "waystation__explain", "--arg", "tool=nothing__here"]);
    ends_with(&output, 0, "there is no backend named");
}

#[test]
fn why_somebody_may_use_a_tool_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.toml");
    let rules = "[identify]\nanonymous = true\n[[permit]]\nwho = { group = \"ops\", claim = { level = 3 } }\n\
                 allow = [\"waystation__*\"]\n[[permit]]\ndeny = [\"*__status\"]\n[store]\npath = \":memory:\"\n";
    fs::write(&file, format!("[listen]\naddress = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n{rules}"))
        .unwrap();
    let run = |arguments: &[&str]| {
        waystation().arg("explain").args(arguments).arg("-c").arg(&file).output().unwrap()
    };
    let ops = ["waystation__status", "--group", "ops", "--claim", "level=3"];
    ends_with(&run(&ops), 0, "waystation__status: allowed\n");
    ends_with(&run(&ops), 0, "Rule 1 (line 6) allows it.");
    ends_with(&run(&ops[..3]), 0, "Rule 2 (line 9) denies it");
    ends_with(&run(&["waystation__status", "--anonymous"]), 0, "waystation__status: denied\n");
    ends_with(&run(&["waystation__backends"]), 0, "(rule 2 (line 9)) none speaks of it");
    ends_with(&run(&["files__read"]), 0, "files__read: there is no such thing\n");
    ends_with(&run(&["waystation__status", "--token", "a.b.c"]), 1, "not one that this gateway takes");
    ends_with(&run(&["waystation__status", "--claim", "level"]), 1, "name=value");
}

#[test]
fn each_way_to_end_has_its_code() {
    let run = |arguments: &[&str]| waystation().args(arguments).output().unwrap();
    ends_with(&run(&["--help"]), 0, "Usage: waystation");
    ends_with(&run(&["--version"]), 0, "waystation 0.");
    ends_with(&run(&["check"]), 0, "is all right: 1 backend, chat");
    ends_with(&run(&["frobnicate"]), 64, "unrecognized subcommand");
    ends_with(&run(&["call"]), 64, "<TOOL>");
    ends_with(&run(&["check", "--config", "/no/such/file"]), 78, "error: /no/such/file: cannot be read");
    ends_with(&run(&["import", "/no/such/file"]), 1, "cannot be read");
}

#[test]
fn a_bad_configuration_is_told_on_one_line_each_and_nothing_is_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("routes.toml");
    fs::write(&file, "[listen]\npage_size = 0\naddres = 1\n").unwrap();
    for command in ["serve", "stdio", "check", "list"] {
        let output = waystation().args([command, "-c", file.to_str().unwrap()]).output().unwrap();
        ends_with(&output, 78, "routes.toml:2:13: listen.page_size:");
        assert_eq!(text(&output.stderr).lines().count(), 2, "{command}");
        assert_eq!(text(&output.stdout), "", "{command}");
    }
    let output = waystation().env("WAYSTATION_CONFIG", &file).output().unwrap();
    ends_with(&output, 78, "listen.addres: there is no key");
}

#[test]
fn the_schema_is_printed() {
    let output = waystation().arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["title"], "routes.toml");
    ends_with(&waystation().args(["schema", "--markdown"]).output().unwrap(), 0, "## `[listen]`");
}
