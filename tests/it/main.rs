//! The gateway from outside.

mod agreement;
mod apart;
mod asking;
mod audit;
mod browsers;
mod cache;
mod calls;
mod cancel;
mod catalog;
mod children;
mod cli;
mod config;
mod connections;
mod conversations;
mod credentials;
mod crowd;
mod defaults;
mod delivery;
mod docs;
mod egress;
mod extensions;
mod fake;
mod golden;
mod identify;
mod identity;
mod import;
mod input;
mod json {
    pub mod cases;
}
mod keys;
mod killed;
mod lines;
mod limit;
mod listeners;
mod permit;
mod polling;
mod reload;
mod replay;
mod secrets;
mod sessions;
mod share;
mod stdio;
mod support;
mod tasks;
mod theft;
mod words;
