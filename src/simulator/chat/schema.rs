//! What is a small value that a JSON Schema allows?

use serde_json::{Map, Value, json};

use crate::simulator::random::Random;

/// Schemas that go on for ever end here.
const DEEPEST: usize = 16;

/// Makes values, with chance where several are as good.
#[derive(Debug)]
pub struct Maker<'a> {
    pub root: &'a Value,
    pub random: Random,
    /// Where there is yes and no, the answer.
    pub opinion: Option<bool>,
}

impl Maker<'_> {
    pub fn make(&mut self, schema: &Value, depth: usize) -> Value {
        if depth > DEEPEST {
            return Value::Null;
        }
        if let Some(constant) = schema.get("const") {
            return constant.clone();
        }
        if let Some(values) = schema["enum"].as_array().filter(|values| !values.is_empty()) {
            return self.chosen(values);
        }
        if let Some(pointer) = schema["$ref"].as_str().and_then(|address| address.strip_prefix('#')) {
            let target = self.root.pointer(pointer).cloned().unwrap_or(Value::Null);
            return self.make(&target, depth + 1);
        }
        for several in ["anyOf", "oneOf"] {
            if let Some(first) = schema[several].as_array().and_then(|schemas| schemas.first()) {
                let first = first.clone();
                return self.make(&merged(schema, &first), depth + 1);
            }
        }
        if let Some(all) = schema["allOf"].as_array() {
            let mut whole = schema.clone();
            for part in all {
                let part = match part["$ref"].as_str().and_then(|address| address.strip_prefix('#')) {
                    Some(pointer) => self.root.pointer(pointer).cloned().unwrap_or_default(),
                    None => part.clone(),
                };
                whole = merged(&whole, &part);
            }
            if let Some(members) = whole.as_object_mut() {
                members.remove("allOf");
            }
            return self.make(&whole, depth + 1);
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds.first().and_then(Value::as_str),
            kind => kind.as_str(),
        };
        match kind {
            Some("object") => self.object(schema, depth),
            Some("array") => {
                let count = schema["minItems"].as_u64().unwrap_or(0).min(64);
                (0..count).map(|_| self.make(&schema["items"], depth + 1)).collect()
            }
            Some("string") => text(schema).into(),
            Some("integer") => self.number(schema, true),
            Some("number") => self.number(schema, false),
            Some("boolean") => self.opinion.unwrap_or(true).into(),
            None if schema["properties"].is_object() => self.object(schema, depth),
            None | Some(_) => Value::Null,
        }
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let required: Vec<_> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let made = required
            .iter()
            .map(|name| ((*name).to_owned(), self.make(&schema["properties"][*name], depth + 1)));
        made.collect::<Map<_, _>>().into()
    }

    fn chosen(&mut self, values: &[Value]) -> Value {
        let wanted = self.opinion.map(|yes| if yes { "yes" } else { "no" });
        let says = |value: &&Value| {
            value.as_str().zip(wanted).is_some_and(|(text, word)| text.eq_ignore_ascii_case(word))
        };
        values.iter().find(says).unwrap_or(&values[self.random.below(values.len())]).clone()
    }

    /// Somewhere between its bounds if it has both, else at the one that it has.
    fn number(&mut self, schema: &Value, whole: bool) -> Value {
        let bound = |inclusive: &str, exclusive: &str, step: f64| {
            schema[inclusive].as_f64().or_else(|| schema[exclusive].as_f64().map(|bound| bound + step))
        };
        let step =
            schema["multipleOf"].as_f64().filter(|step| *step > 0.0).unwrap_or(if whole { 1.0 } else { 0.5 });
        let least = bound("minimum", "exclusiveMinimum", step);
        let most = bound("maximum", "exclusiveMaximum", -step);
        let number = match (least, most) {
            (Some(least), Some(most)) if most > least => {
                let share = f64::from(u32::try_from(self.random.below(1001)).unwrap_or(0)) / 1000.0;
                least + (most - least) * share
            }
            (Some(least), _) => least,
            (None, Some(most)) => most.min(0.0),
            (None, None) => 0.0,
        };
        let stepped = (number / step).ceil() * step;
        let stepped =
            if most.is_some_and(|most| stepped > most) { (number / step).floor() * step } else { stepped };
        if whole && stepped.abs() < 9e15 { json!(stepped as i64) } else { json!(stepped) }
    }
}

/// One schema with the members of another. Lists and tables are joined.
fn merged(base: &Value, more: &Value) -> Value {
    let mut whole = base.as_object().cloned().unwrap_or_default();
    whole.remove("anyOf");
    whole.remove("oneOf");
    for (name, value) in more.as_object().into_iter().flatten() {
        let joined = match (whole.get(name), value) {
            (Some(Value::Object(one)), Value::Object(other)) => {
                Value::Object(one.clone().into_iter().chain(other.clone()).collect())
            }
            (Some(Value::Array(one)), Value::Array(other)) => one.iter().chain(other).cloned().collect(),
            (_, value) => value.clone(),
        };
        whole.insert(name.clone(), joined);
    }
    whole.into()
}

fn text(schema: &Value) -> String {
    match schema["format"].as_str() {
        Some("date-time") => return "2026-01-01T00:00:00Z".to_owned(),
        Some("date") => return "2026-01-01".to_owned(),
        Some("time") => return "00:00:00Z".to_owned(),
        Some("email") => return "a@sim.invalid".to_owned(),
        Some("uri") => return "https://sim.invalid/".to_owned(),
        Some("uuid") => return "00000000-0000-4000-8000-000000000000".to_owned(),
        Some(_) | None => {}
    }
    let least = schema["minLength"].as_u64().and_then(|least| usize::try_from(least).ok()).unwrap_or(0);
    let most = schema["maxLength"].as_u64().and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX);
    let length = "text".len().max(least).min(most).min(100_000);
    "text".chars().chain(std::iter::repeat('x')).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schema: &Value, expected: &Value) {
        let mut maker = Maker { root: schema, random: Random::new(1, ""), opinion: Some(false) };
        assert_eq!(maker.make(schema, 0), *expected);
    }

    #[test]
    fn what_is_made_is_small_and_allowed() {
        check(&json!({ "type": "string", "minLength": 6 }), &json!("textxx"));
        check(&json!({ "type": ["integer", "null"], "exclusiveMinimum": 3 }), &json!(4));
        check(&json!({ "type": "number", "minimum": 0.5, "maximum": 0.5 }), &json!(0.5));
        check(&json!({ "enum": ["YES", "NO"] }), &json!("NO"));
        check(&json!({ "type": "boolean" }), &json!(false));
        check(&json!({ "type": "array", "minItems": 2, "items": { "const": 1 } }), &json!([1, 1]));
        check(&json!({ "anyOf": [{ "type": "null" }, { "type": "string" }] }), &Value::Null);
        let person = json!({
            "type": "object",
            "properties": { "name": { "$ref": "#/$defs/name" }, "age": { "type": "integer" } },
            "required": ["name"],
            "$defs": { "name": { "type": "string", "maxLength": 2 } },
        });
        check(&person, &json!({ "name": "te" }));
        let both = json!({ "allOf": [
            { "type": "object", "properties": { "a": { "const": 1 } }, "required": ["a"] },
            { "properties": { "b": { "const": 2 } }, "required": ["b"] },
        ] });
        check(&both, &json!({ "a": 1, "b": 2 }));
    }

    #[test]
    fn a_schema_without_an_end_has_one() {
        let endless = json!({ "type": "object", "properties": { "a": { "$ref": "#" } }, "required": ["a"] });
        let mut maker = Maker { root: &endless, random: Random::new(1, ""), opinion: None };
        assert!(maker.make(&endless, 0).is_object());
    }

    #[test]
    fn scores_lie_between_their_bounds() {
        let schema = json!({ "type": "integer", "minimum": 1, "maximum": 10 });
        for seed in 0..200 {
            let mut maker = Maker { root: &schema, random: Random::new(seed, ""), opinion: None };
            let score = maker.make(&schema, 0).as_i64().unwrap();
            assert!((1..=10).contains(&score), "{score}");
        }
    }
}
