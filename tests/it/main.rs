//! The gateway from outside.

mod cli;
mod config;
mod docs;
mod import;
