//! How are conversations and messages read, page by page?

use jiff::Timestamp;
use sqlx::{QueryBuilder, Row as _, SqliteConnection};

use super::{
    Mine, Outlives, path, remove,
    rows::{self, Word as _},
    search,
    thread::{self, Thread},
};
use crate::store::conversations::{
    Budget, Changes, Conversation, ConversationId, Cursor, Deletion, Error, Fork, Found, Listing, Message,
    MessageId, NewConversation, NewSummary, Order, Outline, Page, Path, Reading, Reply, Search, Sort,
    Summary, Threads,
};

/// Rows that are looked at together for a list.
const AT_ONCE: i64 = 200;
const MOST_CONVERSATIONS: u32 = 100;
const MOST_MESSAGES: u32 = 200;

impl Threads for Mine {
    fn create(&self, new: NewConversation, now: Timestamp) -> Reply<'_, Conversation> {
        Box::pin(self.write(Outlives::Machine, move |db, mine| {
            Box::pin(async move { Ok(thread::create(db, mine, new, now).await?.chat) })
        }))
    }

    fn conversation(&self, id: ConversationId) -> Reply<'_, Conversation> {
        Box::pin(self.read(move |db, mine| {
            Box::pin(async move { thread::readable(db, mine, id).await?.shown(db).await })
        }))
    }

    fn list(&self, listing: Listing, now: Timestamp) -> Reply<'_, Page<Conversation>> {
        Box::pin(self.read(move |db, mine| Box::pin(conversations(db, mine, listing, now))))
    }

    fn messages(&self, id: ConversationId, reading: Reading) -> Reply<'_, Page<Message>> {
        Box::pin(self.read(move |db, mine| Box::pin(messages(db, mine, id, reading))))
    }

    fn message(&self, id: ConversationId, message: MessageId) -> Reply<'_, Message> {
        Box::pin(self.read(move |db, mine| {
            Box::pin(async move {
                let thread = thread::readable(db, mine, id).await?;
                let spot = thread.spot_of(db, message).await?;
                thread.message(db, spot.seq).await
            })
        }))
    }

    fn path(&self, id: ConversationId, from: Option<MessageId>, budget: Budget) -> Reply<'_, Path> {
        Box::pin(self.read(move |db, mine| {
            Box::pin(async move {
                let thread = thread::readable(db, mine, id).await?;
                let from = match from {
                    Some(from) => Some(thread.spot_of(db, from).await?.seq),
                    None => thread.head,
                };
                path::path(db, &thread, from, budget).await
            })
        }))
    }

    fn outline(&self, id: ConversationId, from: Option<MessageId>, budget: Budget) -> Reply<'_, Outline> {
        Box::pin(self.read(move |db, mine| {
            Box::pin(async move {
                let thread = thread::readable(db, mine, id).await?;
                let from = match from {
                    Some(from) => Some(thread.spot_of(db, from).await?.seq),
                    None => thread.head,
                };
                path::outline(db, &thread, from, budget).await
            })
        }))
    }

    fn search(&self, search: Search) -> Reply<'_, Found> {
        Box::pin(search::search(self, search))
    }

    fn change(&self, id: ConversationId, changes: Changes, now: Timestamp) -> Reply<'_, Conversation> {
        Box::pin(
            self.write(Outlives::Machine, move |db, mine| {
                Box::pin(thread::change(db, mine, id, changes, now))
            }),
        )
    }

    fn fork(&self, id: ConversationId, fork: Fork, now: Timestamp) -> Reply<'_, Conversation> {
        Box::pin(
            self.write(Outlives::Machine, move |db, mine| Box::pin(remove::fork(db, mine, id, fork, now))),
        )
    }

    fn delete(&self, id: ConversationId) -> Reply<'_, Deletion> {
        Box::pin(self.write(Outlives::Machine, move |db, mine| Box::pin(remove::delete(db, mine, id))))
    }

    fn clear(&self, id: ConversationId, now: Timestamp) -> Reply<'_, u64> {
        Box::pin(self.write(Outlives::Machine, move |db, mine| Box::pin(remove::clear(db, mine, id, now))))
    }

    fn keep_summary(&self, id: ConversationId, summary: NewSummary, now: Timestamp) -> Reply<'_, ()> {
        Box::pin(self.write(Outlives::Machine, move |db, mine| {
            Box::pin(remove::keep_summary(db, mine, id, summary, now))
        }))
    }

    fn summaries(&self, id: ConversationId) -> Reply<'_, Vec<Summary>> {
        Box::pin(self.read(move |db, mine| Box::pin(remove::summaries(db, mine, id))))
    }
}

async fn conversations(
    db: &mut SqliteConnection,
    mine: &Mine,
    listing: Listing,
    now: Timestamp,
) -> Result<Page<Conversation>, Error> {
    let Listing { title, tags, model, state, updated_after, sort, limit, cursor } = listing;
    let column = match sort {
        Sort::Updated => "updated",
        Sort::Created => "created",
    };
    let title = title.map(|title| title.to_lowercase());
    let fits = |chat: &Conversation| {
        let text = chat.title.as_deref().unwrap_or_default().to_lowercase();
        title.as_ref().is_none_or(|title| text.contains(title))
            && tags.iter().all(|tag| chat.tags.contains(tag))
    };
    let limit = limit.clamp(1, MOST_CONVERSATIONS) as usize;
    let cursor = cursor.map(|cursor| cursor.place(column)).transpose()?;
    let (mut key, mut number) = cursor.unwrap_or((i64::MAX, i64::MAX));
    let mut items = Vec::new();
    loop {
        let mut query =
            QueryBuilder::new("SELECT * FROM conversation WHERE state <> 'deleting' AND tenant = ");
        query.push_bind(&mine.tenant).push(" AND owner = ").push_bind(&mine.owner);
        query.push(" AND expires > ").push_bind(now.as_microsecond());
        if let Some(state) = state {
            query.push(" AND state = ").push_bind(state.word());
        }
        if let Some(model) = &model {
            query.push(" AND model = ").push_bind(model);
        }
        if let Some(after) = updated_after {
            query.push(" AND updated > ").push_bind(after.as_microsecond());
        }
        query.push(format_args!(" AND ({column}, number) < (")).push_bind(key).push(", ").push_bind(number);
        query.push(format_args!(") ORDER BY {column} DESC, number DESC LIMIT {AT_ONCE}"));
        let rows = query.build().fetch_all(&mut *db).await?;
        for row in &rows {
            let thread = Thread::read(row, &mine.base.vault, &mine.owner)?;
            if !fits(&thread.chat) {
                (key, number) = (row.try_get(column)?, thread.number);
                continue;
            }
            if items.len() == limit {
                return Ok(Page { items, next: Some(Cursor::behind(column, key, number)) });
            }
            (key, number) = (row.try_get(column)?, thread.number);
            items.push(thread.shown(db).await?);
        }
        if (rows.len() as i64) < AT_ONCE {
            return Ok(Page { items, next: None });
        }
    }
}

async fn messages(
    db: &mut SqliteConnection,
    mine: &Mine,
    id: ConversationId,
    reading: Reading,
) -> Result<Page<Message>, Error> {
    let thread = thread::readable(db, mine, id).await?;
    let Reading { turn, order, limit, cursor } = reading;
    let limit = limit.clamp(1, MOST_MESSAGES);
    let (list, compare, direction) = match order {
        Order::NewestFirst => ("newest", "<", "DESC"),
        Order::OldestFirst => ("oldest", ">", "ASC"),
    };
    let mut query = QueryBuilder::new(
        "SELECT m.* FROM message m JOIN conversation c ON c.number = m.conversation WHERE c.number = ",
    );
    query.push_bind(thread.number).push(" AND c.owner = ").push_bind(&thread.owner);
    if let Some(cursor) = cursor {
        query.push(format_args!(" AND m.seq {compare} ")).push_bind(cursor.place(list)?.0);
    }
    if let Some(turn) = turn {
        query.push(" AND m.seq IN (SELECT question FROM turn WHERE id = ").push_bind(turn.to_string());
        query.push(" UNION ALL SELECT answer FROM turn WHERE id = ").push_bind(turn.to_string()).push(")");
    }
    query.push(format_args!(" ORDER BY m.seq {direction} LIMIT ")).push_bind(i64::from(limit) + 1);
    let rows = query.build().fetch_all(db).await?;
    let items = rows.iter().take(limit as usize).map(|row| rows::message(row, &thread));
    let items: Vec<_> = items.collect::<Result<_, _>>()?;
    let more = rows.len() > items.len();
    let next = items.last().filter(|_| more).map(|last| Cursor::behind(list, last.seq, 0));
    Ok(Page { items, next })
}
