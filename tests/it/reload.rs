//! What changes while the gateway runs, and when?

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    fake::{Era, Fake},
    identify::{Issuer, with},
    support::{Gateway, PATIENCE, certified::Certified, until, until_ok},
};

fn parsed(toml: &str) -> waystation::config::Config {
    waystation::config::Config::parse("routes.toml", toml, &Default::default()).unwrap().0
}

#[tokio::test]
async fn who_comes_in_changes_from_one_request_to_the_next() {
    let (issuer, fake) = (Issuer::new(), Fake::builder().era(Era::Modern).start().await);
    let gateway = Gateway::with(&issuer.tables()).backend("files", &fake).start().await;
    let mut running = gateway.waystation.config();
    let list = || gateway.modern("tools/list", json!({}));
    let ada = issuer.of("ada", &[]);
    for _ in 0..20 {
        assert_eq!(list().send().await.status, 401);
        with(list(), &ada).send().await.result();
        running.identify.anonymous = true;
        let reloaded = gateway.waystation.reload(running.clone()).await.unwrap();
        assert_eq!((reloaded.changed, reloaded.needs_restart), (vec!["identify"], vec![]));
        list().send().await.result();
        running.identify.anonymous = false;
        gateway.waystation.reload(running.clone()).await.unwrap();
    }
}

#[tokio::test]
async fn what_waits_for_a_restart_is_named() {
    let gateway = Gateway::with("").start().await;
    let mut wanted = gateway.waystation.config();
    wanted.deadline.idle = waystation::settings::Duration::seconds(5);
    wanted.listen.page_size = 5;
    let reloaded = gateway.waystation.reload(wanted).await.unwrap();
    assert_eq!((reloaded.changed, reloaded.needs_restart), (vec![], vec!["listen", "deadline"]));
}

#[tokio::test]
async fn backends_that_do_not_differ_are_left_alone() {
    let (old, new, kept) =
        (Fake::builder().start().await, Fake::builder().start().await, Fake::builder().start().await);
    let gateway = Gateway::with("").backend("one", &old).backend("two", &kept).stdio("child", &[]);
    let gateway = gateway.start().await;
    let seen = (kept.seen().len(), gateway.log("child").len());
    // A call that is under way there goes on to its end.
    let call = tokio::spawn(gateway.call("one__slow", json!({})).send());
    old.until_running(1).await;

    let mut wanted = gateway.waystation.config();
    let of = |lines: &str| parsed(&format!("[backends.x]\n{lines}")).backends["x"].clone();
    wanted.backends.insert("one".into(), of(&format!("url = \"{}\"", new.url())));
    wanted.backends.insert("three".into(), of(&format!("url = \"{}\"\nprefix = \"third\"", new.url())));
    let reloaded = gateway.waystation.reload(wanted.clone()).await.unwrap();
    assert_eq!((reloaded.changed, reloaded.needs_restart), (vec!["backends"], vec![]));
    assert_eq!(reloaded.backends, ["one", "three"]);
    gateway.waystation.settle(PATIENCE).await;
    assert_eq!((kept.seen().len(), gateway.log("child").len()), seen);
    for tool in ["one__echo", "two__echo", "third__echo"] {
        until_ok(|| gateway.call(tool, json!({})).send()).await;
    }
    assert_eq!(new.seen_of("tools/call").len(), 2);
    assert!(old.seen_of("tools/call").len() == 1 && !call.is_finished());
    old.release();
    assert_eq!(call.await.unwrap().result()["content"][0]["text"], "done");

    wanted.backends.remove("three");
    wanted.backends.get_mut("child").unwrap().enabled = Some(false);
    assert_eq!(gateway.waystation.reload(wanted.clone()).await.unwrap().backends, ["child", "three"]);
    assert_eq!(gateway.call("third__echo", json!({})).send().await.error()["code"], -32602);
    let tools = gateway.tools().await;
    assert!(
        tools.contains(&"one__echo".into()) && !tools.iter().any(|tool| tool.starts_with("child__")),
        "{tools:?}"
    );
    assert_eq!(gateway.waystation.reload(wanted).await.unwrap(), Default::default());
}

#[tokio::test]
async fn who_watches_a_resource_goes_on_when_its_backend_is_another() {
    let resource = json!({ "uri": "file:///a", "name": "a" });
    let fake = || Fake::builder().era(Era::Legacy).resources(vec![resource.clone()]).start();
    let (old, new) = (fake().await, fake().await);
    let gateway = Gateway::with("").backend("one", &old).start().await;
    let session = gateway.legacy("2025-11-25").await;
    let mut own = session.stream(None).await;
    session.request("resources/subscribe", json!({ "uri": "file:///a" })).send().await.result();
    until("the first is told", || old.seen_of("resources/subscribe").len() == 1).await;
    let mut wanted = gateway.waystation.config();
    wanted.backends.get_mut("one").unwrap().url = Some(new.url());
    gateway.waystation.reload(wanted).await.unwrap();
    until("the second is told", || new.seen_of("resources/subscribe").len() == 1).await;
    new.until_listening(1).await;
    // Nobody is told of what is not known to be there.
    gateway.waystation.settle(PATIENCE).await;
    new.notify(json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": "file:///a" } }));
    loop {
        let message = own.message().await.expect("the stream goes on");
        if message["method"] == "notifications/resources/updated" {
            break;
        }
    }
}

/// A gateway as a program, with a file of its own.
pub struct Served {
    pub child: Child,
    folder: TempDir,
    /// For clients, and for operators.
    pub ports: [u16; 2],
}

impl Served {
    fn start(toml: &str) -> Self {
        Self::with(toml, &["serve", "--no-watch"])
    }

    pub fn with(toml: &str, arguments: &[&str]) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (folder, ports) = (tempfile::tempdir().unwrap(), [free(), free()]);
        write(&folder, ports, toml);
        let mut command = waystation(&folder);
        let mut child =
            command.args(arguments).stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.as_mut().unwrap());
        assert!(out.lines().map_while(Result::ok).any(|line| line.contains("is listening")));
        Self { child, folder, ports }
    }

    pub fn write(&self, toml: &str) {
        write(&self.folder, self.ports, toml);
    }

    /// What `waystation reload` says, and its exit code.
    fn reload(&self) -> (String, Option<i32>) {
        let output = waystation(&self.folder).arg("reload").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&said).into_owned(), output.status.code())
    }

    /// The status of a request without a token.
    async fn status(&self) -> u16 {
        let url = format!("http://127.0.0.1:{}/mcp", self.ports[0]);
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let post = http.post(url).header("content-type", "application/json");
        let post = post.header("accept", "application/json, text/event-stream");
        let body = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
        post.body(body).send().await.unwrap().status().as_u16()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(folder: &TempDir, [public, admin]: [u16; 2], toml: &str) {
    let text = format!(
        "[listen]\naddress = \"127.0.0.1:{public}\"\nadmin = \"127.0.0.1:{admin}\"\n[store]\npath = \":memory:\"\n{toml}"
    );
    fs::write(folder.path().join("routes.toml"), text).unwrap();
}

fn waystation(folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
    command.current_dir(folder.path()).env_clear().stdin(Stdio::null());
    command
}

#[tokio::test]
async fn a_file_with_anything_wrong_in_it_changes_nothing() {
    let issuer = Issuer::new();
    let served = Served::start("");
    assert_eq!(served.status().await, 200);
    served.write("[identify]\naudience = \"x\"\n[session]\nidel = \"1m\"\n");
    let (said, code) = served.reload();
    // The command reads the same file first, and says what is wrong with it.
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("nobody could come in") && said.contains("did you mean `idle`"), "{said}");
    assert_eq!(served.status().await, 200);

    served.write(&issuer.tables());
    let (said, code) = served.reload();
    assert_eq!((said.as_str(), code), ("obeyed from now on: [identify], [limit]\n", Some(0)));
    assert_eq!(served.status().await, 401);
}

#[tokio::test]
async fn a_hang_up_has_the_file_read_again() {
    let issuer = Issuer::new();
    let mut served = Served::start("");
    served.write(&issuer.tables());
    let pid = rustix::process::Pid::from_child(&served.child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let begun = Instant::now();
    while served.status().await != 401 {
        assert!(begun.elapsed() < PATIENCE, "the file was not read again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    served.write("[listen]\n");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(served.status().await, 401, "a broken file was obeyed");
    served.child.kill().unwrap();
    let mut log = String::new();
    served.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("the configuration was read again"), "{log}");
    assert!(log.contains("is not obeyed; the old one is"), "{log}");
}

#[tokio::test]
async fn files_that_change_are_read_again() {
    let (issuer, certified) = (Issuer::new(), Certified::new("localhost"));
    let mut served = Served::with(&certified.table(), &["serve"]);
    let url = format!("https://localhost:{}/mcp", served.ports[0]);
    let status = |client: reqwest::Client| {
        let get = client.get(&url);
        async move { get.send().await.map(|response| response.status().as_u16()) }
    };
    let client = || certified.client().http1_only().build().unwrap();
    let old = client();
    assert_eq!(status(old.clone()).await.unwrap(), 405);
    certified.renew();
    let begun = Instant::now();
    while status(client()).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "the certificate was not read again");
    }
    // Whoever was connected is, though its client would not take the new one.
    assert_eq!(status(old).await.unwrap(), 405);

    served.write(&format!("{}[limit]\nall = \"often\"\n", certified.table()));
    let mut log = BufReader::new(served.child.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("is not obeyed; the old one is")));
    assert_eq!(status(client()).await.unwrap(), 405);
    served.write(&(certified.table() + &issuer.tables()));
    while status(client()).await.unwrap() != 401 {
        assert!(begun.elapsed() < 2 * PATIENCE, "the file was not read again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reload_would_change_is_said_before() {
    let (issuer, fake) = (Issuer::new(), Fake::builder().start().await);
    let backend = format!("[backends.files]\nurl = \"{}\"\n", fake.url());
    let rule = |group: &str, allow: &str| {
        format!("[[permit]]\nwho = {{ group = \"{group}\" }}\nallow = [{allow}]\n")
    };
    let before = issuer.tables() + &rule("ops", "\"files__*\"");
    let served = Served::start(&format!("{before}{backend}"));
    let diff = || {
        let output = waystation(&served.folder).args(["check", "--diff"]).output().unwrap();
        (String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(), output.status.code())
    };
    assert_eq!(diff(), ("no tool, permission or limit would change\n".to_owned(), Some(0)));
    let after = before.replace("\"files__*\"", "\"files__echo\"") + &rule("dev", "\"files__slow\"");
    let after = after.replace("\nper_caller = \"none\"", "\nper_caller = \"600/min\"");
    let more = format!("[backends.more]\nurl = \"{}\"\n[deadline]\nidle = \"5s\"\n", fake.url());
    served.write(&format!("{after}{backend}{more}"));
    let begun = Instant::now();
    let said = loop {
        let (said, code) = tokio::task::block_in_place(diff);
        assert!(code == Some(0) && begun.elapsed() < PATIENCE, "{said}");
        // Before the backend has been read there is no tool to speak of.
        if said.contains("files__slow") {
            break said;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for line in [
        "backend more: begins\n",
        "for group \"dev\":\n  + files__slow\n",
        "for group \"ops\":\n",
        "  - files__slow\n",
        "limit.per_caller: ",
        "[deadline]: after a restart\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(!said.contains("files__echo"), "{said}");
}
