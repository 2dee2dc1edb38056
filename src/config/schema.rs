//! Which keys does `routes.toml` have, and what does each take?
//!
//! The JSON Schema is made from the `Settings` structs, and everything else that has to know
//! the keys (complaints, the environment, the manual) reads it, so there is no second list.

use std::{collections::BTreeSet, sync::LazyLock};

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::Config;

static ROOT: LazyLock<Value> = LazyLock::new(|| {
    // Draft 7 is what TOML editors know, and without references a key is found by walking.
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    let mut root = settings.into_generator().into_root_schema_for::<Config>().to_value();
    tidy(&mut root);
    root["title"] = json!("routes.toml");
    root
});

/// Takes out what means nothing in TOML (null, Rust's widths), and joins the lines of texts.
fn tidy(schema: &mut Value) {
    let Value::Object(members) = schema else { return };
    members.remove("format");
    if members.get("default") == Some(&Value::Null) {
        members.remove("default");
    }
    if let Some(Value::Array(kinds)) = members.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            members["type"] = kind.clone();
        }
    }
    if let Some(Value::String(text)) = members.get_mut("description") {
        *text = text.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    }
    for (name, inner) in members {
        match (name.as_str(), inner) {
            // Its members are called as the keys are, and may be called "format".
            ("properties", Value::Object(keys)) => keys.values_mut().for_each(tidy),
            ("anyOf" | "oneOf", Value::Array(several)) => several.iter_mut().for_each(tidy),
            ("additionalProperties" | "items", inner) => tidy(inner),
            _ => {}
        }
    }
}

/// The schema as it is shipped in `docs/routes.schema.json`.
pub fn text() -> String {
    format!("{:#}\n", *ROOT)
}

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub struct Key(&'static Map<String, Value>);

/// The whole file.
pub fn root() -> Key {
    Key(ROOT.as_object().expect("the schema of a struct is an object"))
}

/// The key at this path, or nothing if there is none.
pub fn at<S: AsRef<str>>(path: &[S]) -> Option<Key> {
    path.iter().try_fold(root(), |key, name| key.inner(name.as_ref()))
}

impl Key {
    fn inner(self, name: &str) -> Option<Self> {
        let here = self.0.get("properties").and_then(|known| known.get(name));
        let free = || self.0.get("additionalProperties").filter(|schema| schema.is_object());
        let item = || self.0.get("items").filter(|_| name.bytes().all(|b| b.is_ascii_digit()));
        let found = here.or_else(free).or_else(item).and_then(Value::as_object).map(Self);
        found.or_else(|| self.alternatives().find_map(|one| one.inner(name)))
    }

    fn alternatives(self) -> impl Iterator<Item = Self> {
        self.0
            .get("anyOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_object)
            .map(Self)
    }

    /// Does it take a value of this JSON type?
    pub fn takes(self, kind: &str) -> bool {
        let named = match self.0.get("type") {
            Some(Value::Array(kinds)) => kinds.iter().any(|known| known == kind),
            Some(known) => known == kind,
            None => false,
        };
        named
            || (kind == "string" && !self.choices().is_empty())
            || self.alternatives().any(|one| one.takes(kind))
    }

    /// The texts it takes, if it takes only some, with what each means.
    pub fn choices(self) -> Vec<(&'static str, &'static str)> {
        let said =
            |schema: &'static Value| schema.get("description").and_then(Value::as_str).unwrap_or_default();
        let several = self.0.get("oneOf").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut choices: Vec<_> =
            several.iter().filter_map(|one| Some((one.get("const")?.as_str()?, said(one)))).collect();
        for schema in several.iter().filter_map(Value::as_object).chain([self.0]) {
            let plain = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
            choices.extend(plain.filter_map(Value::as_str).map(|text| (text, "")));
        }
        choices
    }

    pub fn default(self) -> Option<&'static Value> {
        self.0.get("default")
    }

    /// The sentences that say what it is for.
    pub fn says(self) -> &'static str {
        self.0.get("description").and_then(Value::as_str).unwrap_or_default()
    }

    /// The keys of a table, in alphabetical order.
    pub fn keys(self) -> impl Iterator<Item = (&'static str, Self)> {
        let known = self.0.get("properties").and_then(Value::as_object).into_iter().flatten();
        known.filter_map(|(name, schema)| Some((name.as_str(), Self(schema.as_object()?))))
    }

    /// What each entry of a table is that takes any names.
    pub fn entries(self) -> Option<Self> {
        self.0.get("additionalProperties").and_then(Value::as_object).map(Self)
    }

    /// Is it a text that may be a secret, or a table of such texts?
    pub fn may_be_secret(self) -> bool {
        self.0.contains_key("anyOf") || self.entries().is_some_and(Self::may_be_secret)
    }

    /// What it takes, in words.
    pub fn wants(self) -> String {
        let choices: Vec<_> = self.choices().iter().map(|(text, _)| format!("\"{text}\"")).collect();
        let pattern = self.0.get("pattern").and_then(Value::as_str).unwrap_or_default();
        if !choices.is_empty() {
            format!("one of {}", choices.join(", "))
        } else if pattern.contains("ms") {
            "a length of time such as \"30s\" or \"10m\"".into()
        } else if pattern.contains("KiB") {
            "an amount of memory such as \"512 KiB\" or \"4 MiB\"".into()
        } else if pattern.contains("burst") {
            "a limit such as \"600/min\" or \"60/min burst 10\", or a list of such".into()
        } else if self.may_be_secret() && self.entries().is_none() {
            "a text, { env = \"NAME\" } or { file = \"path\" }".into()
        } else if self.takes("array") {
            "a list of texts such as [\"one\", \"two\"]".into()
        } else if self.takes("boolean") {
            "true or false".into()
        } else if self.takes("integer") {
            "a whole number".into()
        } else if self.takes("number") {
            "a number".into()
        } else if self.takes("string") {
            "a text in quotes".into()
        } else {
            "a table".into()
        }
    }

    /// A value to write, if there is a usual one.
    pub fn example(self) -> Option<String> {
        let default =
            self.default().filter(|value| value.is_string() || value.is_number() || value.is_boolean());
        default.map(Value::to_string)
    }
}

/// The names of keys whose value is no secret, in whichever table they stand: one that may hold one
/// somewhere is none of them.
pub fn harmless_names() -> BTreeSet<&'static str> {
    fn collect(table: Key, names: &mut BTreeSet<&'static str>, others: &mut BTreeSet<&'static str>) {
        for (name, key) in table.keys() {
            let harmful = key.may_be_secret() || key.takes("array") || key.takes("object");
            if harmful { &mut *others } else { &mut *names }.insert(name);
            collect(key, names, others);
            if let Some(entry) = key.entries() {
                collect(entry, names, others);
            }
        }
    }
    // The file with the key of a certificate has a name that people give to secrets, too.
    let (mut names, mut others) = (BTreeSet::new(), BTreeSet::from(["key"]));
    collect(root(), &mut names, &mut others);
    &names - &others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_stands() {
        assert!(at(&["listen", "page_size"]).unwrap().takes("integer"));
        assert!(at(&["listen", "hosts", "0"]).unwrap().takes("string"));
        assert!(at(&["backends", "any", "era"]).unwrap().takes("string"));
        assert!(at(&["log", "format"]).unwrap().takes("string"));
        assert!(at(&["backends", "any", "env", "TOKEN", "env"]).unwrap().takes("string"));
        assert!(at(&["listen", "colour"]).is_none());
        assert!(at(&["listen", "page_size", "deep"]).is_none());
    }

    #[test]
    fn only_texts_by_reference_may_be_secret() {
        assert!(at(&["backends", "any", "env"]).unwrap().may_be_secret());
        assert!(at(&["backends", "any", "headers", "X"]).unwrap().may_be_secret());
        assert!(!at(&["backends", "any", "command"]).unwrap().may_be_secret());
        let harmless = harmless_names();
        assert!(!harmless.contains("headers") && !harmless.contains("key") && harmless.contains("url"));
    }

    #[test]
    fn what_a_key_takes_is_said_in_words() {
        let wants = |path: &[&str]| at(path).unwrap().wants();
        assert_eq!(wants(&["backends", "x", "era"]), "one of \"auto\", \"legacy\", \"modern\"");
        assert_eq!(wants(&["deadline", "idle"]), "a length of time such as \"30s\" or \"10m\"");
        assert_eq!(wants(&["listen", "body_limit"]), "an amount of memory such as \"512 KiB\" or \"4 MiB\"");
        assert_eq!(wants(&["listen", "address"]), "a text in quotes");
        assert_eq!(
            wants(&["backends", "x", "env", "A"]),
            "a text, { env = \"NAME\" } or { file = \"path\" }"
        );
    }
}
