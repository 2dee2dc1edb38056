//! What is heard of an answer while it is made, by whomever and however late they begin to listen?
//!
//! Whoever makes the answer adds to the feed and waits for nobody. Each listener reads at its own
//! pace from where it is, so that one who is slow gets longer pieces and not older ones, and one who
//! asks for the same turn again hears it from the beginning.

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Remarks that are kept for late listeners.
const REMARKS: usize = 64;

/// The making of one answer, of which `T` comes in the end.
#[derive(Debug)]
pub struct Feed<T> {
    said: Mutex<Said<T>>,
    changed: watch::Sender<()>,
    listeners: AtomicUsize,
    /// Cancelled when nobody listens any more, and when the answer is not wanted.
    pub unwanted: CancellationToken,
}

#[derive(Debug)]
struct Said<T> {
    text: String,
    reasoning: String,
    remarks: Vec<String>,
    end: Option<T>,
}

/// What has come since a listener looked last.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub text: String,
    pub reasoning: String,
    pub remarks: Vec<String>,
}

impl<T: Clone> Feed<T> {
    pub fn new() -> Arc<Self> {
        let said = Said { text: String::new(), reasoning: String::new(), remarks: Vec::new(), end: None };
        Arc::new(Self {
            said: Mutex::new(said),
            changed: watch::Sender::new(()),
            listeners: AtomicUsize::new(0),
            unwanted: CancellationToken::new(),
        })
    }

    fn said(&self) -> MutexGuard<'_, Said<T>> {
        self.said.lock().expect("no code panics while it holds this lock")
    }

    pub fn text(&self, more: &str) {
        self.said().text.push_str(more);
        self.changed.send_replace(());
    }

    pub fn reasoning(&self, more: &str) {
        self.said().reasoning.push_str(more);
        self.changed.send_replace(());
    }

    /// Something about the answer that is none of it.
    pub fn remark(&self, remark: String) {
        let mut said = self.said();
        if said.remarks.len() < REMARKS {
            said.remarks.push(remark);
        }
        drop(said);
        self.changed.send_replace(());
    }

    pub fn end(&self, end: T) {
        self.said().end = Some(end);
        self.changed.send_replace(());
    }

    /// All that was said so far.
    pub fn so_far(&self) -> String {
        self.said().text.clone()
    }

    /// Waits until so many bytes of the answer are there.
    pub async fn grows(&self, to: usize) {
        let mut changed = self.changed.subscribe();
        while self.said().text.len() < to {
            let _ = changed.changed().await; // The sender is here.
        }
    }

    /// Begins to listen, from the beginning.
    pub fn listen(self: &Arc<Self>) -> Listener<T> {
        self.listeners.fetch_add(1, Ordering::Relaxed);
        let changed = self.changed.subscribe();
        Listener { feed: Arc::clone(self), changed, text: 0, reasoning: 0, remarks: 0 }
    }
}

/// One who listens. When the last of them goes, the answer is not wanted any more.
#[derive(Debug)]
pub struct Listener<T: Clone> {
    feed: Arc<Feed<T>>,
    changed: watch::Receiver<()>,
    text: usize,
    reasoning: usize,
    remarks: usize,
}

impl<T: Clone> Listener<T> {
    /// What has come since, and the end if it has come.
    pub fn news(&mut self) -> (News, Option<T>) {
        self.changed.mark_unchanged();
        let said = self.feed.said();
        let news = News {
            text: said.text[self.text..].to_owned(),
            reasoning: said.reasoning[self.reasoning..].to_owned(),
            remarks: said.remarks[self.remarks..].to_vec(),
        };
        (self.text, self.reasoning, self.remarks) =
            (said.text.len(), said.reasoning.len(), said.remarks.len());
        (news, said.end.clone())
    }

    /// Waits until something has come.
    pub async fn changed(&mut self) {
        // The sender lives in the feed, which is held here.
        let _ = self.changed.changed().await;
    }
}

impl<T: Clone> Drop for Listener<T> {
    fn drop(&mut self) {
        if self.feed.listeners.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.feed.unwanted.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_listener_hears_everything_at_its_own_pace() {
        let feed = Feed::new();
        let mut early = feed.listen();
        feed.text("Hel");
        assert_eq!(early.news().0.text, "Hel");
        feed.text("lo, ");
        feed.remark("fell back".into());
        feed.text("world");
        let mut late = feed.listen();
        let (news, end) = early.news();
        assert_eq!((news.text.as_str(), news.remarks.len(), end), ("lo, world", 1, None));
        assert_eq!(late.news().0.text, "Hello, world");
        feed.end(7);
        early.changed().await;
        assert_eq!(early.news(), (News::default(), Some(7)));
    }

    #[test]
    fn an_answer_is_unwanted_when_the_last_listener_goes() {
        let feed = Feed::<()>::new();
        let (one, two) = (feed.listen(), feed.listen());
        drop(one);
        assert!(!feed.unwanted.is_cancelled());
        drop(two);
        assert!(feed.unwanted.is_cancelled());
    }
}
