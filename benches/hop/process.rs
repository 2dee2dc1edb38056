//! What does a process of another program use, and how is it kept on its core?
//!
//! Every subject runs as its own process, started through `taskset` so that its threads inherit the
//! core. Figures come from `/proc`, over the process and all its descendants: nginx works in a child.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Clock ticks of `/proc/<pid>/stat`; the kernel shows hundredths on every machine.
const TICK: Duration = Duration::from_millis(10);

/// The core of the load and the backend, and the core of the thing under test.
#[derive(Clone, Copy)]
pub struct Cores {
    pub load: usize,
    pub subject: usize,
}

impl Cores {
    /// The first two cores this process may use; `None` where there are no two, or no `taskset`.
    pub fn find() -> Option<Cores> {
        let status = fs::read_to_string("/proc/self/status").ok()?;
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        let mut allowed = list.trim().split(',').flat_map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            from.parse().unwrap_or(1)..=to.parse().unwrap_or(0)
        });
        let cores = Cores { load: allowed.next()?, subject: allowed.next()? };
        let pid = std::process::id().to_string();
        let pinned = Command::new("taskset").args(["-a", "-p", "-c", &cores.load.to_string(), &pid]).output();
        pinned.is_ok_and(|output| output.status.success()).then_some(cores)
    }
}

/// A command that will run on one core.
pub fn pinned(core: Option<usize>, program: &Path) -> Command {
    let Some(core) = core else {
        return Command::new(program);
    };
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// A started process. Ends with the value, and so do its children.
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts the command; what it says goes to the file `log`.
    pub fn start(mut command: Command, log: &Path) -> io::Result<Running> {
        let said = File::create(log)?;
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        Ok(Running { child: command.spawn()? })
    }

    pub fn of(child: Child) -> Running {
        Running { child }
    }

    /// The process and all its descendants.
    pub fn pids(&self) -> Vec<u32> {
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?)))
            .collect();
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while let Some(&parent) = family.get(next) {
            family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| pid));
            next += 1;
        }
        family
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks the process to end and waits for it; after `patience` it is not asked any more.
    pub fn stop(&mut self, patience: Duration) {
        if self.has_ended() {
            return;
        }
        let family = self.pids();
        signal("TERM", &family[..1]);
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.has_ended() {
                return;
            }
            sleep(Duration::from_millis(5));
        }
        signal("KILL", &family);
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(3));
    }
}

/// What is watched while a subject is measured: its processes, and the core they run on.
#[derive(Clone, Default)]
pub struct Watched {
    pub pids: Vec<u32>,
    pub core: Option<usize>,
}

impl Watched {
    /// The processor time the processes have used up to now.
    pub fn cpu(&self) -> Duration {
        let ticks = |pid: &u32| -> Option<u32> {
            let stat = stat(*pid)?;
            Some(stat.get(11)?.parse::<u32>().ok()? + stat.get(12)?.parse::<u32>().ok()?)
        };
        self.pids.iter().filter_map(ticks).sum::<u32>() * TICK
    }

    /// How long the core has not been idle up to now, whoever used it; also the host of a virtual machine.
    pub fn busy(&self) -> Duration {
        let ticks = || -> Option<u32> {
            let stat = fs::read_to_string("/proc/stat").ok()?;
            let name = format!("cpu{}", self.core?);
            let mut fields =
                stat.lines().find(|line| line.split(' ').next() == Some(&name))?.split(' ').skip(1);
            let mut next = || fields.next()?.parse::<u32>().ok();
            let working = next()? + next()? + next()?;
            let _idle = next()? + next()?;
            Some(working + next()? + next()? + next()?)
        };
        ticks().unwrap_or_default() * TICK
    }

    /// The resident memory of the processes, in megabytes.
    pub fn memory(&self) -> f64 {
        let kilobytes = |pid: &u32| -> Option<f64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.split_whitespace().next()?.parse().ok()
        };
        self.pids.iter().filter_map(kilobytes).sum::<f64>() / 1024.0
    }
}

/// The fields of `/proc/<pid>/stat` after the name, which may itself hold blanks: state, parent, …
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn signal(name: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    // The shell's own `kill`: it is there even where no other is installed.
    let _ = Command::new("sh")
        .args(["-c", &format!("kill -{name} {}", pids.join(" "))])
        .stderr(Stdio::null())
        .status();
}
