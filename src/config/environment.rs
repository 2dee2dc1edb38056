//! Which keys does the environment set?
//!
//! `WAYSTATION_LISTEN__ADDRESS` is `listen.address`: two underscores are a dot. A value is read
//! as the key takes it: a text as it is, everything else as TOML would have it. Where a table
//! takes any names, the name is turned into what can stand there, since a variable has no `-`
//! and is written in capitals: a backend is `my-server` for `MY_SERVER`, a header
//! `x-api-key` for `X_API_KEY`; a child's own variables keep their letters.

use std::{collections::BTreeMap, fmt};

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::{
    complaint::{Complaint, Place},
    document::from_toml,
    schema,
};

const PREFIX: &str = "WAYSTATION_";
/// Variables that are the command line's.
pub const CONFIG_FILE: &str = "WAYSTATION_CONFIG";

/// The environment, as it was handed over. Nothing here asks the process for it.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// Names alone: what they hold may be secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// The process's own. Variables that are no text are left out.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// The keys that the environment sets, each with its variable.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<Override>);

#[derive(Clone)]
struct Override {
    variable: String,
    path: Vec<String>,
    value: Value,
}

/// Without the value, which may be secret.
impl fmt::Debug for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.variable)
    }
}

impl Overrides {
    pub fn read(environment: &Environment) -> (Self, Vec<Complaint>) {
        let mut overrides = Vec::new();
        let mut complaints = Vec::new();
        for (variable, text) in &environment.0 {
            let Some(name) = variable.strip_prefix(PREFIX).filter(|_| variable != CONFIG_FILE) else {
                continue;
            };
            if name.contains("__") {
                let path = path_of(name);
                let value = value_of(&path, text);
                overrides.push(Override { variable: variable.clone(), path, value });
            } else {
                complaints.extend(one_underscore_short(variable, name));
            }
        }
        (Self(overrides), complaints)
    }

    /// The variable that sets this key, or something in it.
    pub fn variable(&self, path: &[String]) -> Option<&str> {
        let above = self.0.iter().find(|one| path.starts_with(&one.path));
        above
            .or_else(|| self.0.iter().find(|one| one.path.starts_with(path)))
            .map(|one| one.variable.as_str())
    }

    /// Does a variable set this very key, or a table around it?
    pub fn sets(&self, path: &[String]) -> bool {
        self.0.iter().any(|one| path.starts_with(&one.path))
    }
}

/// Kubernetes puts `WAYSTATION_PORT` and the like into the environment of its own accord, so a
/// name with single underscores is only taken for a mistake if it is nearly that of a key.
fn one_underscore_short(variable: &str, name: &str) -> Option<Complaint> {
    let name = name.to_lowercase();
    let meant = name.match_indices('_').map(|(at, _)| [&name[..at], &name[at + 1..]]);
    let path = meant.into_iter().find(|path| schema::at(path).is_some())?;
    let right = format!("{PREFIX}{}", path.join("__").to_uppercase());
    let complaint = Complaint::new(
        path.join("."),
        "a dot in a key is two underscores in its variable",
        format!("write {right}"),
    );
    Some(complaint.placed(Place::Variable(variable.to_owned())))
}

fn path_of(name: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    let mut segments = name.split("__").peekable();
    while let Some(segment) = segments.next() {
        let table = schema::at(&path);
        match table.and_then(schema::Key::entries) {
            Some(entry) if entry.may_be_secret() => {
                // The last table there is: what follows is one name, underscores and all.
                let rest: Vec<_> = std::iter::once(segment).chain(segments.by_ref()).collect();
                let name = rest.join("__");
                let header = path.last().is_some_and(|last| last == "headers");
                path.push(if header { name.to_lowercase().replace('_', "-") } else { name });
            }
            Some(_) if path == ["backends"] => path.push(segment.to_lowercase().replace('_', "-")),
            Some(_) => path.push(segment.to_owned()),
            None => path.push(segment.to_lowercase()),
        }
    }
    path
}

/// The value as the key takes it. Where neither reading fits, the text stays, and is complained
/// about by whoever reads the key.
fn value_of(path: &[String], text: &str) -> Value {
    let as_text = || Value::from(text);
    let key = schema::at(path);
    let Ok(read) = text.trim().parse::<toml_edit::Value>() else { return as_text() };
    let kind = match &read {
        toml_edit::Value::String(_) => "string",
        toml_edit::Value::Integer(_) => "integer",
        toml_edit::Value::Float(_) => "number",
        toml_edit::Value::Boolean(_) => "boolean",
        toml_edit::Value::Datetime(_) => return as_text(),
        toml_edit::Value::Array(_) => "array",
        toml_edit::Value::InlineTable(_) => "object",
    };
    match key {
        Some(key) if key.takes(kind) => from_toml(&read),
        Some(_) | None => as_text(),
    }
}

impl Provider for Overrides {
    fn metadata(&self) -> Metadata {
        Metadata::named("the environment")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for one in &self.0 {
            insert(&mut root, &one.path, one.value.clone());
        }
        Ok(Map::from([(Profile::Default, root)]))
    }
}

fn insert(table: &mut Dict, path: &[String], value: Value) {
    let Some((name, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.insert(name.clone(), value);
        return;
    }
    let mut inner = table.remove(name).and_then(Value::into_dict).unwrap_or_default();
    insert(&mut inner, rest, value);
    table.insert(name.clone(), Value::from(inner));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(variable: &str) -> String {
        path_of(variable).join(".")
    }

    #[test]
    fn a_variable_names_a_key() {
        assert_eq!(path("LISTEN__ADDRESS"), "listen.address");
        assert_eq!(path("BACKENDS__MY_SERVER__URL"), "backends.my-server.url");
        assert_eq!(path("BACKENDS__X__HEADERS__X_API_KEY"), "backends.x.headers.x-api-key");
        assert_eq!(path("BACKENDS__X__ENV__Some__Thing"), "backends.x.env.Some__Thing");
    }

    #[test]
    fn a_value_is_read_as_its_key_takes_it() {
        let check = |path: &str, text, expected: Value| {
            let path: Vec<_> = path.split('.').map(str::to_owned).collect();
            assert_eq!(value_of(&path, text), expected, "{text}");
        };
        check("listen.page_size", "17", Value::from(17_i64));
        check("listen.page_size", "many", Value::from("many"));
        check("listen.hosts", "[\"a\"]", Value::from(vec!["a"]));
        check("listen.address", "127.0.0.1:1", Value::from("127.0.0.1:1"));
        check("backends.x.enabled", "false", Value::from(false));
        check("backends.x.command", "17", Value::from("17"));
        check("backends.x.env.PORT", "8080", Value::from("8080"));
        check("backends.x.env.T", "{ env = \"A\" }", Value::from(Map::from([("env", "A")])));
    }

    #[test]
    fn a_missing_underscore_is_told_and_other_peoples_variables_are_not_ours() {
        let read = |name: &str| Overrides::read(&Environment::from_iter([(name, "1")])).1;
        let complaint = &read("WAYSTATION_LISTEN_ADDRESS")[0];
        assert!(complaint.instead.contains("WAYSTATION_LISTEN__ADDRESS"), "{complaint}");
        assert!(read("WAYSTATION_LISTEN_PAGE_SIZE")[0].instead.contains("WAYSTATION_LISTEN__PAGE_SIZE"));
        for name in ["WAYSTATION_PORT", "WAYSTATION_SERVICE_HOST", "WAYSTATION_CONFIG", "PATH"] {
            assert_eq!(read(name), [], "{name}");
        }
    }
}
