//! How fast does a subject answer, and is every answer right?
//!
//! A closed loop: each connection asks, waits for its answer, checks it and asks again. One thread,
//! so the load stays on its core. Connections and sessions are new for every measurement and are
//! given back at its end, so no subject inherits the state of an earlier row.

use std::{
    cell::{Cell, RefCell},
    fmt::Display,
    rc::Rc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    call::{self, Call, Era, Number, Target, Work},
    http1::{self, Message},
    process::Watched,
};

/// An answer that takes longer is a wrong one. It is watched over from outside the loop: a timer
/// for each call would cost the load core more than checking the answer does.
const PATIENCE: Duration = Duration::from_secs(10);
const LATE: &str = "an answer did not come within ten seconds";

/// What is asked, and of whom.
#[derive(Clone, Copy)]
pub struct Job {
    pub target: Target,
    pub era: Era,
    pub work: Work,
    pub connections: usize,
}

/// What one measurement found.
#[derive(Clone, Copy)]
pub struct Cost {
    pub per_second: f64,
    /// Processor time of the subject for one call, in microseconds.
    pub cpu: f64,
    /// How much of one core the subject used.
    pub busy: f64,
    /// How much of that core everything else used.
    pub others: f64,
    /// Half of the calls took no longer, in microseconds.
    pub median: f64,
}

/// What the connections of one measurement share.
#[derive(Default)]
struct Tally {
    counting: Cell<bool>,
    over: Cell<bool>,
    done: Cell<usize>,
    nanoseconds: RefCell<Vec<u64>>,
}

/// Runs the job for `warm` and then measures it for `span`.
pub async fn measure(job: Job, subject: &Watched, warm: Duration, span: Duration) -> Result<Cost, String> {
    let tally = Rc::new(Tally::default());
    let mut loops = JoinSet::new();
    for (number, client) in connect(job).await?.into_iter().enumerate() {
        let tally = Rc::clone(&tally);
        loops.spawn_local(async move {
            let outcome = client.repeat(job, Number::first_of(number), &tally).await;
            // One wrong answer ends the measurement for all.
            if outcome.is_err() {
                tally.over.set(true);
            }
            outcome
        });
    }
    sleep(warm).await;
    let (begin, cpu, busy) = (Instant::now(), subject.cpu(), subject.busy());
    tally.counting.set(true);
    sleep(span).await;
    tally.counting.set(false);
    let (elapsed, cpu, busy) =
        (begin.elapsed(), subject.cpu().saturating_sub(cpu), subject.busy().saturating_sub(busy));
    tally.over.set(true);
    timeout(PATIENCE, all(loops)).await.map_err(|_| LATE)??;
    tally.cost(elapsed, cpu, busy)
}

/// Makes `count` calls, spread evenly over the connections.
pub async fn calls(job: Job, count: usize) -> Result<(), String> {
    let mut loops = JoinSet::new();
    for (number, mut client) in connect(job).await?.into_iter().enumerate() {
        loops.spawn_local(async move {
            let mut call = client.call(job);
            let mut number = Number::first_of(number);
            for _ in 0..count / job.connections {
                number = number.next();
                client.ask(&mut call, number).await?;
            }
            client.close(job.target).await
        });
    }
    all(loops).await
}

/// Waits for every connection, and no longer than for the first wrong answer.
async fn all(mut loops: JoinSet<Result<(), String>>) -> Result<(), String> {
    while let Some(ended) = loops.join_next().await {
        ended.map_err(|error| error.to_string())??;
    }
    Ok(())
}

async fn connect(job: Job) -> Result<Vec<Client>, String> {
    let mut opening = JoinSet::new();
    for _ in 0..job.connections {
        opening.spawn_local(Client::open(job.target, job.era));
    }
    timeout(PATIENCE, opening.join_all()).await.map_err(|_| LATE)?.into_iter().collect()
}

impl Tally {
    fn cost(&self, elapsed: Duration, cpu: Duration, busy: Duration) -> Result<Cost, String> {
        let mut times = self.nanoseconds.borrow_mut();
        if times.is_empty() {
            return Err("there was no answer at all while it was measured".into());
        }
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let (calls, seconds) = (float(self.done.get() as u64), elapsed.as_secs_f64());
        Ok(Cost {
            per_second: calls / seconds,
            cpu: cpu.as_secs_f64() * 1e6 / calls,
            busy: cpu.as_secs_f64() / seconds,
            others: busy.saturating_sub(cpu).as_secs_f64() / seconds,
            median: float(*median) / 1e3,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of a minute fit in 53 bits")]
fn float(count: u64) -> f64 {
    count as f64
}

/// One connection of one MCP client.
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    session: Option<String>,
}

impl Client {
    /// Connects and, in the legacy era, opens a session.
    pub async fn open(target: Target, era: Era) -> Result<Client, String> {
        let stream = TcpStream::connect(target.address).await.map_err(told("connecting"))?;
        stream.set_nodelay(true).map_err(told("connecting"))?;
        let mut client = Client { stream, input: Vec::with_capacity(64 * 1024), session: None };
        if era == Era::Legacy {
            client.shake_hands(target).await?;
        }
        Ok(client)
    }

    async fn shake_hands(&mut self, target: Target) -> Result<(), String> {
        let (initialize, initialized) = call::handshake();
        let answer = self.exchange(&call::post(target, "", &initialize.to_string())).await?;
        let result = &call::message(&answer)?["result"];
        if answer.status() != 200 || result["protocolVersion"] != call::LEGACY {
            return Err(format!("initialize was answered with {} {result}", answer.first_line));
        }
        let session = answer.header("mcp-session-id").ok_or("initialize brought no session")?.to_owned();
        let headers = format!("Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: {}\r\n", call::LEGACY);
        let answer = self.exchange(&call::post(target, &headers, &initialized.to_string())).await?;
        if answer.status() != 202 {
            return Err(format!("notifications/initialized was answered with {}", answer.first_line));
        }
        self.session = Some(session);
        Ok(())
    }

    pub fn call(&self, job: Job) -> Call {
        Call::new(job.target, job.era, job.work, self.session.as_deref())
    }

    /// How many tools of backends a gateway lists for a new session; it may have some of its own.
    pub async fn list(target: Target) -> Result<usize, String> {
        let mut client = Client::open(target, Era::Legacy).await?;
        let job = Job { target, era: Era::Legacy, work: Work::List, connections: 1 };
        let answer = client.exchange(client.call(job).request(Number::first_of(0))).await?;
        let message = call::message(&answer)?;
        let tools = message["result"]["tools"].as_array();
        let tools = tools.ok_or_else(|| format!("tools/list was answered with {}", answer.first_line))?;
        let ours = |tool: &&Value| tool["name"].as_str().is_some_and(|name| name.starts_with("bench"));
        let listed = tools.iter().filter(ours).count();
        client.close(target).await?;
        Ok(listed)
    }

    /// Makes one call and checks its answer.
    pub async fn ask(&mut self, call: &mut Call, number: Number) -> Result<(), String> {
        let answer = self.exchange(call.request(number)).await?;
        call.check(number, &answer)
    }

    /// Sends bytes and waits for one whole answer.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Message<'_>, String> {
        self.input.clear();
        self.stream.write_all(request).await.map_err(told("sending"))?;
        let frame = loop {
            if self.stream.read_buf(&mut self.input).await.map_err(told("receiving"))? == 0 {
                return Err("the connection was closed before the answer".into());
            }
            if let Some(frame) = http1::frame(&self.input)? {
                break frame;
            }
        };
        if frame.end != self.input.len() {
            return Err("there was more than one answer".into());
        }
        Ok(frame.of(&self.input))
    }

    async fn repeat(mut self, job: Job, mut number: Number, tally: &Tally) -> Result<(), String> {
        let mut call = self.call(job);
        let mut begin = Instant::now();
        while !tally.over.get() {
            number = number.next();
            self.ask(&mut call, number).await?;
            let end = Instant::now();
            if tally.counting.get() {
                tally.done.set(tally.done.get() + 1);
                let took = end - begin;
                tally.nanoseconds.borrow_mut().push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            }
            begin = end;
        }
        self.close(job.target).await
    }

    /// Gives the session back; a server that keeps no sessions may refuse.
    async fn close(mut self, target: Target) -> Result<(), String> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        let (path, host) = (target.path, target.address);
        let request = format!(
            "DELETE {path} HTTP/1.1\r\nHost: {host}\r\n{}Mcp-Session-Id: {session}\r\nMCP-Protocol-Version: {}\r\n\r\n",
            target.proof,
            call::LEGACY
        );
        let answer = self.exchange(request.as_bytes()).await?;
        match answer.status() {
            200..300 | 405 => Ok(()),
            _ => Err(format!("DELETE of the session was answered with {}", answer.first_line)),
        }
    }
}

fn told<E: Display>(doing: &str) -> impl Fn(E) -> String {
    move |error| format!("{doing}: {error}")
}
