//! What does the text of `routes.toml` hold, and where in it?
//!
//! The text is read by `toml_edit`, which knows where everything stands, and given to figment
//! as a [`Provider`]; so a complaint about a value can be traced back to its line.

use std::{fmt, ops::Range};

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Tag, Value},
};
use toml_edit::{Item, TableLike};

use super::{
    complaint::{Complaint, Place, Spot},
    quote, secret,
};

/// How many lines that are no TOML are passed over to find the next one.
const BROKEN_LINES: usize = 20;

#[derive(Clone)]
pub struct Document {
    /// The file's name as it is told in complaints.
    name: String,
    text: String,
    toml: toml_edit::Document<String>,
    secrets: Vec<Range<usize>>,
}

/// Without the text, in which secrets may stand.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What of a key is meant: its name or its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Name,
    Value,
}

impl Document {
    /// The document, without the lines that are no TOML, and a complaint about each of those.
    /// After a fault that may reach beyond its line nothing is left, since whatever else would be
    /// said might be wrong.
    pub fn parse(name: &str, text: String) -> (Self, Vec<Complaint>) {
        let mut complaints = Vec::new();
        let mut readable = text.clone();
        let toml = loop {
            let error = match toml_edit::Document::parse(readable.clone()) {
                Ok(toml) => break toml,
                Err(error) => error,
            };
            let span = error.span().unwrap_or(0..0);
            let place = Place::File(name.to_owned(), Some(quote::spot_in_broken(&text, &span)));
            complaints.push(syntax(error.message()).placed(place));
            if complaints.len() >= BROKEN_LINES || !blank(&mut readable, span.start) {
                break toml_edit::Document::parse(String::new()).expect("an empty text is TOML");
            }
        };
        let mut secrets = Vec::new();
        quote::secrets(toml.as_item(), &mut Vec::new(), &mut secrets);
        (Self { name: name.to_owned(), text, toml, secrets }, complaints)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where a key stands; of a key that is not there, the table that it would stand in.
    pub fn place(&self, path: &[String], mark: Mark) -> Place {
        let span = (0..path.len()).find_map(|missing| {
            let (head, rest) = path.split_at(path.len() - missing);
            self.span(head, if rest.is_empty() { mark } else { Mark::Value })
        });
        Place::File(self.name.clone(), span.map(|span| self.spot(&span)))
    }

    /// Is the key written here?
    pub fn has(&self, path: &[String]) -> bool {
        self.span(path, Mark::Value).is_some()
    }

    fn spot(&self, span: &Range<usize>) -> Spot {
        quote::spot(&self.text, span, &self.secrets)
    }

    fn span(&self, path: &[String], mark: Mark) -> Option<Range<usize>> {
        let (last, tables) = path.split_last()?;
        let mut item = self.toml.as_item();
        for name in tables {
            item = inner(item, name)?;
        }
        let named = item.as_table_like().and_then(|table| key_span(table, last));
        let value = inner(item, last)?;
        let span = match mark {
            Mark::Name => named,
            // The value of a table is its head.
            Mark::Value => value.span().or(named),
        };
        span.or_else(|| first_span(value))
    }
}

/// A table or an element of an array.
fn inner<'a>(item: &'a Item, name: &str) -> Option<&'a Item> {
    match item.as_table_like() {
        Some(table) => table.get(name),
        None => item.get(name.parse::<usize>().ok()?),
    }
}

fn key_span(table: &dyn TableLike, name: &str) -> Option<Range<usize>> {
    table.key(name)?.span()
}

/// Where the first thing in a table stands that has no head of its own, as with `[a.b]` alone.
fn first_span(item: &Item) -> Option<Range<usize>> {
    let (_, first) = item.as_table_like()?.iter().next()?;
    first.span().or_else(|| first_span(first))
}

/// Overwrites the line with blanks, so that every other place stays where it is. Refuses a line
/// whose fault may reach further: the head of a table, an open bracket, a text of several lines.
fn blank(text: &mut String, at: usize) -> bool {
    let (_, line) = quote::line_of(text, at);
    let body = &text[line.clone()];
    let closed = |open, close| body.matches(open).count() == body.matches(close).count();
    let alone = closed('[', ']') && closed('{', '}') && !body.contains("\"\"\"") && !body.contains("'''");
    let names_a_value = body.split_once('=').is_some_and(|(name, _)| !name.trim().is_empty());
    if !alone || !names_a_value || body.trim_start().starts_with('[') {
        return false;
    }
    let blanks = " ".repeat(line.len());
    text.replace_range(line, &blanks);
    true
}

/// A complaint about what is no TOML: the parser's words, or plainer ones where they puzzle.
fn syntax(message: &str) -> Complaint {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let expected = format!("write {expected}");
    let (what, instead) = match what {
        "string values must be quoted" => ("a text without quotes", "put it between quotes: \"…\""),
        "invalid float" | "invalid boolean" | "invalid integer" => {
            ("neither a number nor a text in quotes", "put a text between quotes: \"…\"")
        }
        "invalid basic string" | "invalid literal string" => {
            ("a text without an end", "put a quote behind it")
        }
        "duplicate key" => ("stands here a second time", "write all of it in one place"),
        "key with no value" => ("a key without a value", "write key = value"),
        "invalid key-value pair" => {
            ("no TOML", "write key = value; a client's JSON is turned into TOML by: waystation import FILE")
        }
        what if expected == "write nothing" || expected == "write " => (what, ""),
        what => (what, expected.as_str()),
    };
    Complaint::new("", what, instead)
}

impl Provider for Document {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, dict(self.toml.as_table()))]))
    }
}

fn dict(table: &dyn TableLike) -> Dict {
    table.iter().filter_map(|(name, item)| Some((name.to_owned(), value_of(item)?))).collect()
}

fn value_of(item: &Item) -> Option<Value> {
    match item {
        Item::None => None,
        Item::Value(value) => Some(from_toml(value)),
        Item::Table(table) => Some(Value::from(dict(table))),
        Item::ArrayOfTables(tables) => {
            Some(Value::Array(Tag::Default, tables.iter().map(|table| Value::from(dict(table))).collect()))
        }
    }
}

/// A value of TOML as figment has it.
pub fn from_toml(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => Value::from(text.value().as_str()),
        toml_edit::Value::Integer(number) => Value::from(*number.value()),
        toml_edit::Value::Float(number) => Value::from(*number.value()),
        toml_edit::Value::Boolean(truth) => Value::from(*truth.value()),
        toml_edit::Value::Datetime(time) => Value::from(time.value().to_string()),
        toml_edit::Value::Array(array) => Value::Array(Tag::Default, array.iter().map(from_toml).collect()),
        toml_edit::Value::InlineTable(table) => Value::from(dict(table)),
    }
}

/// A path as it is written in TOML: `backends.github.headers."X-Key"`.
pub fn dotted<S: AsRef<str>>(path: &[S]) -> String {
    let names: Vec<_> =
        path.iter().map(|name| toml_edit::Key::new(name.as_ref()).display_repr().into_owned()).collect();
    names.join(".")
}

/// The names of a path, as [`dotted`] wrote it.
pub fn undotted(at: &str) -> Vec<String> {
    match toml_edit::Key::parse(at) {
        _ if at.is_empty() => Vec::new(),
        Ok(names) => names.iter().map(|name| name.get().to_owned()).collect(),
        Err(_) => at.split('.').map(str::to_owned).collect(),
    }
}

/// A path without the names in it that look like secrets.
pub fn shown(at: &str) -> String {
    let shown = |name: &String| if secret::better_hidden(name) { "…".to_owned() } else { dotted(&[name]) };
    undotted(at).iter().map(shown).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &str) -> Vec<String> {
        undotted(path)
    }

    fn read(text: &str) -> Document {
        let (document, complaints) = Document::parse("routes.toml", text.to_owned());
        assert_eq!(complaints, []);
        document
    }

    #[test]
    fn a_key_is_found_wherever_it_is_written() {
        let check = |text: &str, path: &str, mark, line: usize, column: usize| {
            let Place::File(_, Some(spot)) = read(text).place(&names(path), mark) else { panic!("{path}") };
            assert_eq!((spot.line, spot.column), (line, column), "{path} in {text}");
        };
        check("[listen]\naddress = \"x\"", "listen.address", Mark::Value, 2, 11);
        check("[listen]\naddress = \"x\"", "listen.address", Mark::Name, 2, 1);
        check("listen = { address = \"x\" }", "listen.address", Mark::Value, 1, 22);
        check("listen.address = \"x\"", "listen.address", Mark::Value, 1, 18);
        check("\n\n[backends.x]\nargs = [\n  1,\n  2]", "backends.x.args.1", Mark::Value, 6, 3);
        check("\n[backends.x]\n", "backends.x", Mark::Value, 2, 1);
        check("\n[backends.x]\n", "backends.x.url", Mark::Value, 2, 1);
        check("\n[backends.x.env]\nA = 1", "backends.x", Mark::Value, 2, 11);
        check("[backends.\"x.y\"]\nurl = 1", "backends.\"x.y\".url", Mark::Value, 2, 7);
    }

    #[test]
    fn every_broken_line_is_told() {
        let (document, complaints) =
            Document::parse("routes.toml", "[listen]\naddress = 127.0.0.1:80\nadmin = \nhosts = []\n".into());
        let lines: Vec<_> = complaints.iter().map(|complaint| complaint.line()).collect();
        assert_eq!(lines, [Some(2), Some(3)], "{complaints:?}");
        assert!(document.has(&names("listen.hosts")));
    }

    #[test]
    fn a_fault_that_may_reach_further_is_told_alone() {
        let text = "[listen\naddress = 1\n[backends.x]\nargs = [\"a\"\nurl = 2";
        let (document, complaints) = Document::parse("routes.toml", text.into());
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(!document.has(&names("listen")));
    }

    #[test]
    fn a_path_reads_back_as_it_is_written() {
        assert_eq!(undotted(""), Vec::<String>::new());
        for path in ["listen", "backends.x.url", "deadline.tools.\"chat__*\".idle"] {
            assert_eq!(dotted(&undotted(path)), path);
        }
    }
}
