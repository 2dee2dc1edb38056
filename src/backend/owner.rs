//! Whose is a connection, or a session with a server?

use super::Share;
use crate::call::{Call, Caller, Session};

/// Whose a connection is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Owner {
    /// All who may share one with the gateway itself.
    Everybody,
    Caller(Caller),
    Session(Session),
    Call(u64),
}

impl Owner {
    /// Whose session a call belongs to, where it may not be just anybody's; the gateway's own are
    /// everybody's.
    pub fn of_session(share: Share, call: &Call) -> Option<Self> {
        match (share, &call.session) {
            _ if call.caller == Caller::Gateway => Some(Self::Everybody),
            (Share::All | Share::Call, _) => None,
            (Share::Session, Some(session)) => Some(Self::Session(session.clone())),
            (Share::Session, None) | (Share::Caller, _) => Some(Self::Caller(call.caller.clone())),
        }
    }

    /// Will there be no further call of this owner's?
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Everybody | Self::Caller(_) => false,
            Self::Session(session) => session.is_over(),
            Self::Call(_) => true,
        }
    }
}
