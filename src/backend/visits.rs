//! Which pages were clients sent to, and who hears that a visit is over?
//!
//! A server of 2025-11-25 gives each page an id and may say later that the visit is over, with
//! the call or long after it (`notifications/elicitation/complete`). A client of that revision
//! is told under the id it knows the page by; nobody else has a word for it.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};

use bytes::Bytes;

use crate::{
    call::{Call, Session},
    wire::{
        json,
        mcp::{Revision, code},
        message::Message,
        question::visited,
    },
};

/// Pages that are remembered for one connection; of more the oldest are forgotten.
const MOST: usize = 1024;
const OVER: &str = "notifications/elicitation/complete";

/// The visits that one connection has asked for.
#[derive(Debug, Default)]
pub struct Visits(Mutex<VecDeque<Visit>>);

#[derive(Debug)]
struct Visit {
    /// What the server calls the page.
    own: String,
    /// What the client does.
    shown: String,
    session: Session,
}

impl Visits {
    fn table(&self) -> MutexGuard<'_, VecDeque<Visit>> {
        self.0.lock().expect("no code panics while it holds this lock")
    }

    fn note(&self, own: String, shown: String, session: Session) {
        let mut table = self.table();
        table.retain(|visit| !visit.session.is_over());
        if table.len() >= MOST {
            table.pop_front();
        }
        table.push_back(Visit { own, shown, session });
    }

    /// The id for the page of a request, if the client of this call is to have one.
    pub fn name(&self, request: &Message, call: &Call) -> Option<String> {
        let session = listener(call)?;
        let own = request.in_params("elicitationId").and_then(json::string)?.into_owned();
        let mut random = [0; 8];
        getrandom::fill(&mut random).ok()?;
        let shown = format!("page-{:016x}", u64::from_be_bytes(random));
        self.note(own, shown.clone(), session);
        Some(shown)
    }

    /// Notes the pages of an error that says that they are to be visited first. The client is
    /// shown it as it is.
    pub fn note_all(&self, response: &Message, call: &Call) {
        let is_it = |code: &[u8]| code == code::URL_ELICITATION_REQUIRED.to_string().as_bytes();
        if !response.in_error("code").is_some_and(is_it) {
            return;
        }
        let Some(session) = listener(call) else { return };
        let data = response.in_error("data").unwrap_or_default();
        let pages = json::member(data, "elicitations").unwrap_or_default();
        let ids = json::elements(pages).into_iter().filter_map(|page| {
            let id = json::member(page.of(pages), "elicitationId").and_then(json::string)?;
            Some(id.into_owned())
        });
        ids.for_each(|id| self.note(id.clone(), id, session.clone()));
    }

    /// Whose visit a notification says is over, and what they are told; nothing if it says
    /// something else, or nobody is to hear of it.
    pub fn over(&self, notification: &Message) -> Option<(Session, Bytes)> {
        if !notification.is_method(OVER) {
            return None;
        }
        let own = notification.in_params("elicitationId").and_then(json::string)?;
        let mut table = self.table();
        let at = table.iter().position(|visit| visit.own == own)?;
        let Visit { shown, session, .. } = table.remove(at)?;
        (!session.is_over()).then(|| (session, visited(&shown).into()))
    }
}

/// The session of a client that knows pages by their ids.
fn listener(call: &Call) -> Option<Session> {
    call.session.clone().filter(|_| call.client.revision == Revision::V2025_11_25)
}
