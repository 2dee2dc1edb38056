//! How is one conversation found, made and changed, and how does a message come into it?

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    Mine,
    remove::Doomed,
    rows::{self, Word as _},
};
use crate::store::conversations::{
    Changes, Conversation, ConversationId, Error, Message, MessageId, NewConversation, Options, Quota, Role,
    State, TurnId,
    seal::{Cipher, Place, Row, Vault},
    sqlite::Base,
};

/// A conversation, with what it takes to read and write in it.
#[derive(Debug)]
pub struct Thread {
    pub chat: Conversation,
    pub number: i64,
    pub owner: String,
    pub tenant: String,
    /// By its seq.
    pub head: Option<i64>,
    pub bytes: i64,
    /// It goes with the last of its turns.
    pub deleting: bool,
    pub cipher: Cipher,
    name: String,
}

/// What a conversation shows of itself in a list.
#[derive(Serialize, Deserialize)]
struct Face {
    title: Option<String>,
    tags: Vec<String>,
    settings: Value,
}

/// A place in the tree of messages.
#[derive(Debug, Clone, Copy)]
pub struct Spot {
    pub id: MessageId,
    pub seq: i64,
    pub parent: Option<i64>,
    pub depth: i64,
}

/// A message that is to be.
#[derive(Debug)]
pub struct Draft<'a> {
    pub role: Role,
    pub text: &'a str,
    pub extras: Option<&'a Value>,
    pub tokens: i64,
    pub reported: bool,
    pub parent: Option<Spot>,
    pub turn: Option<TurnId>,
}

/// An owner's conversation, for writing.
pub async fn own(db: &mut SqliteConnection, mine: &Mine, id: ConversationId) -> Result<Thread, Error> {
    let row = sqlx::query(
        "SELECT * FROM conversation WHERE id = $1 AND tenant = $2 AND owner = $3 AND state <> 'deleting'",
    );
    let row = row.bind(id.to_string()).bind(&mine.tenant).bind(&mine.owner).fetch_optional(db).await?;
    Thread::read(&row.ok_or(Error::NotFound)?, &mine.base.vault, &mine.owner)
}

/// An owner's conversation, or one that is shared with it, for reading.
pub async fn readable(db: &mut SqliteConnection, mine: &Mine, id: ConversationId) -> Result<Thread, Error> {
    let row = sqlx::query(
        "SELECT * FROM conversation WHERE id = $1 AND tenant = $2 AND state <> 'deleting'
         AND (owner = $3 OR ($4 AND visibility = 'tenant'))",
    );
    let row = row.bind(id.to_string()).bind(&mine.tenant).bind(&mine.owner).bind(mine.reads_shared);
    let row = row.fetch_optional(db).await?;
    Thread::read(&row.ok_or(Error::NotFound)?, &mine.base.vault, &mine.owner)
}

/// The conversation with a number that an owner's row has named, even if it is to be deleted.
pub async fn numbered(
    db: &mut SqliteConnection,
    vault: &Vault,
    number: i64,
    owner: &str,
) -> Result<Thread, Error> {
    let row = sqlx::query("SELECT * FROM conversation WHERE number = $1 AND owner = $2");
    let row = row.bind(number).bind(owner).fetch_optional(db).await?;
    Thread::read(&row.ok_or(Error::NotFound)?, vault, owner)
}

pub async fn create(
    db: &mut SqliteConnection,
    mine: &Mine,
    new: NewConversation,
    now: Timestamp,
) -> Result<Thread, Error> {
    let most = mine.base.options.quotas.conversations;
    let there = sqlx::query("SELECT count(*) AS n FROM conversation WHERE owner = $1");
    let there = rows::count(&there.bind(&mine.owner).fetch_one(&mut *db).await?, "n")?;
    if there >= most {
        return Err(Quota::Conversations(most).into());
    }
    let id = ConversationId::new()?;
    let name = id.to_string();
    let place = Place { tenant: &mine.tenant, owner: &mine.owner, thing: &name };
    let (cipher, wrapped) = mine.base.vault.fresh(place)?;
    let NewConversation { title, system_prompt, model, tags, settings, retention_days, visibility } = new;
    let chat = Conversation {
        id,
        title,
        system_prompt,
        model,
        tags,
        settings,
        state: State::Active,
        visibility,
        retention_days,
        version: 1,
        messages: 0,
        tokens: 0,
        head: None,
        created: now,
        updated: now,
        expires: now,
        own: true,
    };
    let insert = sqlx::query(
        "INSERT INTO conversation (id, tenant, owner, state, visibility, version, messages, tokens, bytes,
         created, updated, expires, kek, dek, face)
         VALUES ($1, $2, $3, 'active', 'private', 0, 0, 0, 0, $4, $4, $4, $5, $6, x'') RETURNING number",
    );
    let insert = insert.bind(&name).bind(&mine.tenant).bind(&mine.owner).bind(now.as_microsecond());
    let row = insert.bind(wrapped.kek).bind(wrapped.dek).fetch_one(&mut *db).await?;
    let (tenant, owner, number) = (mine.tenant.clone(), mine.owner.clone(), row.try_get("number")?);
    let mut thread =
        Thread { chat, number, owner, tenant, head: None, bytes: 0, deleting: false, cipher, name };
    thread.save(db, &mine.base.options, now).await?;
    thread.save_face(db).await?;
    check_bytes(db, mine).await?;
    Ok(thread)
}

pub async fn change(
    db: &mut SqliteConnection,
    mine: &Mine,
    id: ConversationId,
    changes: Changes,
    now: Timestamp,
) -> Result<Conversation, Error> {
    let mut thread = own(db, mine, id).await?;
    let Changes { expected_version, title, system_prompt, model, tags, settings, state, .. } = changes;
    let chat = &mut thread.chat;
    if expected_version.is_some_and(|expected| expected != chat.version) {
        return Err(Error::Conflict { version: chat.version });
    }
    chat.title = title.or(chat.title.take());
    chat.system_prompt = system_prompt.or(chat.system_prompt.take());
    chat.model = model.or(chat.model.take());
    chat.tags = tags.unwrap_or(std::mem::take(&mut chat.tags));
    chat.settings = settings.unwrap_or(chat.settings.take());
    chat.state = state.unwrap_or(chat.state);
    chat.retention_days = changes.retention_days.or(chat.retention_days);
    chat.visibility = changes.visibility.unwrap_or(chat.visibility);
    chat.version += 1;
    thread.save(db, &mine.base.options, now).await?;
    thread.save_face(db).await?;
    check_bytes(db, mine).await?;
    Ok(thread.chat)
}

/// May an owner have as much as it has now?
pub async fn check_bytes(db: &mut SqliteConnection, mine: &Mine) -> Result<(), Error> {
    let most = mine.base.options.quotas.bytes;
    let row = sqlx::query(
        "SELECT (SELECT coalesce(sum(bytes), 0) FROM conversation WHERE owner = $1)
              + (SELECT coalesce(sum(length), 0) FROM blob WHERE owner = $1) AS n",
    );
    let there = rows::count(&row.bind(&mine.owner).fetch_one(db).await?, "n")?;
    if there > most { Err(Quota::Bytes(most).into()) } else { Ok(()) }
}

impl Thread {
    /// From a row with all columns, for a reader.
    pub fn read(row: &SqliteRow, vault: &Vault, reader: &str) -> Result<Self, Error> {
        let (owner, tenant): (String, String) = (row.try_get("owner")?, row.try_get("tenant")?);
        let name: String = row.try_get("id")?;
        let place = Place { tenant: &tenant, owner: &owner, thing: &name };
        let cipher = vault.open(&rows::wrapped(row)?, place)?;
        let face = cipher.open(row.try_get("face")?, place, Row("face", "", 0))?;
        let Face { title, tags, settings } = serde_json::from_slice(&face).map_err(rows::broken)?;
        let prompt: Option<&[u8]> = row.try_get("prompt")?;
        let prompt = prompt.map(|prompt| cipher.open(prompt, place, Row("prompt", "", 0))).transpose()?;
        let deleting = row.try_get::<&str, _>("state")? == "deleting";
        let chat = Conversation {
            id: rows::id(row, "id")?,
            title,
            system_prompt: prompt.map(rows::text).transpose()?,
            model: row.try_get("model")?,
            tags,
            settings,
            state: if deleting { State::Active } else { rows::word(row, "state")? },
            visibility: rows::word(row, "visibility")?,
            retention_days: row.try_get("retention_days")?,
            version: row.try_get("version")?,
            messages: rows::count(row, "messages")?,
            tokens: row.try_get("tokens")?,
            head: None,
            created: rows::time(row, "created")?,
            updated: rows::time(row, "updated")?,
            expires: rows::time(row, "expires")?,
            own: owner == reader,
        };
        let (number, head, bytes) = (row.try_get("number")?, row.try_get("head")?, row.try_get("bytes")?);
        Ok(Self { chat, number, owner, tenant, head, bytes, deleting, cipher, name })
    }

    fn place(&self) -> Place<'_> {
        Place { tenant: &self.tenant, owner: &self.owner, thing: &self.name }
    }

    pub fn open(&self, sealed: &[u8], row: Row<'_>) -> Result<Vec<u8>, Error> {
        self.cipher.open(sealed, self.place(), row)
    }

    pub fn seal(&self, text: &[u8], row: Row<'_>) -> Result<Vec<u8>, Error> {
        self.cipher.seal(text, self.place(), row)
    }

    pub fn doomed(&self) -> Doomed<'_> {
        Doomed { number: self.number, id: &self.name, owner: &self.owner, clear: self.cipher.is_clear() }
    }

    /// The conversation as others see it.
    pub async fn shown(mut self, db: &mut SqliteConnection) -> Result<Conversation, Error> {
        if let Some(head) = self.head {
            self.chat.head = Some(self.spot(db, head).await?.id);
        }
        Ok(self.chat)
    }

    /// Writes everything but the face; it was used now.
    pub async fn save(
        &mut self,
        db: &mut SqliteConnection,
        options: &Options,
        now: Timestamp,
    ) -> Result<(), Error> {
        let chat = &mut self.chat;
        chat.updated = chat.updated.max(now);
        chat.expires = expires(options, chat);
        let state = if self.deleting { "deleting" } else { chat.state.word() };
        let update = sqlx::query(
            "UPDATE conversation SET state = $3, visibility = $4, version = $5, model = $6, head = $7,
             messages = $8, tokens = $9, bytes = $10, retention_days = $11, updated = $12, expires = $13
             WHERE number = $1 AND owner = $2",
        );
        let update = update.bind(self.number).bind(&self.owner).bind(state).bind(chat.visibility.word());
        let update = update.bind(chat.version).bind(&chat.model).bind(self.head);
        let update = update.bind(chat.messages.cast_signed()).bind(chat.tokens).bind(self.bytes);
        let update = update.bind(chat.retention_days).bind(chat.updated.as_microsecond());
        update.bind(chat.expires.as_microsecond()).execute(db).await?;
        Ok(())
    }

    /// Writes title, tags, settings and system prompt; after [`save`](Self::save), for the count of bytes.
    pub async fn save_face(&mut self, db: &mut SqliteConnection) -> Result<(), Error> {
        let Conversation { title, tags, settings, system_prompt, .. } = &self.chat;
        let face = Face { title: title.clone(), tags: tags.clone(), settings: settings.clone() };
        let face = serde_json::to_vec(&face).map_err(rows::broken)?;
        let face = self.seal(&face, Row("face", "", 0))?;
        let prompt = system_prompt.as_ref().map(|text| self.seal(text.as_bytes(), Row("prompt", "", 0)));
        let update = sqlx::query(
            "UPDATE conversation SET bytes = bytes + $3 - length(face) - coalesce(length(prompt), 0),
             face = $4, prompt = $5 WHERE number = $1 AND owner = $2 RETURNING bytes",
        );
        let prompt = prompt.transpose()?;
        let length = face.len() + prompt.as_ref().map_or(0, Vec::len);
        let update = update.bind(self.number).bind(&self.owner).bind(length.cast_signed() as i64);
        self.bytes = update.bind(face).bind(prompt).fetch_one(db).await?.try_get("bytes")?;
        Ok(())
    }

    /// Where a message is, by its seq.
    pub async fn spot(&self, db: &mut SqliteConnection, seq: i64) -> Result<Spot, Error> {
        let row = sqlx::query(
            "SELECT m.id, m.seq, m.parent, m.depth FROM message m JOIN conversation c ON c.number = m.conversation
             WHERE c.number = $1 AND c.owner = $2 AND m.seq = $3",
        );
        let row = row.bind(self.number).bind(&self.owner).bind(seq).fetch_optional(db).await?;
        spot(&row.ok_or(Error::NotFound)?)
    }

    /// Where a message is, by its id.
    pub async fn spot_of(&self, db: &mut SqliteConnection, id: MessageId) -> Result<Spot, Error> {
        let row = sqlx::query(
            "SELECT m.id, m.seq, m.parent, m.depth FROM message m JOIN conversation c ON c.number = m.conversation
             WHERE c.number = $1 AND c.owner = $2 AND m.id = $3",
        );
        let row = row.bind(self.number).bind(&self.owner).bind(id.to_string()).fetch_optional(db).await?;
        spot(&row.ok_or(Error::NotFound)?)
    }

    /// A message with all that it says.
    pub async fn message(&self, db: &mut SqliteConnection, seq: i64) -> Result<Message, Error> {
        let row = sqlx::query(
            "SELECT m.* FROM message m JOIN conversation c ON c.number = m.conversation
             WHERE c.number = $1 AND c.owner = $2 AND m.seq = $3",
        );
        let row = row.bind(self.number).bind(&self.owner).bind(seq).fetch_optional(db).await?;
        rows::message(&row.ok_or(Error::NotFound)?, self)
    }

    /// Adds a message. The counts of it are written with [`save`](Self::save).
    pub async fn add(
        &mut self,
        db: &mut SqliteConnection,
        draft: Draft<'_>,
        now: Timestamp,
    ) -> Result<(Message, Spot), Error> {
        let (id, seq) = (MessageId::new()?, self.chat.messages.cast_signed() + 1);
        let Draft { role, text, extras, tokens, reported, parent, turn } = draft;
        let name = id.to_string();
        let body = self.seal(text.as_bytes(), Row("body", &name, seq))?;
        let sealed = extras.map(|extras| self.seal(extras.to_string().as_bytes(), Row("extras", &name, seq)));
        let sealed = sealed.transpose()?;
        self.chat.messages += 1;
        self.chat.tokens += tokens;
        self.bytes += (body.len() + sealed.as_ref().map_or(0, Vec::len)).cast_signed() as i64;
        let depth = parent.map_or(0, |parent| parent.depth + 1);
        let insert = sqlx::query(
            "INSERT INTO message (id, conversation, seq, parent, parent_id, depth, turn, role, body, extras,
             tokens, reported, created)
             SELECT $3, number, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14 FROM conversation
             WHERE number = $1 AND owner = $2 RETURNING number",
        );
        let insert = insert.bind(self.number).bind(&self.owner).bind(&name).bind(seq);
        let insert = insert.bind(parent.map(|parent| parent.seq));
        let insert = insert.bind(parent.map(|parent| parent.id.to_string())).bind(depth);
        let insert = insert.bind(turn.map(|turn| turn.to_string())).bind(role.word()).bind(body).bind(sealed);
        let insert = insert.bind(tokens).bind(reported).bind(now.as_microsecond());
        let row = insert.fetch_one(&mut *db).await?;
        if self.cipher.is_clear() {
            let index = sqlx::query("INSERT INTO message_text (rowid, owner, body) VALUES ($1, $2, $3)");
            let index = index.bind(row.try_get::<i64, _>("number")?).bind(&self.owner).bind(text);
            index.execute(db).await?;
        }
        let message = Message {
            id,
            seq,
            parent: parent.map(|parent| parent.id),
            turn,
            role,
            text: text.to_owned(),
            extras: extras.cloned(),
            tokens,
            tokens_reported: reported,
            created: now,
            superseded_by: None,
        };
        Ok((message, Spot { id, seq, parent: parent.map(|parent| parent.seq), depth }))
    }

    /// Is there room for so many more messages?
    pub fn check_messages(&self, base: &Base, more: u64) -> Result<(), Error> {
        let most = base.options.quotas.messages;
        if self.chat.messages + more > most { Err(Quota::Messages(most).into()) } else { Ok(()) }
    }
}

fn spot(row: &SqliteRow) -> Result<Spot, Error> {
    Ok(Spot {
        id: rows::id(row, "id")?,
        seq: row.try_get("seq")?,
        parent: row.try_get("parent")?,
        depth: row.try_get("depth")?,
    })
}

/// When nobody will have used it for too long; sooner, if it says so itself or is too old by then.
fn expires(options: &Options, chat: &Conversation) -> Timestamp {
    let idle = SignedDuration::try_from(options.idle).unwrap_or(SignedDuration::MAX);
    let own = chat.retention_days.map(|days| SignedDuration::from_hours(i64::from(days) * 24));
    let later = |from: Timestamp, by: SignedDuration| from.checked_add(by).unwrap_or(Timestamp::MAX);
    let expires = later(chat.updated, own.map_or(idle, |own| own.min(idle)));
    let longest = options.longest.and_then(|longest| SignedDuration::try_from(longest).ok());
    longest.map_or(expires, |longest| expires.min(later(chat.created, longest)))
}
