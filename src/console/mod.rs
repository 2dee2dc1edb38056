//! What does the admin address answer? How the gateway is, for operators and the command line.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;

/// Answers one request. `status` is asked only when it is wanted.
pub fn handle<B>(request: &Request<B>, status: impl FnOnce() -> serde_json::Value) -> Response<Full<Bytes>> {
    let (code, kind, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => (StatusCode::OK, "text/plain; charset=utf-8", "ok\n".to_owned()),
        (&Method::GET, "/status") => (StatusCode::OK, "application/json", status().to_string()),
        _ => (
            StatusCode::NOT_FOUND,
            "text/plain; charset=utf-8",
            "There are /health and /status here.\n".into(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
