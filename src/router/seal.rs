//! Whose, and for what, is a `requestState` that comes back?
//!
//! What a backend wants to hear again in the next round passes through the client, who is not
//! trusted with it. So it is sealed: only we can read or make one, and it opens only for the
//! caller, backend, method, target and arguments it was made for, once, and not for long. The
//! key outlives a restart, so which ones were used has to as well.
//! (2026-07-28, "Multi Round-Trip Requests", "Security considerations".)

use std::{
    collections::HashSet,
    fmt,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, hmac,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;
use tokio::sync::mpsc;

use crate::{
    call::Caller,
    error::{Error, Result},
    store::UsedState,
    wire::{
        json::{self, Limits},
        mcp::Method,
        message::{Message, Splice},
    },
};

/// How long a client may take for its answers: a person may have to find their glasses.
pub const LIFETIME: Duration = Duration::from_secs(15 * 60);
/// States remembered as used; twice as many are, at most.
const REMEMBERED: usize = 50_000;

/// What a state is bound to.
#[derive(Debug)]
pub struct Bound<'a> {
    pub caller: &'a Caller,
    pub backend: &'a str,
    pub method: Method,
    pub target: &'a str,
    /// The arguments as JSON, if there are any; their order and spacing do not count.
    pub arguments: &'a [u8],
}

/// Seals states and opens them.
pub struct Seals {
    key: LessSafeKey,
    /// Nonces of states that were used, newest and older ones.
    used: Mutex<[HashSet<[u8; NONCE_LEN]>; 2]>,
    journal: mpsc::UnboundedSender<UsedState>,
}

impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seals") // It holds a key.
    }
}

impl Seals {
    /// `secret` stays the same over restarts, and serves other purposes too. `used` are states
    /// that an earlier run took; `journal` hears of those that this one takes.
    pub fn new(secret: &[u8], used: Vec<UsedState>, journal: mpsc::UnboundedSender<UsedState>) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let key = hmac::sign(&secret, b"waystation request state 1");
        let key = UnboundKey::new(&AES_256_GCM, key.as_ref())
            .expect("an HMAC-SHA256 is 32 bytes, as AES-256 has keys");
        let used = used.into_iter().map(|state| state.nonce).collect();
        let used = Mutex::new([used, HashSet::new()]);
        Self { key: LessSafeKey::new(key), used, journal }
    }

    /// A state for the client. `inner` is what the backend wants to hear again, if anything.
    pub fn seal(&self, bound: &Bound<'_>, inner: Option<&str>) -> Option<String> {
        let until = seconds_since_1970().saturating_add(LIFETIME.as_secs());
        let mut text = until.to_be_bytes().to_vec();
        text.push(u8::from(inner.is_some()));
        text.extend_from_slice(inner.unwrap_or_default().as_bytes());
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let to_seal = Nonce::assume_unique_for_key(nonce);
        self.key.seal_in_place_append_tag(to_seal, bound.aad(), &mut text).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&nonce[..], &text].concat()))
    }

    /// A backend's question with its state sealed.
    pub fn sealed(&self, bound: &Bound<'_>, message: &Message) -> Result<Message> {
        let inner = message.in_result("requestState").and_then(json::string);
        let sealed = self.seal(bound, inner.as_deref());
        let sealed = sealed.ok_or_else(|| Error::Busy("no random numbers to be had".into()))?;
        let sealed = json::quoted(&sealed);
        let mut splice = Splice::new(message.text());
        match (message.field("requestState"), message.top("result")) {
            (Some(place), _) => {
                splice.replace(place, sealed.into_bytes());
            }
            (None, Some(result)) => {
                splice.insert(result.start + 1, format!("\"requestState\":{sealed},").into_bytes());
            }
            (None, None) => {}
        }
        Ok(Message::parse(splice.finish().into(), &Limits::REPLY)?)
    }

    /// What a state of ours holds, the first time it is asked; nothing for any other text.
    pub fn open(&self, bound: &Bound<'_>, sealed: &str) -> Option<Option<String>> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let text =
            self.key.open_in_place(Nonce::assume_unique_for_key(*nonce), bound.aad(), &mut text).ok()?;
        let (until, text) = text.split_first_chunk::<8>()?;
        let (has_inner, inner) = text.split_first()?;
        let until = u64::from_be_bytes(*until);
        if until < seconds_since_1970() || !self.first_use(*nonce) {
            return None;
        }
        let _ = self.journal.send(UsedState { nonce: *nonce, until }); // Fails when the gateway ends.
        let inner = String::from_utf8(inner.to_vec()).ok()?;
        Some((*has_inner == 1).then_some(inner))
    }

    fn first_use(&self, nonce: [u8; NONCE_LEN]) -> bool {
        let mut used = self.used.lock().expect("no code panics while it holds this lock");
        if used[1].contains(&nonce) || !used[0].insert(nonce) {
            return false;
        }
        if used[0].len() >= REMEMBERED {
            used[1] = std::mem::take(&mut used[0]);
        }
        true
    }
}

impl Bound<'_> {
    fn aad(&self) -> Aad<digest::Digest> {
        let mut context = digest::Context::new(&digest::SHA256);
        let arguments =
            serde_json::from_slice(self.arguments).map_or_else(|_| String::new(), |value| in_order(&value));
        // Each part ends where its length says, so no two rows of parts read alike.
        for part in [&self.caller.name(), self.backend, self.method.name(), self.target, &arguments] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        Aad::from(context.finish())
    }
}

/// A value as text, with the members of objects in the order of their names.
fn in_order(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_unstable_by_key(|(key, _)| key.as_str());
            let members = members
                .iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), in_order(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(list) => format!("[{}]", list.iter().map(in_order).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

fn seconds_since_1970() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound<'static> = Bound {
        caller: &Caller::Local,
        backend: "files",
        method: Method::ToolsCall,
        target: "delete",
        arguments: br#"{"path":"/a","force":true}"#,
    };

    fn seals(secret: &[u8]) -> Seals {
        Seals::new(secret, Vec::new(), mpsc::unbounded_channel().0)
    }

    #[test]
    fn a_state_that_was_used_before_a_restart_stays_used() {
        let (journal, mut noted) = mpsc::unbounded_channel();
        let before = Seals::new(b"secret", Vec::new(), journal.clone());
        let [used, other] = [(), ()].map(|()| before.seal(&BOUND, None).unwrap());
        assert!(before.open(&BOUND, &used).is_some());
        let kept: Vec<_> = std::iter::from_fn(|| noted.try_recv().ok()).collect();
        assert_eq!(kept.len(), 1);
        let after = Seals::new(b"secret", kept, journal);
        assert_eq!(after.open(&BOUND, &used), None);
        assert!(after.open(&BOUND, &other).is_some());
    }

    #[test]
    fn a_state_opens_once_and_for_the_same_call_however_it_is_written() {
        let seals = seals(b"secret");
        let sealed = seals.seal(&BOUND, Some("inner")).unwrap();
        let same = Bound { arguments: br#"{ "force": true, "path": "/a" }"#, ..BOUND };
        assert_eq!(seals.open(&same, &sealed), Some(Some("inner".to_owned())));
        assert_eq!(seals.open(&same, &sealed), None, "a state is used once");
        let empty = seals.seal(&BOUND, None).unwrap();
        assert_eq!(seals.open(&BOUND, &empty), Some(None));
    }

    #[test]
    fn it_opens_for_nothing_else() {
        let seals = seals(b"secret");
        let sealed = seals.seal(&BOUND, Some("inner")).unwrap();
        let others = [
            Bound { caller: &Caller::Gateway, ..BOUND },
            Bound { backend: "file", ..BOUND },
            Bound { method: Method::PromptsGet, ..BOUND },
            Bound { target: "deletes", ..BOUND },
            Bound { arguments: br#"{"path":"/b","force":true}"#, ..BOUND },
        ];
        for other in others {
            assert_eq!(seals.open(&other, &sealed), None, "{other:?}");
        }
        let mut altered = sealed.clone().into_bytes();
        altered[20] ^= 1;
        for text in
            [String::from_utf8(altered).unwrap(), String::new(), "AAAA".to_owned(), sealed[1..].to_owned()]
        {
            assert_eq!(seals.open(&BOUND, &text), None, "{text}");
        }
        assert_eq!(self::seals(b"other").open(&BOUND, &sealed), None);
        assert!(seals.open(&BOUND, &sealed).is_some(), "an attempt in vain does not use it up");
    }
}
