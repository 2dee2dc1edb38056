//! Whether a call may pass, and what is done on the way. Stages know nothing of one another, but
//! that a call whose time is over may become a task.

pub mod audit; //    who did what
pub mod cache; //    which replies may be used again
pub mod deadline; // how long
mod heartbeat; //    what a client hears meanwhile
pub mod identify; // who asks
pub mod limit; //    how often
pub mod permit; //   what they may
pub mod tasks; //    what goes on without its client
mod timers; //       one timer for many calls

use crate::settings::fits;
