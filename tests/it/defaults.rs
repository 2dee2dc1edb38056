//! Is a gateway that nobody has configured a safe one? The shipped program, with nothing in its
//! routes.toml but what a row is about.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

use crate::support::{
    Post,
    battery::{Battery, is_weakened},
    modern_call, modern_message,
    shipped::{Running, Shipped, descendants},
    until,
};

const IDENTIFIED: &str = "[identify]\naudience = \"https://mcp.example.com/mcp\"\n\
                          [[identify.issuer]]\nissuer = \"https://login.example.com\"\n";

fn list(gateway: &Running) -> Post {
    let message = modern_message(json!(1), "tools/list", json!({})).to_string();
    let post = Post::new(gateway.address, "/mcp", message);
    post.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/list")
}

/// Which exit code, and what is said?
fn checked(toml: &str) -> (Option<i32>, String) {
    let output = Shipped::default().run(toml, &["check"]);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_configured_is_safe() {
    let battery = Battery::new("T16-defaults");
    let schema: Value = serde_json::from_slice(&Shipped::default().run("", &["schema"]).stdout).unwrap();
    let listen = &schema["properties"]["listen"]["properties"];
    for (row, key) in [("listens-on-loopback", "address"), ("admin-on-loopback", "admin")] {
        let address = listen[key]["default"].as_str().unwrap_or_default();
        battery.row(row, address.starts_with("127.0.0.1:"), address);
    }
    for (row, toml, words) in [
        ("open-address", "[listen]\naddress = \"0.0.0.0:8080\"\n", "everyone there could call every tool"),
        ("open-admin", "[listen]\nadmin = \"0.0.0.0:8081\"\n", "operators' matters"),
        (
            "audience-missing",
            "[[identify.issuer]]\nissuer = \"https://a.example\"\n",
            "made for other services",
        ),
        (
            "secret-in-the-file",
            &format!("[backends.a]\ncommand = \"sh\"\nargs = [\"ghp_{}\"]\n", "x1".repeat(15)),
            "a secret",
        ),
    ] {
        let (code, said) = checked(toml);
        battery.row(row, code == Some(78) && said.contains(words), said);
    }

    let gateway = Shipped::default().serve("");
    let usual = list(&gateway).send().await;
    assert_eq!((usual.status, usual.headers.get("access-control-allow-origin")), (200, None));
    let of = |answer: crate::support::Answer| answer.status;
    let status = of(list(&gateway).header("host", "evil.example").send().await);
    battery.row("unknown-host", status == 403, status);
    let status = of(list(&gateway).header("origin", "https://evil.example").send().await);
    battery.row("unknown-origin", status == 403, status);
    let admin =
        |verb, host: &str| Post::new(gateway.admin, "/status", "").verb(verb).header("host", host).send();
    let status = of(admin("GET", "evil.example").await);
    battery.row("unknown-host-of-admin", status == 403, status);
    let here = gateway.admin.to_string();
    assert_eq!(of(admin("GET", &here).await), 200);
    for verb in ["POST", "PUT", "DELETE", "PATCH"] {
        let status = of(admin(verb, &here).await);
        battery.row(format!("admin-takes-no-{verb}"), status >= 400, status);
    }
    let large = announced(&gateway, (4 << 20) + 1).await;
    battery.row("body-limit", large.starts_with("HTTP/1.1 413 "), large);
    assert_eq!(of(list(&gateway).body("[".repeat(1000)).send().await), 400, "nested too deeply");
    let database = gateway.folder().join("state/waystation/waystation.db");
    let mode = fs::metadata(&database).unwrap().permissions().mode() & 0o777;
    assert!(mode == 0o600 || is_weakened(), "{mode:o}");
    let noted = noted(gateway, "");
    battery.row("nothing-noted-of-one-person", noted.is_empty(), noted);

    let gateway = Shipped::default().serve(IDENTIFIED);
    let status = of(list(&gateway).send().await);
    battery.row("token-needed", status == 401, status);
    battery.row("noted-where-callers-are-known", !self::noted(gateway, IDENTIFIED).is_empty(), "");
    children(&battery).await;
    battery.end(18);
}

/// The first line of the answer to a request that says it will be so long, and sends nothing.
async fn announced(gateway: &Running, bytes: usize) -> String {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {bytes}\r\n\r\n",
        gateway.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut line = String::new();
    let mut answer = BufReader::new(stream);
    let read = tokio::time::timeout(Duration::from_secs(3), answer.read_line(&mut line)).await;
    read.map_or_else(|_| "no answer".to_owned(), |_| line)
}

/// What the trail has of it, when it has stopped.
fn noted(gateway: Running, toml: &str) -> String {
    String::from_utf8_lossy(&gateway.stop().run(toml, &["audit", "--json"]).stdout).into_owned()
}

async fn children(battery: &Battery) {
    let shipped = Shipped::default().set("OURS_ALONE", "secret");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fake_stdio.py");
    let gateway = shipped.serve(&format!(
        "[backends.child]\ncommand = \"python3\"\nargs = [\"-S\", \"-E\", \"{script}\", \"; touch shell\"]\nenabled = false\n\
         [backends.fake]\ncommand = \"python3\"\nargs = [\"-S\", \"-E\", \"{script}\"]\n"
    ));
    let ask = || modern_call(gateway.address, "fake__echo", json!({ "note": "an argument of mine" }));
    crate::support::until_ok(|| ask().send()).await;
    let (_, log) = gateway.said();
    battery.row("no-arguments-in-the-log", !log.contains("an argument of mine"), &log);
    assert!(log.contains("connected"), "{log}");
    let children = descendants(gateway.pid());
    let of = |name: &str, pid: &u32| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let child =
        children.iter().find(|pid| of("cmdline", pid).contains("fake_stdio")).expect("it has started");
    let environment = of("environ", child);
    battery.row("child-environment", !environment.contains("OURS_ALONE"), &environment);
    // A group of its own, so that it ends as a whole.
    let stat = of("stat", child);
    let group = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(2).unwrap().to_owned();
    assert_eq!(group, child.to_string());
}

#[test]
fn a_refusal_to_start_says_all_at_once_and_what_would_be_right() {
    let toml = "[listen]\naddress = \"0.0.0.0:80\"\npage_sice = 3\n[log]\nlevel = \"loud\"\n[backends.a]\nurl = \"x\"\n";
    for command in ["check", "serve", "stdio"] {
        let output = Shipped::default().run(toml, &[command]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.lines().count()), (Some(78), 4), "{command}: {said}");
        for line in said.lines() {
            // error: FILE:LINE:COLUMN: KEY: what is wrong; what would be right
            let parts: Vec<_> = line.splitn(4, ": ").collect();
            let numbers = parts[1].split(':').skip(1).all(|number| number.parse::<u32>().is_ok());
            assert!(parts[0] == "error" && numbers && parts[3].contains("; "), "{line}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_texts_forge_no_line_of_the_log() {
    let shipped = Shipped::default();
    // What a child says is logged, and its last words stand in the status.
    let says = "printf 'a\\033[2J\\r2026-01-01T00:00:00Z ERROR forged \\342\\200\\250 b\\302\\205c\\n' >&2; printf '{\\342\\200\\250}\\n'; exit 1";
    let toml =
        format!("[log]\nlevel = \"debug\"\n[backends.child]\ncommand = \"sh\"\nargs = [\"-c\", {says:?}]\n");
    let gateway = shipped.serve(&toml);
    until("it is logged", || gateway.said().1.contains("not connected")).await;
    let strange = "x\u{2028}\u{1b}[2J\n2026-01-01T00:00:00Z ERROR forged";
    modern_call(gateway.address, "none", json!({}))
        .header("x-strange", strange.replace(['\n', '\u{1b}'], ""))
        .send()
        .await;
    let message = modern_message(json!(1), "tools/call", json!({ "name": strange, "arguments": {} }));
    list(&gateway).body(message.to_string()).send().await;
    let (_, log) = gateway.said();
    let is_event = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let level = |word: &&str| ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(word);
        words.first().is_some_and(|time| time.starts_with("20") && time.ends_with('Z'))
            && words.get(1).is_some_and(level)
    };
    assert!(log.lines().count() > 3 && log.lines().all(is_event), "{log}");
    assert!(!log.contains(['\u{1b}', '\r', '\u{2028}', '\u{85}']), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("2026-01-01")), "{log}");
}
