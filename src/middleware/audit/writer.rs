//! How do lines get to disk?
//!
//! As many at once as have come within a moment, in one transaction and one write. What could not
//! be written is counted, and the next line that can be says how much is missing.

use std::{
    collections::HashMap,
    fmt::Write as _,
    io,
    net::IpAddr,
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aws_lc_rs::hmac;
use bytes::Bytes;
use foldhash::fast::RandomState;
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    fs::File,
    io::AsyncWriteExt as _,
    sync::mpsc::Receiver,
    time::{Instant, sleep, timeout},
};

use super::{Item, Plan, Trail, entry};
use crate::{
    store::{
        Store,
        audit::{Batch, Line},
    },
    telemetry::one_line_of_json,
    weaken,
};

/// Lines that are written at once.
const AT_ONCE: usize = 1024;
/// How long lines may wait for others.
const MOMENT: Duration = Duration::from_millis(50);
/// How often what was counted is noted.
const COUNTED: Duration = Duration::from_secs(1);
/// How often old lines are looked for.
const SWEPT: Duration = Duration::from_secs(60);
/// Clients that are remembered with what is noted of them.
const CLIENTS: usize = 256;

pub struct Writer {
    /// What is noted ends with its gateway.
    trail: Weak<Trail>,
    store: Store,
    key: Option<hmac::Key>,
    clients: HashMap<Bytes, Option<String>, RandomState>,
    /// With the plan that it was opened for.
    file: Option<(Arc<Plan>, Option<File>)>,
    /// When old lines were last looked for.
    swept: Option<Instant>,
    counted: Instant,
    told: Option<Instant>,
}

impl Writer {
    pub fn new(trail: Weak<Trail>, store: Store) -> Self {
        let (key, file, swept, told) = (None, None, None, None);
        Self { trail, store, key, clients: HashMap::default(), file, swept, counted: Instant::now(), told }
    }

    /// Writes until the trail has gone.
    pub async fn run(mut self, mut items: Receiver<Item>) {
        let mut batch = Vec::new();
        loop {
            let heard = timeout(COUNTED, items.recv_many(&mut batch, AT_ONCE)).await;
            if heard == Ok(0) {
                return;
            }
            let flushed = batch.iter().any(|item| matches!(item, Item::Flush(_)));
            if !batch.is_empty() && batch.len() < AT_ONCE && !flushed {
                sleep(MOMENT).await;
                while batch.len() < AT_ONCE
                    && let Ok(item) = items.try_recv()
                {
                    batch.push(item);
                }
            }
            let Some(trail) = self.trail.upgrade() else { return };
            self.write(&trail, &mut batch).await;
        }
    }

    async fn write(&mut self, trail: &Trail, batch: &mut Vec<Item>) {
        let plan = trail.plan.load_full();
        let key = match self.key.take() {
            Some(key) => key,
            None => key_of(&self.store).await,
        };
        let mut waiting = Vec::new();
        let mut lines = Lines::default();
        if self.clients.len() >= CLIENTS {
            self.clients.clear();
        }
        for item in batch.drain(..) {
            match item {
                Item::Entry(entry) => {
                    let client = self.clients.entry(entry.client.clone());
                    let client = client.or_insert_with(|| entry::client(&entry.client)).as_deref();
                    lines.push(&entry.line(&plan, client, |address| stranger(&key, address)));
                }
                Item::Flush(done) => waiting.push(done),
            }
        }
        self.key = Some(key);
        if plan.is_on() {
            // Counted since the last second, or at the end.
            if self.counted.elapsed() >= COUNTED || !waiting.is_empty() {
                self.counted = Instant::now();
                trail.counts.lines().iter().for_each(|line| lines.push(line));
            }
            let lost = self.keep(&plan, &lines).await;
            trail.counts.lost.fetch_add(lost, Ordering::Relaxed);
        }
        for done in waiting {
            let _ = done.send(()); // Whoever asked may not wait any more.
        }
    }

    /// Writes lines; how many could not be.
    async fn keep(&mut self, plan: &Arc<Plan>, lines: &Lines) -> u64 {
        let mut faults = Vec::new();
        if plan.store && self.store.is_lasting() {
            if !lines.batch.is_empty() {
                faults.extend(self.store.add_lines(&lines.batch).await.err().map(|why| why.to_string()));
            }
            if self.swept.is_none_or(|swept| swept.elapsed() >= SWEPT) {
                self.swept = Some(Instant::now());
                let age =
                    jiff::SignedDuration::try_from(plan.settings.keep.0).unwrap_or(jiff::SignedDuration::MAX);
                let before = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN);
                let swept = self.store.forget_lines(before, plan.settings.rows).await;
                faults.extend(swept.err().map(|why| why.to_string()));
            }
        }
        if let Some(path) = &plan.settings.file
            && !lines.batch.is_empty()
            && let Err(why) = self.append(plan, path, lines.batch.text()).await
        {
            self.file = None; // The next lines may find it well again.
            faults.push(format!("{}: {why}", path.display()));
        }
        let Some(why) = faults.first() else { return 0 };
        if self.told.is_none_or(|told| told.elapsed() >= SWEPT) {
            self.told = Some(Instant::now());
            tracing::error!(why, "the audit trail cannot be written; the lines are lost");
        }
        lines.stand_for
    }

    async fn append(&mut self, plan: &Arc<Plan>, path: &Path, lines: &str) -> io::Result<()> {
        if self.file.as_ref().is_none_or(|(of, _)| !Arc::ptr_eq(of, plan)) {
            self.file = Some((Arc::clone(plan), None));
        }
        let Some((_, file)) = &mut self.file else { return Ok(()) };
        let file = match file {
            Some(file) => file,
            None => file.insert(open(path).await?),
        };
        file.write_all(lines.as_bytes()).await?;
        file.flush().await
    }
}

/// What is written at once.
#[derive(Default)]
struct Lines {
    batch: Batch,
    /// The line that is being written.
    text: String,
    /// How many lines are missing if these are.
    stand_for: u64,
}

impl Lines {
    fn push(&mut self, line: &Line<'_>) {
        self.text.clear();
        write(line, &mut self.text);
        self.batch.push(line.at, &self.text);
        self.stand_for += line.count.filter(|_| line.outcome == LOST).map_or(1, i64::cast_unsigned);
    }
}

/// Writes a line as serde does, and in a quarter of the time: most of what it says stands in JSON as
/// it is.
fn write(line: &Line<'_>, out: &mut String) {
    let Line { at, request, who, issuer, client, endpoint, method, backend, target, asked_by, .. } = line;
    let Line { outcome, code, took, cached, count, usage, arguments, .. } = line;
    let written = write!(out, "{{\"time\":\"{at:.6}\"");
    let texts = [
        (",\"request\":", request),
        (",\"who\":", who),
        (",\"issuer\":", issuer),
        (",\"client\":", client),
        (",\"endpoint\":", endpoint),
        (",\"method\":", method),
        (",\"backend\":", backend),
        (",\"target\":", target),
        (",\"asked_by\":", asked_by),
    ];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?)));
    for (name, text) in texts.chain([(",\"outcome\":", &**outcome)]) {
        out.push_str(name);
        quote(text, out);
    }
    let written = written.and_then(|()| {
        code.map_or(Ok(()), |code| write!(out, ",\"code\":{code}"))?;
        took.map_or(Ok(()), |took| write!(out, ",\"took_us\":{took}"))?;
        out.push_str(if *cached { ",\"cached\":true" } else { "" });
        count.map_or(Ok(()), |count| write!(out, ",\"count\":{count}"))?;
        for (name, value) in [("usage", usage), ("arguments", arguments)] {
            value.as_ref().map_or(Ok(()), |value| {
                write!(out, ",\"{name}\":{}", one_line_of_json(&value.to_string()))
            })?;
        }
        Ok(())
    });
    written.expect("a String takes everything");
    out.push('}');
}

/// Writes a text as JSON that stays on its line.
fn quote(text: &str, out: &mut String) {
    let stands = |byte| (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\');
    // All bytes are looked at, many at once.
    if text.bytes().fold(true, |all, byte| all & stands(byte)) {
        out.extend(["\"", text, "\""]);
    } else {
        out.push_str(&one_line_of_json(&Value::from(text).to_string()));
    }
}

/// Opens the file to add to it. Nobody else may read it, whoever made it.
async fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = if weaken::is("files-open") { 0o644 } else { 0o600 };
    let file = tokio::fs::OpenOptions::new().append(true).create(true).mode(mode).open(path).await?;
    // A device or a pipe is not ours to narrow.
    if file.metadata().await?.is_file() {
        file.set_permissions(std::fs::Permissions::from_mode(mode)).await?;
    }
    Ok(file)
}

/// The key for the names of strangers, the same after each restart.
async fn key_of(store: &Store) -> hmac::Key {
    let kept = store.key("audit").await.unwrap_or_else(|why| {
        tracing::warn!(%why, "strangers in the audit trail have other names after a restart");
        let mut random = vec![0; 32];
        getrandom::fill(&mut random).expect("the system has random numbers");
        random
    });
    hmac::Key::new(hmac::HMAC_SHA256, &kept)
}

/// The name of a stranger: the same for the same address, which cannot be had from it.
fn stranger(key: &hmac::Key, address: IpAddr) -> String {
    let text = address.to_string();
    let tag = hmac::sign(key, text.as_bytes());
    let digits: String = tag.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    if weaken::is("audit-addresses") { format!("stranger {text}") } else { format!("stranger {digits}") }
}

const LOST: &str = "lost";

impl super::Counts {
    /// A line for each kind that there was since the last time.
    fn lines(&self) -> Vec<Line<'static>> {
        let Self { lost, door, no_token, bad_token, no_keys, no_endpoint, no_session } = self;
        let kinds: [(&AtomicU64, &str, Option<i64>, &str); 7] = [
            (lost, LOST, None, "lines of this trail"),
            (door, "denied", Some(403), "another host or origin"),
            (no_token, "denied", Some(401), "no token"),
            (bad_token, "denied", Some(401), "a token that is not good"),
            (no_keys, "denied", Some(503), "no keys to look at tokens with"),
            (no_endpoint, "denied", Some(404), "no endpoint"),
            (no_session, "denied", Some(404), "no session of this caller"),
        ];
        let counted = kinds.into_iter().filter_map(|(count, outcome, code, target)| {
            let count = i64::try_from(count.swap(0, Ordering::Relaxed)).unwrap_or(i64::MAX);
            let (outcome, target) = (outcome.into(), Some(target.into()));
            let at = Timestamp::now();
            (count > 0).then(|| Line { at, outcome, code, target, count: Some(count), ..Line::default() })
        });
        counted.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn a_line_is_what_serde_makes_of_it(
            texts in proptest::collection::vec(proptest::option::of(".*"), 10),
            numbers in proptest::collection::vec(proptest::option::of(any::<i64>()), 3),
            second in 0i64..4_000_000_000, micro in 0i64..1_000_000,
            cached: bool, said in proptest::option::of("\\PC*"),
        ) {
            let text = |at: usize| texts[at].clone().map(Into::into);
            let value = said.map(|said| json!({ "a": [said, 0.5, null] }));
            let line = Line {
                at: Timestamp::from_microsecond(second * 1_000_000 + micro).unwrap(),
                request: text(0), who: text(1), issuer: text(2), client: text(3), endpoint: text(4),
                method: text(5), backend: text(6), target: text(7), asked_by: text(9),
                outcome: text(8).unwrap_or_default(),
                code: numbers[0], took: numbers[1], count: numbers[2],
                cached, usage: value.clone(), arguments: value,
            };
            let mut written = String::new();
            write(&line, &mut written);
            let expected = serde_json::to_string(&line).unwrap();
            prop_assert_eq!(&*written, &*one_line_of_json(&expected));
        }
    }
}
