//! What ends the child processes when the gateway itself is killed, even with `kill -9`?
//!
//! A killed process cleans up nothing, so another one must: a copy of this program, started as
//! `waystation guardian` with a pipe as its input. The gateway writes down the pipe which
//! process groups it has children in; when the pipe ends, the gateway is gone, however that
//! came about, and the guardian ends the groups that are left.
//!
//! What was not chosen: the kernel's own signal at a parent's death is tied to a *thread*, is
//! Linux's alone, does not reach grandchildren (`npx` starts `node`), and cannot be asked for
//! without `unsafe`.
//!
//! There is a gap, as small as it can be made from outside a child: one that is started in the
//! very moment in which the gateway is killed may not be written down yet. It still sees the
//! end of its own input.

use std::{
    collections::BTreeSet,
    io::{self, BufRead, Read, Write as _},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, ChildStdin, Command, ExitCode, Stdio},
    sync::{Arc, Mutex, MutexGuard, OnceLock, Weak},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// The first argument that makes this program a guardian. For no person to use.
pub const ARGUMENT: &str = "guardian";

/// How long the groups have to leave by themselves after the gateway's death.
const GRACE: Duration = Duration::from_millis(500);

/// A guardian that dies younger is not started again at once.
const YOUNG: Duration = Duration::from_secs(1);

/// So many that died young, one after the other, mean that the program is no guardian.
const HOPELESS: u32 = 5;

/// The gateway's one guardian. For the whole process, because what it guards against is the
/// death of the whole process: a second one would know less and help nobody.
static INSTALLED: OnceLock<Guardian> = OnceLock::new();

/// Lets children be guarded by the given program, which must call [`run`] when its first
/// argument is [`ARGUMENT`]. Nothing is started before the first child. Only the first call
/// counts.
pub fn install(program: PathBuf) {
    INSTALLED.get_or_init(|| Guardian::new(program));
}

/// The guardian of this process, if one was installed.
pub fn installed() -> Option<&'static Guardian> {
    INSTALLED.get()
}

/// The program that is running, for [`install`]. On Linux by a name that stays true when the
/// file is replaced by a newer version.
pub fn this_program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// The gateway's side: tells the guardian process whom to end, and keeps it running.
#[derive(Debug)]
pub struct Guardian(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    program: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: BTreeSet<i32>,
    line: Option<Line>,
    /// Guardians that died young since one did not. [`HOPELESS`] also if one did not start.
    died_young: u32,
}

/// The pipe to a running guardian.
#[derive(Debug)]
struct Line {
    stdin: ChildStdin,
    pid: Pid,
}

/// A process group that is ended if the gateway dies, until this value is dropped.
#[derive(Debug)]
pub struct Watch {
    inner: Arc<Inner>,
    group: Pid,
}

impl Guardian {
    /// A guardian made of the given program; see [`install`].
    pub fn new(program: PathBuf) -> Self {
        Self(Arc::new(Inner { program, state: Mutex::default() }))
    }

    /// Has the group ended if this process dies. Call right after the group came to be.
    ///
    /// Blocks for the start of a process if the guardian is not running, else for one write.
    pub fn watch(&self, group: Pid) -> Watch {
        let inner = Arc::clone(&self.0);
        let mut state = inner.state();
        state.groups.insert(group.as_raw_pid());
        if !state.tell('+', group) {
            inner.start(&mut state);
        }
        drop(state);
        Watch { inner, group }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        state.groups.remove(&self.group.as_raw_pid());
        // One that is not running does not know the group either.
        state.tell('-', self.group);
    }
}

impl State {
    /// Writes one line to the guardian. False if there is none to write to.
    fn tell(&mut self, sign: char, group: Pid) -> bool {
        let Some(line) = &mut self.line else { return false };
        // One write, shorter than a pipe's atomic unit, so that no line is ever cut.
        let told = line.stdin.write_all(format!("{sign}{}\n", group.as_raw_pid()).as_bytes());
        if told.is_err() {
            // Dead; or stopped, with a full pipe, and then of no more use. It must be dead
            // before its pipe is closed, which it would take for the gateway's end. It is not
            // reaped while we hold the lock, so the number is still its own.
            let _ = rustix::process::kill_process(line.pid, Signal::KILL);
            self.line = None;
        }
        told.is_ok()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }

    /// Starts the guardian process, tells it all groups and has a thread wait for its end.
    fn start(self: &Arc<Self>, state: &mut State) {
        if let Err(why) = self.try_start(state) {
            state.died_young = HOPELESS;
            tracing::warn!(%why, "no guardian: child processes may outlive a gateway that is killed");
        }
    }

    fn try_start(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let mut child = Command::new(&self.program)
            .arg0("waystation")
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .process_group(0) // Ctrl-C at a terminal is for the gateway, which has work to end.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pid = Pid::from_child(&child);
        match Self::brief(state, &mut child) {
            Ok(stdin) => state.line = Some(Line { stdin, pid }),
            Err(why) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(why);
            }
        }
        let inner = Arc::downgrade(self);
        thread::Builder::new().name("guardian".into()).spawn(move || mind(&inner, child)).map(drop)
    }

    /// Tells a new guardian all there is to know.
    fn brief(state: &State, child: &mut Child) -> io::Result<ChildStdin> {
        let mut stdin = child.stdin.take().expect("it was started with a pipe");
        // A guardian that somebody stopped must not stop the gateway.
        rustix::io::ioctl_fionbio(&stdin, true)?;
        let known: String = state.groups.iter().map(|group| format!("+{group}\n")).collect();
        stdin.write_all(known.as_bytes())?;
        Ok(stdin)
    }

    /// What to do after a guardian's end: nothing if it is not needed or has a successor.
    fn mourn(self: &Arc<Self>, pid: Pid, age: Duration) {
        let mut state = self.state();
        if state.line.as_ref().is_some_and(|line| line.pid != pid) {
            return;
        }
        state.line = None;
        state.died_young = if age < YOUNG { state.died_young + 1 } else { 0 };
        if state.groups.is_empty() {
            return;
        }
        if state.died_young >= HOPELESS {
            tracing::warn!("the guardian does not stay: child processes may outlive a killed gateway");
            return;
        }
        tracing::warn!("the guardian has died and is started again");
        self.start(&mut state);
    }
}

/// Waits for a guardian's end, reaps it and sees to a new one. A thread, since the guardian
/// belongs to the process and not to any one runtime in it.
fn mind(inner: &Weak<Inner>, mut child: Child) {
    let born = Instant::now();
    let pid = Pid::from_child(&child);
    // First only looks: as long as it is not reaped, nobody else can have its number.
    let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    let age = born.elapsed();
    if age < YOUNG {
        thread::sleep(Duration::from_millis(100));
    }
    if let Some(inner) = inner.upgrade() {
        inner.mourn(pid, age);
    }
    let _ = child.wait();
}

/// The guardian process: returns when its work is done. Call before anything else is set up.
pub fn run() -> ExitCode {
    let left = groups_left(io::stdin().lock());
    end(left, GRACE);
    ExitCode::SUCCESS
}

/// Reads `+group` and `-group` lines to the end, which is the gateway's.
fn groups_left(input: impl Read) -> BTreeSet<i32> {
    let mut input = io::BufReader::new(input);
    let mut groups = BTreeSet::new();
    let mut line = String::new();
    // What cannot be read is the end as well; an unfinished line is a wrong number.
    while input.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && line.ends_with('\n') {
        match line.trim_end().split_at_checked(1).map(|(sign, group)| (sign, group.parse())) {
            Some(("+", Ok(group))) => drop(groups.insert(group)),
            Some(("-", Ok(group))) => drop(groups.remove(&group)),
            Some(_) | None => {}
        }
        line.clear();
    }
    groups
}

/// A number as a group that may be signalled. The numbers up to 1 are none: to the kernel they
/// mean our own group, or everything there is.
fn group_of(number: i32) -> Option<Pid> {
    if number > 1 { Pid::from_raw(number) } else { None }
}

/// Asks all groups to end, and ends those that are still there after the grace.
fn end(groups: BTreeSet<i32>, grace: Duration) {
    let mut groups: Vec<Pid> = groups.into_iter().filter_map(group_of).collect();
    let deadline = Instant::now() + grace;
    let signal = |groups: &[Pid], signal| {
        for group in groups {
            let _ = rustix::process::kill_process_group(*group, signal);
        }
    };
    // A group is forgotten as soon as it is gone, since its number may be given to another.
    let still_there = |group: &Pid| rustix::process::test_kill_process_group(*group).is_ok();
    signal(&groups, Signal::TERM);
    groups.retain(still_there);
    while !groups.is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
        groups.retain(still_there);
    }
    signal(&groups, Signal::KILL);
}

#[cfg(test)]
pub mod tests {
    use std::{os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;

    #[test]
    fn the_groups_left_are_those_that_did_not_leave() {
        let left = |text: &str| groups_left(text.as_bytes()).into_iter().collect::<Vec<_>>();
        assert!(left("").is_empty());
        assert_eq!(left("+12\n+34\n+56\n-34\n"), [12, 56]);
        assert_eq!(left("-12\n+12\n+12\n"), [12]);
        assert_eq!(left("+12\n+345"), [12]); // Half a number is another number.
        assert_eq!(left("+12\nrubbish\n\n+\n+x\n+9999999999999\n+34\n"), [12, 34]);
    }

    #[test]
    fn numbers_that_mean_more_than_one_group_are_not_signalled() {
        assert!([-5, -1, 0, 1].into_iter().all(|number| group_of(number).is_none()));
        assert!(group_of(2).is_some());
    }

    /// A shell in a group of its own, and a thread that reaps it.
    fn group(script: &str) -> (i32, thread::JoinHandle<std::process::ExitStatus>) {
        let mut shell = Command::new("sh");
        let shell = shell.arg("-c").arg(script).process_group(0).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        // It has written when its traps are set.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        (child.id().cast_signed(), thread::spawn(move || child.wait().unwrap()))
    }

    #[test]
    fn groups_are_asked_and_then_killed() {
        use std::os::unix::process::ExitStatusExt as _;
        let (polite, asked) = group("echo x; exec sleep 600");
        end(BTreeSet::from([polite]), Duration::from_secs(10));
        assert_eq!(asked.join().unwrap().signal(), Some(15));
        let (stubborn, killed) = group("trap '' TERM; echo x; while :; do sleep 600; done");
        let started = Instant::now();
        end(BTreeSet::from([stubborn]), Duration::from_millis(100));
        assert!(started.elapsed() >= Duration::from_millis(100));
        assert_eq!(killed.join().unwrap().signal(), Some(9));
    }

    /// Says to a copy of this program that it is to be a guardian.
    const ROLE: &str = "WAYSTATION_TEST_GUARDIAN";

    /// Not a test: the guardian that [`program`] starts.
    #[test]
    fn plays_guardian() {
        if std::env::var_os(ROLE).is_some() {
            run();
        }
    }

    /// A program that is a guardian, in the folder.
    pub fn program(folder: &Path) -> PathBuf {
        let path = folder.join("guardian");
        let me = std::env::current_exe().unwrap();
        let test = "backend::guardian::tests::plays_guardian";
        let script = format!("#!/bin/sh\n{ROLE}=1 exec '{}' --exact {test} --nocapture\n", me.display());
        // Under another name first: what any process has open for writing cannot be executed.
        std::fs::write(path.with_extension("new"), script).unwrap();
        let copied = Command::new("cp").arg(path.with_extension("new")).arg(&path).status().unwrap();
        assert!(copied.success());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_guardian_ends_what_is_left_at_the_end_of_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let guardian = Guardian::new(program(folder.path()));
        let (left, ended) = group("echo x; exec sleep 600");
        let (other, survives) = group("echo x; exec sleep 600");
        let watches =
            (guardian.watch(Pid::from_raw(left).unwrap()), guardian.watch(Pid::from_raw(other).unwrap()));
        drop(watches.1);
        // As the kernel does when the gateway is killed.
        guardian.0.state().line = None;
        ended.join().unwrap();
        assert!(!survives.is_finished());
        end(BTreeSet::from([other]), GRACE);
        survives.join().unwrap();
    }

    #[test]
    fn a_guardian_that_dies_has_a_successor_that_knows_what_it_knew() {
        let folder = tempfile::tempdir().unwrap();
        let guardian = Guardian::new(program(folder.path()));
        let (left, ended) = group("echo x; exec sleep 600");
        let _watch = guardian.watch(Pid::from_raw(left).unwrap());
        let pid = || guardian.0.state().line.as_ref().map(|line| line.pid);
        let first = pid().unwrap();
        rustix::process::kill_process(first, Signal::KILL).unwrap();
        until("there is no successor", || pid().is_some_and(|pid| pid != first));
        until("the first is not reaped", || rustix::process::test_kill_process(first).is_err());
        assert!(!ended.is_finished());
        guardian.0.state().line = None;
        ended.join().unwrap();
    }

    #[test]
    fn a_program_that_is_no_guardian_is_not_started_for_ever() {
        let guardian = Guardian::new("/bin/false".into());
        let (group, ended) = group("echo x; exec sleep 600");
        let _watch = guardian.watch(Pid::from_raw(group).unwrap());
        until("it is still tried", || {
            let state = guardian.0.state();
            state.died_young >= HOPELESS && state.line.is_none()
        });
        end(BTreeSet::from([group]), GRACE);
        ended.join().unwrap();
    }
}
