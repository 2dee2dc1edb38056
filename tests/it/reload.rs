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
    support::{Gateway, PATIENCE},
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
    wanted.backends = parsed("[backends.x]\nurl = \"http://127.0.0.1:9/mcp\"").backends;
    let reloaded = gateway.waystation.reload(wanted).await.unwrap();
    assert_eq!((reloaded.changed, reloaded.needs_restart), (vec![], vec!["deadline", "backends"]));
}

/// A gateway as a program, with a file of its own.
struct Served {
    child: Child,
    folder: TempDir,
    /// For clients, and for operators.
    ports: [u16; 2],
}

impl Served {
    fn start(toml: &str) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (folder, ports) = (tempfile::tempdir().unwrap(), [free(), free()]);
        write(&folder, ports, toml);
        let mut command = waystation(&folder);
        let mut child = command.arg("serve").stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.as_mut().unwrap());
        assert!(out.lines().map_while(Result::ok).any(|line| line.contains("is listening")));
        Self { child, folder, ports }
    }

    fn write(&self, toml: &str) {
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
