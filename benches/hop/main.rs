//! What does the gateway add to a call, compared with a plain reverse proxy?
//!
//! `cargo bench --bench hop` sends the same calls to a backend directly, through nginx, through a
//! bare proxy of the gateway's own libraries and through the gateway, in turns, and prints what each
//! of them carried and used. The load and the backend
//! share one core, the thing under test has another. Absolute figures are this machine's; the
//! ratios to nginx of the same run are what counts. Every answer is checked.
//!
//! Modules, callers first:
//! - `subject`: who is compared, and how each is started
//! - `load`: the closed loop of calls, and its figures
//! - `call`: what is asked, and what must come back
//! - `backend`: the MCP server behind everybody
//! - `floor`: the bare proxy
//! - `startup`, `instructions`: figures that need a start of their own
//! - `report`, `process`, `http1`: the table, `/proc`, and where a message ends

mod backend;
mod call;
mod floor;
mod http1;
mod instructions;
mod load;
mod process;
mod report;
mod startup;
mod subject;

use std::{env, fs, process::ExitCode, time::Duration};

use call::{
    Era::{self, Legacy, Modern},
    Work,
};
use load::{Cost, Job};
use process::Watched;
use report::{DIRECT, FLOOR, GATEWAY, Goal, Line, NGINX, SUBJECTS};
use subject::{Lab, Subject, plain};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    task::LocalSet,
};

const USAGE: &str = "\
cargo bench --bench hop [-- OPTIONS]

  --rounds N          turns of all subjects (5)
  --seconds S         measured seconds of one subject in one row (0.6)
  --quick             a first look in fifteen seconds; its figures are rough
  --without-gateway   only the backend itself and nginx
  --strict            a missed goal fails the run, not only a wrong answer
  --instructions N    instead: count instructions per call, fail above N";

/// The gateway's; the bare proxy is to differ in nothing that it does not have to do.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Options {
    rounds: usize,
    seconds: f64,
    gateway: bool,
    strict: bool,
    instructions: Option<u64>,
}

/// One kind of load; each is measured for every subject in every round.
struct Row {
    title: &'static str,
    work: Work,
    connections: usize,
    client: Era,
    server: Era,
    /// With all that decides about calls.
    guarded: bool,
    shows: Shows,
}

/// Among the gateways.
const GUARDED: usize = 2;

enum Shows {
    /// Calls per second, to be at least so much of nginx's; and processor time, at most 1.25.
    Rate(f64),
    /// The median time of a call.
    Time(Goal),
    /// Processor time compared with the row in which both sides speak the client's era.
    Bridge { same_era: usize },
}

/// A quiet core still spends this share on interrupts, which belong to no process.
const CROWDED: f64 = 0.15;

const ROWS: [Row; 10] = [
    row("legacy calls, 16 connections", Work::Echo, 16, (Legacy, Legacy), Shows::Rate(0.8)),
    row("legacy calls, 64 connections", Work::Echo, 64, (Legacy, Legacy), Shows::Rate(0.8)),
    row("modern calls, 16 connections", Work::Echo, 16, (Modern, Modern), Shows::Rate(0.8)),
    row("legacy calls, 1 connection", Work::Echo, 1, (Legacy, Legacy), Shows::Time(Goal::AtMost(1.1))),
    row("tools/list, 1 connection", Work::List, 1, (Legacy, Legacy), Shows::Time(Goal::None)),
    row("results of 100 KB, 16 connections", Work::Large, 16, (Legacy, Legacy), Shows::Rate(0.9)),
    guarded("the same with tokens, a rule, limits and audit, 16", 16),
    guarded("the same, 64", 64),
    row("legacy client, modern backend", Work::Echo, 16, (Legacy, Modern), Shows::Bridge { same_era: 0 }),
    row("modern client, legacy backend", Work::Echo, 16, (Modern, Legacy), Shows::Bridge { same_era: 2 }),
];

const fn row(
    title: &'static str,
    work: Work,
    connections: usize,
    (client, server): (Era, Era),
    shows: Shows,
) -> Row {
    Row { title, work, connections, client, server, guarded: false, shows }
}

const fn guarded(title: &'static str, connections: usize) -> Row {
    Row { guarded: true, ..row(title, Work::Echo, connections, (Legacy, Legacy), Shows::Rate(0.75)) }
}

/// The running subjects, and what they have shown so far.
struct Bench {
    backend: Subject,
    nginx: Option<Subject>,
    floor: Subject,
    /// The gateway before a legacy backend, before a modern one, and guarded before a legacy one.
    gateways: Option<[Subject; 3]>,
    costs: [[Vec<Cost>; SUBJECTS.len()]; ROWS.len()],
    wrong: Vec<(usize, usize, String)>,
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == "backend") {
        return done(backend::serve().map(|()| true).map_err(|error| error.to_string()));
    }
    if arguments.next_if(|first| first == "floor").is_some() {
        return done(floor::serve(arguments).map(|()| true));
    }
    match options(arguments) {
        Ok(Some(options)) => done(in_runtime(&options)),
        Ok(None) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(wrong) => {
            eprintln!("hop: {wrong}\n\n{USAGE}");
            ExitCode::from(64)
        }
    }
}

fn done(outcome: Result<bool, String>) -> ExitCode {
    let good = outcome.unwrap_or_else(|error| {
        eprintln!("hop: {error}");
        false
    });
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut measuring = false;
    let mut options = Options { rounds: 5, seconds: 0.6, gateway: true, strict: false, instructions: None };
    while let Some(argument) = arguments.next() {
        let mut number = || {
            let value = arguments.next().unwrap_or_default();
            let number = value.parse::<f64>().ok().filter(|number| *number > 0.0);
            number.ok_or_else(|| format!("{argument} wants a number, not {value:?}"))
        };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
        match argument.as_str() {
            "--rounds" => options.rounds = number()?.ceil() as usize,
            "--seconds" => options.seconds = number()?,
            "--instructions" => options.instructions = Some(number()? as u64),
            "--quick" => (options.rounds, options.seconds) = (2, 0.25),
            "--without-gateway" => options.gateway = false,
            "--strict" => options.strict = true,
            // Cargo's own word to every bench that it really wants to run.
            "--bench" => measuring = true,
            "--help" => return Ok(None),
            _ => return Err(format!("{argument:?} is not an option")),
        }
    }
    // `cargo test --all-targets` starts benches too, to see that they start.
    Ok(measuring.then_some(options))
}

/// Runs to the end, or until somebody wants it to stop; either way the subjects end with it.
fn in_runtime(options: &Options) -> Result<bool, String> {
    let runtime =
        runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    LocalSet::new().block_on(&runtime, async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        tokio::select! {
            outcome = run(options) => outcome,
            _ = terminate.recv() => Err("stopped".into()),
            _ = interrupt.recv() => Err("stopped".into()),
        }
    })
}

async fn run(options: &Options) -> Result<bool, String> {
    let mut lab = Lab::new()?;
    let outcome = match options.instructions {
        Some(limit) => instructions::run(&mut lab, limit, options.gateway).await,
        None => compare(&lab, options).await,
    };
    match outcome {
        Ok(true) => {
            fs::remove_dir_all(&lab.folder).map_or_else(|error| Err(error.to_string()), |()| Ok(true))
        }
        other => {
            eprintln!("hop: what the subjects said is in {}", lab.folder.display());
            other
        }
    }
}

async fn compare(lab: &Lab, options: &Options) -> Result<bool, String> {
    match lab.cores {
        Some(cores) => {
            eprintln!("load and backend on core {}, subject on core {}", cores.load, cores.subject);
        }
        None => eprintln!("no two cores, or no taskset: nothing is pinned, and figures say little"),
    }
    let mut bench = Bench::start(lab, options.gateway).await?;
    for round in 0..options.rounds {
        eprintln!("round {} of {}", round + 1, options.rounds);
        bench.round(round, Duration::from_secs_f64(options.seconds)).await;
    }
    let mut lines = bench.lines();
    lines.extend(bench.startup(lab).await?);
    println!();
    let missed = report::print(&lines);
    let others = bench.others();
    if others > CROWDED {
        println!(
            "\nother programs took {:.0} % of the subject's core: measure again when it is quiet",
            others * 100.0
        );
    }
    for (row, subject, wrong) in &bench.wrong {
        println!("\nWRONG ANSWER from {}, {}: {wrong}", SUBJECTS[*subject], ROWS[*row].title);
    }
    Ok(bench.wrong.is_empty() && (missed == 0 || !options.strict))
}

impl Bench {
    async fn start(lab: &Lab, with_gateway: bool) -> Result<Bench, String> {
        let backend = lab.backend()?;
        let nginx = lab.nginx(backend.address).await?;
        if nginx.is_none() {
            eprintln!("nginx is not installed (Debian: `apt-get install nginx-light`); going on without it");
        }
        let floor = lab.floor(backend.address).await?;
        let gateways = if with_gateway {
            let legacy = lab.gateway_before(&backend, Legacy).await?;
            let modern = lab.gateway_before(&backend, Modern).await?;
            Some([legacy, modern, lab.guarded_gateway(&backend).await?])
        } else {
            None
        };
        Ok(Bench { backend, nginx, floor, gateways, costs: Default::default(), wrong: Vec::new() })
    }

    /// Measures every row for every subject, in turns: forwards in one round, backwards in the next,
    /// so that a drift of the machine favours nobody.
    async fn round(&mut self, round: usize, span: Duration) {
        for (index, row) in ROWS.iter().enumerate() {
            let mut order = [DIRECT, NGINX, FLOOR, GATEWAY];
            if round % 2 == 1 {
                order.reverse();
            }
            let mut said = String::new();
            for subject in order {
                let failed = self.wrong.iter().any(|(row, which, _)| (*row, *which) == (index, subject));
                let Some((job, watched)) = self.job(row, subject).filter(|_| !failed) else {
                    continue;
                };
                match load::measure(job, watched, span / 3, span).await {
                    Ok(cost) => {
                        said += &format!("{} {}/s  ", SUBJECTS[subject], report::short(cost.per_second));
                        self.costs[index][subject].push(cost);
                    }
                    Err(wrong) => {
                        said += &format!("{} WRONG  ", SUBJECTS[subject]);
                        self.wrong.push((index, subject, wrong));
                    }
                }
            }
            // Without a gateway nobody has anything to do in the bridged rows.
            if !said.is_empty() {
                eprintln!("  {:<36}{}", row.title, said.trim_end());
            }
        }
    }

    /// The load of a row for one subject; `None` where it has nothing to do.
    fn job(&self, row: &Row, subject: usize) -> Option<(Job, &Watched)> {
        let bridged = row.client != row.server;
        let (who, target) = match subject {
            GATEWAY => {
                let which = if row.guarded { GUARDED } else { usize::from(row.server == Modern) };
                let gateway = &self.gateways.as_ref()?[which];
                (gateway, gateway.target())
            }
            _ if bridged => return None,
            NGINX => {
                let nginx = self.nginx.as_ref()?;
                (nginx, plain(nginx.address, row.server))
            }
            FLOOR => (&self.floor, plain(self.floor.address, row.server)),
            _ => (&self.backend, plain(self.backend.address, row.server)),
        };
        let job = Job { target, era: row.client, work: row.work, connections: row.connections };
        Some((job, &who.watched))
    }

    /// How much of the subject's core was used by others, in the middle of all measurements.
    fn others(&self) -> f64 {
        let costs = self.costs.iter().flat_map(|row| row[NGINX].iter().chain(&row[GATEWAY]));
        report::median(&costs.map(|cost| cost.others).collect::<Vec<f64>>()).unwrap_or_default()
    }

    fn lines(&self) -> Vec<Line> {
        let values = |row: usize, of: fn(&Cost) -> f64| {
            [DIRECT, NGINX, FLOOR, GATEWAY]
                .map(|subject| self.costs[row][subject].iter().map(of).collect::<Vec<f64>>())
        };
        let line = |title: &str, values, goal| Line { title: title.into(), values, base: Vec::new(), goal };
        let mut lines = Vec::new();
        for (index, row) in ROWS.iter().enumerate() {
            if self.costs[index].iter().all(Vec::is_empty) {
                continue;
            }
            lines.push(Line::heading(row.title));
            match row.shows {
                Shows::Rate(least) => {
                    lines.push(line(
                        "calls per second",
                        values(index, |cost| cost.per_second),
                        Goal::AtLeast(least),
                    ));
                    lines.push(line("CPU per call, µs", values(index, |cost| cost.cpu), Goal::AtMost(1.25)));
                    lines.push(line("core used, %", values(index, |cost| cost.busy * 100.0), Goal::None));
                }
                Shows::Time(goal) => {
                    lines.push(line("median time, µs", values(index, |cost| cost.median), goal));
                }
                Shows::Bridge { same_era } => {
                    let base = self.costs[same_era][GATEWAY].iter().map(|cost| cost.cpu).collect();
                    let line = line(
                        "CPU per call, µs (to same-era)",
                        values(index, |cost| cost.cpu),
                        Goal::AtMost(1.5),
                    );
                    lines.push(Line { base, ..line });
                }
            }
        }
        lines
    }

    /// The figures that need starts of their own, after the rounds so that they disturb nothing.
    async fn startup(&self, lab: &Lab) -> Result<Vec<Line>, String> {
        if self.gateways.is_none() {
            return Ok(Vec::new());
        }
        eprintln!("memory and start");
        let memory = startup::memory(lab, &self.backend).await?;
        let first = startup::first_list(lab).await?;
        let only = |title: &str, values, goal| Line {
            title: title.into(),
            values: [Vec::new(), Vec::new(), Vec::new(), values],
            base: Vec::new(),
            goal,
        };
        Ok(vec![
            Line::heading("at rest and at the start"),
            only("memory with 5 backends, MB", vec![memory], Goal::Below(40.0)),
            only("first list, 20 dead backends, ms", first, Goal::Below(150.0)),
        ])
    }
}
