//! Which calls are the same, and whose?
//!
//! Two calls may share a reply only if nothing that the backend gets to know differs between them.
//! So the key has all of it: the method and what it is for, the arguments by their meaning, what
//! else stands in the parameters, and what the client says it can be asked. What is private has its
//! caller's authorization in the key as well, as far as a token says something of it. Nothing of how
//! the call came is in there: no header, no host, no id.

use aws_lc_rs::digest::{self, SHA256};

use crate::{
    call::{Aim, Call, Caller, Scope},
    weaken,
    wire::{
        json,
        mcp::{Method, meta},
    },
};

/// Parameters longer than this are not compared, and their calls not answered from here.
pub const LONGEST: usize = 64 << 10;

/// A digest of what makes a call this one. Nobody finds two calls with the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

/// Claims that tell one token from the next of the same caller, and nothing of what they may.
const OF_ONE_TOKEN: [&str; 4] = ["exp", "iat", "nbf", "jti"];

/// What says to which trace a call belongs, and nothing to the server.
const OF_A_TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// What a call is, in words that begin differently for different calls.
#[derive(Debug)]
pub struct Words(Vec<u8>);

impl Words {
    /// None if the parameters are too long to be compared.
    pub fn of(call: &Call, aim: &Aim) -> Option<Self> {
        let params = call.message.top("params").map_or(&b"{}"[..], |place| place.of(call.message.text()));
        if params.len() > LONGEST {
            return None;
        }
        if weaken::is("cache-key") {
            return Some(Self(Vec::new()));
        }
        let mut words = Vec::with_capacity(params.len() + 160);
        text(&mut words, call.method.name().as_bytes());
        text(&mut words, aim.backend.as_bytes());
        text(&mut words, aim.own.as_bytes());
        // Resources can go by another spelling at the endpoint of one backend.
        match &call.scope {
            Scope::All => words.push(0),
            Scope::One(name) => {
                words.push(1);
                text(&mut words, name.as_bytes());
            }
            Scope::Set(name) => {
                words.push(2);
                text(&mut words, name.as_bytes());
            }
        }
        text(&mut words, call.client.capabilities.json().as_bytes());
        repeated(&mut words, call);
        parameters(&mut words, call, params);
        Some(Self(words))
    }

    /// The key of a reply that is for all.
    pub fn for_all(&self) -> Key {
        digest(&[&self.0, b"all"])
    }

    /// The key of a reply that is for whoever has this authorization.
    pub fn for_one(&self, context: &Key) -> Key {
        if weaken::is("cache-caller") {
            return self.for_all();
        }
        digest(&[&self.0, b"one", &context.0])
    }
}

/// Arguments of a tool that the client repeated in headers. Whether they agree with the body is
/// looked at on the way to the backend, so a call that has not been there must not be taken for
/// one that has.
fn repeated(words: &mut Vec<u8>, call: &Call) {
    let mirrored = call.mirrored.as_ref().filter(|_| call.method == Method::ToolsCall);
    let Some(mirrored) = mirrored else { return words.push(0) };
    count(words, mirrored.len() + 1);
    for (name, value) in mirrored {
        text(words, name.as_bytes());
        text(words, value.as_bytes());
    }
}

fn parameters(words: &mut Vec<u8>, call: &Call, params: &[u8]) {
    object(words, params, |name| name != "_meta");
    let meta = json::member(params, "_meta").unwrap_or(b"{}");
    object(words, meta, |name| !meta::OF_A_HOP.contains(&name) && !OF_A_TRACE.contains(&name));
    // Put into `_meta` on the way to the backend.
    let beside = call.trace.iter().flat_map(|trace| trace.missing_in(&call.message));
    for (_, value) in beside.filter(|(name, _)| !OF_A_TRACE.contains(name)) {
        value_of(words, value.as_bytes());
    }
}

/// A JSON value by its meaning: the members of an object in one order, a string by its characters.
/// A number is what is written, since 1 and 1.0 are two things to some servers.
fn value_of(words: &mut Vec<u8>, value: &[u8]) {
    match value.first() {
        Some(b'{') => object(words, value, |_| true),
        Some(b'[') => {
            let elements = json::elements(value);
            words.push(b'[');
            count(words, elements.len());
            elements.into_iter().for_each(|place| value_of(words, place.of(value)));
        }
        Some(b'"') => {
            words.push(b'"');
            text(words, &json::text(value).unwrap_or_default());
        }
        _ => {
            words.push(b'#');
            text(words, value);
        }
    }
}

fn object(words: &mut Vec<u8>, object: &[u8], is_wanted: impl Fn(&str) -> bool) {
    let members = json::members(object);
    let mut members: Vec<_> =
        members.iter().map(|member| (member.key_in(object), member.value.of(object))).collect();
    members.retain(|(name, _)| is_wanted(name));
    members.sort_unstable_by(|(one, _), (two, _)| one.cmp(two));
    words.push(b'{');
    count(words, members.len());
    for (name, value) in members {
        text(words, name.as_bytes());
        value_of(words, value);
    }
}

/// With its length before it, so that no text runs into the next.
fn text(words: &mut Vec<u8>, text: &[u8]) {
    count(words, text.len());
    words.extend_from_slice(text);
}

fn count(words: &mut Vec<u8>, count: usize) {
    words.extend_from_slice(&(count as u64).to_be_bytes());
}

fn digest(parts: &[&[u8]]) -> Key {
    let mut context = digest::Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    Key(key)
}

/// What a caller's authorization is: who they are, and all that their token says of what they may.
/// A newer token that says the same is the same authorization.
pub fn context(caller: &Caller) -> Key {
    let mut words = Vec::with_capacity(256);
    text(&mut words, caller.name().as_bytes());
    if let Caller::Known(identity) = caller {
        for list in [&identity.groups, &identity.scopes] {
            let mut list: Vec<_> = list.iter().collect();
            list.sort_unstable();
            count(&mut words, list.len());
            list.into_iter().for_each(|entry| text(&mut words, entry.as_bytes()));
        }
        let claims = serde_json::to_vec(&identity.claims).unwrap_or_default();
        object(&mut words, &claims, |name| !OF_ONE_TOKEN.contains(&name));
    }
    digest(&[&words])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::{
        call::{Client, Hints, Identity},
        wire::{capability::Capabilities, json::Limits, mcp::Revision, message::Message},
    };

    fn aim() -> Aim {
        Aim { backend: "docs".into(), own: "search".into(), hints: Hints::default() }
    }

    fn call(params: &str) -> Call {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
        let info = Bytes::from_static(b"{}");
        Call::new(
            Caller::Local,
            Scope::All,
            Method::ToolsCall,
            Message::parse(text.into(), &Limits::REQUEST).unwrap(),
            Client { revision: Revision::NEWEST, capabilities: Capabilities::NONE, info },
        )
    }

    fn key(params: &str) -> Key {
        Words::of(&call(params), &aim()).unwrap().for_all()
    }

    #[track_caller]
    fn check(one: &str, two: &str, same: bool) {
        let arguments = |text| format!(r#"{{"name":"docs__search","arguments":{text}}}"#);
        assert_eq!(key(&arguments(one)) == key(&arguments(two)), same, "{one} {two}");
    }

    #[test]
    fn arguments_are_compared_by_what_they_mean() {
        check(r#"{"a":1,"b":2}"#, r#"{ "b" : 2, "a" : 1 }"#, true);
        check(r#"{"\u0061":"\u00e9"}"#, r#"{"a":"é"}"#, true);
        check(r#"{"a":{"x":[1,{"p":1,"q":2}]}}"#, r#"{"a":{"x":[1,{"q":2,"p":1}]}}"#, true);
        check(r#"{"a":1}"#, r#"{"a":1.0}"#, false);
        check(r#"{"a":1}"#, r#"{"a":"1"}"#, false);
        check(r#"{"a":100}"#, r#"{"a":1e2}"#, false);
        check(r#"{"a":null}"#, "{}", false);
        check(r#"{"a":"é"}"#, "{\"a\":\"e\u{301}\"}", false);
        check(r#"{"a":[1,2]}"#, r#"{"a":[2,1]}"#, false);
        check(r#"{"a":[[1],2]}"#, r#"{"a":[[1,2]]}"#, false);
        check(r#"{"a":{"b":1},"c":2}"#, r#"{"a":{"b":1,"c":2}}"#, false);
        check(r#"{"ab":"c"}"#, r#"{"a":"bc"}"#, false);
        check(r#"{"a":""}"#, r#"{"a":[]}"#, false);
        check(r#"{"a":[]}"#, r#"{"a":{}}"#, false);
        check(r#"{"a":true}"#, r#"{"a":"true"}"#, false);
        check(r#"{"A":1}"#, r#"{"a":1}"#, false);
    }

    #[test]
    fn what_is_about_one_hop_or_one_trace_is_no_part_of_a_call() {
        let plain = key(r#"{"name":"x","_meta":{}}"#);
        assert_eq!(plain, key(r#"{"name":"x"}"#));
        assert_eq!(plain, key(r#"{"name":"x","_meta":{"progressToken":7,"traceparent":"00-1-2-01"}}"#));
        assert_ne!(plain, key(r#"{"name":"x","_meta":{"baggage":"tenant=1"}}"#));
        assert_ne!(plain, key(r#"{"name":"x","_meta":{"example.com/tenant":1}}"#));
        assert_ne!(plain, key(r#"{"name":"x","more":1}"#));
    }

    #[test]
    fn where_a_call_goes_and_what_its_client_can_be_asked_is_part_of_it() {
        let plain = call(r#"{"name":"x"}"#);
        let mut keys = vec![Words::of(&plain, &aim()).unwrap().for_all()];
        let mut add = |call: &Call, aim: &Aim| keys.push(Words::of(call, aim).unwrap().for_all());
        add(&plain, &Aim { backend: "docs2".into(), ..aim() });
        add(&plain, &Aim { own: "search2".into(), ..aim() });
        // The parts of a name do not run into one another.
        add(&plain, &Aim { backend: "doc".into(), own: "ssearch".into(), ..aim() });
        add(&Call { scope: Scope::One("docs".into()), ..plain.clone() }, &aim());
        add(&Call { method: Method::PromptsGet, ..plain.clone() }, &aim());
        let asked = Capabilities::of(br#"{"sampling":{}}"#, Revision::NEWEST);
        let client = Client { capabilities: asked, ..plain.client.clone() };
        add(&Call { client, ..plain.clone() }, &aim());
        add(&Call { mirrored: Some(Vec::new()), ..plain.clone() }, &aim());
        add(&Call { mirrored: Some(vec![("q".into(), "1".into())]), ..plain.clone() }, &aim());
        keys.sort_unstable();
        let all = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }

    #[test]
    fn an_authorization_is_the_same_as_long_as_its_tokens_say_the_same() {
        let identity = |subject: &str, groups: &[&str], claims: Value| {
            let claims: Map<_, _> = claims.as_object().unwrap().clone();
            let groups = groups.iter().map(|group| (*group).to_owned()).collect();
            let issuer = "https://a.example".to_owned();
            let known = Identity { issuer, subject: subject.into(), groups, scopes: Vec::new(), claims };
            context(&Caller::Known(Arc::new(known)))
        };
        let ada = identity("ada", &["a", "b"], json!({ "tenant": 1, "exp": 1, "jti": "x" }));
        assert_eq!(ada, identity("ada", &["b", "a"], json!({ "tenant": 1, "exp": 2, "iat": 1 })));
        assert_ne!(ada, identity("eve", &["a", "b"], json!({ "tenant": 1 })));
        assert_ne!(ada, identity("ada", &["a"], json!({ "tenant": 1 })));
        assert_ne!(ada, identity("ada", &["a", "b"], json!({ "tenant": 2 })));
        assert_ne!(ada, identity("ada", &["a", "b"], json!({ "tenant": 1, "scope": "write" })));
        let callers =
            [Caller::Local, Caller::Stranger([10, 0, 0, 1].into()), Caller::Stranger([10, 0, 0, 2].into())];
        let contexts: std::collections::BTreeSet<_> = callers.iter().map(context).collect();
        assert_eq!(contexts.len(), 3);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3i64..3).prop_map(Value::from),
            (1.0..2.0).prop_map(|n: f64| json!(n)),
            "[a1\"{},é]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::btree_map("[ab\"]{0,2}", inner, 0..3)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn keys_are_the_same_exactly_where_the_meaning_is(one in any_json(), two in any_json()) {
            let key = |value: &Value| key(&format!(r#"{{"name":"x","arguments":{{"v":{value}}}}}"#));
            prop_assert_eq!(key(&one) == key(&two), one == two);
        }

        #[test]
        fn spaces_and_escapes_change_nothing(value in any_json()) {
            let plain = value.to_string();
            let spaced = serde_json::to_string_pretty(&value).unwrap().replace('é', "\\u00e9");
            let key = |text: &str| key(&format!(r#"{{"name":"x","arguments":{{"v":{text}}}}}"#));
            prop_assert_eq!(key(&plain), key(&spaced));
        }
    }
}
