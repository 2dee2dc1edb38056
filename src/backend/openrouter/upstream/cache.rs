//! How is OpenRouter's cache of answers asked, and what does it say?

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Reuse, Reused};

const WANTED: HeaderName = HeaderName::from_static("x-openrouter-cache");
const TTL: HeaderName = HeaderName::from_static("x-openrouter-cache-ttl");
const CLEAR: HeaderName = HeaderName::from_static("x-openrouter-cache-clear");
const STATUS: HeaderName = HeaderName::from_static("x-openrouter-cache-status");
const AGE: HeaderName = HeaderName::from_static("x-openrouter-cache-age");

pub fn ask(headers: &mut HeaderMap, reuse: Reuse) {
    let yes = HeaderValue::from_static("true");
    headers.insert(WANTED, yes.clone());
    if let Some(ttl) = reuse.ttl_s {
        headers.insert(TTL, ttl.into());
    }
    if reuse.clear {
        headers.insert(CLEAR, yes);
    }
}

pub fn answer(headers: &HeaderMap) -> Option<Reused> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let hit = text(STATUS)?.eq_ignore_ascii_case("hit");
    Some(Reused { hit, age_s: text(AGE).and_then(|age| age.parse().ok()) })
}
