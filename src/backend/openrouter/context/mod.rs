//! What of a conversation is sent, when not all of it fits?
//!
//! A pure function: turns with their token counts go in, messages come out. Turns go whole or not at
//! all, the newest first and without gaps, so that what is sent begins with a user's words and no tool
//! is answered that was not called.
//!
//! When turns have to go, more of them go than must: down to 70 % of what there is room for. The turns
//! after that find the same beginning again, which is what prompt caches live on. Where the last such
//! cut was follows from the turns themselves, so nothing of it is kept anywhere.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::upstream::Message;

mod budget; //   how many tokens there is room for
mod estimate; // how many tokens a text is
mod forget; //   pictures and documents of old turns
mod pairs; //    calls of tools and their answers

pub use budget::{Budget, Limits};
pub use estimate::{Detail, Ratio, of_image, of_message, of_part, of_request, of_text};
pub use forget::Media;

/// Of what there is room for, so much is used when turns have to go, in percent.
const KEPT: u64 = 70;
/// More than this is not set aside for a summary, nor more than an eighth of the room.
const LONGEST_SUMMARY: u64 = 2048;

/// What to do when not all fits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// The oldest turns are left out.
    #[default]
    Window,
    /// The oldest turns are replaced by a summary of them.
    Summarize,
    /// The upstream takes something out of the middle, of up to twice what fits.
    Compress,
    /// Nothing is sent.
    Error,
}

/// One message with what it counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub message: Message,
    pub tokens: u64,
    /// Which of its parts are pictures and the like.
    pub media: Vec<Media>,
}

/// What a user said and everything that was answered to it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turn {
    pub items: Vec<Item>,
}

impl Turn {
    pub fn tokens(&self) -> u64 {
        self.items.iter().map(|item| item.tokens).sum()
    }
}

/// The oldest turns in a few words.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub message: Message,
    pub tokens: u64,
    /// How many turns it stands for.
    pub covers: usize,
}

/// What is to be sent if it fits.
#[derive(Debug, Clone)]
pub struct Conversation {
    pub system: Option<Item>,
    /// Of the declarations of tools.
    pub tools_tokens: u64,
    /// The oldest first.
    pub history: Vec<Turn>,
    /// What is to be answered now.
    pub current: Turn,
    pub strategy: Strategy,
    /// No more turns than this, if it is said.
    pub keep_last_turns: Option<usize>,
    /// For how many turns pictures and documents are sent again.
    pub attachment_turns: usize,
    pub summary: Option<Summary>,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    pub messages: Vec<Message>,
    pub report: Report,
    /// Of all that stands before what is to be answered, and so will stand there in the next turn.
    pub stable_tokens: u64,
    /// A summary of so many of the oldest turns is missing; with it the same can be fitted anew.
    pub wants_summary_of: Option<usize>,
    /// The upstream has to compress it.
    pub compress: bool,
}

/// What was done, for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Report {
    pub window: u64,
    pub budget: u64,
    pub estimated_prompt_tokens: u64,
    pub sent_messages: usize,
    pub dropped_turns: usize,
    pub summarized_turns: usize,
    pub strategy: Strategy,
}

/// It does not fit, whatever is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this needs about {needed} tokens, and there is room for {budget} of the model's {window}; {}", advice(*.all))]
pub struct TooLarge {
    pub needed: u64,
    pub budget: u64,
    pub window: u64,
    /// It is the whole conversation that does not fit, and nothing may be left out of it.
    pub all: bool,
}

fn advice(all: bool) -> &'static str {
    if all {
        "allow that old turns are left out, or begin a new conversation"
    } else {
        "send less at once, or choose a model with a larger window"
    }
}

impl Conversation {
    /// Chooses what is sent.
    pub fn fit(mut self, budget: Budget) -> Result<Fitted, TooLarge> {
        forget::forget(&mut self.history, self.attachment_turns);
        for turn in &mut self.history {
            pairs::complete(turn);
        }
        let system = self.system.as_ref().map_or(0, |item| item.tokens);
        let fixed = system + self.tools_tokens + self.current.tokens();
        let room = match self.strategy {
            Strategy::Compress => budget.window.saturating_mul(2).saturating_sub(1).max(budget.tokens),
            Strategy::Window | Strategy::Summarize | Strategy::Error => budget.tokens,
        };
        let too_large = |needed, all| TooLarge { needed, budget: budget.tokens, window: budget.window, all };
        if fixed > room {
            return Err(too_large(fixed, false));
        }
        let sizes: Vec<u64> = self.history.iter().map(Turn::tokens).collect();
        let all = fixed + sizes.iter().sum::<u64>();
        let most = self.keep_last_turns.unwrap_or(usize::MAX);
        let wished = self.history.len().saturating_sub(most);
        let mut start = match self.strategy {
            Strategy::Error if all > room => return Err(too_large(all, true)),
            Strategy::Error => 0,
            Strategy::Window | Strategy::Compress => cut(&sizes, fixed, room),
            Strategy::Summarize if all <= room => 0,
            Strategy::Summarize => cut(&sizes, fixed + LONGEST_SUMMARY.min(room / 8).min(room - fixed), room),
        };
        start = start.max(wished);
        let mut summary = None;
        if self.strategy == Strategy::Summarize && start > 0 {
            // One that stands for more turns is as good; what it covers need not be said twice.
            let fits = |one: &Summary| {
                let rest: u64 = sizes.get(one.covers..).unwrap_or_default().iter().sum();
                one.covers >= start && one.covers <= sizes.len() && fixed + one.tokens + rest <= room
            };
            summary = self.summary.take().filter(fits);
        }
        let wants_summary_of =
            (self.strategy == Strategy::Summarize && start > 0 && summary.is_none()).then_some(start);
        let start = self.begin(summary.as_ref().map_or(start, |summary| summary.covers));
        Ok(self.put_together(start, summary, wants_summary_of, fixed, budget))
    }

    /// The first turn from there on that begins as a turn must.
    fn begin(&self, start: usize) -> usize {
        let rest = self.history.iter().skip(start);
        start + rest.take_while(|turn| !pairs::begins_with_user(turn)).count()
    }

    fn put_together(
        self,
        start: usize,
        summary: Option<Summary>,
        wants_summary_of: Option<usize>,
        fixed: u64,
        budget: Budget,
    ) -> Fitted {
        let summarized_turns = summary.as_ref().map_or(0, |summary| summary.covers);
        let mut tokens = fixed + summary.as_ref().map_or(0, |summary| summary.tokens);
        let mut messages: Vec<Message> = self.system.into_iter().map(|item| item.message).collect();
        messages.extend(summary.map(|summary| summary.message));
        for turn in self.history.into_iter().skip(start) {
            tokens += turn.tokens();
            messages.extend(turn.items.into_iter().map(|item| item.message));
        }
        let stable_tokens = tokens - self.current.tokens();
        messages.extend(self.current.items.into_iter().map(|item| item.message));
        let report = Report {
            window: budget.window,
            budget: budget.tokens,
            estimated_prompt_tokens: tokens,
            sent_messages: messages.len(),
            dropped_turns: start - summarized_turns.min(start),
            summarized_turns,
            strategy: self.strategy,
        };
        let compress = self.strategy == Strategy::Compress && tokens > budget.tokens;
        Fitted { messages, report, stable_tokens, wants_summary_of, compress }
    }
}

/// The first turn that is sent of turns of these sizes, as far as sizes alone tell.
pub fn begins(sizes: &[u64], fixed: u64, room: u64) -> usize {
    if fixed > room { sizes.len() } else { cut(sizes, fixed, room) }
}

/// Where what is sent begins: as it was for the turn before, unless that does not fit any more. For
/// that the whole conversation is gone through, as it was sent turn by turn.
fn cut(sizes: &[u64], fixed: u64, room: u64) -> usize {
    let kept = room * KEPT / 100;
    let (mut start, mut total) = (0, fixed);
    for (at, size) in sizes.iter().enumerate() {
        total += size;
        if total <= room {
            continue;
        }
        // The newest stays as long as it fits at all.
        while total > kept && (start < at || total > room) {
            total -= sizes[start];
            start += 1;
        }
    }
    start
}

#[cfg(test)]
mod tests;
