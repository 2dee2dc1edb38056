//! Was the same asked before, and is that answer given again?
//!
//! What is the same is for OpenRouter to say. Here it is what is asked of the model, by the same key: not who asks
//! (`user`), nor in which session.

use serde_json::Value;

use super::compose::Answer;
use crate::simulator::{account::Holder, random, route::Asked, world::World};

/// How long an answer is kept where nothing is said, and at the most, in seconds.
const USUAL: u64 = 300;
const LONGEST: u64 = 86_400;
/// Members of a request that make no other request of it.
const BESIDE: [&str; 6] = ["user", "session_id", "metadata", "trace", "stream", "stream_options"];

/// An answer that may be given again.
#[derive(Debug, Clone)]
pub struct Kept {
    pub answer: Answer,
    /// The generation that it came from.
    pub id: String,
    pub at_ms: u64,
    pub until_ms: u64,
}

/// What a request says of it in its headers.
#[derive(Debug)]
pub struct Again {
    key: String,
    pub ttl: u64,
    pub earlier: Option<Kept>,
}

impl Again {
    /// None where it is not wanted.
    pub fn of(asked: &Asked<'_>, body: &Value, holder: Holder, world: &World) -> Option<Self> {
        if asked.header("x-openrouter-cache") != Some("true") {
            return None;
        }
        let ttl = asked.header("x-openrouter-cache-ttl").and_then(|ttl| ttl.parse().ok());
        let mut same = body.clone();
        if let Some(members) = same.as_object_mut() {
            members.retain(|name, _| !BESIDE.contains(&name.as_str()));
        }
        let key = random::base62(&[b"again", format!("{holder:?} {same}").as_bytes()], 20);
        let fresh = asked.header("x-openrouter-cache-clear") == Some("true");
        let earlier = if fresh { None } else { world.kept(&key) };
        Some(Self { key, ttl: ttl.unwrap_or(USUAL).clamp(1, LONGEST), earlier })
    }

    /// Keeps an answer for those who ask the same.
    pub fn keep(&self, world: &World, answer: &Answer, id: &str) {
        let now = world.clock.now();
        let kept =
            Kept { answer: answer.clone(), id: id.to_owned(), at_ms: now, until_ms: now + self.ttl * 1000 };
        world.keep(self.key.clone(), kept);
    }

    /// What is said of it in the headers of the answer.
    pub fn headers(&self, now: u64) -> Vec<(&'static str, String)> {
        let status = if self.earlier.is_some() { "HIT" } else { "MISS" };
        let mut headers = vec![
            ("x-openrouter-cache-status", status.to_owned()),
            ("x-openrouter-cache-ttl", self.ttl.to_string()),
        ];
        if let Some(kept) = &self.earlier {
            let age = now.saturating_sub(kept.at_ms) / 1000;
            headers.extend([
                ("x-openrouter-cache-age", age.to_string()),
                ("x-openrouter-cache-source-id", kept.id.clone()),
            ]);
        }
        headers
    }
}
