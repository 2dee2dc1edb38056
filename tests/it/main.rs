//! The gateway from outside.

mod config;
mod docs;
