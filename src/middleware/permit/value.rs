//! How does a condition see callers, things and arguments?

use std::{collections::HashMap, sync::Arc};

use cel::{
    Value,
    common::value::Val,
    objects::{Key, Map},
};
use serde_json::{Map as Object, Value as Json, json};

use super::uses::{Uses, Wanted};
use crate::{
    call::{Caller, Thing},
    wire::json,
};

/// How much of a call's arguments a condition may look at, in bytes.
const MOST: usize = 16 << 10;

/// Something written as JSON.
pub fn of(value: &Json) -> Result<Box<dyn Val>, String> {
    converted(value, &|_| false).and_then(boxed)
}

fn boxed(value: Value) -> Result<Box<dyn Val>, String> {
    value.try_into().map_err(|_| "it has no value".to_owned())
}

pub fn caller(caller: &Caller) -> Json {
    let anonymous = matches!(caller, Caller::Stranger(_));
    match caller {
        Caller::Known(identity) => json!({
            "issuer": identity.issuer, "subject": identity.subject, "groups": identity.groups,
            "scopes": identity.scopes, "claims": identity.claims, "anonymous": anonymous,
        }),
        Caller::Local | Caller::Gateway | Caller::Stranger(_) => json!({
            "issuer": "", "subject": "", "groups": [], "scopes": [], "claims": {}, "anonymous": anonymous,
        }),
    }
}

/// What is wanted of a caller, and nothing that changes with each of their tokens beside it.
pub fn part_of(caller: &Json, wanted: &Wanted) -> Json {
    let Wanted::Only(wanted) = wanted else { return caller.clone() };
    let mut part = Object::new();
    for name in wanted {
        match name.strip_prefix("claims.") {
            None => drop(part.insert(name.clone(), caller[name].clone())),
            Some(claim) => {
                let claims = part.entry("claims").or_insert_with(|| json!({}));
                if let Some(value) = caller["claims"].get(claim) {
                    claims[claim] = value.clone();
                }
            }
        }
    }
    part.into()
}

pub fn target(thing: &Thing<'_>) -> Json {
    let hints = thing.hints;
    json!({
        "backend": thing.backend, "name": thing.own, "shown": thing.shown, "kind": thing.kind.name(),
        "read_only": hints.read_only, "destructive": hints.may_destroy(), "idempotent": hints.idempotent,
        "open_world": hints.open_world != Some(false),
    })
}

/// Those of the arguments that are looked at.
pub fn arguments(text: &[u8], uses: &Uses) -> Result<Box<dyn Val>, String> {
    if !text.starts_with(b"{") {
        return Err("the arguments are no object".into());
    }
    let is_twin = |name: &str| uses.is_twin(name);
    let mut found = HashMap::new();
    let mut length = 0;
    for member in json::members(text) {
        let name = member.key_in(text);
        if is_twin(&name) {
            return Err(twin(&name));
        }
        match &uses.arguments {
            Wanted::Only(names) if !names.contains(&*name) => continue,
            Wanted::Only(_) | Wanted::Everything => {}
        }
        let value = member.value.of(text);
        length += name.len() + value.len();
        if length > MOST {
            return Err(format!("the arguments it looks at are over {} KiB", MOST >> 10));
        }
        let value: Json = serde_json::from_slice(value).map_err(|_| "a number is out of range".to_owned())?;
        found.insert(Key::String(Arc::new(name.into_owned())), converted(&value, &is_twin)?);
    }
    boxed(Value::Map(Map { map: Arc::new(found) }))
}

fn twin(name: &str) -> String {
    format!("there is an argument {name:?}, which some servers take for another one")
}

fn converted(value: &Json, is_twin: &dyn Fn(&str) -> bool) -> Result<Value, String> {
    Ok(match value {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Value::Int(number),
            (None, Some(number), _) => Value::UInt(number),
            (None, None, Some(number)) => Value::Float(number),
            (None, None, None) => return Err("a number is out of range".into()),
        },
        Json::String(text) => Value::String(Arc::new(text.clone())),
        Json::Array(list) => {
            let list: Result<_, _> = list.iter().map(|one| converted(one, is_twin)).collect();
            Value::List(Arc::new(list?))
        }
        Json::Object(members) => {
            let mut map = HashMap::with_capacity(members.len());
            for (name, value) in members {
                if is_twin(name) {
                    return Err(twin(name));
                }
                map.insert(Key::String(Arc::new(name.clone())), converted(value, is_twin)?);
            }
            Value::Map(Map { map: Arc::new(map) })
        }
    })
}
