//! Who is to hear that a conversation has changed?
//!
//! The gateway says which resources anybody watches. A change is told to the caller whose conversation it is, and to
//! nobody else who may have named it.

use std::{collections::BTreeSet, fmt, sync::Mutex};

use crate::{
    backend::{Notice, Notices},
    store::conversations::ConversationId,
};

/// What of a backend is watched, and where changes are told.
pub struct Watched {
    uris: Mutex<BTreeSet<String>>,
    notices: Notices,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("uris", &self.uris).finish_non_exhaustive()
    }
}

impl Watched {
    pub fn new(notices: Notices) -> Self {
        Self { uris: Mutex::default(), notices }
    }

    /// These are watched from now on, and no others.
    pub fn watch(&self, uris: BTreeSet<String>) {
        *self.uris.lock().expect("no code panics while it holds this lock") = uris;
    }

    /// A caller's conversation has changed.
    pub fn changed(&self, caller: &str, id: ConversationId) {
        let of_it = format!("conversation://{id}");
        let told: Vec<String> = {
            let uris = self.uris.lock().expect("no code panics while it holds this lock");
            // What is below a message does not change.
            let below = uris.range(of_it.clone()..).take_while(|uri| uri.starts_with(&of_it));
            below.filter(|uri| !uri[of_it.len()..].starts_with("/messages/")).cloned().collect()
        };
        for uri in told {
            (self.notices)(Notice::UpdatedOf { caller: caller.to_owned(), uri });
        }
    }
}
