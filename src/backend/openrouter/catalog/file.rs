//! How is the list of models kept over a restart?
//!
//! As JSON with a digest of its own, written beside the file and then put in its place, so that a
//! reader finds the old list or the new one. A file that is not as it was written counts as absent.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::resolve::Snapshot;

/// Of the file's form. One of another is not read.
const VERSION: u32 = 1;

/// What is in the file.
#[derive(Serialize, Deserialize)]
struct Saved<'a> {
    version: u32,
    /// In seconds of our era.
    fetched_at: u64,
    /// SHA-256 of the models as they stand here.
    digest: String,
    #[serde(borrow)]
    models: &'a RawValue,
}

/// A list that was saved.
pub struct Loaded {
    pub models: Vec<Value>,
    pub at: SystemTime,
}

pub async fn read(path: PathBuf) -> Option<Loaded> {
    tokio::task::spawn_blocking(move || {
        let text = std::fs::read_to_string(&path).ok()?;
        let loaded = parse(&text);
        if loaded.is_none() {
            tracing::warn!(path = %path.display(), "the saved list of models is damaged and not used");
        }
        loaded
    })
    .await
    .ok()?
}

fn parse(text: &str) -> Option<Loaded> {
    let saved: Saved<'_> = serde_json::from_str(text).ok()?;
    if saved.version != VERSION || saved.digest != digest(saved.models.get()) {
        return None;
    }
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(saved.fetched_at))?;
    Some(Loaded { models: serde_json::from_str(saved.models.get()).ok()?, at })
}

pub async fn write(path: PathBuf, snapshot: &Snapshot, at: SystemTime) -> Result<(), String> {
    let models = snapshot.models.clone();
    let writing = tokio::task::spawn_blocking(move || {
        let entries: Vec<&Value> = models.iter().map(|model| &model.entry).collect();
        let models = serde_json::value::to_raw_value(&entries).map_err(|why| why.to_string())?;
        let fetched_at = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let saved = Saved { version: VERSION, fetched_at, digest: digest(models.get()), models: &models };
        let text = serde_json::to_vec(&saved).map_err(|why| why.to_string())?;
        put(&path, &text).map_err(|why| format!("{}: {why}", path.display()))
    });
    writing.await.map_err(|why| why.to_string())?
}

fn put(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn digest(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
