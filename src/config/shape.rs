//! Does every value have the shape that its key takes?
//!
//! serde stops at the first fault, and people want to hear of all of them. So a fault is noted,
//! the value that has it is taken out, and the rest is read again, until nothing is wrong.

use figment::{
    error::{Actual, Error, Kind},
    value::{Dict, Value},
};

use super::{
    Config,
    document::{Mark, dotted, shown},
    schema, secret, similar,
};

/// No file has so many faults; a fault that cannot be taken out must not keep us here for ever.
const ENOUGH: usize = 500;

/// A value that its key does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub path: Vec<String>,
    pub mark: Mark,
    pub what: String,
    pub instead: String,
}

/// What can be read, and what cannot.
pub fn read(values: Dict) -> (Config, Vec<Fault>) {
    let mut values = Value::from(values);
    let mut faults = Vec::new();
    numbers_for_choices(&values, &mut Vec::new(), &mut faults);
    for fault in &faults {
        take_out(&mut values, &fault.path);
    }
    while faults.len() < ENOUGH {
        let error = match values.deserialize::<Config>() {
            Ok(config) => return (config, faults),
            Err(error) => error,
        };
        let fault = fault(&error, &values);
        let gone = take_out(&mut values, &fault.path);
        faults.push(fault);
        if !gone {
            break;
        }
    }
    (Config::default(), faults)
}

/// figment takes a number for the place of a choice in the list of choices, which nobody means.
fn numbers_for_choices(value: &Value, path: &mut Vec<String>, faults: &mut Vec<Fault>) {
    if let Value::Dict(_, table) = value {
        for (name, inner) in table {
            path.push(name.clone());
            numbers_for_choices(inner, path, faults);
            path.pop();
        }
    } else if let (Value::Num(..), Some(key)) = (value, schema::at(path))
        && !key.choices().is_empty()
    {
        let (what, instead) = (format!("takes {}, not a number", key.wants()), String::new());
        faults.push(Fault { path: path.clone(), mark: Mark::Value, what, instead });
    }
}

/// Takes the value at the path out of the tree; of a list, all of it, so that the places of its
/// other elements stay what they are. False if there is none.
fn take_out(value: &mut Value, path: &[String]) -> bool {
    let (Value::Dict(_, table), Some((name, rest))) = (value, path.split_first()) else { return false };
    match table.get_mut(name) {
        None => false,
        Some(inner @ Value::Dict(..)) if !rest.is_empty() => take_out(inner, rest),
        Some(_) => table.remove(name).is_some(),
    }
}

fn find<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Dict(_, table) => table.get(name),
        Value::Array(_, elements) => elements.get(name.parse::<usize>().ok()?),
        Value::String(..) | Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => None,
    })
}

/// serde's error in our words.
fn fault(error: &Error, values: &Value) -> Fault {
    let path = error.path.clone();
    let mark = if matches!(error.kind, Kind::UnknownField(..)) { Mark::Name } else { Mark::Value };
    let hidden = find(values, &path).and_then(Value::as_str).is_some_and(secret::better_hidden);
    let (what, instead) = match (&error.kind, schema::at(&path)) {
        // serde quotes the value.
        (_, Some(key)) if hidden => (format!("takes {}", key.wants()), write(&key)),
        (Kind::UnknownField(name, known), _) => unknown_key(&path, name, known),
        (Kind::UnknownVariant(text, choices), _) => {
            let choices: Vec<_> = choices.to_vec();
            (format!("\"{text}\" is none of its values"), similar::did_you_mean(text, &choices))
        }
        (_, Some(key)) if key.may_be_secret() && key.entries().is_none() => {
            reference(find(values, &path), &key)
        }
        (Kind::InvalidType(actual, _), Some(key)) => {
            (format!("takes {}, not {}", key.wants(), kind_of(actual)), write(&key))
        }
        (Kind::InvalidValue(Actual::Signed(_) | Actual::Unsigned(_), _), Some(key)) => {
            (format!("takes {} from 0 on", key.wants()), write(&key))
        }
        (Kind::Message(message), Some(key)) if message.contains("socket address") => {
            ("is not an IP address and a port".into(), write(&key))
        }
        (Kind::Message(message), key) => match message.split_once("; ") {
            Some((what, instead)) => (what.to_owned(), instead.to_owned()),
            None => (message.clone(), key.map(|key| write(&key)).unwrap_or_default()),
        },
        (kind, key) => (kind.to_string(), key.map(|key| write(&key)).unwrap_or_default()),
    };
    Fault { path, mark, what, instead }
}

fn write(key: &schema::Key) -> String {
    key.example()
        .map(|example| format!("write for instance {example}, which is the default"))
        .unwrap_or_default()
}

fn kind_of(actual: &Actual) -> String {
    match actual {
        Actual::Bool(truth) => truth.to_string(),
        Actual::Unsigned(_) | Actual::Signed(_) => "a number".into(),
        Actual::Float(_) => "a number with a point".into(),
        Actual::Str(_) | Actual::Char(_) => "a text".into(),
        Actual::Seq => "a list".into(),
        Actual::Map => "a table".into(),
        other => other.to_string(),
    }
}

/// Words from other programs' configurations, and what they are called here.
const ELSEWHERE: [(&str, &str); 13] = [
    ("host", "`address` holds the host and the port: address = \"127.0.0.1:8080\""),
    ("port", "`address` holds the host and the port: address = \"127.0.0.1:8080\""),
    ("bind", "it is called `address` here"),
    ("type", "give `command` or `url`; for the oldest servers also transport = \"sse\""),
    ("disabled", "write enabled = false"),
    ("timeout", "`connect_timeout` is for connecting; calls have the table [deadline]"),
    ("environment", "it is called `env` here"),
    ("directory", "it is called `cwd` here"),
    ("mcpServers", "a client's file is turned into this one by: waystation import FILE"),
    ("servers", "each backend has a table of its own: [backends.NAME]"),
    ("backend", "each backend has a table of its own: [backends.NAME]"),
    ("server", "what is about clients is called [listen], and each server is [backends.NAME]"),
    ("logging", "it is called [log] here"),
];

fn unknown_key(path: &[String], name: &str, known: &[&'static str]) -> (String, String) {
    let table = path.split_last().map(|(_, table)| shown(&dotted(table))).unwrap_or_default();
    let name = if secret::better_hidden(name) { "…" } else { name };
    let what = if table.is_empty() {
        format!("there is no table [{name}]")
    } else {
        format!("there is no key `{name}` in [{table}]")
    };
    let called = ELSEWHERE.iter().find(|(word, _)| *word == name && !known.contains(word));
    let instead = called.map(|(_, here)| (*here).to_owned());
    (what, instead.unwrap_or_else(|| similar::did_you_mean(name, known)))
}

/// What is wrong with a value that is neither a text nor says where to find one.
fn reference(value: Option<&Value>, key: &schema::Key) -> (String, String) {
    let right = format!("write {}", key.wants());
    let Some(table) = value.and_then(Value::as_dict) else {
        return ("is neither a text nor says where to find one".into(), right);
    };
    let known = ["env", "file", "prefix"];
    match table.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => (format!("there is no `{name}` in a reference"), similar::did_you_mean(name, &known)),
        None if table.contains_key("env") && table.contains_key("file") => {
            ("names both a variable and a file".into(), "write one of the two".into())
        }
        None => ("does not say where to find the text".into(), right),
    }
}
