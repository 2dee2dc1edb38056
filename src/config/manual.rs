//! How does the page look that lists every key: `docs/configuration.md`?
//!
//! It is made from the schema, and so from the comments beside the code, in the order of
//! `routes.toml`. A test compares the page with what is made here.

use std::fmt::Write as _;

use super::{
    BUILT_IN,
    schema::{self, Key},
};

const HEAD: &str = "\
# Configuration

Every key of `routes.toml`, made from the comments in the code by `waystation schema --markdown`.
The file itself, [`routes.toml`](../routes.toml), says the same with examples; its JSON Schema is
[`routes.schema.json`](routes.schema.json).

Waystation reads the file that `--config` or `WAYSTATION_CONFIG` names, else `./routes.toml`, else a copy built into the program.
Every key can be set from the environment too, and that wins over the file: write the key in capitals after `WAYSTATION_`, with two underscores for each dot.
A value in the environment is written as in TOML; a text needs no quotes.
Where a table takes names of your own, a backend `my-server` is `MY_SERVER` and a header `X-Api-Key` is `X_API_KEY`.

`waystation check` says everything that is wrong with a configuration at once, each with its line and what would be right, and starts nothing.

## Secrets

No secret belongs into the file.
Where a value may be secret, say where it is found instead:

| written | is |
|---|---|
| `{ env = \"NAME\" }` | what the environment variable `NAME` holds |
| `{ file = \"path\" }` | what the file holds, without a line end at its end |
| `{ env = \"NAME\", prefix = \"Bearer \" }` | the same, with a text put before it |
| `\"text\"` | the text itself, for what is no secret |
";

/// The page.
pub fn text() -> String {
    let mut page = HEAD.to_owned();
    for (name, key) in ordered("", schema::root()) {
        // A table whose entries have names of one's own is `backends.NAME`.
        let path = if key.entries().is_some() { format!("{name}.NAME") } else { name.to_owned() };
        let _ = write!(page, "\n## `[{path}]`\n\n{}\n", sentences(&about(key)));
        keys(name, key.entries().unwrap_or(key), &path, &mut page);
    }
    page
}

/// What is said of a table, and of its entries if it has such.
fn about(key: Key) -> String {
    let entry = key.entries().map(Key::says).unwrap_or_default();
    [key.says(), entry].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
}

fn keys(table: &str, key: Key, path: &str, page: &mut String) {
    for (name, inner) in ordered(table, key) {
        let entry = inner.entries().filter(|entry| entry.keys().next().is_some());
        if let Some(entry) = entry {
            let _ = write!(page, "\n### `{path}.{name}`\n\nA table.\n\n{}\n", sentences(inner.says()));
            keys(table, entry, &format!("{path}.{name}.NAME"), page);
            continue;
        }
        let within = format!("{path}.{name}");
        // A table that has a place of its own in the file, and not a page of its own.
        if inner.keys().next().is_some() && BUILT_IN.contains(&format!("[{within}]")) {
            let _ = write!(page, "\n### `[{within}]`\n\n{}\n", sentences(inner.says()));
            keys(&within, inner, &within, page);
            continue;
        }
        let _ = write!(
            page,
            "\n### `{path}.{name}`\n\n{}\n\n{}\n",
            facts(inner, path, name),
            sentences(inner.says())
        );
        let choices = inner.choices().into_iter().filter(|(_, meaning)| !meaning.is_empty());
        let choices: String =
            choices.map(|(choice, meaning)| format!("- `\"{choice}\"`: {meaning}\n")).collect();
        if !choices.is_empty() {
            let _ = write!(page, "\n{choices}");
        }
    }
}

/// What it takes, what it is where nothing is said, and its variable.
fn facts(key: Key, path: &str, name: &str) -> String {
    let wants = match key.entries() {
        Some(entry) => format!("a table, each value {}", entry.wants()),
        None => key.wants(),
    };
    let mut letters = wants.chars();
    let wants: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    let default = match key.default() {
        Some(value) if value.as_object().is_some_and(serde_json::Map::is_empty) => "Default: none.".into(),
        Some(value) => format!("Default: `{value}`."),
        None => "Optional.".into(),
    };
    let variable = format!("WAYSTATION_{}__{}", path.replace('.', "__"), name).to_uppercase();
    format!("{wants}. {default} Variable: `{variable}`.")
}

/// A sentence a line, so that a change of one is a change of one line.
fn sentences(text: &str) -> String {
    text.replace(". ", ".\n")
}

/// The keys of a table in the order of `routes.toml`.
fn ordered(table: &str, key: Key) -> Vec<(&'static str, Key)> {
    let mut keys: Vec<_> = key.keys().collect();
    keys.sort_by_key(|(name, _)| place(table, name));
    keys
}

fn place(table: &str, name: &str) -> usize {
    let find = |from: usize, text: &str| BUILT_IN[from..].find(text).map(|at| from + at);
    if table.is_empty() {
        return find(0, &format!("[{name}]")).or_else(|| find(0, &format!("[{name}."))).unwrap_or(usize::MAX);
    }
    let start = place("", table).min(BUILT_IN.len());
    let written = [format!("\n#{name} = "), format!("\n{name} = "), format!("\n[{table}.{name}]")];
    written.iter().filter_map(|text| find(start, text)).min().unwrap_or(usize::MAX)
}
