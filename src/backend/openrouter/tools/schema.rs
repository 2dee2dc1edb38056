//! How are the types of tools written as schemas that clients can read?
//!
//! Clients of many makers read them, some of which stumble over references, unions at the root and
//! types with a `null` beside them. So everything is written in place, and what may be left out is
//! simply not required.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

pub fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<T>().to_value();
    if let Some(root) = schema.as_object_mut() {
        root.remove("title");
        root.remove("description");
        root.insert("type".into(), "object".into());
    }
    tidy(&mut schema);
    schema
}

/// Of what a tool gives: the members of the result, without what these are made of and what they mean, for
/// the list of tools takes room in every client's context, and results speak for themselves.
pub fn of_result<T: JsonSchema>() -> Value {
    let mut schema = of::<T>();
    if let Some(root) = schema.as_object_mut() {
        root.retain(|name, _| matches!(name.as_str(), "type" | "properties"));
    }
    for property in schema["properties"].as_object_mut().into_iter().flat_map(|all| all.values_mut()) {
        outline(property);
    }
    schema
}

fn outline(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    members.retain(|name, _| matches!(name.as_str(), "type" | "enum" | "items"));
    if let Some(items) = members.get_mut("items").and_then(Value::as_object_mut) {
        items.retain(|name, _| name == "type");
    }
}

fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(all) => all.iter_mut().for_each(tidy),
        Value::Object(members) => {
            if let Some(Value::Array(types)) = members.get_mut("type") {
                types.retain(|one| one != "null");
                if let [only] = &types[..] {
                    let only = only.clone();
                    members.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(all)) = members.get_mut("enum") {
                all.retain(|one| !one.is_null());
            }
            // A value or null is the value.
            if let Some(Value::Array(all)) = members.get_mut("anyOf") {
                all.retain(|one| one["type"] != "null");
                if let [Value::Object(only)] = &all[..] {
                    let only = only.clone();
                    members.remove("anyOf");
                    for (name, value) in only {
                        members.entry(name).or_insert(value);
                    }
                }
            }
            // Words with what each means are words: the description of the member says it.
            if let Some(Value::Array(all)) = members.get("oneOf")
                && let Some(words) = all.iter().map(words).collect::<Option<Vec<_>>>()
            {
                members.remove("oneOf");
                members.insert("type".into(), "string".into());
                members.insert("enum".into(), words.concat().into());
            }
            // What is not there is empty anyway.
            let is_empty = |value: &Value| match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(all) => all.is_empty(),
                Value::Object(all) => all.is_empty(),
                Value::String(_) | Value::Number(_) | Value::Bool(true) => false,
            };
            if members.get("default").is_some_and(is_empty) {
                members.remove("default");
            }
            // Of how many bits a number is here is nobody's business.
            let number = members.get("type").is_some_and(|kind| kind == "integer" || kind == "number");
            if number {
                members.remove("format");
                // That a count is not negative need not be said.
                if members.get("type").is_some_and(|kind| kind == "integer")
                    && members.get("minimum").is_some_and(|least| least == 0)
                {
                    members.remove("minimum");
                }
            }
            members.values_mut().for_each(tidy);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The words that a schema of nothing else allows.
fn words(schema: &Value) -> Option<Vec<Value>> {
    schema.get("const").map(|word| vec![word.clone()]).or_else(|| schema.get("enum")?.as_array().cloned())
}
