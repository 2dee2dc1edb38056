//! What is kept of conversations, seen from outside the store.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use waystation::store::{
    Settings, Store,
    conversations::{
        Answer, Begun, Budget, ConversationId, Conversations, CostSource, Entry, Finish, Message,
        NewConversation, NewTurn, Options, Owned, Place, Principal, Quotas, Said, Start, Usage, open,
    },
};

mod isolation; // whose they are
mod money; //     what calls have cost
mod reading; //   lists, paths, search
mod sealed; //    keys
mod turns; //     step by step

/// A store in a folder of its own.
pub struct Here {
    folder: tempfile::TempDir,
    pub store: Store,
    pub all: Arc<dyn Conversations>,
}

impl Here {
    pub async fn new(options: Options) -> Self {
        Self::in_folder(tempfile::tempdir().unwrap(), options).await
    }

    async fn in_folder(folder: tempfile::TempDir, options: Options) -> Self {
        let store = Store::open(&Settings { path: Some(folder.path().join("a.db")) }).await.unwrap();
        let all = open(&store, options).await.unwrap();
        Self { folder, store, all }
    }

    /// The same after a restart.
    pub async fn again(self, options: Options) -> Self {
        self.store.close().await;
        Self::in_folder(self.folder, options).await
    }

    pub fn ada(&self) -> Arc<dyn Owned> {
        self.all.of(&principal("ada"))
    }

    pub fn bob(&self) -> Arc<dyn Owned> {
        self.all.of(&principal("bob"))
    }

    pub fn file(&self) -> PathBuf {
        self.folder.path().join("a.db")
    }

    /// A way to the rows that is not the store's.
    pub async fn rows(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.file()).busy_timeout(Duration::from_secs(30));
        SqliteConnection::connect_with(&options).await.unwrap()
    }
}

pub fn principal(subject: &str) -> Principal {
    let [tenant, issuer] = ["acme", "https://login.example"].map(str::to_owned);
    Principal { tenant, issuer, subject: subject.to_owned(), reads_shared: false }
}

/// Roomy enough for tests that do a lot.
pub fn roomy() -> Options {
    let quotas = Quotas { turns: 1000, messages: 1_000_000, ..Quotas::default() };
    Options { quotas, ..Options::default() }
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(second)
}

pub const EVERYTHING: Budget = Budget { tokens: i64::MAX, messages: u32::MAX };

pub fn say(place: Place, text: &str) -> NewTurn {
    NewTurn {
        place,
        said: Said::Message { text: text.to_owned(), extras: None, tokens: 5 },
        parent: None,
        expected_version: None,
        key: None,
        fingerprint: text.to_owned(),
        model: "a/model".to_owned(),
        system_prompt: None,
        estimate: 1_000,
    }
}

pub fn anew() -> Place {
    Place::New(NewConversation::default())
}

pub fn cost(cost: i64, source: CostSource) -> Entry {
    let usage = Usage { prompt_tokens: 3, completion_tokens: 7, cost, source, ..Usage::default() };
    Entry { tool: "chat".to_owned(), model: "a/model".to_owned(), usage, ..Entry::default() }
}

pub fn answer(text: &str) -> Finish {
    let answer = Answer { text: text.to_owned(), extras: None, tokens: 7, tokens_reported: true };
    Finish {
        incomplete_reason: None,
        answer: Some(answer).filter(|answer| !answer.text.is_empty()),
        finish_reason: Some("stop".to_owned()),
        result: Some(json!({ "warnings": ["hot"] })),
        entry: cost(500, CostSource::Reported),
        reservation: None,
    }
}

#[track_caller]
pub fn begun(start: Start) -> Begun {
    match start {
        Start::Begun(begun) => *begun,
        other => panic!("not begun: {other:?}"),
    }
}

/// A whole turn; the conversation it was in.
pub async fn talk(mine: &Arc<dyn Owned>, place: Place, text: &str, reply: &str) -> ConversationId {
    let begun = begun(mine.begin(say(place, text), at(0)).await.unwrap());
    mine.finish(begun.lease, answer(reply), at(1)).await.unwrap();
    begun.conversation.id
}

pub fn texts(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.text.as_str()).collect()
}
