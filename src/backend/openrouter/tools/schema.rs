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
            if members.get("default").is_some_and(Value::is_null) {
                members.remove("default");
            }
            // Of how many bits a number is here is nobody's business.
            let number = members.get("type").is_some_and(|kind| kind == "integer" || kind == "number");
            if number {
                members.remove("format");
            }
            members.values_mut().for_each(tidy);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
