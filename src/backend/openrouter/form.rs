//! Is an answer of the form that was asked for?
//!
//! Providers promise to keep to a schema, and not all of them do. What is given to callers as `parsed` does.
//!
//! Both the schema and the answer are others' words. Nothing is fetched for them: a reference leads somewhere in
//! the schema itself. Patterns are matched in linear time. And since references can make a short schema a very
//! large one, it is first counted how large it is, at the depth of the answer.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

/// The longest schema, as JSON.
const LONGEST: usize = 64 << 10;
/// Schemas in a schema, with what references lead to.
const MOST_PARTS: usize = 20_000;
/// The same, for each value of an answer.
const MOST_WORK: usize = 4_000_000;
/// How deep schemas may lie in one another.
const DEEPEST: usize = 256;
/// How deep an answer is expected to be, before there is one.
const USUAL_DEPTH: usize = 4;
/// Faults of an answer that are told.
const MOST_FAULTS: usize = 3;
/// The longest fault that is told, in letters: it repeats what the model wrote.
const LONGEST_FAULT: usize = 300;

/// What an answer is to be.
#[derive(Debug)]
pub enum Form {
    Text,
    /// Any object.
    Object,
    Schema(Box<Schema>),
}

/// A JSON Schema (2020-12).
#[derive(Debug)]
pub struct Schema {
    written: Value,
    validator: Validator,
}

impl Schema {
    /// The schema as it was written, or what is wrong with it and where.
    pub fn new(written: Value) -> Result<Self, String> {
        let length = written.to_string().len();
        if length > LONGEST {
            return Err(format!("it is {length} bytes long, and may be {LONGEST}"));
        }
        Spread { root: &written, left: MOST_PARTS }.count(&written, USUAL_DEPTH, DEEPEST)?;
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(PatternOptions::regex())
            .build(&written)
            .map_err(|why| at(&why.instance_path().to_string(), &why.to_string()))?;
        Ok(Self { written, validator })
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        let (values, depth) = size(value);
        let left = MOST_PARTS.min(MOST_WORK / values.max(1));
        Spread { root: &self.written, left }
            .count(&self.written, depth, DEEPEST)
            .map_err(|_| "the answer is too large to be held against this schema".to_owned())?;
        if self.validator.is_valid(value) {
            return Ok(());
        }
        let faults = self.validator.iter_errors(value).take(MOST_FAULTS);
        let faults = faults.map(|why| at(&why.instance_path().to_string(), &why.to_string()));
        Err(faults.collect::<Vec<_>>().join("; "))
    }
}

impl Form {
    /// The answer as JSON, or why it is not of this form; nothing where text was asked for.
    pub fn read(&self, text: &str) -> Option<Result<Value, String>> {
        let schema = match self {
            Self::Text => return None,
            Self::Object => None,
            Self::Schema(schema) => Some(schema),
        };
        Some(match serde_json::from_str::<Value>(text) {
            Err(why) => Err(format!("the answer is not JSON: {why}")),
            Ok(value) => match schema {
                Some(schema) => schema.check(&value).map(|()| value),
                None if value.is_object() => Ok(value),
                None => Err("the answer is JSON, but no object".to_owned()),
            },
        })
    }
}

/// What was read, as results have it: the one or the other, or neither.
pub fn told(read: Option<Result<Value, String>>) -> (Option<Value>, Option<String>) {
    match read {
        None => (None, None),
        Some(Ok(value)) => (Some(value), None),
        Some(Err(why)) => (None, Some(why)),
    }
}

/// A fault with where it is.
fn at(place: &str, why: &str) -> String {
    let why: String = why.chars().take(LONGEST_FAULT).collect();
    if place.is_empty() { why } else { format!("at {place}: {why}") }
}

/// How many values there are in one, and how deep they lie.
fn size(value: &Value) -> (usize, usize) {
    let of = |all: &mut dyn Iterator<Item = &Value>| {
        all.fold((1, 0), |(values, depth), one| {
            let (more, deeper) = size(one);
            (values + more, depth.max(deeper + 1))
        })
    };
    match value {
        Value::Array(all) => of(&mut all.iter()),
        Value::Object(all) => of(&mut all.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (1, 0),
    }
}

/// Counts what a schema is with all that its references lead to.
struct Spread<'a> {
    root: &'a Value,
    left: usize,
}

impl<'a> Spread<'a> {
    /// Of what is about values that lie at most `depth` below this one's.
    fn count(&mut self, schema: &'a Value, depth: usize, nested: usize) -> Result<(), String> {
        let spent = || "references in it lead back to themselves, or make too much of it".to_owned();
        self.left = self.left.checked_sub(1).ok_or_else(spent)?;
        let nested = nested.checked_sub(1).ok_or_else(spent)?;
        let Value::Object(members) = schema else { return Ok(()) };
        for (name, value) in members {
            let below = depth.checked_sub(1);
            match (name.as_str(), value) {
                ("$ref", value) => self.count(self.target(value)?, depth, nested)?,
                ("$id" | "$anchor" | "$dynamicRef" | "$dynamicAnchor", _) => {
                    return Err(format!(
                        "{name} is not read here; refer to a part of the schema by \"#/$defs/…\""
                    ));
                }
                ("properties" | "patternProperties", Value::Object(all)) => {
                    for one in below.iter().flat_map(|_| all.values()) {
                        self.count(one, depth - 1, nested)?;
                    }
                }
                ("dependentSchemas", Value::Object(all)) => {
                    all.values().try_for_each(|one| self.count(one, depth, nested))?;
                }
                ("prefixItems", Value::Array(all)) => {
                    for one in below.iter().flat_map(|_| all) {
                        self.count(one, depth - 1, nested)?;
                    }
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => {
                    all.iter().try_for_each(|one| self.count(one, depth, nested))?;
                }
                (
                    "additionalProperties"
                    | "unevaluatedProperties"
                    | "items"
                    | "unevaluatedItems"
                    | "contains",
                    one,
                ) => {
                    if let Some(below) = below {
                        self.count(one, below, nested)?;
                    }
                }
                ("not" | "if" | "then" | "else" | "propertyNames", one) => self.count(one, depth, nested)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn target(&self, reference: &Value) -> Result<&'a Value, String> {
        let pointer = reference.as_str().and_then(|text| text.strip_prefix('#'));
        let found = pointer.and_then(|pointer| self.root.pointer(pointer));
        found.ok_or_else(|| {
            format!("$ref {reference} leads to no part of the schema; write it like \"#/$defs/name\"")
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(schema: Value) -> Form {
        Form::Schema(Box::new(Schema::new(schema).unwrap()))
    }

    #[track_caller]
    fn wrong(schema: Value, says: &str) {
        let why = Schema::new(schema).unwrap_err();
        assert!(why.contains(says), "{why}");
    }

    #[test]
    fn what_does_not_hold_is_said_with_where() {
        let form = form(json!({
            "type": "object",
            "properties": { "n": { "type": "integer" }, "tags": { "type": "array", "items": { "$ref": "#/$defs/tag" } } },
            "required": ["n"],
            "additionalProperties": false,
            "$defs": { "tag": { "type": "string", "pattern": "^[a-z]+$" } },
        }));
        let read = |text: &str| form.read(text).unwrap();
        assert_eq!(read("{\"n\": 3, \"tags\": [\"a\"]}"), Ok(json!({ "n": 3, "tags": ["a"] })));
        for (text, says) in [
            ("three", "not JSON"),
            ("{\"n\": 3", "not JSON"),
            ("{\"n\": \"3\"}", "at /n: "),
            ("{\"n\": 3, \"tags\": [\"a\", \"B\"]}", "at /tags/1: "),
            ("{}", "\"n\" is a required property"),
            ("{\"n\": 3, \"m\": 4}", "'m' was unexpected"),
        ] {
            let why = read(text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
        assert!(Form::Text.read("three").is_none());
        assert_eq!(Form::Object.read("{}"), Some(Ok(json!({}))));
        assert!(Form::Object.read("[]").unwrap().is_err());
    }

    #[test]
    fn a_schema_that_is_none_is_refused_with_where() {
        wrong(
            json!({ "properties": { "age": { "type": "integr" } } }),
            "at /properties/age/type: \"integr\"",
        );
        wrong(json!({ "properties": { "a": { "pattern": "(" } } }), "at /properties/a/pattern");
        wrong(json!({ "$ref": "#/$defs/none" }), "leads to no part");
        wrong(json!({ "description": "x".repeat(LONGEST) }), "bytes long");
    }

    #[test]
    fn nothing_is_fetched() {
        for place in ["http://192.0.2.1/schema.json", "file:///etc/passwd", "other.json"] {
            wrong(json!({ "items": { "$ref": place } }), "leads to no part");
        }
        wrong(json!({ "$id": "http://192.0.2.1/", "$ref": "a" }), "is not read here");
    }

    #[test]
    fn a_schema_may_lead_back_to_itself_as_deep_as_the_answer_goes() {
        let form = form(json!({
            "type": "object",
            "properties": { "name": { "type": "string" }, "children": { "type": "array", "items": { "$ref": "#" } } },
            "required": ["name"],
        }));
        let mut tree = json!({ "name": "leaf" });
        for _ in 0..40 {
            tree = json!({ "name": "branch", "children": [tree] });
        }
        assert_eq!(form.read(&tree.to_string()), Some(Ok(tree)));
        let why = form.read("{\"name\": \"a\", \"children\": [{\"name\": 1}]}").unwrap().unwrap_err();
        assert!(why.starts_with("at /children/0/name"), "{why}");
    }

    #[test]
    fn no_schema_takes_long() {
        let twice = |to: &str| json!({ "allOf": [{ "$ref": to }, { "$ref": to }] });
        let mut parts = serde_json::Map::new();
        for n in 0..60 {
            parts.insert(format!("d{n}"), twice(&format!("#/$defs/d{}", n + 1)));
        }
        parts.insert("d60".into(), json!({ "type": "integer" }));
        wrong(json!({ "$ref": "#/$defs/d0", "$defs": parts }), "too much");
        wrong(json!({ "$ref": "#" }), "lead back to themselves");
        // Each level of an answer would take twice as long as the one above.
        let below = json!({ "properties": { "a": { "$ref": "#" } } });
        let form = form(json!({ "allOf": [below, below] }));
        assert!(form.read("{\"a\": {\"a\": 1}}").unwrap().is_ok());
        let deep = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
        assert!(form.read(&deep).unwrap().unwrap_err().contains("too large"));
    }
}
