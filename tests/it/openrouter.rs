//! Conversations with models, seen by their callers: the gateway in this process, and a simulator of
//! OpenRouter behind it whose journal says what really went out.

mod budgets; // what may be spent
mod cancel; //  nobody waits any more
mod consent; // what it may cost is agreed to
mod crash; //   killed at any moment
mod disk; //    on disk before it is said
mod faults; //  everything that goes wrong upstream
mod sampler; // texts of a model for servers whose clients have none
mod keep; //    restarts, and whose conversations they are
mod stream; //  what is heard meanwhile
mod tools; //   all that can be asked for
mod routes; //  free models, and what was learned of them
mod turns; //   many at once, keys, branches
mod watch; //   who hears of changes
mod wishes; //  how an answer is to be

use std::{net::Ipv4Addr, path::Path, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use waystation::simulator::{self, Entry, Simulator};

use crate::support::{Answer, Gateway, Post, Setup, UNLIMITED};

pub const CHAT: &str = "chat__chat";
const ERROR: &str = "io.waystation/error";

/// A simulator, and a place for the gateway's files.
pub struct Rig {
    pub simulator: Simulator,
    pub folder: TempDir,
}

impl Rig {
    pub async fn new() -> Self {
        Self::at(simulator::Settings::default()).await
    }

    /// Whose models take this long for each token.
    pub async fn slow(per_token: Duration) -> Self {
        Self::at(simulator::Settings { per_token, ..simulator::Settings::default() }).await
    }

    async fn at(settings: simulator::Settings) -> Self {
        let simulator = Simulator::start(settings, (Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), simulator::KEY).unwrap();
        Self { simulator, folder }
    }

    /// The backend `chat`, with these lines in its table.
    pub fn tables(&self, lines: &str) -> String {
        tables(&self.simulator.base_url(), &self.folder.path().join("key"), lines)
    }

    /// A gateway without limits that keeps its conversations in a file.
    pub fn setup(&self, lines: &str) -> Setup {
        Gateway::with(UNLIMITED).lines(&self.tables(lines)).store(self.folder.path().join("a.db"))
    }

    pub async fn gateway(&self, lines: &str) -> Gateway {
        self.setup(lines).start().await
    }

    /// The questions to models, as they came.
    pub fn asked(&self) -> Vec<Entry> {
        let mut journal = self.simulator.journal();
        journal.retain(|entry| entry.path.ends_with("/chat/completions"));
        journal
    }

    /// Those whose last message contains this.
    pub fn asked_about(&self, words: &str) -> Vec<Entry> {
        let mut asked = self.asked();
        asked.retain(|entry| last_said(entry).contains(words));
        asked
    }
}

/// The backend `chat` with a simulator anywhere. What failed is not left alone here, since all of it is meant.
pub fn tables(base_url: &str, key: &Path, lines: &str) -> String {
    format!(
        "[backends.chat.openrouter]\napi_key = {{ file = {key:?} }}\nmodel = \"acme/atlas-70b\"\n\
         upstream = {{ base_url = {base_url:?} }}\nretry = {{ breaker_failures = 0 }}\n{lines}"
    )
}

/// The last message of a request.
pub fn last_said(entry: &Entry) -> String {
    let messages = entry.body["messages"].as_array();
    messages.and_then(|all| all.last()).map(|last| last["content"].to_string()).unwrap_or_default()
}

/// One turn.
pub fn chat(gateway: &Gateway, arguments: Value) -> Post {
    gateway.call(CHAT, arguments)
}

/// What is said of a turn that was answered, whole or in part.
#[track_caller]
pub fn answered(answer: &Answer) -> Value {
    let result = answer.result();
    assert_ne!(result["isError"], true, "{result}");
    result["structuredContent"].clone()
}

/// What is said of one that was refused or failed.
#[track_caller]
pub fn refused(answer: &Answer) -> Value {
    let result = answer.result();
    assert_eq!(result["isError"], true, "{result}");
    result["_meta"][ERROR].clone()
}

#[track_caller]
pub fn code(answer: &Answer) -> String {
    refused(answer)["code"].as_str().expect("a code").to_owned()
}

/// Says one thing, and gives what is answered.
pub async fn say(gateway: &Gateway, conversation: Option<&Value>, message: &str) -> Value {
    let mut arguments = json!({ "message": message });
    if let Some(id) = conversation {
        arguments["conversation_id"] = id.clone();
    }
    answered(&chat(gateway, arguments).send().await)
}

/// All messages of a conversation, the oldest first.
pub async fn messages(gateway: &Gateway, conversation: &Value) -> Vec<Value> {
    let arguments = json!({ "conversation_id": conversation, "limit": 200, "order": "oldest" });
    let got = answered(&gateway.call("chat__conversation_get", arguments).send().await);
    got["messages"].as_array().expect("messages").clone()
}
