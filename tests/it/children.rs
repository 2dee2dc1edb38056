//! What becomes of child processes, when they crash and when the gateway does?

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, Gateway, child_table, modern_call, until, until_ok};

/// The gateway as a process of its own.
pub struct Program {
    process: Child,
    pub address: SocketAddr,
    folder: TempDir,
}

impl Program {
    /// With a child process for each of these names and flags.
    fn start(children: &[(&str, &[&str])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let table = |(name, flags): &(&str, &[&str])| child_table(name, flags, &folder.path().join(name));
        let backends = children.iter().map(table).collect();
        Self::start_with(backends, folder)
    }

    /// With these tables of `routes.toml`, one a backend.
    fn start_with(backends: Vec<String>, folder: TempDir) -> Self {
        Self::start_at("127.0.0.1:0", ":memory:", &backends.join("\n"), folder)
    }

    /// With this table of `routes.toml` for its backend, and a store that outlives it.
    pub fn start_kept(backend: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("kept.db").display().to_string();
        Self::start_at("127.0.0.1:0", &store, backend, folder)
    }

    /// Killed, and started again at the same address with the same store.
    pub fn killed_and_started(mut self, backend: &str) -> Self {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        let store = folder.path().join("kept.db").display().to_string();
        Self::start_at(&self.address.to_string(), &store, backend, folder)
    }

    fn start_at(address: &str, store: &str, backends: &str, folder: TempDir) -> Self {
        let mut toml = format!("[listen]\naddress = \"{address}\"\nadmin = \"127.0.0.1:0\"\n");
        toml += &format!("[store]\npath = {store:?}\n[log]\nlevel = \"error\"\n{backends}");
        let config = folder.path().join("routes.toml");
        fs::write(&config, toml).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_waystation"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the gateway starts");
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let endpoint = lines.map(Result::unwrap).find_map(|line| {
            let (_, rest) = line.split_once("MCP endpoint")?;
            rest.trim().strip_prefix("http://")?.strip_suffix("/mcp")?.parse().ok()
        });
        Self { process, address: endpoint.expect("the gateway says where it listens"), folder }
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    async fn call(&self, tool: &str, arguments: Value) -> Answer {
        modern_call(self.address, tool, arguments).send().await
    }

    /// Waits until this child answers.
    async fn until_echo(&self, child: &str) {
        let tool = format!("{child}__echo");
        until_ok(|| self.call(&tool, json!({}))).await;
    }

    /// The processes that the children said they are.
    fn pids(&self, names: &[&str]) -> Vec<u32> {
        let mut pids = Vec::new();
        for name in names {
            let log = fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            let words = log.lines().filter_map(|line| line.split_once(' '));
            let own = words.filter(|(what, _)| matches!(*what, "start" | "grandchild"));
            pids.extend(own.map(|(_, pid)| pid.parse::<u32>().unwrap()));
        }
        pids
    }

    fn open_files(&self) -> BTreeSet<PathBuf> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs");
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    }

    /// The state of each of its children, as the kernel has it.
    fn children(&self) -> Vec<char> {
        let all =
            fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let states = all.filter_map(|pid| state_and_parent(pid.parse().ok()?));
        states.filter(|(_, parent)| *parent == self.pid()).map(|(state, _)| state).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

/// Is there such a process, and is it more than its exit code?
fn lives(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| !matches!(state, 'Z' | 'X'))
}

#[tokio::test]
async fn two_hundred_crashes_leave_no_process_and_no_open_file_behind() {
    let folder = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/crashing.sh");
    let log = folder.path().join("child");
    let table = format!(
        "[backends.child]\ncommand = \"sh\"\nargs = [{script:?}]\nenv = {{ FAKE_LOG = {log:?} }}\nera = \"legacy\""
    );
    let program = Program::start_with(vec![table], folder);
    until_ok(|| program.call("child__stay", json!({}))).await;
    let (files, begun) = (program.open_files().len(), Instant::now());
    for n in 0..200 {
        let answer = program.call("child__crash", json!({})).await;
        let said = answer.error()["message"].as_str().unwrap().to_owned();
        assert!(said.starts_with("backend child") && said.contains("exit status 3"), "{n}: {said}");
    }
    program.call("child__stay", json!({})).await.result();
    let started = program.pids(&["child"]);
    println!("200 crashes in {:?}, {} processes", begun.elapsed(), started.len());
    assert!(started.len() > 200);
    until("all but one have gone", || started.iter().filter(|pid| lives(**pid)).count() == 1).await;
    until("there are no zombies", || !program.children().contains(&'Z')).await;
    // The guardian, and the child of now.
    assert_eq!(program.children().len(), 2);
    until("all files are closed", || program.open_files().len() <= files).await;
}

#[tokio::test]
async fn no_child_outlives_a_gateway_that_is_killed() {
    let stubborn = ["--fork-grandchild", "--ignore-sigterm", "--ignore-stdin-close"];
    let names = ["plain", "parent", "stubborn", "hung"];
    let flags: [&[&str]; 4] = [&[], &["--fork-grandchild"], &stubborn, &["--hang", "--ignore-stdin-close"]];
    let children: Vec<_> = names.into_iter().zip(flags).collect();
    let mut program = Program::start(&children);
    for name in &names[..3] {
        program.until_echo(name).await;
    }
    // Each of the four, and what two of them have started.
    let living = || program.pids(&names).into_iter().filter(|pid| lives(*pid)).count();
    until("all of them live", || living() == 6).await;
    let (pids, alive) = (program.pids(&names), living());

    program.process.kill().unwrap();
    program.process.wait().unwrap();
    let begun = Instant::now();
    until("all have gone", || !pids.iter().any(|pid| lives(*pid))).await;
    println!("{alive} processes had gone {:?} after the gateway was killed", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_gateway_that_is_asked_to_stop_takes_its_children_along() {
    let names = ["plain", "parent"];
    let mut program = Program::start(&[(names[0], &[]), (names[1], &["--fork-grandchild"])]);
    for name in names {
        program.until_echo(name).await;
    }
    let pids = program.pids(&names);
    rustix::process::kill_process(Pid::from_child(&program.process), Signal::TERM).unwrap();
    until("the gateway ends", || program.process.try_wait().unwrap().is_some()).await;
    assert_eq!(program.process.wait().unwrap().code(), Some(0));
    until("all have gone", || !pids.iter().any(|pid| lives(*pid))).await;
}

#[tokio::test]
async fn the_last_words_of_a_child_stand_in_the_error() {
    let gateway = Gateway::with("")
        .stdio("calls", &["--crash-on-call"])
        .stdio("never", &["--crash-at-start", "--stderr", "no licence found"])
        .start()
        .await;
    let answer = gateway.call("calls__echo", json!({})).send().await;
    let said = answer.error()["message"].as_str().unwrap().to_owned();
    assert_eq!(answer.refusal(), (200, 502));
    assert!(said.starts_with("backend calls") && said.contains("crashed on a call, as told"), "{said}");
    let status = gateway.status_of("never").await;
    assert_eq!(status["state"], "down");
    assert!(status["problem"].as_str().unwrap().contains("no licence found"), "{status}");
}

#[tokio::test]
async fn children_with_bad_manners_are_used_all_the_same() {
    let manners: [(&str, &[&str]); 4] = [
        ("noisy", &["--banner", "--stderr", "hello"]),
        ("strict", &["--era", "legacy", "--strict"]),
        ("old", &["--era", "legacy", "--newest", "2024-11-05"]),
        ("modern", &["--era", "modern", "--banner"]),
    ];
    let mut setup = Gateway::with("");
    for (name, flags) in manners {
        setup = setup.stdio(name, flags);
    }
    let gateway = setup.start().await;
    for (name, revision) in
        [("noisy", "2026-07-28"), ("strict", "2025-11-25"), ("old", "2024-11-05"), ("modern", "2026-07-28")]
    {
        gateway.call(&format!("{name}__echo"), json!({})).send().await.result();
        assert_eq!(gateway.status_of(name).await["revision"], revision, "{name}");
    }
}
