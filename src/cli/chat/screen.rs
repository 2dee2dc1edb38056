//! What does a person see of a conversation?
//!
//! What models say goes to standard output, all else to standard error. On a terminal nothing that a
//! model says can move the cursor.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use indicatif::ProgressBar;

use super::talk::{Conversation, Got, Said};
use crate::cli::{
    note,
    table::{colours, draw, for_output, harmless, shortened},
};

const DIM: &str = "\u{1b}[2m";
const PLAIN: &str = "\u{1b}[0m";

pub struct Screen {
    /// Nothing but answers is shown.
    quiet: bool,
    dims: bool,
    /// A person types, who is shown where.
    prompts: bool,
    /// Something was printed of an answer, and its line has not ended.
    within: bool,
    waiting: Option<ProgressBar>,
}

impl Screen {
    pub fn new(quiet: bool) -> Self {
        let prompts = io::stdin().is_terminal() && io::stderr().is_terminal() && !quiet;
        Self { quiet, dims: colours(), prompts, within: false, waiting: None }
    }

    pub fn prompt(&self) {
        if self.prompts {
            let _ = write!(io::stderr(), "> ");
        }
    }

    /// Something is asked, and nothing has come.
    pub fn waiting(&mut self) {
        if !self.quiet && io::stdout().is_terminal() {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(100));
            self.waiting = Some(bar);
        }
    }

    /// What is being waited for.
    pub fn status(&mut self, text: &str) {
        if let Some(bar) = &self.waiting {
            bar.set_message(shortened(text, 76));
        }
    }

    /// A piece of an answer.
    pub fn text(&mut self, text: &str) {
        self.end_waiting();
        let shown = for_output(text);
        let mut out = io::stdout().lock();
        let _ = out.write_all(shown.as_bytes()).and_then(|()| out.flush()); // Its reader may have gone.
        self.within = if text.is_empty() { self.within } else { !text.ends_with('\n') };
    }

    /// The end of an answer, and what it was.
    pub fn ended(&mut self, said: &Said) {
        self.end_line();
        if !self.quiet {
            for warning in &said.warnings {
                self.remark(warning);
            }
            self.remark(&said.summary());
        } else if let Some(why) = &said.incomplete_reason {
            note(format_args!("the answer is incomplete: {}", harmless(why)));
        }
    }

    /// What comes next begins on a line of its own.
    pub fn end_line(&mut self) {
        self.end_waiting();
        if std::mem::take(&mut self.within) {
            let _ = writeln!(io::stdout());
        }
    }

    fn end_waiting(&mut self) {
        if let Some(bar) = self.waiting.take() {
            bar.finish_and_clear();
        }
    }

    /// Something that nobody has said.
    pub fn remark(&self, text: &str) {
        if self.quiet {
            return;
        }
        let (on, off) = if self.dims { (DIM, PLAIN) } else { ("", "") };
        let _ = writeln!(io::stderr(), "{on}{}{off}", harmless(text));
    }

    pub fn complain(&self, why: &str) {
        let _ = writeln!(io::stderr(), "error: {}", harmless(why));
    }

    pub fn list(&self, all: &[Conversation]) {
        if all.is_empty() {
            return self.remark("There is no conversation yet.");
        }
        let rows: Vec<_> = all
            .iter()
            .map(|one| {
                let title = one.title.as_deref().unwrap_or_default();
                let used = one.updated_at.get(..16).unwrap_or(&one.updated_at).replace('T', " ");
                [one.conversation_id.clone(), used, one.messages.to_string(), shortened(title, 40)].to_vec()
            })
            .collect();
        let drawn = draw(&["conversation", "used (UTC)", "messages", "title"], &rows);
        self.remark(drawn.trim_end());
    }

    /// What was said last in a conversation that goes on.
    pub fn transcript(&self, got: &Got) {
        let title = got.conversation.title.as_deref().unwrap_or("A conversation");
        let (id, messages) = (&got.conversation.conversation_id, got.conversation.messages);
        self.remark(&format!("{} ({messages} messages, {id})", shortened(title, 60)));
        for one in got.messages.iter().filter(|one| one.superseded_by.is_none()) {
            let mark = if one.role == "user" { "> " } else { "" };
            let rest = if one.truncated { " …" } else { "" };
            self.remark(&format!("{mark}{}{rest}", one.text.trim_end()));
        }
    }

    pub fn leave(&mut self, conversation: Option<&str>) {
        self.end_line();
        if self.prompts {
            let _ = writeln!(io::stderr());
        }
        if let Some(id) = conversation {
            self.remark(&format!("To go on: waystation chat --resume {id}"));
        }
    }
}
