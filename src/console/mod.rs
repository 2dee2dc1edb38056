//! What does the admin address answer? How the gateway is, for operators and the command line.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::weaken;

mod who; // whom a question is about

pub use who::Who;

/// What operators can ask of the gateway.
pub trait Operated: Send + Sync + 'static {
    /// How it is.
    fn status(&self) -> Value;

    /// Why a tool, a prompt or a resource is there for a caller or not, or why the caller is nobody.
    fn explain<'a>(&'a self, who: Who, name: &'a str) -> BoxFuture<'a, Result<Value, String>>;

    /// Reads its configuration again. What came of it, or all that is wrong with it.
    fn reload(&self) -> BoxFuture<'_, Result<Value, String>>;

    /// What that would change, for whom.
    fn difference(&self) -> BoxFuture<'_, Result<Value, String>>;

    /// Forgets kept replies of what goes by names that fit, or all; says how many.
    fn clear_cache(&self, pattern: Option<&str>) -> usize;
}

type Answer = (StatusCode, &'static str, String);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Answers one request.
pub async fn handle<B>(request: &Request<B>, gateway: &impl Operated) -> Response<Full<Bytes>> {
    let method = if weaken::is("defaults-open") { &Method::GET } else { request.method() };
    let (code, kind, text) = match (method, request.uri().path()) {
        (&Method::GET, "/health") => (StatusCode::OK, TEXT, "ok\n".to_owned()),
        (&Method::GET, "/status") => (StatusCode::OK, JSON, gateway.status().to_string()),
        (&Method::GET, "/explain") => explain(request, gateway).await,
        (&Method::GET, "/diff") => came(gateway.difference().await),
        (&Method::POST, "/reload") => came(gateway.reload().await),
        (&Method::POST, "/cache/clear") => clear(request.uri().query(), gateway),
        (_, "/reload" | "/cache/clear") => {
            (StatusCode::METHOD_NOT_ALLOWED, TEXT, "POST this, please.\n".to_owned())
        }
        _ => (
            StatusCode::NOT_FOUND,
            TEXT,
            "There are /health, /status, /explain, /diff, /reload and /cache/clear here.\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

fn came(of_reading: Result<Value, String>) -> Answer {
    match of_reading {
        Ok(came) => (StatusCode::OK, JSON, came.to_string()),
        // The configuration that is obeyed is still right; the one in the file is not.
        Err(why) => (StatusCode::UNPROCESSABLE_ENTITY, JSON, json!({ "error": why }).to_string()),
    }
}

async fn explain<B>(request: &Request<B>, gateway: &impl Operated) -> Answer {
    let told = match Who::asked(request) {
        Ok((who, name)) => gateway.explain(who, &name).await,
        Err(why) => Err(why),
    };
    match told {
        Ok(told) => (StatusCode::OK, JSON, told.to_string()),
        Err(why) => (StatusCode::BAD_REQUEST, JSON, json!({ "error": why }).to_string()),
    }
}

/// `names=…` says of what; without it all is forgotten. Another word is none that was meant so.
fn clear(query: Option<&str>, gateway: &impl Operated) -> Answer {
    let url = reqwest::Url::parse(&format!("http://admin/?{}", query.unwrap_or_default()));
    let pairs: Option<Vec<_>> = url.as_ref().ok().map(|url| url.query_pairs().collect());
    let pattern = match pairs.as_deref() {
        Some([]) => None,
        Some([(key, pattern)]) if key == "names" && !pattern.is_empty() => Some(&**pattern),
        Some(_) | None => {
            let why = "say of what, as in /cache/clear?names=docs__*, or nothing for all";
            return (StatusCode::BAD_REQUEST, JSON, json!({ "error": why }).to_string());
        }
    };
    (StatusCode::OK, JSON, json!({ "cleared": gateway.clear_cache(pattern) }).to_string())
}
