//! How are models reached over OpenRouter?
//!
//! The way to its API, and what is decided before and after a request: how often it is sent, what
//! of a conversation fits, what a model costs. Nothing here knows MCP or the store; who calls gives
//! values and closures in.
//!
//! [`upstream`] sends one request once and tells truthfully what came of it. [`policy`] is the one
//! layer that sends again. [`catalog`], [`context`], [`media`] and [`money`] are what a request is
//! made and judged by.

pub mod money; //    dollars without rounding
pub mod upstream; // one request over HTTP, and what comes back
pub mod policy; //   sending again, other models, limits
pub mod catalog; //  which models there are
pub mod context; //  what of a conversation fits into a model's window
pub mod media; //    may this picture, document or recording be sent?
