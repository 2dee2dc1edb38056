//! Is everything on disk before it is said? What the kernel was asked to do, in its order.
//!
//! It needs `strace`, and is run by itself: `tests/run batteries`.

use std::{fs, process::Command};

use serde_json::json;

use super::{CHAT, Rig};
use crate::support::{UNLIMITED, modern_call, shipped::Shipped};

const CHATS: usize = 20;

/// What the gateway asked the kernel for, a line for each: of a call that took its time one for its begin and one
/// for its end.
struct Trace(Vec<String>);

impl Trace {
    /// The first line after `from` that writes these words to what is called so.
    fn written(&self, from: usize, to: &str, words: &str) -> Option<usize> {
        let is_it = |line: &String| {
            let (call, _) = line.split_once('"').unwrap_or((line, ""));
            call.contains(to) && line.contains(words)
        };
        (from..self.0.len()).find(|at| is_it(&self.0[*at]))
    }

    /// The first line after `from` at which the disk has said that all of the log is there, asked after `from`.
    fn flushed(&self, from: usize) -> Option<usize> {
        let is_flush = |line: &String| line.contains("sync(") && line.contains("-wal>");
        (from..self.0.len()).filter(|at| is_flush(&self.0[*at])).find_map(|begun| {
            let line = &self.0[begun];
            if !line.contains("<unfinished") {
                return Some(begun);
            }
            let thread = line.split_whitespace().next()?;
            (begun + 1..self.0.len()).find(|at| {
                let end = &self.0[*at];
                end.starts_with(&format!("{thread} ")) && end.contains("sync resumed>")
            })
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a battery, which tests/run runs by itself"]
async fn messages_and_answers_are_on_disk_before_anybody_hears_of_them() {
    let installed = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    assert!(installed, "strace is needed");
    let rig = Rig::new().await;
    let log = rig.folder.path().join("trace");
    let calls = "trace=pwrite64,pwritev,fsync,fdatasync,write,writev,sendto,sendmsg";
    let log_name = log.to_str().unwrap();
    let program =
        ["strace", "-D", "-f", "-yy", "-s", "20000", "-e", calls, "-e", "signal=none", "-o", log_name];
    let shipped = Shipped::default().beneath(&program);
    let toml = format!("{UNLIMITED}\n{}", rig.tables(""));
    let gateway = tokio::task::spawn_blocking(move || shipped.serve(&toml)).await.unwrap();
    let model = format!("->{}]>", rig.simulator.address());
    let client = format!("TCP:[{}->", gateway.address);
    for number in 0..CHATS {
        let answer = modern_call(gateway.address, CHAT, json!({ "message": format!("said as {number}!") }));
        let said = super::answered(&answer.send().await);
        assert!(said["text"].as_str().unwrap().contains(&format!("turn 1: said as {number}!")), "{said}");
    }
    let shipped = gateway.stop();
    // Its last lines may come a moment after the end of what it looked at.
    let trace = || Trace(fs::read_to_string(&log).unwrap_or_default().lines().map(str::to_owned).collect());
    crate::support::until("all is traced", || trace().0.iter().any(|line| line.contains("+++ exited"))).await;
    let trace = trace();
    for number in 0..CHATS {
        let (said, answered) = (format!("said as {number}!"), format!("turn 1: said as {number}!"));
        for (words, to, what) in [(&said, &model, "asked"), (&answered, &client, "told")] {
            let kept = trace.written(0, "-wal>", words).unwrap_or_else(|| panic!("{words} is not written"));
            let flushed = trace.flushed(kept).unwrap_or_else(|| panic!("{words} is not on disk"));
            let heard = trace.written(0, to, words).unwrap_or_else(|| panic!("{words}: nobody is {what}"));
            assert!(
                kept < flushed && flushed < heard,
                "{words} is {what} in line {heard}, on disk in {flushed}"
            );
        }
    }
    println!(
        "{CHATS} messages were on disk before models were asked, and their answers before callers were told"
    );
    drop(shipped);
}
