//! An MCP gateway: one endpoint in front of many MCP servers.
//!
//! A client sends a call. The gateway finds the backend that answers it, and carries the reply
//! home, whatever revisions of the protocol the two sides speak:
//!
//! ```text
//! listener ──▶ middleware ──▶ router ──▶ backend      a `Call` goes in
//! listener ◀── middleware ◀── router ◀── backend      a `Reply` comes back
//! ```
//!
//! The modules stand here in reading order, each below what it uses. Of the four stages of the
//! flow only the router knows the next one; the others meet it in [`engine`].

#![forbid(unsafe_code)]

pub mod weaken; //     what is switched off, to see a test fail
pub mod wire; //       MCP as data
pub mod settings; //   how durations, sizes and secrets are written
pub mod secret; //     what looks like one, and a text without it
pub mod error; //      why the gateway says no
pub mod call; //       what travels: Call, Reply, Stage
pub mod store; //      what is kept on disk
pub mod simulator; //  OpenRouter's answers, without OpenRouter
pub mod backend; //    who answers
pub mod router; //     which backend a call is for
pub mod middleware; // whether a call may pass
pub mod listener; //   how calls arrive
pub mod console; //    what operators can ask
pub mod telemetry; //  what is logged
pub mod config; //     routes.toml, as it was written
pub mod engine; //     the stages, put in their order
pub mod app; //        sockets, signals, first words
pub mod cli; //        what can be typed after `waystation`
