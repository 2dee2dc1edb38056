//! How does each message read on the other side? One file a case, under `golden/`.
//!
//! A file says in its first line what is done, in the next ones how, then comes the text that
//! goes in, a line of dashes, and the text that comes out. `UPDATE=1` writes the last part anew.

use std::{collections::BTreeMap, fs, path::Path};

use waystation::wire::{
    icon,
    json::Limits,
    mcp::{Era, INTRODUCTION, Method, Revision},
    message::Message,
    older,
    project::{self, Envelope, Hop, Reader},
    question,
    trace::Trace,
};

const DASHES: &str = "\n----\n";

/// What a file says before its text.
struct Rule<'a> {
    what: &'a str,
    of: &'a str,
    with: BTreeMap<&'a str, &'a str>,
}

impl<'a> Rule<'a> {
    /// The rule, and the text that goes in.
    fn read(input: &'a str) -> (Self, &'a str) {
        let (head, text) = input.split_at(input.find("\n{").expect("a text that is an object") + 1);
        let mut lines = head.lines();
        let (what, of) = lines.next().and_then(|line| line.split_once(' ')).expect("what is done");
        let with = lines.map(|line| line.split_once(": ").expect("a key and a value"));
        (Self { what, of, with: with.collect() }, text)
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.with.get(key).copied()
    }

    fn era(&self, key: &str) -> Era {
        match self.get(key) {
            Some("legacy") => Era::Legacy,
            Some("modern") => Era::Modern,
            other => panic!("no era: {other:?}"),
        }
    }

    fn method(&self) -> Method {
        Method::parse(self.of).expect("a method")
    }

    fn apply(&self, text: &str) -> Vec<u8> {
        let message = || Message::parse(text.to_owned().into(), &Limits::REPLY).expect("a message");
        match self.what {
            "request" => {
                let level = self.get("envelope").map(|level| format!("\"{level}\""));
                let envelope = level.as_deref().map(|level| Envelope {
                    revision: Revision::NEWEST,
                    capabilities: "{}",
                    client_info: "{\"name\":\"waystation\"}",
                    log_level: Some(level).filter(|level| *level != "\"silent\""),
                });
                let id = self.get("id").expect("an id").parse().expect("a number");
                let progress = self.get("progress").is_some();
                let older = self.get("backend").and_then(Revision::parse).unwrap_or(Revision::NEWEST_LEGACY);
                let revision = if envelope.is_some() { Revision::NEWEST } else { older };
                let trace = Trace::of(|name| self.get(name).map(str::to_owned));
                let target = self.get("target");
                let hop = Hop { id, target, progress, envelope, revision, trace: trace.as_ref() };
                project::request(&message(), self.method(), &hop)
            }
            "response" => {
                let revision = self.get("reader").and_then(Revision::parse).expect("a reader's revision");
                let reader = Reader {
                    revision,
                    id: self.get("id").unwrap_or("\"c-7\"").as_bytes(),
                    server_info: INTRODUCTION,
                    method: self.method(),
                    wrapped: self.get("wrapped").is_some(),
                };
                project::response(&message(), self.era("written_in"), &reader)
            }
            "older" => {
                let revision = self.get("reader").and_then(Revision::parse).expect("a reader's revision");
                let older = older::result(text.as_bytes(), self.method(), revision);
                older.unwrap_or_else(|| b"(as it is)".to_vec())
            }
            "tool" => {
                let (mut entry, wrapped) = project::tool(text.as_bytes(), self.of, self.era("reader"));
                entry.extend_from_slice(format!("\nwrapped: {wrapped}").as_bytes());
                entry
            }
            "icons" => icon::safe_icons(text.as_bytes()).unwrap_or_else(|| b"as it is".to_vec()),
            "question" => {
                let revision = Revision::parse(self.of).expect("a revision");
                let question = question::question(text.trim_end().as_bytes(), 5, revision);
                question.unwrap_or_else(|why| format!("refused: {why}").into_bytes())
            }
            "embedded" => question::embedded(&message(), self.get("page")),
            "entry" => project::entry(text.as_bytes(), self.of, self.get("name").expect("a name")),
            "progress" => project::progress(&message(), self.get("token").expect("a token").as_bytes()),
            other => panic!("nothing is known of {other}"),
        }
    }
}

#[test]
fn every_message_reads_on_the_other_side_as_its_file_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden");
    let mut wrong = Vec::new();
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 30, "only {} files", files.len());
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let (input, expected) = text.split_once(DASHES).unwrap_or_else(|| panic!("{}", file.display()));
        let (rule, message) = Rule::read(input);
        let version = concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\"");
        let output = String::from_utf8(rule.apply(message)).expect("UTF-8");
        let output = output.replace(version, "\"version\":\"…\"");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&file, format!("{input}{DASHES}{output}\n")).unwrap();
        } else if output != expected.trim_end() {
            wrong.push(format!("{}:\n  {output}\nand not\n  {expected}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
