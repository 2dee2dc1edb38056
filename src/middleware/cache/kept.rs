//! Which replies are kept, for how long and for whom, and how does one look when it is used again?
//!
//! A result is kept without what changes from one use to the next, so that a use is one text put
//! together. Errors are never kept, and neither is what is only a part of a call: a question, a task.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::rule::{Rule, Share};
use crate::{
    call::{Aim, Answer},
    weaken,
    wire::{
        json::{self, Limits},
        mcp::{Era, Method},
        message::{Message, Splice, object_with},
    },
};

/// The member of a result's `_meta` that says it was used again.
pub const META: &str = "io.waystation/cache";

/// What a kept reply costs beside its text: its key, its place in tables and lists.
const AROUND: usize = 512;

/// A result, and what is known of it.
#[derive(Debug)]
pub struct Kept {
    pub aim: Arc<Aim>,
    /// It is for all, and not only for its caller.
    pub shared: bool,
    /// The moment, as stamps count, at which it was asked for.
    pub begun: u64,
    made: Instant,
    ttl: Duration,
    /// The members of the result, but for hints and `_meta`.
    members: Bytes,
    /// The members of its `_meta`.
    meta: Bytes,
    /// It is one of those that say how long they hold.
    hinted: bool,
    written_in: Era,
    wrapped: bool,
}

/// What a server says of a result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Said {
    ttl: Option<Duration>,
    public: Option<bool>,
}

/// What makes a result one that is kept.
#[derive(Debug)]
pub struct Maker<'a> {
    pub aim: &'a Arc<Aim>,
    pub method: Method,
    pub rule: &'a Rule,
    /// No reply is good for longer.
    pub longest: Duration,
    pub begun: u64,
    pub now: Instant,
}

impl Maker<'_> {
    /// The result as it is kept. None if it is one that holds for no time.
    pub fn kept(&self, answer: &Answer) -> Option<Kept> {
        let (message, written_in, wrapped) = match answer {
            Answer::Response { message, written_in, wrapped } => (message, *written_in, *wrapped),
            Answer::Asks(message) if weaken::is("cache-failed") => (message, Era::Modern, false),
            Answer::Asks(_) | Answer::Result(_) => return None,
        };
        if !is_complete(message) {
            return None;
        }
        let said = said(message);
        let ttl = self.ttl(said);
        if ttl.is_zero() && !weaken::is("cache-ttl") {
            return None;
        }
        let result = message.result().unwrap_or(b"{}");
        let meta = message.in_result("_meta").unwrap_or(b"{}");
        Some(Kept {
            aim: Arc::clone(self.aim),
            shared: self.is_shared(said),
            begun: self.begun,
            made: self.now,
            ttl,
            members: inside(result, |key| matches!(key, "_meta" | "ttlMs" | "cacheScope")),
            meta: inside(meta, |key| key == META),
            hinted: self.method == Method::ResourcesRead || said != Said::default(),
            written_in,
            wrapped,
        })
    }

    fn ttl(&self, said: Said) -> Duration {
        let ttl = match (said.ttl, self.rule.ttl) {
            // Of a tool nothing is kept for longer than the operator says.
            (Some(said), Some(own)) if self.method == Method::ToolsCall => said.min(own.0),
            (Some(said), _) => said,
            (None, Some(own)) => own.0,
            (None, None) => Duration::ZERO,
        };
        ttl.min(self.longest)
    }

    /// A server's word alone makes nothing public, and the operator's alone nothing that the server
    /// calls private. Half a hint is none.
    fn is_shared(&self, said: Said) -> bool {
        let operator = self.rule.share == Share::All || weaken::is("cache-word");
        let server = said.public.unwrap_or(said.ttl.is_none()) || weaken::is("cache-scope");
        operator && server
    }
}

/// Is it a whole result, and a good one?
fn is_complete(message: &Message) -> bool {
    if weaken::is("cache-failed") {
        return true;
    }
    let complete = message.in_result("resultType").is_none_or(|kind| json::is_string(kind, "complete"));
    // The answer of 2025-11-25 to a call that has become a task.
    let task = message.field("task").is_some();
    complete && !task && !has_failed(message)
}

/// Is it an error, of the protocol's kind or of a tool's?
pub fn has_failed(message: &Message) -> bool {
    let tool = message.in_result("isError").is_some_and(|value| value != b"false");
    !weaken::is("cache-failed") && (tool || message.result().is_none())
}

fn said(message: &Message) -> Said {
    let public = message.in_result("cacheScope").map(|scope| json::is_string(scope, "public"));
    Said { ttl: message.in_result("ttlMs").map(milliseconds), public }
}

/// None at all, if it is not written as a number of milliseconds; a very great one is very long.
fn milliseconds(text: &[u8]) -> Duration {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    Duration::from_millis(digits.map_or(0, |digits| digits.parse().unwrap_or(u64::MAX)))
}

/// What stands in an object, with some members left out, in memory of its own.
fn inside(object: &[u8], leave_out: impl Fn(&str) -> bool) -> Bytes {
    let object = object_with(object, leave_out, &[]);
    Bytes::copy_from_slice(&object[1..object.len() - 1])
}

impl Kept {
    /// What it takes of the memory.
    pub fn weight(&self) -> usize {
        self.members.len() + self.meta.len() + self.aim.own.len() + AROUND
    }

    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.made)
    }

    /// How long its time has been over; none while it is not.
    pub fn overdue(&self, now: Instant) -> Option<Duration> {
        self.age(now).checked_sub(self.ttl).filter(|_| !weaken::is("cache-ttl"))
    }

    /// The answer to another call, for a reader of an era.
    pub fn answer(&self, reader: Era, now: Instant) -> Answer {
        let (age, left) = (self.age(now), self.ttl.saturating_sub(self.age(now)));
        let stale = if left.is_zero() { ",\"stale\":true" } else { "" };
        let hints = match self.hinted && reader == Era::Modern {
            true => format!("\"ttlMs\":{},\"cacheScope\":\"{}\",", left.as_millis(), self.scope()),
            false => String::new(),
        };
        let head = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{{{hints}\"_meta\":{{\"{META}\":{{\"hit\":true,\"ageMs\":{}{stale}}}",
            age.as_millis()
        );
        let comma = |part: &Bytes| if part.is_empty() { &b""[..] } else { b"," };
        let parts = [
            head.as_bytes(),
            comma(&self.meta),
            &self.meta,
            b"}",
            comma(&self.members),
            &self.members,
            b"}}",
        ];
        let message = Message::parse(parts.concat().into(), &Limits::REPLY);
        let message = message.expect("what is kept was read as a result before");
        Answer::Response { message, written_in: self.written_in, wrapped: self.wrapped }
    }

    fn scope(&self) -> &'static str {
        if self.shared { "public" } else { "private" }
    }
}

/// The answer itself, which does not call public what is not for all here.
pub fn first_hand(answer: Answer, kept: &Kept) -> Answer {
    let Answer::Response { message, written_in, wrapped } = answer else { return answer };
    let place = message.field("cacheScope").filter(|_| !kept.shared);
    let Some(place) = place.filter(|place| json::is_string(place.of(message.text()), "public")) else {
        return Answer::Response { message, written_in, wrapped };
    };
    let mut splice = Splice::new(message.text());
    splice.replace(place, &b"\"private\""[..]);
    let other = Message::parse(splice.finish().into(), &Limits::REPLY);
    let message = other.expect("a text in the place of another leaves a message a message");
    Answer::Response { message, written_in, wrapped }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::Hints, settings};

    fn answer(result: &str, written_in: Era) -> Answer {
        let text = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{result}}}"#);
        let message = Message::parse(text.into(), &Limits::REPLY).unwrap();
        Answer::Response { message, written_in, wrapped: false }
    }

    fn kept(result: &str, method: Method, rule: &Rule) -> Option<Kept> {
        let aim = Arc::new(Aim { backend: "b".into(), own: "o".into(), hints: Hints::default() });
        let (longest, now) = (Duration::from_secs(300), Instant::now());
        Maker { aim: &aim, method, rule, longest, begun: 0, now }.kept(&answer(result, Era::Modern))
    }

    fn text(answer: Answer) -> String {
        let Answer::Response { message, .. } = answer else { panic!("{answer:?}") };
        String::from_utf8_lossy(message.result().unwrap()).into_owned()
    }

    /// For how many milliseconds a resource is kept.
    #[track_caller]
    fn check(result: &str, own: Option<u64>, expected: Option<u128>) {
        let rule = Rule { ttl: own.map(settings::Duration::seconds), ..Rule::default() };
        let kept = kept(result, Method::ResourcesRead, &rule);
        assert_eq!(kept.map(|kept| kept.ttl.as_millis()), expected, "{result}");
    }

    #[test]
    fn a_result_holds_as_long_as_its_server_says_and_not_longer_than_any_may() {
        check(r#"{"ttlMs":1000}"#, None, Some(1000));
        check(r#"{"ttlMs":1000}"#, Some(60), Some(1000));
        check(r#"{"ttlMs":9223372036854775808}"#, None, Some(300_000));
        check(r#"{"ttlMs":99999999999999999999999999}"#, None, Some(300_000));
        check("{}", Some(60), Some(60_000));
        check("{}", None, None);
        for nothing in ["0", "-1", "-9223372036854775808", "1.5", "1e3", "null", "\"60\"", "true", "[1]"] {
            check(&format!(r#"{{"ttlMs":{nothing}}}"#), Some(60), None);
        }
    }

    #[test]
    fn what_is_no_good_or_whole_result_is_never_kept() {
        let rule = Rule { ttl: Some(settings::Duration::seconds(60)), ..Rule::default() };
        for result in [
            r#"{"isError":true,"content":[]}"#,
            r#"{"isError":"yes"}"#,
            r#"{"resultType":"input_required","inputRequests":{}}"#,
            r#"{"resultType":"task","taskId":"1"}"#,
            r#"{"task":{"taskId":"1"}}"#,
        ] {
            assert!(kept(result, Method::ToolsCall, &rule).is_none(), "{result}");
        }
        assert!(kept(r#"{"isError":false}"#, Method::ToolsCall, &rule).is_some());
    }

    #[test]
    fn only_what_both_operator_and_server_share_is_for_all() {
        let rule = |share| Rule { share, ttl: Some(settings::Duration::seconds(60)), ..Rule::default() };
        for (result, share, expected) in [
            (r#"{"ttlMs":1,"cacheScope":"public"}"#, Share::All, true),
            (r#"{"ttlMs":1,"cacheScope":"public"}"#, Share::Caller, false),
            (r#"{"ttlMs":1,"cacheScope":"private"}"#, Share::All, false),
            (r#"{"ttlMs":1,"cacheScope":"Public"}"#, Share::All, false),
            (r#"{"ttlMs":1}"#, Share::All, false),
            (r#"{}"#, Share::All, true),
            (r#"{}"#, Share::Caller, false),
        ] {
            let kept = kept(result, Method::ResourcesRead, &rule(share)).unwrap();
            assert_eq!(kept.shared, expected, "{result} {share:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_use_says_that_it_is_one_and_how_long_it_holds_from_now() {
        let result = r#"{"contents":[1.0],"ttlMs":5000,"cacheScope":"public","_meta":{"a":1,"io.waystation/cache":{"hit":true}},"x":[ 2 ]}"#;
        let kept = kept(result, Method::ResourcesRead, &Rule::default()).unwrap();
        tokio::time::advance(Duration::from_millis(1234)).await;
        let used = text(kept.answer(Era::Modern, Instant::now()));
        let expected = r#"{"ttlMs":3766,"cacheScope":"private","_meta":{"io.waystation/cache":{"hit":true,"ageMs":1234},"a":1},"contents":[1.0],"x":[ 2 ]}"#;
        assert_eq!(used, expected);
        let older = text(kept.answer(Era::Legacy, Instant::now()));
        assert_eq!(older, expected.replace(r#""ttlMs":3766,"cacheScope":"private","#, ""));
        assert_eq!(kept.overdue(Instant::now()), None);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(kept.overdue(Instant::now()), Some(Duration::from_millis(1234)));
        assert!(text(kept.answer(Era::Modern, Instant::now())).contains(r#""ageMs":6234,"stale":true}"#));
        let first = text(first_hand(answer(result, Era::Modern), &kept));
        assert_eq!(first, result.replace("public", "private"));
    }

    #[test]
    fn an_empty_result_can_be_used_again() {
        let rule = Rule { ttl: Some(settings::Duration::seconds(1)), ..Rule::default() };
        let used = text(kept("{}", Method::ToolsCall, &rule).unwrap().answer(Era::Modern, Instant::now()));
        assert_eq!(used, r#"{"_meta":{"io.waystation/cache":{"hit":true,"ageMs":0}}}"#);
    }
}
