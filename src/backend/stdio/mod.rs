//! An MCP server that runs as a child process.
//!
//! To connect is to start it, so a server that ended is started again by whoever connects
//! again, and a new connection shares nothing with the one before. The child is given the
//! environment that programs need to run at all, what is configured for it, and nothing else of
//! ours: our environment holds other servers' secrets.

mod output; //  what it writes, as messages
mod pipe; //    the connection
mod process; // its start and its end
mod program; // where the program is
mod stderr; //  its last words

use std::{
    collections::BTreeMap,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, Once},
};

use futures_util::future::BoxFuture;

use self::{pipe::Pipe, process::Process, stderr::Stderr};
use super::{
    guardian,
    mux::{Habit, Mux},
    transport::{Connect, Inbox, Kind, Transport, Trouble},
};
use crate::{settings::Resolved, weaken};

/// What a child has of our environment.
const INHERITED: [&str; 8] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "TERM"];

/// What is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// A path, or a name to be found on PATH.
    pub command: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, Resolved>,
    /// The gateway's own by default.
    pub cwd: Option<PathBuf>,
}

impl Command {
    /// The command of a backend's settings, with its secrets put in; or all that is wrong.
    pub fn new(command: &str, settings: &super::Settings) -> Result<Self, Vec<String>> {
        let mut complaints = Vec::new();
        let mut env = BTreeMap::new();
        for (name, text) in &settings.env {
            if name.is_empty() || name.contains(['=', '\0']) {
                complaints.push(format!("env: {name:?} is no name that a variable can have"));
            }
            match text.resolve() {
                Ok(text) => drop(env.insert(name.clone(), text)),
                Err(why) => complaints.push(format!("env.{name}: {why}")),
            }
        }
        let (args, cwd) = (settings.args.clone(), settings.cwd.clone());
        let command = Self { command: command.to_owned(), args, env, cwd };
        if complaints.is_empty() { Ok(command) } else { Err(complaints) }
    }

    /// What the child's environment holds.
    fn environment(&self) -> impl Iterator<Item = (String, std::ffi::OsString)> {
        let inherited =
            INHERITED.into_iter().filter_map(|name| Some((name.to_owned(), std::env::var_os(name)?)));
        let configured = self.env.iter().map(|(name, text)| (name.clone(), text.text.clone().into()));
        inherited.chain(configured)
    }
}

/// Starts a child for every connection.
pub struct Stdio {
    name: Arc<str>,
    command: Command,
    secrets: Arc<[String]>,
    /// Of the child that was started last.
    stderr: Mutex<Option<Arc<Stderr>>>,
    habit: Habit,
}

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments may be secret.
        f.debug_struct("Stdio").field("command", &self.command.command).finish_non_exhaustive()
    }
}

impl Stdio {
    /// For the backend of this name. Whether the program is there shows when it is started: one
    /// that is missing costs only its own tools.
    pub fn new(name: &str, settings: Command) -> Self {
        let secrets = settings.env.values().filter_map(|text| text.secret.as_deref());
        let secrets = stderr::in_pieces(secrets);
        Self {
            name: name.into(),
            command: settings,
            secrets,
            stderr: Mutex::default(),
            habit: Habit::default(),
        }
    }

    fn start(&self, inbox: Inbox) -> Result<Pipe, String> {
        warn_if_unguarded();
        let Command { command: name, args, env: _, cwd } = &self.command;
        let program = program::find(&self.command)?;
        let mut command = tokio::process::Command::new(program);
        command.args(args);
        if !weaken::is("children-inherit") {
            command.env_clear();
        }
        command.envs(self.command.environment());
        if let Some(cwd) = cwd {
            command.current_dir(cwd);
        }
        let started = Process::start(&mut command);
        let started = started.map_err(|why| format!("{name:?} could not be started: {}", reason(&why)))?;
        let stderr = Stderr::new(Arc::clone(&self.name), Arc::clone(&self.secrets));
        *self.stderr.lock().expect("no code panics while it holds this lock") = Some(Arc::clone(&stderr));
        Ok(Pipe::new(&self.name, started, stderr, Mux::new(inbox, self.habit.clone())))
    }
}

/// Why a program that exists does not start. The one reason that is not what it says: for a
/// script whose interpreter is missing, the kernel reports the script as missing.
fn reason(why: &io::Error) -> String {
    if why.kind() == io::ErrorKind::NotFound {
        return "the interpreter named in its first line is missing".into();
    }
    why.to_string()
}

fn warn_if_unguarded() {
    static ONCE: Once = Once::new();
    if guardian::installed().is_none() {
        ONCE.call_once(|| {
            tracing::warn!(
                "no guardian is installed: if this process is killed, child processes learn of it by the end of their input only"
            );
        });
    }
}

impl Connect for Stdio {
    fn connect(&self, inbox: Inbox) -> BoxFuture<'_, Result<Arc<dyn Transport>, Trouble>> {
        // Nothing is waited for between the start and the hand-over, so a future that is
        // dropped leaves no child behind.
        Box::pin(async move {
            let pipe = self.start(inbox).map_err(|why| Trouble::new(Kind::NotSent, why))?;
            Ok(Arc::new(pipe) as Arc<dyn Transport>)
        })
    }

    /// Those of the child that was started last.
    fn last_words(&self) -> Option<String> {
        let stderr = self.stderr.lock().expect("no code panics while it holds this lock");
        stderr.as_ref()?.last()
    }

    /// Some servers leave, or hang, when they are asked anything before the handshake.
    fn probe_apart(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    //! Real children, as small as they come.

    use std::{
        collections::BTreeSet,
        env, fs,
        io::{BufRead as _, BufReader},
        process,
        time::{Duration, Instant},
    };

    use bytes::Bytes;
    use rustix::process::{Pid, Signal};
    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        backend::transport::{Incoming, Outgoing},
        settings::Text,
        wire::{mcp::Method, message::Message},
    };

    /// No test waits longer for anything.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Says which part a copy of this program plays that a test has started.
    const ROLE: &str = "WAYSTATION_TEST_ROLE";

    fn shell(script: &str) -> Command {
        let args = vec!["-c".to_owned(), script.to_owned()];
        Command { command: "sh".into(), args, env: BTreeMap::new(), cwd: None }
    }

    fn stdio(script: &str) -> Stdio {
        Stdio::new("shell", shell(script))
    }

    type Heard = mpsc::UnboundedReceiver<Message>;

    async fn connect(stdio: &Stdio) -> (Arc<dyn Transport>, Heard) {
        let (tell, heard) = mpsc::unbounded_channel();
        let inbox: Inbox = Arc::new(move |message| drop(tell.send(message)));
        (stdio.connect(inbox).await.unwrap(), heard)
    }

    fn outgoing(id: u64, text: impl Into<Bytes>) -> Outgoing {
        let text = text.into();
        Outgoing { id, method: Method::Ping, revision: None, target: None, mirrored: Vec::new(), text }
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, future).await.expect("nothing takes that long")
    }

    async fn ask(transport: &Arc<dyn Transport>, id: u64) -> Result<String, Trouble> {
        let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}");
        match within(transport.request(outgoing(id, text))).await? {
            Incoming::Whole(message) => Ok(String::from_utf8(message.text().to_vec()).unwrap()),
            Incoming::Stream(_) => panic!("nothing comes before the answer here"),
        }
    }

    /// The shell's word for writing a notification with the process's number.
    const SAY_PID: &str = r#"printf '{"jsonrpc":"2.0","method":"pid","params":{"name":%s}}\n' "#;

    async fn pid(heard: &mut Heard) -> i32 {
        let message = within(heard.recv()).await.unwrap();
        std::str::from_utf8(message.in_params("name").unwrap()).unwrap().parse().unwrap()
    }

    fn until(what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The state of a process as the kernel has it (`S`, `Z`), and its parent.
    fn state_of(pid: i32) -> Option<(char, i32)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
    }

    fn until_gone(pid: i32) {
        until("the process is still there", || state_of(pid).is_none());
    }

    #[tokio::test]
    async fn a_request_gets_its_answer_and_the_rest_goes_to_the_inbox() {
        let script = format!(
            "{SAY_PID} $$; read -r line; printf '{{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":%s}}\\n' \"$line\"; cat"
        );
        let (transport, mut heard) = connect(&stdio(&script)).await;
        assert!(pid(&mut heard).await > 1);
        let request = "{\"jsonrpc\":\"2.0\",\r\n \"id\":7,\n\"method\":\"ping\"}";
        let answer = within(transport.request(outgoing(7, request))).await.unwrap();
        let Incoming::Whole(answer) = answer else { panic!() };
        // The line ends within it went as blanks.
        assert_eq!(answer.result().unwrap(), b"{\"jsonrpc\":\"2.0\",   \"id\":7, \"method\":\"ping\"}");
        within(transport.close()).await;
    }

    #[tokio::test]
    async fn a_child_has_what_it_was_given_of_the_environment_and_no_more() {
        let mut command = shell("env >&2; exit 3");
        command.env.insert("GIVEN".into(), Text::Plain("plain".into()).resolve().unwrap());
        let hidden = Resolved { text: "Bearer hush".into(), secret: Some("hush".into()) };
        command.env.insert("TOKEN".into(), hidden);
        let stdio = Stdio::new("shell", command);
        let (transport, _heard) = connect(&stdio).await;
        let why = ask(&transport, 1).await.unwrap_err().why;
        assert!(why.starts_with("the process ended with exit status 3; it last said: "), "{why}");
        let names =
            why.lines().filter_map(|line| line.rsplit(": ").next()?.split_once('=')).map(|(name, _)| name);
        // PWD, SHLVL and the like are the shell's own.
        let own = ["GIVEN", "TOKEN", "PWD", "OLDPWD", "SHLVL", "_"];
        let unknown: Vec<_> = names.filter(|name| !INHERITED.contains(name) && !own.contains(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        // Else nothing would have been hidden. Cargo sets many.
        assert!(env::vars_os().count() > INHERITED.len());
        assert!(why.contains("GIVEN=plain") && why.contains("TOKEN=Bearer …"), "{why}");
        assert_eq!(transport.lost().unwrap().why, why);
        assert!(stdio.last_words().unwrap().contains("GIVEN=plain"));
        // Who asks later is told the same, and that nothing was sent.
        let later = ask(&transport, 2).await.unwrap_err();
        assert_eq!((later.kind, later.why), (Kind::NotSent, why));
    }

    #[tokio::test]
    async fn an_end_by_a_signal_is_called_so() {
        let (transport, _heard) = connect(&stdio("kill -SEGV $$")).await;
        assert_eq!(ask(&transport, 1).await.unwrap_err().why, "the process ended with signal 11");
    }

    #[tokio::test]
    async fn a_program_that_does_not_start_is_named_with_the_reason() {
        let missing = Stdio::new("b", Command { command: "no-such-program".into(), ..shell("") });
        let trouble = missing.connect(Arc::new(|_| {})).await.unwrap_err();
        assert!(trouble.why.contains("no-such-program"), "{}", trouble.why);
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("script");
        make_script(&script, "#!/no/such/interpreter\n");
        let stdio = Stdio::new("b", Command { command: script.display().to_string(), ..shell("") });
        let trouble = stdio.connect(Arc::new(|_| {})).await.unwrap_err();
        assert_eq!(trouble.kind, Kind::NotSent);
        assert!(trouble.why.contains("interpreter"), "{}", trouble.why);
    }

    /// Written by a child: a file that this process has open for writing, which every child that
    /// another test starts just now has too, cannot be executed.
    fn make_script(path: &std::path::Path, text: &str) {
        let write = "printf %s \"$1\" > \"$0\" && chmod +x \"$0\"";
        let written = process::Command::new("sh").arg("-c").arg(write).arg(path).arg(text).status().unwrap();
        assert!(written.success());
    }

    #[tokio::test]
    async fn a_child_that_does_not_read_blocks_nobody_but_its_callers() {
        let (transport, mut heard) = connect(&stdio(&format!("{SAY_PID} $$; exec sleep 600"))).await;
        let child = pid(&mut heard).await;
        let large = Bytes::from(vec![b' '; 1 << 20]);
        let mut sent = 0;
        while tokio::time::timeout(Duration::from_millis(100), transport.notify(large.clone())).await.is_ok()
        {
            sent += 1;
            assert!(sent < 100, "the queue has no bound");
        }
        let request = transport.request(outgoing(1, large));
        assert!(tokio::time::timeout(Duration::from_millis(10), request).await.is_err());
        within(transport.close()).await;
        assert!(state_of(child).is_none());
    }

    #[tokio::test]
    async fn a_line_without_end_ends_the_child() {
        let (transport, _heard) = connect(&stdio("head -c 20000000 /dev/zero | tr '\\0' x; sleep 600")).await;
        let trouble = ask(&transport, 1).await.unwrap_err();
        assert!(trouble.why.contains("a line of over 16 MiB"), "{}", trouble.why);
        within(transport.close()).await;
    }

    #[tokio::test]
    async fn a_child_that_closes_its_output_is_lost_even_if_it_lives() {
        let (transport, mut heard) = connect(&stdio(&format!("{SAY_PID} $$; exec >&-; cat >&2"))).await;
        let child = pid(&mut heard).await;
        let trouble = ask(&transport, 1).await.unwrap_err();
        assert!(trouble.why.starts_with("the process closed its output"), "{}", trouble.why);
        within(transport.close()).await;
        assert!(state_of(child).is_none());
    }

    /// Neither the end of the input nor a signal moves these two.
    const STUBBORN: &str = "trap '' TERM; (trap '' TERM; while :; do sleep 600; done) & \
        printf '{\"jsonrpc\":\"2.0\",\"method\":\"pid\",\"params\":{\"name\":%s}}\\n' $! $$; \
        while :; do sleep 600; done";

    #[tokio::test]
    async fn closing_ends_even_a_stubborn_child_with_its_own_children() {
        let (transport, mut heard) = connect(&stdio(STUBBORN)).await;
        let (grandchild, child) = (pid(&mut heard).await, pid(&mut heard).await);
        within(transport.close()).await;
        assert!(state_of(child).is_none());
        until_gone(grandchild);
        assert_eq!(transport.lost().unwrap().why, "the connection was closed");
    }

    #[tokio::test]
    async fn dropping_ends_a_child() {
        let (transport, mut heard) = connect(&stdio(&format!("{SAY_PID} $$; exec cat"))).await;
        let child = pid(&mut heard).await;
        drop(transport);
        within(async {
            while state_of(child).is_some() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    #[test]
    fn the_end_of_a_runtime_ends_even_stubborn_children() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (transport, mut heard) = runtime.block_on(async { connect(&stdio(STUBBORN)).await });
        let (grandchild, child) = runtime.block_on(async { (pid(&mut heard).await, pid(&mut heard).await) });
        drop(runtime);
        until_gone(grandchild);
        until("the child still runs", || state_of(child).is_none_or(|(state, _)| state == 'Z'));
        drop(transport);
    }

    #[tokio::test]
    async fn whom_a_child_leaves_behind_delays_no_error_and_does_not_stay() {
        let script = format!("sleep 600 & {SAY_PID} $!; echo why >&2; exit 1");
        let started = Instant::now();
        let (transport, mut heard) = connect(&stdio(&script)).await;
        let left_behind = pid(&mut heard).await;
        let trouble = ask(&transport, 1).await.unwrap_err();
        assert_eq!(trouble.why, "the process ended with exit status 1; it last said: why");
        assert!(started.elapsed() < Duration::from_secs(1));
        within(transport.close()).await;
        until_gone(left_behind);
    }

    /// This program once more, to play a part of its own in the test of this name.
    fn alone(test: &str, role: &str) -> process::Command {
        let mut command = process::Command::new(env::current_exe().unwrap());
        let test = format!("backend::stdio::tests::{test}");
        command.args(["--exact", &test, "--nocapture", "--test-threads=1"]).env(ROLE, role);
        command
    }

    fn children() -> BTreeSet<i32> {
        let me = process::id().cast_signed();
        let numbers = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        numbers.filter(|pid| state_of(*pid).is_some_and(|(_, parent)| parent == me)).collect()
    }

    fn descriptors() -> usize {
        fs::read_dir("/proc/self/fd").unwrap().count()
    }

    /// In a process of its own, since other tests have children and descriptors too.
    #[test]
    fn two_hundred_crashes_leave_nothing_behind() {
        if env::var_os(ROLE).is_none() {
            let output = alone("two_hundred_crashes_leave_nothing_behind", "crash").output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        guardian::install(guardian::tests::program(folder.path()));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        // One in three leaves a child of its own behind, one in three does not wait to be asked.
        let stdio = stdio(
            "case $(($$ % 3)) in 0) sleep 600 & read -r line ;; 1) read -r line ;; esac; echo oh no >&2; exit 3",
        );
        let crash = || {
            runtime.block_on(async {
                let (transport, _heard) = connect(&stdio).await;
                let trouble = ask(&transport, 1).await.unwrap_err();
                assert!(
                    trouble.why.ends_with("ended with exit status 3; it last said: oh no"),
                    "{}",
                    trouble.why
                );
            });
        };
        crash(); // What is made once is made now.
        until("the first child stays", || children().len() == 1);
        let (guardian, before) = (children(), descriptors());
        let started = Instant::now();
        (0..200).for_each(|_| crash());
        println!("200 crashes in {:?}; {} children at the end", started.elapsed(), children().len());
        until("children stay", || children() == guardian);
        // The first crash may have had some open still when they were counted.
        until("descriptors stay open", || descriptors() <= before);
        println!("{:?}: {before} descriptors before, {} after", started.elapsed(), descriptors());
        // The guardian goes by itself.
        let watched = guardian::installed().unwrap();
        drop(runtime);
        assert!(format!("{watched:?}").contains("groups: {}"), "{watched:?}");
    }

    #[test]
    fn a_gateway_that_is_killed_leaves_no_process_behind() {
        if env::var_os(ROLE).is_some() {
            return play_gateway();
        }
        let mut gateway = alone("a_gateway_that_is_killed_leaves_no_process_behind", "gateway");
        let mut gateway = gateway.stdout(process::Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(gateway.stdout.take().unwrap()).lines().map(Result::unwrap);
        let told = { lines }.find(|line| line.starts_with("processes")).unwrap();
        let processes: Vec<i32> = told.split(' ').skip(1).map(|pid| pid.parse().unwrap()).collect();
        assert_eq!(processes.len(), 11, "{told}"); // Five children, five of theirs, a guardian.
        assert!(processes.iter().all(|pid| state_of(*pid).is_some()), "{told}");
        let killed = Instant::now();
        rustix::process::kill_process(Pid::from_child(&gateway), Signal::KILL).unwrap();
        gateway.wait().unwrap();
        processes.iter().for_each(|pid| until_gone(*pid));
        println!("all gone {:?} after the gateway's death", killed.elapsed());
    }

    fn play_gateway() {
        let folder = tempfile::tempdir().unwrap();
        guardian::install(guardian::tests::program(folder.path()));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let stdio = stdio(STUBBORN);
            let mut connections = Vec::new();
            let mut processes = BTreeSet::new();
            for _ in 0..5 {
                let (transport, mut heard) = connect(&stdio).await;
                processes.extend([pid(&mut heard).await, pid(&mut heard).await]);
                connections.push(transport);
            }
            processes.extend(children());
            let told: Vec<_> = processes.iter().map(i32::to_string).collect();
            println!("\nprocesses {}", told.join(" "));
            std::future::pending::<()>().await;
        });
    }
}
