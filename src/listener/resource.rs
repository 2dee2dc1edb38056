//! What does the gateway say of itself as a protected resource?
//!
//! Each endpoint `/mcp/<backend>` is a resource of its own, for clients compare what is said of a
//! resource with the address they use. A token for the gateway is good at all of them, one for such
//! an endpoint there alone. Where the gateway's address does not end in `/mcp` there are no such
//! parts: what is below it may be another service's. (RFC 9728; 2026-07-28 "Protected resource
//! metadata".)

use http::Uri;
use serde_json::{Value, json};

use super::endpoint::METADATA;

/// Where the gateway is below its host; its parts are below that.
pub const ENDPOINT: &str = "/mcp";

/// What clients are told about tokens.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The address that clients use for `/mcp`.
    pub address: String,
    pub issuers: Vec<String>,
    /// The scopes to ask for.
    pub scopes: Vec<String>,
}

/// The gateway as its clients see it.
#[derive(Debug)]
pub struct Resource {
    about: About,
    /// Scheme and authority of its address.
    origin: String,
    /// The path of its address, with no slash at the end.
    path: String,
}

impl Resource {
    /// None where nobody issues tokens, or the address is none.
    pub fn new(about: About) -> Option<Self> {
        if about.issuers.is_empty() {
            return None;
        }
        let uri = about.address.parse::<Uri>().ok()?;
        let scheme = uri.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
        let origin = format!("{scheme}://{}", uri.authority()?);
        let path = uri.path().trim_end_matches('/').to_owned();
        Some(Self { about, origin, path })
    }

    /// The metadata of the endpoint with this path, or of the gateway where that is empty.
    pub fn document(&self, path: &str) -> Option<Value> {
        let backend = match path.trim_end_matches('/') {
            "" => None,
            path if path == self.path || !self.has_parts() => None,
            path => Some(path.strip_prefix(&self.path)?.strip_prefix('/').filter(|name| is_name(name))?),
        };
        let resource = match backend {
            None => self.about.address.clone(),
            Some(backend) => format!("{}{}/{backend}", self.origin, self.path),
        };
        let mut document = json!({
            "resource": resource,
            "authorization_servers": self.about.issuers,
            "bearer_methods_supported": ["header"],
        });
        if !self.about.scopes.is_empty() {
            document["scopes_supported"] = json!(self.about.scopes);
        }
        Some(document)
    }

    /// What a client without a good token is told, as parameters of the challenge.
    pub fn challenge(&self, backend: Option<&str>) -> Vec<String> {
        let mut parts = vec![self.place(backend)];
        if !self.about.scopes.is_empty() {
            parts.insert(0, format!("scope=\"{}\"", self.about.scopes.join(" ")));
        }
        parts
    }

    /// Where the metadata is, as a parameter of a challenge.
    pub fn place(&self, backend: Option<&str>) -> String {
        // What is no name cannot be a backend's, so that what is said of all holds as well.
        let own = backend.filter(|name| self.has_parts() && is_name(name));
        let own = own.map(|name| format!("/{name}")).unwrap_or_default();
        format!("resource_metadata=\"{}{METADATA}{}{own}\"", self.origin, self.path)
    }

    fn has_parts(&self) -> bool {
        self.path.ends_with(ENDPOINT)
    }

    /// The metadata of the first issuer, at the place where every OpenID provider has it.
    pub fn authorization_server(&self) -> Option<String> {
        let issuer = self.about.issuers.first()?.trim_end_matches('/');
        Some(format!("{issuer}/.well-known/openid-configuration"))
    }
}

/// Can this be what stands behind `/mcp/`, and go into a header as it is?
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Option<Resource> {
        let issuers = vec!["https://login.example.com/".to_owned()];
        Resource::new(About { address: address.into(), issuers, scopes: vec!["mcp".into()] })
    }

    #[test]
    fn each_endpoint_has_metadata_of_its_own_and_nothing_else_has() {
        let resource = at("https://example.com/tools/mcp").unwrap();
        let of = |path: &str| Some(resource.document(path)?["resource"].as_str()?.to_owned());
        assert_eq!(of("").as_deref(), Some("https://example.com/tools/mcp"));
        assert_eq!(of("/tools/mcp").as_deref(), Some("https://example.com/tools/mcp"));
        assert_eq!(of("/tools/mcp/files").as_deref(), Some("https://example.com/tools/mcp/files"));
        for path in ["/mcp", "/tools", "/tools/mcpx", "/tools/mcp/a/b", "/tools/mcp/\"", "/tools/mcp/%22"] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn an_address_that_is_not_that_of_the_endpoint_has_no_parts() {
        let resource = at("https://example.com").unwrap();
        for path in ["", "/mcp", "/mcp/files"] {
            assert_eq!(resource.document(path).unwrap()["resource"], "https://example.com", "{path}");
        }
        assert!(!resource.challenge(Some("files"))[1].contains("files"));
    }

    #[test]
    fn a_challenge_names_the_metadata_of_its_endpoint() {
        let resource = at("https://example.com/mcp").unwrap();
        let place = "resource_metadata=\"https://example.com/.well-known/oauth-protected-resource/mcp";
        assert_eq!(resource.challenge(Some("files")), ["scope=\"mcp\"", &format!("{place}/files\"")]);
        assert_eq!(resource.challenge(Some("\"")), ["scope=\"mcp\"", &format!("{place}\"")]);
        assert_eq!(
            resource.authorization_server().as_deref(),
            Some("https://login.example.com/.well-known/openid-configuration")
        );
    }

    #[test]
    fn what_is_no_address_is_no_resource() {
        for address in ["api://waystation", "0b1c-guid", "/mcp", ""] {
            assert!(at(address).is_none(), "{address}");
        }
    }
}
