//! What becomes of the pictures and documents of old turns?
//!
//! After some turns only their names are sent again, for each time they are read costs as much as the
//! first. What was read out of a document stays with the answer that it came with.

use super::{
    super::upstream::{Content, Part},
    Item, Turn, estimate,
};

/// A part of a message that is no text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Which part of the message it is.
    pub part: usize,
    /// `image`, `document`, `recording` or `video`, as it is called to the model.
    pub kind: String,
    pub name: String,
    /// How much of its message's count is its own.
    pub tokens: u64,
    /// The user speaks of it again, so it stays.
    pub wanted: bool,
}

/// Replaces media in all turns but the last so many.
pub(super) fn forget(history: &mut [Turn], turns: usize) {
    let old = history.len().saturating_sub(turns);
    for item in history[..old].iter_mut().flat_map(|turn| &mut turn.items) {
        forget_in(item);
    }
}

fn forget_in(item: &mut Item) {
    let Content::Parts(parts) = &mut item.message.content else { return };
    item.media.retain(|media| {
        let Some(part) = parts.get_mut(media.part).filter(|_| !media.wanted) else { return true };
        let note = format!("[{} sent earlier: {}]", media.kind, media.name);
        item.tokens = item.tokens.saturating_sub(media.tokens) + estimate::of_text(&note);
        *part = Part::text(note);
        false
    });
}
