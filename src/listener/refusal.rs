//! What does a refusal look like over HTTP, before there is a call to answer?

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    body::{self, Body},
    doors::Refusal,
    heads::Heads,
};
use crate::{
    error::Error,
    weaken,
    wire::{
        mcp::{Era, code},
        message::Message,
    },
};

/// Headers that are there once, if they are. All that speak of MCP belong to them.
const ONCE: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::HOST,
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TRANSFER_ENCODING,
];

/// Why there is no session to a request, in the words of the implementations that clients know.
pub enum NoSession {
    Missing,
    Unknown,
    Version,
    Full(Error),
}

impl NoSession {
    pub fn into_response(self, id: Option<&[u8]>) -> Response<Body> {
        let (status, code, why) = match self {
            Self::Missing => {
                (400, code::TRANSPORT, "the header Mcp-Session-Id is missing; begin with `initialize`")
            }
            Self::Unknown => {
                (404, code::SESSION_NOT_FOUND, "there is no such session; begin anew with `initialize`")
            }
            Self::Version => {
                (400, code::TRANSPORT, "the header MCP-Protocol-Version names no revision that has sessions")
            }
            Self::Full(error) => {
                let mut response = error_response(&error, id, Era::Legacy);
                response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
                return response;
            }
        };
        let mut text = b"{\"jsonrpc\":\"2.0\",".to_vec();
        if let Some(id) = id {
            text.extend_from_slice(&[b"\"id\":", id, b","].concat());
        }
        text.extend_from_slice(format!("\"error\":{{\"code\":{code},\"message\":\"{why}\"}}}}").as_bytes());
        body::json(status, text)
    }
}

pub fn error_response(error: &Error, id: Option<&[u8]>, era: Era) -> Response<Body> {
    if weaken::is("refusals-untold") {
        return body::empty(StatusCode::ACCEPTED);
    }
    with_headers(error.headers(), body::json(error.codes(era).0, error.response(id, era)))
}

/// The same answer with these headers, as [`Error::headers`] gives them.
pub fn with_headers(headers: Vec<(&'static str, String)>, mut response: Response<Body>) -> Response<Body> {
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    response
}

pub fn refused(refusal: Refusal) -> Response<Body> {
    let why = match refusal {
        Refusal::Unclear => {
            let why = "A request says once for which host it is, in the header Host: a name and, if need be, a port.";
            return body::plain(StatusCode::BAD_REQUEST, why);
        }
        Refusal::Host => {
            "This gateway does not go by that name. If it should, add the name to `listen.hosts`."
        }
        Refusal::Origin => {
            "Pages of that origin may not call this gateway. If they should, add it to `listen.origins`."
        }
    };
    body::plain(StatusCode::FORBIDDEN, why)
}

/// Refuses headers that are there again of which readers take the first, or the last.
pub fn twice(headers: &HeaderMap) -> Option<Response<Body>> {
    // Mostly each is there once, which is seen without looking at them.
    if headers.len() == headers.keys_len() || weaken::is("listen-twice") {
        return None;
    }
    let again = headers.keys().find(|name| {
        let once = ONCE.contains(name) || name.as_str().starts_with("mcp-");
        once && headers.get_all(*name).iter().nth(1).is_some()
    })?;
    let error = Error::Header(format!("the header {again} may be there only once"));
    Some(error_response(&error, None, Era::Modern))
}

/// Refuses headers that others may read for those we go by, or of which others may have put another in
/// their place.
pub fn ambiguous(heads: &Heads<'_>) -> Option<Response<Body>> {
    let why = if heads.underscored && !weaken::is("listen-underscores") {
        "a header's name begins with Mcp_, which some take for Mcp-; write it with hyphens alone"
    } else if heads.nominated && !weaken::is("listen-nominated") {
        "the header Connection names a header that is not about the connection; leave it out there"
    } else {
        return None;
    };
    Some(error_response(&Error::Header(why.into()), None, Era::Modern))
}

pub fn not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = body::empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// The refusal of a request that is not of the modern era, though its header says so.
pub fn unlike_header(message: &Message, version: &str) -> Response<Body> {
    let error = if message.method().as_deref() == Some("initialize") {
        Error::Header(format!(
            "`initialize` is not of the revision that the header MCP-Protocol-Version says, {version}"
        ))
    } else {
        let wanted = "io.modelcontextprotocol/protocolVersion and io.modelcontextprotocol/clientCapabilities";
        Error::Envelope(format!("a request of revision {version} must have {wanted} in `params._meta`"))
    };
    error_response(&error, message.id(), Era::Modern)
}
