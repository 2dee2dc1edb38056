//! Is a request's body one that is taken, and does the client take our answer?

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;

use super::{
    body::{self, Body},
    connection::{Fault, TooSlow},
    heads::Takes,
};
use crate::{settings::Size, weaken};

/// Is the body JSON, and will the client take JSON back?
#[expect(clippy::result_large_err, reason = "a refusal is a whole response, and rare")]
pub fn acceptable(kind: Option<&HeaderValue>, takes: Takes) -> Result<(), Response<Body>> {
    let kind = kind.map_or(&b""[..], HeaderValue::as_bytes);
    let kind = kind.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    if !kind.eq_ignore_ascii_case(b"application/json") {
        let why = "The body must be JSON, sent with Content-Type: application/json.";
        return Err(body::plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    if !takes.json {
        let why = "The answer is JSON or an event stream; send Accept: application/json, text/event-stream.";
        return Err(body::plain(StatusCode::NOT_ACCEPTABLE, why));
    }
    Ok(())
}

/// What is answered to a body that did not come to its end.
fn cut_off(why: &(dyn std::error::Error + Send + Sync + 'static)) -> Response<Body> {
    let Some(late) = why.downcast_ref::<TooSlow>() else {
        return body::plain(StatusCode::BAD_REQUEST, "The body was cut off.");
    };
    let mut response =
        body::plain(StatusCode::REQUEST_TIMEOUT, &format!("The body came too slowly ({}).", late.0));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A whole body, unless it is too long.
pub async fn read<B>(mut body: B, limit: usize) -> Result<Bytes, Response<Body>>
where
    B: HttpBody<Data = Bytes, Error: Into<Fault>> + Unpin,
{
    let too_long = || {
        let why = format!("The body is over {} (listen.body_limit).", Size(limit));
        body::plain(StatusCode::PAYLOAD_TOO_LARGE, &why)
    };
    if body.size_hint().lower() > limit as u64 && !weaken::is("listen-early") {
        return Err(too_long());
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        let Ok(data) = frame.map_err(|why| cut_off(&*why.into()))?.into_data() else {
            if weaken::is("listen-trailers") {
                continue;
            }
            return Err(body::plain(
                StatusCode::BAD_REQUEST,
                "There are headers behind the body; send them before it.",
            ));
        };
        if first.len() + all.len() + data.len() > limit {
            return Err(too_long());
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}
