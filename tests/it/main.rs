//! The gateway from outside.

mod apart;
mod asking;
mod calls;
mod cancel;
mod catalog;
mod children;
mod cli;
mod config;
mod connections;
mod credentials;
mod crowd;
mod delivery;
mod docs;
mod egress;
mod extensions;
mod fake;
mod golden;
mod identify;
mod import;
mod input;
mod json {
    pub mod cases;
}
mod killed;
mod listeners;
mod polling;
mod reload;
mod replay;
mod sessions;
mod share;
mod stdio;
mod support;
mod tasks;
mod theft;
mod words;
