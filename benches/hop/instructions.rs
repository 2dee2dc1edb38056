//! How many instructions does one call cost the gateway?
//!
//! The count does not depend on the machine's mood, so it can guard the hot path where times
//! cannot. The subject runs twice under callgrind, with few and with many calls; the difference
//! has neither its start nor its end in it. User space only: the kernel's part is not ours.

use std::{fs, path::Path, process::Command, time::Duration};

use tokio::time::timeout;

use crate::{
    call::{Era, Target, Work},
    load::{self, Job},
    report::thousands,
    subject::{Lab, Subject, plain},
};

const FEW: usize = 2_000;
const MANY: usize = 12_000;
const CONNECTIONS: usize = 16;
/// Callgrind slows its subject some fifty times; a run takes seconds, not minutes.
const PATIENCE: Duration = Duration::from_mins(2);

/// Prints the figures; whether all of the gateway's are within the limit.
pub async fn run(lab: &mut Lab, limit: u64, gateway: bool) -> Result<bool, String> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Err("instructions are counted by valgrind: install the package `valgrind`".into());
    }
    let output = lab.folder.join("callgrind");
    lab.under = ["valgrind", "--tool=callgrind", "--fair-sched=try"].map(str::to_owned).to_vec();
    lab.under.push(format!("--callgrind-out-file={}", output.display()));
    lab.patience = PATIENCE;
    println!("instructions per call in user space (callgrind, {CONNECTIONS} connections)");
    if let Some(count) = nginx(lab, &output).await? {
        println!("  {:<28}{:>8}", "nginx", thousands(count));
    }
    println!("  {:<28}{:>8}", "bare proxy of our libraries", thousands(floor(lab, &output).await?));
    let mut within = true;
    for era in [Era::Legacy, Era::Modern].into_iter().filter(|_| gateway) {
        let count = same_era(lab, &output, era).await?;
        let verdict = if count <= limit { "PASS" } else { "ABOVE THE LIMIT" };
        let what = format!("gateway, {era} both sides");
        println!("  {what:<28}{:>8}   limit {}   {verdict}", thousands(count), thousands(limit));
        within &= count <= limit;
    }
    if gateway {
        println!("  {:<28}{:>8}", "the same, guarded", thousands(guarded(lab, &output).await?));
    }
    Ok(within)
}

async fn nginx(lab: &Lab, output: &Path) -> Result<Option<u64>, String> {
    let backend = lab.backend()?;
    let mut counts = [0; 2];
    for (calls, count) in [FEW, MANY].into_iter().zip(&mut counts) {
        let Some(subject) = lab.nginx(backend.address).await? else {
            return Ok(None);
        };
        let target = plain(subject.address, Era::Legacy);
        *count = total(subject, echo(target, Era::Legacy), calls, output).await?;
    }
    per_call(counts).map(Some)
}

async fn floor(lab: &Lab, output: &Path) -> Result<u64, String> {
    let backend = lab.backend()?;
    let mut counts = [0; 2];
    for (calls, count) in [FEW, MANY].into_iter().zip(&mut counts) {
        let subject = lab.floor(backend.address).await?;
        let target = plain(subject.address, Era::Legacy);
        *count = total(subject, echo(target, Era::Legacy), calls, output).await?;
    }
    per_call(counts)
}

async fn same_era(lab: &Lab, output: &Path, era: Era) -> Result<u64, String> {
    let backend = lab.backend()?;
    let mut counts = [0; 2];
    for (calls, count) in [FEW, MANY].into_iter().zip(&mut counts) {
        let subject = lab.gateway_before(&backend, era).await?;
        let target = subject.target();
        *count = total(subject, echo(target, era), calls, output).await?;
    }
    per_call(counts)
}

async fn guarded(lab: &Lab, output: &Path) -> Result<u64, String> {
    let backend = lab.backend()?;
    let mut counts = [0; 2];
    for (calls, count) in [FEW, MANY].into_iter().zip(&mut counts) {
        let subject = lab.guarded_gateway(&backend).await?;
        let target = subject.target();
        *count = total(subject, echo(target, Era::Legacy), calls, output).await?;
    }
    per_call(counts)
}

fn echo(target: Target, era: Era) -> Job {
    Job { target, era, work: Work::Echo, connections: CONNECTIONS }
}

fn per_call([few, many]: [u64; 2]) -> Result<u64, String> {
    let more = many.checked_sub(few).filter(|more| *more > 0).ok_or("more calls did not cost more")?;
    Ok(more / (MANY - FEW) as u64)
}

/// Makes the calls, ends the subject and reads what it has used in all.
async fn total(mut subject: Subject, job: Job, calls: usize, output: &Path) -> Result<u64, String> {
    let made = timeout(PATIENCE, load::calls(job, calls)).await;
    made.map_err(|_| format!("{calls} calls took longer than {PATIENCE:?}"))??;
    subject.running.stop(PATIENCE);
    let none = |error| format!("callgrind left no count: {error}");
    let text = fs::read_to_string(output).map_err(none)?;
    // The next subject must not be counted with this one's file.
    fs::remove_file(output).map_err(none)?;
    let totals = text.lines().filter_map(|line| line.strip_prefix("totals:")?.trim().parse::<u64>().ok());
    Ok(totals.sum())
}
