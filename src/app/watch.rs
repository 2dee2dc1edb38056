//! Have files changed that the gateway was started from?
//!
//! They are looked at once a second. That notices what notifications of the system do not: files that
//! are links to links, as orchestrators place them, and files on other machines.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another; none while there is no such file.
type Stamp = Option<(SystemTime, u64, u64)>;

/// The states in which files were last seen.
pub struct Watched(Vec<(PathBuf, Stamp)>);

impl Watched {
    pub async fn new(files: Vec<PathBuf>) -> Self {
        Self(stamps(files).await)
    }

    /// Waits until they have changed, or are others, and then for a second have not.
    pub async fn changed(&mut self, files: impl Fn() -> Vec<PathBuf>) {
        let mut last = self.0.clone();
        loop {
            tokio::time::sleep(EVERY).await;
            let now = stamps(files()).await;
            if now != self.0 && now == last {
                self.0 = now;
                return;
            }
            last = now;
        }
    }
}

async fn stamps(files: Vec<PathBuf>) -> Vec<(PathBuf, Stamp)> {
    let mut stamps = Vec::new();
    for file in files {
        let stamp = stamp(&file).await;
        stamps.push((file, stamp));
    }
    stamps
}

async fn stamp(file: &Path) -> Stamp {
    let known = tokio::fs::metadata(file).await.ok()?;
    Some((known.modified().ok()?, known.len(), known.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_has_come_to_rest_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        let mut watched = Watched::new(vec![file.clone()]).await;
        for text in [Some("a"), Some("ab"), None, Some("ab")] {
            match text {
                Some(text) => std::fs::write(&file, text).unwrap(),
                None => std::fs::remove_file(&file).unwrap(),
            }
            watched.changed(|| vec![file.clone()]).await;
            let again = tokio::time::timeout(10 * EVERY, watched.changed(|| vec![file.clone()])).await;
            assert!(again.is_err(), "{text:?} was noticed twice");
        }
    }
}
