//! What does MCP look like on the wire? Data and codecs, without input, output or policy.
//!
//! Everything a stranger writes is read here first, so everything here is a plain function
//! with property tests and a fuzz target.

pub mod capability; // what a client can be asked
pub mod header; //  names and arguments in HTTP headers
pub mod icon; //    icons that may be shown
pub mod json; //    the strict pass over every text
pub mod mcp; //     methods, revisions, reserved keys, codes
pub mod message; // one JSON-RPC message, and splicing
pub mod older; //   what older revisions do not have
pub mod progress; // progress over the rounds of a call
pub mod project; // a result of one revision, as another revision has it
pub mod question; // what a server asks, as another revision has it
pub mod sse; //     server-sent events
pub mod trace; //   the trace that a request belongs to
