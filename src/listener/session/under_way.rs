//! What is under way between a client and us: its requests, and our questions to it?

use std::{collections::btree_map::Entry, sync::Arc};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::Session;
use crate::{
    error::{Error, Result},
    wire::message::Message,
};

/// The client's response to a question, or an error if there will be none.
pub type Question = oneshot::Receiver<Message>;

/// Is done, with an error, when the client has cancelled its request.
pub type Cancelled = oneshot::Receiver<()>;

/// A request's id as the client wrote it: a copy, since the text it was cut from may be large.
pub type Id = SmallVec<[u8; 24]>;

/// A request under way, until this is dropped.
#[derive(Debug)]
pub struct UnderWay {
    id: Id,
    session: Arc<Session>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.session.touch();
        self.session.state().in_flight.remove(&self.id[..]);
    }
}

impl Session {
    /// Notes that a request is under way, and gives what its client's cancelling ends. Refuses
    /// an id that another has just now.
    pub fn begin(self: &Arc<Self>, id: Bytes) -> Result<(UnderWay, Cancelled)> {
        let own = Id::from_slice(&id);
        let mut state = self.state();
        let Entry::Vacant(place) = state.in_flight.entry(own.clone()) else {
            return Err(Error::NotRpc { what: "a request with this id is under way already", id: Some(id) });
        };
        let (cancel, cancelled) = oneshot::channel();
        place.insert(Some(cancel));
        drop(state);
        Ok((UnderWay { id: own, session: Arc::clone(self) }, cancelled))
    }

    /// How many requests are under way.
    pub fn busy(&self) -> usize {
        self.state().in_flight.len()
    }

    /// Ends a request of the client's, if it is under way.
    pub fn cancel(&self, id: &[u8]) {
        self.state().in_flight.get_mut(id).and_then(Option::take);
    }

    /// A new id for a request of ours to the client, and what its response comes to.
    pub fn question(self: &Arc<Self>) -> (u64, Question) {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state();
        // Those that nobody waits for any more make room.
        state.questions.retain(|_, sender| !sender.is_closed());
        state.last_question += 1;
        let id = state.last_question;
        state.questions.insert(id, sender);
        (id, answer)
    }

    /// A response of the client's. One to nothing we asked is of no interest.
    pub fn answered(&self, message: Message) {
        self.touch();
        let id = message.id().and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        let waiting = id.and_then(|id: u64| self.state().questions.remove(&id));
        if let Some(waiting) = waiting {
            let _ = waiting.send(message); // Fails if the call has ended meanwhile.
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::{
        super::{Sessions, Settings},
        *,
    };
    use crate::{
        call::{Caller, Scope},
        listener::replay::Stream,
    };

    #[test]
    fn a_request_can_be_cancelled_while_it_is_under_way() {
        let sessions = Sessions::new(Settings::default(), None);
        let session = sessions.open(Caller::Local, Scope::All, Stream::new(0)).unwrap();
        let (under_way, mut cancelled) = session.begin(Bytes::from_static(b"\"a\"")).unwrap();
        assert!(session.begin(Bytes::from_static(b"\"a\"")).is_err(), "an id is one request's at a time");
        session.cancel(b"\"b\"");
        assert_eq!(cancelled.try_recv(), Err(TryRecvError::Empty));
        session.cancel(b"\"a\"");
        assert_eq!(cancelled.try_recv(), Err(TryRecvError::Closed));
        drop(under_way);
        assert!(session.begin(Bytes::from_static(b"\"a\"")).is_ok());
    }
}
