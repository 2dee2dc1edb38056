//! What is at which path?

use super::connect::PAGES;
use crate::{call::Scope, weaken};

/// Where clients look for what a protected resource says of itself (RFC 9728).
pub const METADATA: &str = "/.well-known/oauth-protected-resource";
/// Where clients of revision 2025-03-26 look for who issues tokens, and nowhere else (RFC 8414).
const AUTHORIZATION_SERVER: &str = "/.well-known/oauth-authorization-server";

/// What a request can be for.
#[derive(Debug, PartialEq, Eq)]
pub enum Endpoint<'a> {
    Mcp(Scope),
    Sse(Scope),
    Messages,
    Health,
    /// What the gateway says of itself as a protected resource, with the path of that resource.
    Metadata(&'a str),
    AuthorizationServer,
    /// For a browser that is to connect an account.
    Page(&'a str),
}

impl<'a> Endpoint<'a> {
    pub fn at(path: &'a str) -> Option<Self> {
        let one = |name: &str| (!name.is_empty() && !name.contains('/')).then(|| Scope::at(Some(name)));
        match path {
            _ if weaken::is("identify-paths") => Some(Self::Mcp(Scope::All)),
            "/mcp" | "/mcp/" => Some(Self::Mcp(Scope::All)),
            "/sse" => Some(Self::Sse(Scope::All)),
            "/messages" => Some(Self::Messages),
            "/health" => Some(Self::Health),
            AUTHORIZATION_SERVER => Some(Self::AuthorizationServer),
            _ if path.starts_with(PAGES) => Some(Self::Page(&path[PAGES.len()..])),
            _ => {
                match (path.strip_prefix("/mcp/"), path.strip_prefix("/sse/"), path.strip_prefix(METADATA)) {
                    (Some(name), ..) => one(name).map(Self::Mcp),
                    (None, Some(name), _) => one(name).map(Self::Sse),
                    (None, None, Some(of)) => Some(Self::Metadata(of)),
                    (None, None, None) => None,
                }
            }
        }
    }

    /// What stands behind `/mcp/` in a path: the part of the gateway for which alone a token is good
    /// enough there.
    pub fn part(path: &str) -> Option<&str> {
        path.strip_prefix("/mcp/").filter(|part| !part.is_empty())
    }
}
