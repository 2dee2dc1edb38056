//! What waits for a caller that reads more slowly than its server writes?
//!
//! So much and no more: when there is too much, the oldest notification makes room, since a newer one
//! says more about how a call is. What has to be answered waits as long as nothing else can go, and the
//! answer always.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::Notify;

use super::{http::REPLY_LIMIT, mux::Item};
use crate::wire::message::Kind;

/// Messages that wait, and their bytes in all. An answer may come on top.
const MOST: usize = 256;
const MOST_BYTES: usize = REPLY_LIMIT;

/// Where messages are put in. Dropped, no more come.
#[derive(Debug, Default)]
pub struct Slot(Arc<Mailbox>);

/// Where they are taken out.
#[derive(Debug)]
pub struct Receiver(Arc<Mailbox>);

#[derive(Debug, Default)]
struct Mailbox {
    state: Mutex<State>,
    came: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Item>,
    bytes: usize,
    left_out: u64,
    closed: bool,
}

impl Slot {
    pub fn receiver(&self) -> Receiver {
        Receiver(Arc::clone(&self.0))
    }

    pub fn put(&self, item: Item) {
        self.0.state().put(item);
        self.0.came.notify_one();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.closed = true;
        let left_out = state.left_out;
        drop(state);
        self.0.came.notify_one();
        if left_out > 0 {
            tracing::debug!(left_out, "a server wrote faster than its caller read");
        }
    }
}

impl Receiver {
    /// The next message; none when no more come.
    pub async fn next(&mut self) -> Option<Item> {
        loop {
            {
                let mut state = self.0.state();
                if let Some(item) = state.take() {
                    return Some(item);
                }
                if state.closed {
                    return None;
                }
            }
            // Whoever puts something in between leaves a permit.
            self.0.came.notified().await;
        }
    }
}

impl Mailbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

impl State {
    fn put(&mut self, item: Item) {
        let is_last = item.as_ref().map_or(true, |message| message.kind() == Kind::Response);
        while !is_last && !self.waiting.is_empty() && self.is_over(size(&item)) {
            let oldest = self.waiting.iter().position(is_notification);
            self.left_out += 1;
            match oldest.and_then(|oldest| self.waiting.remove(oldest)) {
                Some(oldest) => self.bytes -= size(&oldest),
                None => return, // All that waits wants an answer.
            }
        }
        self.bytes += size(&item);
        self.waiting.push_back(item);
    }

    fn is_over(&self, more: usize) -> bool {
        self.waiting.len() >= MOST || self.bytes + more > MOST_BYTES
    }

    fn take(&mut self) -> Option<Item> {
        let item = self.waiting.pop_front()?;
        self.bytes -= size(&item);
        Some(item)
    }
}

fn size(item: &Item) -> usize {
    item.as_ref().map_or(0, |message| message.text().len())
}

fn is_notification(item: &Item) -> bool {
    item.as_ref().is_ok_and(|message| message.kind() == Kind::Notification)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{json::Limits, message::Message};

    fn message(text: String) -> Item {
        Ok(Message::parse(text.into(), &Limits::REPLY).unwrap())
    }

    fn progress(number: usize, filler: usize) -> Item {
        let filler = "x".repeat(filler);
        message(format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"n\":{number},\"x\":\"{filler}\"}}}}"
        ))
    }

    fn number(item: &Item) -> Option<usize> {
        std::str::from_utf8(item.as_ref().ok()?.in_params("n")?).ok()?.parse().ok()
    }

    async fn all(mut receiver: Receiver) -> Vec<Item> {
        let mut all = Vec::new();
        while let Some(item) = receiver.next().await {
            all.push(item);
        }
        all
    }

    #[tokio::test]
    async fn of_a_flood_the_newest_messages_are_kept_and_the_answer_in_any_case() {
        let slot = Slot::default();
        let receiver = slot.receiver();
        slot.put(message("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}".into()));
        (0..100_000).for_each(|at| slot.put(progress(at, 0)));
        slot.put(message("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}".into()));
        drop(slot);
        let all = all(receiver).await;
        assert_eq!(all.len(), MOST + 1);
        assert_eq!(number(&all[1]), Some(100_000 - MOST + 1), "the request stays, and the newest");
        assert_eq!(all.last().unwrap().as_ref().unwrap().kind(), Kind::Response);
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes_too() {
        let slot = Slot::default();
        let receiver = slot.receiver();
        (0..50).for_each(|at| slot.put(progress(at, 1 << 20)));
        drop(slot);
        let all = all(receiver).await;
        assert_eq!((all.len(), number(all.last().unwrap())), (15, Some(49)));
    }

    #[tokio::test]
    async fn what_wants_an_answer_is_bounded_as_well() {
        let slot = Slot::default();
        let receiver = slot.receiver();
        (0..1000).for_each(|at| {
            slot.put(message(format!("{{\"jsonrpc\":\"2.0\",\"id\":{at},\"method\":\"ping\"}}")));
        });
        drop(slot);
        assert_eq!(all(receiver).await.len(), MOST);
    }
}
