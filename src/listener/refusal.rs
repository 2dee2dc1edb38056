//! What does a refusal look like over HTTP, before there is a call to answer?

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    body::{self, Body},
    doors::Refusal,
};
use crate::{
    error::Error,
    weaken,
    wire::{
        mcp::{Era, code},
        message::Message,
    },
};

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
        Refusal::Host => {
            "This gateway does not go by that name. If it should, add the name to `listen.hosts`."
        }
        Refusal::Origin => {
            "Pages of that origin may not call this gateway. If they should, add it to `listen.origins`."
        }
    };
    body::plain(StatusCode::FORBIDDEN, why)
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
