//! Whether a call may pass, and what is done on the way. A stage knows no other stage.

pub mod deadline; // how long
mod heartbeat; //    what a client hears meanwhile
