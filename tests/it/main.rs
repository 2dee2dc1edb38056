//! The gateway from outside.

mod asking;
mod calls;
mod cancel;
mod catalog;
mod children;
mod cli;
mod config;
mod connections;
mod docs;
mod fake;
mod golden;
mod import;
mod input;
mod json {
    pub mod cases;
}
mod listeners;
mod sessions;
mod stdio;
mod support;
