//! What may a page of another origin send, and what may it read of the answer?
//!
//! Browsers ask before they send what a form could not, and hide from a page what it was not
//! promised. Only origins that [`Doors`](super::doors::Doors) lets in come this far, so what they
//! ask for is granted. The names of headers are echoed rather than listed, for those of mirrored
//! arguments are a tool's own, and a `*` would not cover `Authorization`. (Fetch Standard, "CORS
//! protocol"; MCP 2026-07-28 "Header encoding".)

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use super::body::{self, Body};

/// What there is to send with anywhere here.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// What clients look for in an answer, besides what every page may read.
const READABLE: HeaderValue = HeaderValue::from_static("Mcp-Session-Id, WWW-Authenticate, Retry-After");
/// How long a browser need not ask again, in seconds; Chromium takes no more.
const HOLDS: HeaderValue = HeaderValue::from_static("7200");

/// The answer to a browser that asks whether it may send something. It comes without a token, and
/// before it is known who asks.
pub fn preflight(parts: &Parts) -> Option<Response<Body>> {
    let asks = parts.method == Method::OPTIONS
        && parts.headers.contains_key(header::ORIGIN)
        && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    if !asks {
        return None;
    }
    let mut response = body::empty(StatusCode::NO_CONTENT);
    let answer = response.headers_mut();
    answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HOLDS);
    let wanted = parts.headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS);
    for names in wanted {
        answer.append(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    Some(response)
}

/// Lets a page of this origin read an answer.
pub fn open_to(origin: HeaderValue, answer: &mut HeaderMap) {
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, READABLE);
    // Else a cache could give one page what another one may read.
    answer.append(header::VARY, HeaderValue::from_static("Origin"));
}
