//! The gateway from outside.

mod catalog;
mod cli;
mod config;
mod docs;
mod fake;
mod import;
mod json {
    pub mod cases;
}
mod listeners;
mod sessions;
mod stdio;
mod support;
