//! Which headers may a configuration add to the requests of a backend?

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST},
};

pub const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
pub const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The headers of a configured backend, from name and value.
pub fn configured<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> Result<HeaderMap, String> {
    let ours = [CONTENT_LENGTH, HOST, CONTENT_TYPE, ACCEPT, SESSION, VERSION, METHOD, NAME];
    let mut headers = HeaderMap::new();
    for (name, value) in entries {
        let header = HeaderName::try_from(name).map_err(|_| format!("{name:?} is no name of a header"))?;
        if ours.contains(&header) || name.to_ascii_lowercase().starts_with("mcp-param-") {
            return Err(format!("the header {name} is written by the gateway itself; leave it out"));
        }
        let mut value = HeaderValue::from_str(value)
            .map_err(|_| format!("the value of the header {name} has characters that no header may have"))?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}
