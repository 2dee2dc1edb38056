//! Whether a call may pass, and what is done on the way. Stages know nothing of one another, but
//! that a call whose time is over may become a task.

pub mod deadline; // how long
mod heartbeat; //    what a client hears meanwhile
pub mod tasks; //    what goes on without its client
mod timers; //       one timer for many calls
