//! How is a line of the file shown without showing a secret?
//!
//! A value is shown only where its key is known to hold no secret: whatever stands under an
//! unknown key, in an environment or in a header is left out, and so is what looks like a secret
//! wherever it is. In a file that is no TOML nobody can say what stands where, so there the
//! value goes by the name before it, and a line without one is left out.

use std::ops::Range;

use toml_edit::{Item, Value};

use super::{complaint::Spot, schema, secret};
use crate::weaken;

const LEFT_OUT: &str = "…";

/// Where secrets may stand in a parsed document, as ranges of bytes.
pub fn secrets(item: &Item, path: &mut Vec<String>, found: &mut Vec<Range<usize>>) {
    if let Some(table) = item.as_table_like() {
        for (key, inner) in table.iter() {
            if secret::better_hidden(key) {
                found.extend(table.key(key).and_then(toml_edit::Key::span));
            }
            path.push(key.to_owned());
            secrets(inner, path, found);
            path.pop();
        }
    } else if let Some(tables) = item.as_array_of_tables() {
        for table in tables {
            secrets(&Item::Table(table.clone()), path, found);
        }
    } else if let (Some(value), Some(span)) = (item.as_value(), item.span()) {
        found.extend(in_value(value, path, span));
    }
}

fn in_value(value: &Value, path: &[String], span: Range<usize>) -> Vec<Range<usize>> {
    let shown = schema::at(path).is_some_and(|key| !key.may_be_secret());
    match value {
        Value::String(text) if shown && !secret::better_hidden(text.value()) => Vec::new(),
        Value::Array(array) if shown => {
            let secrets =
                secret::in_arguments(array.iter().map(|element| element.as_str().unwrap_or_default()));
            let nested = |value: &Value| value.is_array() || value.is_inline_table();
            array
                .iter()
                .zip(secrets)
                .filter(|(element, secret)| *secret || nested(element))
                .filter_map(|(element, _)| element.span())
                .collect()
        }
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) if shown => Vec::new(),
        _ => vec![span],
    }
}

/// The place of a range of bytes, with its line quoted without the ranges in `hidden`.
pub fn spot(text: &str, range: &Range<usize>, hidden: &[Range<usize>]) -> Spot {
    let hidden = if weaken::is("secrets-shown") { &[] } else { hidden };
    let (number, line) = line_of(text, range.start);
    let range = range.start..range.end.min(line.end).max(range.start);
    let mut quoted = String::new();
    let mut marked = 0..0;
    let mut at = line.start;
    let mut cuts: Vec<_> = hidden.iter().filter(|cut| cut.end > line.start && cut.start < line.end).collect();
    cuts.sort_by_key(|cut| cut.start);
    for cut in cuts.into_iter().map(|cut| cut.start.max(line.start)..cut.end.min(line.end)) {
        if cut.start < at {
            continue;
        }
        copy(text, at..cut.start, &range, &mut quoted, &mut marked);
        let before = quoted.len();
        quoted.push_str(LEFT_OUT);
        if range.start >= cut.start && range.start < cut.end {
            marked.start = before;
        }
        if range.end > cut.start && range.end <= cut.end {
            marked.end = quoted.len();
        }
        at = cut.end;
    }
    copy(text, at..line.end, &range, &mut quoted, &mut marked);
    marked.end = marked.end.clamp(marked.start, quoted.len());
    let column = text[line.start..range.start].chars().count() + 1;
    // In a comment, for instance.
    let is_secret = secret::looks_like(&quoted) || secret::user_info(&quoted).is_some();
    if is_secret && !weaken::is("secrets-shown") {
        (quoted, marked) = (LEFT_OUT.to_owned(), 0..LEFT_OUT.len());
    }
    Spot { line: number, column, quoted, marked }
}

/// Copies a part of the line, and notes where the marked range begins and ends in the copy.
fn copy(
    text: &str,
    part: Range<usize>,
    range: &Range<usize>,
    quoted: &mut String,
    marked: &mut Range<usize>,
) {
    let base = quoted.len();
    if (part.start..=part.end).contains(&range.start) {
        marked.start = base + range.start - part.start;
    }
    if (part.start..=part.end).contains(&range.end) {
        marked.end = base + range.end - part.start;
    }
    quoted.push_str(&text[part]);
}

/// The place of a range in a text that is no TOML.
pub fn spot_in_broken(text: &str, range: &Range<usize>) -> Spot {
    let (_, line) = line_of(text, range.start);
    let body = &text[line.clone()];
    let mut hidden: Vec<Range<usize>> = Vec::new();
    let header = body.trim_start().starts_with('[') && !body.contains(['=', '"', '\'']);
    let comment = body.trim_start().starts_with('#');
    if !header && !comment {
        let from = match body.split_once('=') {
            Some((key, value)) if names_no_secret(key, value) => line.end,
            Some((key, _)) if is_key(key) => line.start + key.len() + 1,
            Some(_) | None => line.start,
        };
        hidden.push(from..line.end);
    }
    spot(text, range, &hidden)
}

fn is_key(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ' | '\t'))
}

/// May the value after this key be shown, though nobody knows in which table the key stands?
fn names_no_secret(key: &str, value: &str) -> bool {
    let name = key.trim().rsplit('.').next().unwrap_or_default();
    let words = value.replace(['"', '\''], " ");
    is_key(key)
        && schema::harmless_names().contains(name)
        && !value.contains(['{', '['])
        && !secret::better_hidden(&words)
}

/// The line that holds this byte: its number from 1, and its range without the line's end.
pub fn line_of(text: &str, at: usize) -> (usize, Range<usize>) {
    let at = at.min(text.len());
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let end = text[at..].find('\n').map_or(text.len(), |end| at + end);
    let end = if text[start..end].ends_with('\r') { (end - 1).max(at) } else { end };
    (text[..start].matches('\n').count() + 1, start..end)
}
