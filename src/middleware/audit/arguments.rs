//! How much of a call's arguments may be seen in the trail?

use serde_json::{Map, Value};

use crate::{secret, weaken};

const LONGEST: usize = 4 << 10;
const LEFT_OUT: &str = "…";

/// The arguments without what looks like a secret or has the name of one; if they are long, their
/// beginning as a text.
pub fn seen(arguments: &[u8]) -> Option<Value> {
    let seen = harmless(serde_json::from_slice(arguments).ok()?);
    let mut text = seen.to_string();
    if text.len() <= LONGEST {
        return Some(seen);
    }
    let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    Some(Value::String(text + LEFT_OUT))
}

fn harmless(value: Value) -> Value {
    if weaken::is("audit-arguments") {
        return value;
    }
    match value {
        Value::String(text) => Value::String(secret::mask(&text).into_owned()),
        Value::Array(all) => Value::Array(all.into_iter().map(harmless).collect()),
        Value::Object(members) => Value::Object(members.into_iter().map(member).collect::<Map<_, _>>()),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

fn member((name, value): (String, Value)) -> (String, Value) {
    // `apiKey` is one like `api_key`.
    let apart = name.chars().fold(String::new(), |mut text, letter| {
        text.extend(letter.is_ascii_uppercase().then_some('_'));
        text.push(letter);
        text
    });
    let hidden = secret::is_name_of_one(&name) || secret::is_name_of_one(&apart);
    let value = if hidden { Value::String(LEFT_OUT.into()) } else { harmless(value) };
    (secret::mask(&name).into_owned(), value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_left_out_by_name_and_by_looks() {
        let token = ["ghp_", "Q1w2E3r4T5y6U7i8O9p0A1s2"].concat();
        let arguments = json!({
            "to": "ada", "amount": 12.5, "password": "hush", "apiKey": "hush", "accessToken": { "x": "hush" },
            "note": format!("use {token}"), "all": [{ "client_secret": 1 }, "https://me:hush@a.example/"],
        });
        let expected = json!({
            "to": "ada", "amount": 12.5, "password": "…", "apiKey": "…", "accessToken": "…",
            "note": "use …", "all": [{ "client_secret": "…" }, "https://…@a.example/"],
        });
        assert_eq!(seen(arguments.to_string().as_bytes()), Some(expected));
    }

    #[test]
    fn long_ones_are_cut() {
        let long = json!({ "text": "ü".repeat(LONGEST) }).to_string();
        let Some(Value::String(seen)) = seen(long.as_bytes()) else { panic!("a text") };
        assert!(
            seen.len() <= LONGEST + LEFT_OUT.len()
                && seen.ends_with('…')
                && seen.starts_with("{\"text\":\"ü")
        );
    }
}
