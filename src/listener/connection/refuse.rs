//! What is answered to a request that is refused for the way it is written?

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::head::Malformed;
use crate::{
    listener::body::{self, Body},
    weaken,
};

/// Refuses a head in which others could find another request.
pub fn malformed(why: Malformed) -> Option<Response<Body>> {
    let (weakness, status, text) = match why {
        Malformed::BareLf => {
            ("listen-bare-lf", 400, "A line of the head ends with LF alone; end lines with CR LF.")
        }
        Malformed::Lengths => {
            ("listen-lengths", 400, "The length of the body is said more than once; say it once.")
        }
        Malformed::TooLong => {
            ("listen-header-size", 431, "A header is too long (listen.limits.header_size).")
        }
        Malformed::Unseen => (
            "listen-unseen",
            400,
            "The request came together with the end of a body in chunks; wait for the answer before the next.",
        ),
    };
    (!weaken::is(weakness)).then(|| last(status, text))
}

/// Refuses more headers than that.
pub fn too_much(headers: &HeaderMap, limit: usize) -> Option<Response<Body>> {
    if headers.len() <= limit || weaken::is("listen-headers") {
        return None;
    }
    Some(last(431, &format!("There are more than {limit} headers (listen.limits.headers).")))
}

/// Refuses headers that are longer than that.
pub fn too_long(headers: &HeaderMap, limit: usize) -> Option<Response<Body>> {
    let long = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() > limit;
    headers.iter().any(long).then(|| malformed(Malformed::TooLong)).flatten()
}

/// The last answer on its connection, since nobody knows what the bytes behind the request are.
fn last(status: u16, text: &str) -> Response<Body> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = body::plain(status, text);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
