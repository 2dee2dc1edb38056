//! `waystation chat`: how does a person speak with a model from a terminal?

use std::{io, io::IsTerminal as _, path::PathBuf};

use clap::Args;
use serde_json::json;

use super::{
    Outcome, Sources, fail,
    gateway::{Asked, Target, converse},
    stop::{Interruption, Interruptions},
    table::harmless,
};
use crate::config::Environment;

mod attach; // files that go with a message
mod lines; //  what is typed
mod screen; // what is shown
mod talk; //   what the gateway is asked

use attach::Attachment;
use lines::{Command, Lines, Typed};
use screen::Screen;
use talk::{Piece, Request, Talk};

pub const EXAMPLES: &str = "\
Examples:
  waystation chat                                          a new conversation
  waystation chat --last                                   go on with the one used last
  waystation chat --model anthropic/claude-sonnet-4.6 --system 'Answer in one sentence.'
  git diff | waystation chat --once - --system 'Write a commit message for this.'

Ctrl-C ends the answer that is being written; what was written of it is kept. Ctrl-C again, Ctrl-D
or /quit leaves, and /help tells the rest. A line that ends with \\ goes on in the next one. Answers
go to standard output, all else to standard error, so that it can be used in scripts.

It takes a backend with models: `[backends.chat]` with `openrouter = {}` in routes.toml, which
answers with a simulator until it is given a key. See docs/openrouter.md.";

/// Messages that are shown of a conversation that goes on.
const SHOWN: u32 = 6;
/// Conversations that are listed.
const LISTED: u32 = 20;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Goes on with this conversation, such as cnv_…; /list has them.
    #[arg(long, value_name = "ID", conflicts_with = "last")]
    resume: Option<String>,
    /// Goes on with the conversation that was used last.
    #[arg(long)]
    last: bool,
    /// The model to ask [default: the conversation's, else the gateway's].
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// What the model is told before anything is said, kept with the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// A picture, PDF, recording, video or text that goes with the first message. May be given
    /// several times.
    #[arg(long, value_name = "FILE")]
    attach: Vec<PathBuf>,
    /// Says this, prints the answer and nothing else, and ends; - takes it from standard input.
    #[arg(long, value_name = "MESSAGE")]
    once: Option<String>,
    /// The backend with the models, where there are several [default: the only one].
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub fn chat(arguments: &Arguments, common: Sources, environment: &Environment) -> Outcome {
    let attachments: Result<Vec<_>, _> = arguments.attach.iter().map(|file| Attachment::read(file)).collect();
    let attachments = match attachments {
        Ok(attachments) => attachments,
        Err(why) => return fail(harmless(&why)),
    };
    converse(&arguments.target, common, environment, async |asked, interruptions| {
        let held = async {
            let mut dialogue = Dialogue::open(&asked, arguments, attachments).await?;
            match &arguments.once {
                Some(message) => dialogue.once(message, interruptions).await,
                None => dialogue.hold(arguments.resume.is_some() || arguments.last, interruptions).await,
            }
        };
        held.await.unwrap_or_else(|why: String| fail(harmless(&why)))
    })
}

/// A conversation as it stands.
struct Dialogue {
    talk: Talk,
    screen: Screen,
    conversation: Option<String>,
    model: Option<String>,
    /// Goes with the next message, once.
    system: Option<String>,
    /// The same in a conversation that is begun later.
    system_of_new: Option<String>,
    attachments: Vec<Attachment>,
    /// Something that was asked was not done.
    failed: bool,
}

/// How an answer ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Whole,
    Incomplete,
    Interrupted(Interruption),
}

impl Dialogue {
    async fn open(
        asked: &Asked,
        arguments: &Arguments,
        attachments: Vec<Attachment>,
    ) -> Result<Self, String> {
        let talk = Talk::find(asked, arguments.backend.as_deref()).await?;
        let conversation = match (&arguments.resume, arguments.last) {
            (Some(id), _) => Some(id.clone()),
            (None, true) => {
                let last = talk.conversations(1).await?.into_iter().next();
                Some(
                    last.ok_or("there is no conversation yet; leave --last out to begin one")?
                        .conversation_id,
                )
            }
            (None, false) => None,
        };
        Ok(Self {
            talk,
            screen: Screen::new(arguments.once.is_some()),
            conversation,
            model: arguments.model.clone(),
            system: arguments.system.clone(),
            system_of_new: arguments.system.clone(),
            attachments,
            failed: false,
        })
    }

    /// One message and its answer.
    async fn once(&mut self, message: &str, interruptions: &mut Interruptions) -> Result<Outcome, String> {
        let message = match message {
            "-" => tokio::select! {
                read = lines::all() => read?,
                _ = interruptions.next() => return Ok(Outcome::Failed),
            },
            message => message.to_owned(),
        };
        if message.trim().is_empty() {
            return Err(
                "there is no message; write one behind --once, or - to have it from standard input".into()
            );
        }
        let ended = self.say(Some(message), interruptions).await?;
        Ok(if ended == End::Whole { Outcome::Done } else { Outcome::Failed })
    }

    /// Until nothing more is said.
    async fn hold(&mut self, resumed: bool, interruptions: &mut Interruptions) -> Result<Outcome, String> {
        match self.conversation.clone().filter(|_| resumed) {
            Some(id) => self.resume(&id).await?,
            None => self.screen.remark("Type a message; /help tells what else there is."),
        }
        let by_hand = io::stdin().is_terminal();
        let mut lines = Lines::start();
        loop {
            self.screen.prompt();
            let typed = tokio::select! {
                typed = lines.next() => typed,
                _ = interruptions.next() => None,
            };
            let Some(typed) =
                typed.transpose().map_err(|why| format!("standard input cannot be read: {why}"))?
            else {
                break;
            };
            match self.typed(typed, interruptions).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(why) => {
                    self.failed = true;
                    self.screen.complain(&why);
                }
            }
        }
        self.screen.leave(self.conversation.as_deref());
        // A person has seen what went wrong; a script must be told.
        Ok(if self.failed && !by_hand { Outcome::Failed } else { Outcome::Done })
    }

    /// Does what was typed. Is there to be more?
    async fn typed(&mut self, typed: Typed, interruptions: &mut Interruptions) -> Result<bool, String> {
        let ended = match typed {
            Typed::Nothing => return Ok(true),
            Typed::Message(text) => self.say(Some(text), interruptions).await?,
            Typed::Command(Command::Quit) => return Ok(false),
            Typed::Command(Command::Retry) => {
                if self.conversation.is_none() {
                    return Err("nothing was said yet that could be run again".into());
                }
                self.say(None, interruptions).await?
            }
            Typed::Command(command) => {
                tokio::select! {
                    done = self.command(command) => done?,
                    interruption = interruptions.next() => return Ok(interruption == Interruption::OfThis),
                }
                return Ok(true);
            }
            Typed::Unknown(why) => return Err(why),
        };
        self.failed |= ended == End::Incomplete;
        Ok(ended != End::Interrupted(Interruption::OfAll))
    }

    async fn command(&mut self, command: Command) -> Result<(), String> {
        match command {
            Command::Help => self.screen.remark(lines::HELP),
            Command::New => {
                self.conversation = None;
                self.system.clone_from(&self.system_of_new);
                self.screen.remark("A new conversation begins with the next message.");
            }
            Command::Model(None) => self.screen.remark(match &self.model {
                Some(model) => model,
                None => "The conversation's model, else the gateway's; /model NAME asks another.",
            }),
            Command::Model(Some(model)) => {
                self.screen.remark(&format!("{model} is asked from now on."));
                self.model = Some(model);
            }
            Command::Fork => {
                let id = self.conversation.as_deref().ok_or("nothing was said yet that could be forked")?;
                let fork = self.talk.fork(id).await?;
                self.screen
                    .remark(&format!("This goes on in {}; {id} stays as it is.", fork.conversation_id));
                self.conversation = Some(fork.conversation_id);
            }
            Command::List => self.screen.list(&self.talk.conversations(LISTED).await?),
            Command::Resume(id) => self.resume(&id).await?,
            Command::Retry | Command::Quit => {}
        }
        Ok(())
    }

    async fn resume(&mut self, id: &str) -> Result<(), String> {
        let got = self.talk.conversation(id, SHOWN).await?;
        self.screen.transcript(&got);
        self.conversation = Some(got.conversation.conversation_id);
        self.system = None;
        Ok(())
    }

    /// Says something, or has the last message run again, and shows the answer as it comes.
    async fn say(
        &mut self,
        message: Option<String>,
        interruptions: &mut Interruptions,
    ) -> Result<End, String> {
        let attachments: Vec<_> = self.attachments.drain(..).map(|one| one.0).collect();
        let request = Request {
            retry: message.is_none(),
            message,
            conversation_id: self.conversation.clone(),
            model: self.model.clone(),
            system_prompt: self.system.take(),
            attachments: if attachments.is_empty() { None } else { Some(json!(attachments)) },
        };
        self.screen.waiting();
        let (screen, conversation) = (&mut self.screen, &mut self.conversation);
        let mut hear = |piece: Piece| match piece {
            Piece::Text(text) => screen.text(&text),
            Piece::Status { text, conversation_id } => {
                if conversation_id.is_some() {
                    *conversation = conversation_id;
                }
                screen.status(&text);
            }
        };
        let said = tokio::select! {
            said = self.talk.say(&request, &mut hear) => Ok(said),
            // What the gateway hears is that nobody waits any more.
            interruption = interruptions.next() => Err(interruption),
        };
        match said {
            Ok(Ok(said)) => {
                let ended = if said.status == "completed" { End::Whole } else { End::Incomplete };
                self.screen.ended(&said);
                self.conversation = Some(said.conversation_id);
                Ok(ended)
            }
            Ok(Err(why)) => {
                self.screen.end_line();
                Err(why)
            }
            Err(interruption) => {
                self.screen.end_line();
                self.screen.remark("Cancelled. What was written of the answer is kept.");
                Ok(End::Interrupted(interruption))
            }
        }
    }
}
