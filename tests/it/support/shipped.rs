//! The gateway as a process of its own: the program that is shipped, with all that it writes.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

use tempfile::TempDir;

use super::PATIENCE;

/// One that is still to be started.
pub struct Shipped {
    folder: TempDir,
    environment: Vec<(String, String)>,
    /// A program that runs it, with its arguments; none as a rule.
    beneath: Vec<String>,
}

/// One at work. Dropped, it is killed.
pub struct Running {
    process: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    shipped: Shipped,
}

impl Default for Shipped {
    fn default() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            environment: Vec::new(),
            beneath: Vec::new(),
        }
    }
}

impl Shipped {
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Has another program run it.
    pub fn beneath(mut self, program: &[&str]) -> Self {
        self.beneath = program.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    pub fn state(&self) -> PathBuf {
        self.folder().join("state")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let words = self.beneath.iter().map(String::as_str);
        let mut words = words.chain([env!("CARGO_BIN_EXE_waystation")]);
        let mut command = Command::new(words.next().expect("there is one"));
        command.args(words).args(arguments).current_dir(self.folder()).env_clear().stdin(Stdio::null());
        for name in ["PATH", "HOME", "WAYSTATION_WEAKEN"] {
            command.envs(std::env::var_os(name).map(|value| (OsStr::new(name).to_owned(), value)));
        }
        command.env("XDG_STATE_HOME", self.state());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command with this routes.toml in its folder, to its end.
    pub fn run(&self, toml: &str, arguments: &[&str]) -> Output {
        fs::write(self.folder().join("routes.toml"), toml).expect("the folder can be written");
        self.command(arguments).output().expect("it starts")
    }

    /// Serves on free ports, with this routes.toml, and waits until it says where.
    pub fn serve(self, toml: &str) -> Running {
        fs::write(self.folder().join("routes.toml"), toml).expect("the folder can be written");
        let file = |name: &str| File::create(self.folder().join(name)).expect("the folder can be written");
        let mut command = self.command(&["serve"]);
        command
            .env("WAYSTATION_LISTEN__ADDRESS", "127.0.0.1:0")
            .env("WAYSTATION_LISTEN__ADMIN", "127.0.0.1:0");
        let process = command.stdout(file("stdout")).stderr(file("stderr")).spawn().expect("it starts");
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut running = Running { process, address: nowhere, admin: nowhere, shipped: self };
        let begun = Instant::now();
        loop {
            let (said, log) = running.said();
            // The last words of the greeting: what stands before them is whole.
            if said.contains("mcpServers") {
                let of = |words| address(&said, words).unwrap_or_else(|| panic!("no address: {said}"));
                (running.address, running.admin) = (of("MCP endpoint"), of("status  "));
                return running;
            }
            assert!(begun.elapsed() < PATIENCE, "it does not say where it listens: {said}{log}");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// The address in the line of the greeting that has these words.
fn address(greeting: &str, words: &str) -> Option<SocketAddr> {
    let line = greeting.lines().find(|line| line.contains(words))?;
    line.split_once("http://")?.1.split('/').next()?.parse().ok()
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn folder(&self) -> &Path {
        self.shipped.folder()
    }

    /// What it has written to its standard output and error output so far.
    pub fn said(&self) -> (String, String) {
        let read = |name: &str| {
            String::from_utf8_lossy(&fs::read(self.folder().join(name)).unwrap_or_default()).into_owned()
        };
        (read("stdout"), read("stderr"))
    }

    /// Runs a command beside it, with its routes.toml.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.shipped.command(arguments).output().expect("it starts")
    }

    /// Kills it, without a word.
    pub fn kill(mut self) -> Shipped {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
        std::mem::take(&mut self.shipped)
    }

    /// Stops it in good order.
    pub fn stop(mut self) -> Shipped {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).expect("a process has a number");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        self.process.wait().expect("it ends");
        std::mem::take(&mut self.shipped)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill(); // It may have been stopped.
        let _ = self.process.wait();
    }
}

/// The processes that this one has started, and those that they did.
pub fn descendants(pid: u32) -> Vec<u32> {
    let all =
        fs::read_dir("/proc").expect("Linux").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let parent = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    let pairs: Vec<(u32, u32)> =
        all.filter_map(|name| name.parse().ok()).filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(&of) = found.get(at) {
        found.extend(pairs.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| *pid));
        at += 1;
    }
    found.split_off(1)
}
