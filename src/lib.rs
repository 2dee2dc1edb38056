//! An MCP gateway: one endpoint in front of many MCP servers.

pub mod app;
pub mod backend;
pub mod call;
pub mod cli;
pub mod config;
pub mod error;
pub mod listener;
pub mod middleware;
pub mod router;
pub mod settings;
pub mod store;
pub mod telemetry;
pub mod wire;
