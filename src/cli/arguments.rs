//! What does `--arg name=value` mean to a tool?
//!
//! The tool's own schema says: where it wants a number, `3` is one, and where it wants a text, the
//! text "3". Where it says nothing, what reads as JSON is JSON.

use serde_json::{Map, Value, value::RawValue};

use crate::config::did_you_mean;

/// The arguments as a JSON object.
pub fn from_pairs(pairs: &[String], schema: &Value) -> Result<Box<RawValue>, String> {
    let mut arguments = Map::new();
    for pair in pairs {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("--arg {pair:?} has no \"=\"; write --arg name=value"))?;
        known(name, schema)?;
        let wanted = schema.get("properties").and_then(|properties| properties.get(name));
        arguments.insert(name.to_owned(), value_of(name, value, wanted)?);
    }
    serde_json::value::to_raw_value(&arguments).map_err(|why| why.to_string())
}

/// The arguments as they were written, if they are a JSON object.
pub fn from_json(text: &str) -> Result<Box<RawValue>, String> {
    let right = "write an object such as '{\"city\": \"Berlin\"}'";
    let raw: Box<RawValue> =
        serde_json::from_str(text).map_err(|why| format!("--json is no JSON: {why}; {right}"))?;
    if raw.get().starts_with('{') { Ok(raw) } else { Err(format!("--json is no object; {right}")) }
}

/// Refuses a name that the tool would refuse, since it is mostly a slip of the hand.
fn known(name: &str, schema: &Value) -> Result<(), String> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(()) };
    let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    if properties.contains_key(name) || !closed {
        return Ok(());
    }
    let names: Vec<_> = properties.keys().map(String::as_str).collect();
    Err(format!("the tool has no argument {name:?}; {}", did_you_mean(name, &names)))
}

fn value_of(name: &str, text: &str, wanted: Option<&Value>) -> Result<Value, String> {
    let kinds = wanted.map(kinds).unwrap_or_default();
    let read = serde_json::from_str::<Value>(text);
    if kinds.is_empty() {
        return Ok(read.unwrap_or_else(|_| text.into()));
    }
    if let Ok(value) = read
        && kinds.iter().any(|kind| is(&value, kind))
        && !(value.is_string() && kinds.contains(&"string"))
    {
        return Ok(value);
    }
    if kinds.contains(&"string") {
        return Ok(text.into());
    }
    Err(format!("{name} takes {}, not {text:?}", kinds.join(" or ")))
}

/// The types that a schema names; none if it names none.
fn kinds(schema: &Value) -> Vec<&str> {
    let own: Vec<_> = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.as_str()],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let choices = schema.get("enum").and_then(Value::as_array);
    if own.is_empty() && choices.is_some_and(|choices| choices.iter().all(Value::is_string)) {
        return vec!["string"];
    }
    // Several schemas: any of their types, but only if each names one.
    let several = ["anyOf", "oneOf"].into_iter().find_map(|key| schema.get(key).and_then(Value::as_array));
    match several {
        Some(several) if own.is_empty() => {
            let each: Vec<_> = several.iter().map(kinds).collect();
            if each.iter().any(Vec::is_empty) { Vec::new() } else { each.concat() }
        }
        _ => own,
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(pairs: &[&str]) -> Result<Value, String> {
        let schema = json!({
            "properties": {
                "text": { "type": "string" }, "n": { "type": "integer" }, "x": { "type": "number" },
                "on": { "type": "boolean" }, "list": { "type": "array" }, "any": {},
                "maybe": { "anyOf": [{ "type": "integer" }, { "type": "null" }] },
                "either": { "type": ["string", "integer"] }, "unit": { "enum": ["c", "f"] },
            },
            "additionalProperties": false,
        });
        let pairs: Vec<_> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        Ok(serde_json::from_str(from_pairs(&pairs, &schema)?.get()).unwrap())
    }

    #[test]
    fn the_schema_says_what_a_value_is() {
        let pairs = ["text=3", "n=3", "x=2.5", "on=true", "list=[1]", "maybe=null", "either=7", "unit=c"];
        let expected = json!({
            "text": "3", "n": 3, "x": 2.5, "on": true, "list": [1], "maybe": null, "either": 7, "unit": "c",
        });
        assert_eq!(read(&pairs), Ok(expected));
    }

    #[test]
    fn where_the_schema_says_nothing_json_is_json() {
        assert_eq!(read(&["any={\"a\": 1}"]), Ok(json!({ "any": { "a": 1 } })));
        assert_eq!(read(&["any=a = b"]), Ok(json!({ "any": "a = b" })));
    }

    #[test]
    fn a_text_in_quotes_keeps_them() {
        assert_eq!(read(&["text=\"quoted\""]), Ok(json!({ "text": "\"quoted\"" })));
    }

    #[test]
    fn a_value_that_does_not_fit_is_told() {
        assert_eq!(read(&["n=three"]), Err("n takes integer, not \"three\"".into()));
        assert!(read(&["txt=3"]).unwrap_err().contains("did you mean `text`?"));
        assert!(read(&["text"]).unwrap_err().contains("name=value"));
    }

    #[test]
    fn json_goes_as_it_was_written() {
        assert_eq!(
            from_json("{\"n\": 1.00000000000000000001}").unwrap().get(),
            "{\"n\": 1.00000000000000000001}"
        );
        assert!(from_json("[1]").unwrap_err().contains("no object"));
        assert!(from_json("{").unwrap_err().contains("no JSON"));
    }
}
