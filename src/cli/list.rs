//! `waystation list`: which tools, prompts and resources are there?

use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Outcome, Sources,
    client::{Client, Fault},
    fail,
    gateway::{Asked, Target, ask},
    print,
    table::{draw, shortened},
};
use crate::{config::Environment, wire::mcp::List};

pub const EXAMPLES: &str = "\
Examples:
  waystation list
  waystation list --kind tools --json | jq -r '.tools[].name'
  waystation list --url http://127.0.0.1:8080/mcp/github     one backend, with its own names";

/// As much of a description as a line has room for.
const LINE: usize = 90;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Prints the entries as the servers describe them.
    #[arg(long)]
    json: bool,
    /// Only these.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    #[command(flatten)]
    pub(super) target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Tools,
    Prompts,
    /// Resources, and templates of their addresses.
    Resources,
}

impl Kind {
    fn lists(self) -> &'static [List] {
        match self {
            Self::Tools => &[List::Tools],
            Self::Prompts => &[List::Prompts],
            Self::Resources => &[List::Resources, List::Templates],
        }
    }
}

pub fn list(arguments: &Arguments, common: Sources, environment: Environment) -> Outcome {
    let lists = arguments.kind.map_or(&List::ALL[..], Kind::lists);
    ask(&arguments.target, common, environment, async |asked| match read(&asked, lists).await {
        Ok(read) if arguments.json => print(&as_json(&read)),
        Ok(read) => print(&as_tables(&read)),
        Err(outcome) => outcome,
    })
}

type Entries = Vec<(List, Vec<Box<RawValue>>)>;

async fn read(asked: &Asked, lists: &[List]) -> Result<Entries, Outcome> {
    let client: Client = asked.client()?;
    let mut read = Vec::new();
    for list in lists {
        let entries: Result<_, Fault> = client.list_if_any(*list).await;
        read.push((*list, entries.map_err(fail)?));
    }
    Ok(read)
}

/// The entries as they came, under the names that MCP has for the lists.
fn as_json(read: &Entries) -> String {
    let lists: Vec<_> = read
        .iter()
        .map(|(list, entries)| {
            let entries: Vec<_> = entries.iter().map(|entry| format!("    {}", entry.get())).collect();
            let body =
                if entries.is_empty() { "[]".to_owned() } else { format!("[\n{}\n  ]", entries.join(",\n")) };
            format!("  \"{}\": {body}", list.member())
        })
        .collect();
    format!("{{\n{}\n}}\n", lists.join(",\n"))
}

fn as_tables(read: &Entries) -> String {
    let tables: Vec<_> = read.iter().filter(|(_, entries)| !entries.is_empty()).map(as_table).collect();
    if tables.is_empty() { "nothing is there\n".into() } else { tables.join("\n") }
}

fn as_table((list, entries): &(List, Vec<Box<RawValue>>)) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Entry {
        name: String,
        title: Option<String>,
        uri: Option<String>,
        #[serde(rename = "uriTemplate")]
        uri_template: Option<String>,
        description: Option<String>,
    }
    let rows = entries.iter().map(|entry| {
        let entry: Entry = serde_json::from_str(entry.get()).unwrap_or_default();
        let Entry { name, title, uri, uri_template, description } = entry;
        let key = uri.or(uri_template).unwrap_or_else(|| name.clone());
        let says = description.or(title).unwrap_or(name);
        vec![shortened(&key, usize::MAX), shortened(first_sentence(&says), LINE)]
    });
    let rows: Vec<_> = rows.collect();
    draw(&[&format!("{} ({})", title(*list), rows.len()), ""], &rows)
}

fn title(list: List) -> &'static str {
    match list {
        List::Tools => "TOOLS",
        List::Prompts => "PROMPTS",
        List::Resources => "RESOURCES",
        List::Templates => "RESOURCE TEMPLATES",
        List::Skills => "SKILLS",
    }
}

fn first_sentence(text: &str) -> &str {
    let text = text.trim();
    let end = ["\n\n", ". ", ".\n"].iter().filter_map(|end| text.find(end)).min();
    end.map_or(text, |end| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> Entries {
        let raw = |text: &str| serde_json::from_str(text).unwrap();
        let tool =
            raw(r#"{"name":"docs__search","description":"Searches.  All of it\u001b[2J.\nMore.","n":1.0}"#);
        let resource = raw(r#"{"uri":"file:///a","name":"A"}"#);
        vec![(List::Tools, vec![tool]), (List::Prompts, vec![]), (List::Resources, vec![resource])]
    }

    #[test]
    fn entries_are_listed_by_what_they_are_called_with() {
        assert_eq!(
            as_tables(&entries()),
            "TOOLS (1)\ndocs__search  Searches\n\nRESOURCES (1)\nfile:///a      A\n"
        );
    }

    #[test]
    fn json_has_every_entry_as_it_came() {
        let text = as_json(&entries());
        assert!(text.contains("\"n\":1.0}") && text.contains("\"prompts\": []"), "{text}");
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
    }
}
