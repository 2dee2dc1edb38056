//! Many cases of one kind, each with an id, counted.
//!
//! ```text
//! let battery = Battery::new("T01");
//! battery.row("alg-none", answer.status == 401, &answer);
//! battery.end(94);
//! ```
//!
//! A row that cannot fail is none. With the feature `weaken` and a weakness in `WAYSTATION_WEAKEN`, a
//! battery fails nobody: it notes which rows noticed, and `tests/run weakened` asks that each row
//! noticed some weakness.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    fs::OpenOptions,
    io::Write as _,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

pub struct Battery {
    name: &'static str,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    all: BTreeSet<String>,
    failed: Vec<String>,
}

/// Is the gateway weak on purpose?
pub fn is_weakened() -> bool {
    cfg!(feature = "weaken") && std::env::var_os("WAYSTATION_WEAKEN").is_some()
}

impl Battery {
    pub fn new(name: &'static str) -> Self {
        Self { name, rows: Mutex::default() }
    }

    /// One case: did it hold, and what was seen?
    pub fn row(&self, id: impl Into<String>, held: bool, seen: impl Debug) {
        let id = id.into();
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if !held {
            if !is_weakened() {
                let seen = format!("{seen:?}");
                println!("{} {id}: failed: {}", self.name, seen.chars().take(600).collect::<String>());
            }
            rows.failed.push(id.clone());
        }
        assert!(rows.all.insert(id.clone()), "{} has the row {id} twice", self.name);
    }

    /// All cases were run, and there are at least so many.
    #[track_caller]
    pub fn end(self, least: usize) {
        let Rows { all, failed } = self.rows.into_inner().unwrap_or_else(PoisonError::into_inner);
        println!("{}: {} passed, {} failed", self.name, all.len() - failed.len(), failed.len());
        if is_weakened() {
            note(&format!("{}.rows", self.name), all.iter());
            note(&format!("{}.noticed", self.name), failed.iter());
            return;
        }
        assert!(all.len() >= least, "{} has only {} rows of {least}", self.name, all.len());
        assert!(failed.is_empty(), "{}: {} rows failed", self.name, failed.len());
    }
}

/// Adds lines to a file of `target/weakened`.
fn note<'a>(file: &str, lines: impl Iterator<Item = &'a String>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/weakened");
    std::fs::create_dir_all(&folder).expect("target/ can be written");
    let file = OpenOptions::new().create(true).append(true).open(folder.join(file));
    let mut file = file.expect("target/weakened can be written");
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    file.write_all(text.as_bytes()).expect("target/weakened can be written");
}
