//! What does a person type, and what does it mean?

use std::{io, io::BufRead as _, io::Read as _, thread};

use tokio::sync::mpsc::{Receiver, channel};

use crate::config::did_you_mean;

pub const HELP: &str = "\
/new          begin another conversation
/list         the conversations used last
/resume ID    go on with one of them
/fork         go on in a copy; the conversation stays as it is
/retry        run the last turn again, if it failed or was cut short
/model NAME   ask another model; without a name: which one is asked?
/quit         leave, as Ctrl-D does
//text        a message that begins with /
A line that ends with \\ goes on in the next one. Ctrl-C ends an answer that is being written.";

const COMMANDS: [&str; 8] = ["help", "new", "list", "resume", "fork", "retry", "model", "quit"];

#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    Nothing,
    Message(String),
    Command(Command),
    /// Why it means nothing.
    Unknown(String),
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    New,
    List,
    Resume(String),
    Fork,
    Retry,
    Model(Option<String>),
    Quit,
}

impl Typed {
    fn parse(text: &str) -> Self {
        let text = text.trim();
        let Some(command) = text.strip_prefix('/') else {
            return if text.is_empty() { Self::Nothing } else { Self::Message(text.to_owned()) };
        };
        if command.starts_with('/') {
            return Self::Message(command.to_owned());
        }
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = Some(rest.trim()).filter(|rest| !rest.is_empty()).map(str::to_owned);
        let command = match (name, rest) {
            ("help" | "?", None) => Command::Help,
            ("new", None) => Command::New,
            ("list", None) => Command::List,
            ("resume", Some(id)) => Command::Resume(id),
            ("resume", None) => {
                return Self::Unknown("/resume takes the id of a conversation; /list has them".into());
            }
            ("fork", None) => Command::Fork,
            ("retry", None) => Command::Retry,
            ("model", name) => Command::Model(name),
            ("quit" | "exit", None) => Command::Quit,
            (name, Some(_)) if COMMANDS.contains(&name) => {
                return Self::Unknown(format!("/{name} takes nothing behind it"));
            }
            (name, _) => {
                let hint = did_you_mean(name, &COMMANDS);
                return Self::Unknown(format!(
                    "there is no /{name}; {hint}. /help tells what there is, and // begins a message with /"
                ));
            }
        };
        Self::Command(command)
    }
}

/// Lines of standard input.
#[derive(Debug)]
pub struct Lines(Receiver<io::Result<String>>);

impl Lines {
    /// Reads on a thread of its own, which a read that does not end cannot keep from ending.
    pub fn start() -> Self {
        let (sender, lines) = channel(1);
        thread::spawn(move || {
            for line in io::stdin().lock().lines() {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self(lines)
    }

    /// What was typed, with the lines that it goes on in. None at the end.
    pub async fn next(&mut self) -> Option<io::Result<Typed>> {
        let mut text = String::new();
        let mut any = false;
        loop {
            match self.0.recv().await {
                None if any => break,
                None => return None,
                Some(Err(why)) => return Some(Err(why)),
                Some(Ok(line)) => {
                    any = true;
                    match line.strip_suffix('\\') {
                        Some(line) => {
                            text.push_str(line);
                            text.push('\n');
                        }
                        None => {
                            text.push_str(&line);
                            break;
                        }
                    }
                }
            }
        }
        Some(Ok(Typed::parse(&text)))
    }
}

/// All of standard input.
pub async fn all() -> Result<String, String> {
    let read = tokio::task::spawn_blocking(|| {
        let mut text = String::new();
        io::stdin().lock().read_to_string(&mut text).map(|_| text)
    });
    let read = read.await.map_err(io::Error::other).and_then(|read| read);
    read.map_err(|why| format!("standard input cannot be read: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_begins_with_a_slash_is_a_command() {
        let command = |text| match Typed::parse(text) {
            Typed::Command(command) => command,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(command("/help"), Command::Help);
        assert_eq!(command(" /model  acme/atlas-70b "), Command::Model(Some("acme/atlas-70b".into())));
        assert_eq!(command("/model"), Command::Model(None));
        assert_eq!(command("/resume cnv_1"), Command::Resume("cnv_1".into()));
        assert_eq!(Typed::parse("  "), Typed::Nothing);
        assert_eq!(Typed::parse("hello /new"), Typed::Message("hello /new".into()));
        assert_eq!(Typed::parse("//etc/passwd?"), Typed::Message("/etc/passwd?".into()));
    }

    #[test]
    fn a_slip_of_the_hand_is_not_sent_to_a_model() {
        let why = |text| match Typed::parse(text) {
            Typed::Unknown(why) => why,
            other => panic!("{text}: {other:?}"),
        };
        assert!(why("/retyr").contains("did you mean `retry`?"), "{}", why("/retyr"));
        assert!(why("/etc/passwd").contains("// begins a message with /"));
        assert!(why("/new one").contains("takes nothing"));
        assert!(why("/resume").contains("/list has them"));
    }

    #[tokio::test]
    async fn a_line_may_go_on_in_the_next_one() {
        let (sender, lines) = channel(4);
        let mut lines = Lines(lines);
        for line in ["one\\", "two", "/new", "three\\"] {
            sender.send(Ok(line.to_owned())).await.unwrap();
        }
        drop(sender);
        assert_eq!(lines.next().await.unwrap().unwrap(), Typed::Message("one\ntwo".into()));
        assert_eq!(lines.next().await.unwrap().unwrap(), Typed::Command(Command::New));
        assert_eq!(lines.next().await.unwrap().unwrap(), Typed::Message("three".into()));
        assert!(lines.next().await.is_none());
    }
}
