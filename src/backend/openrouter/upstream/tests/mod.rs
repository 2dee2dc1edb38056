//! Does the way to OpenRouter tell the truth about what came of a request?

mod pieces; // streams as bytes, cut anywhere
mod stage; //  a server that does what it is told
mod wire; //   requests, answers and faults over a socket
