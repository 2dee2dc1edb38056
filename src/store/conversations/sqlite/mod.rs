//! How are conversations kept in SQLite?
//!
//! Writes go through one [`Writer`], which commits many of them at once; reads have connections of their own
//! and wait for nobody. What is read and written of a conversation begins with its [`Thread`], and that is
//! found by its id and its owner together.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use sqlx::{Connection as _, SqliteConnection, pool::PoolConnection, sqlite::Sqlite as Engine};
use tokio::sync::Semaphore;

mod attach; // files, and runs of benchmarks
mod end; //    how turns end
mod keep; //   what is done for all from time to time
mod ledger; // what calls have cost
mod list; //   conversations and messages, page by page
mod path; //   the messages that lead to one
mod remove; // forks, and what is removed
mod rows; //   rows as data
mod search; // words in messages
mod start; //  how turns begin
mod thread; // one conversation, made and changed
mod writer; // many writes, one wait for the disk

use self::writer::{Outlives, Writer};
use super::{
    ConversationId, Conversations, Error, Options, Owned, Principal, Recovered, Reply, Swept, TurnId,
    Unsettled, Usage, owner::Pepper, seal::Vault,
};
use crate::store::Store;

/// Searches that read everything at once at most: the readers are for others too.
const SEARCHES: usize = 2;

/// Opens the conversations that are in a store. With a key, everything is sealed when this is done that was
/// in clear; refuses if there is something that none of the keys opens.
pub async fn open(store: &Store, options: Options) -> Result<Arc<dyn Conversations>, Error> {
    let pepper = store.key("conversations").await.map_err(|why| Error::Unavailable(why.to_string()))?;
    let vault = Vault::new(options.keys.as_ref())?;
    let base = Base {
        writer: Writer::start(store.pool.clone(), store.lasting),
        store: store.clone(),
        pepper: Pepper::new(&pepper),
        vault,
        options,
        searches: Semaphore::new(SEARCHES),
    };
    let all = Sqlite(Arc::new(base));
    keep::check_keys(&mut *all.0.reader().await?, &all.0.vault).await?;
    while all.write(|db, base| Box::pin(keep::seal_clear(db, base))).await? > 0 {}
    Ok(Arc::new(all))
}

/// What all owners have in common.
#[derive(Debug)]
struct Base {
    store: Store,
    writer: Writer,
    pepper: Pepper,
    vault: Vault,
    options: Options,
    searches: Semaphore,
}

impl Base {
    async fn reader(&self) -> Result<PoolConnection<Engine>, Error> {
        Ok(self.store.reader.acquire().await?)
    }
}

#[derive(Debug)]
struct Sqlite(Arc<Base>);

impl Sqlite {
    async fn write<T, W>(&self, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut SqliteConnection, &'c Base) -> BoxFuture<'c, Result<T, Error>>
            + Send
            + 'static,
    {
        let base = self.0.clone();
        self.0.writer.write(Outlives::Machine, |db| Box::pin(async move { work(db, &base).await })).await
    }
}

impl Conversations for Sqlite {
    fn of(&self, principal: &Principal) -> Arc<dyn Owned> {
        Arc::new(Mine {
            owner: self.0.pepper.owner(principal),
            tenant: principal.tenant.clone(),
            reads_shared: principal.reads_shared,
            base: self.0.clone(),
        })
    }

    fn recover(&self, now: Timestamp) -> Reply<'_, Recovered> {
        Box::pin(self.write(move |db, base| Box::pin(end::recover(db, base, None, now))))
    }

    fn unsettled(&self, now: Timestamp, limit: u32) -> Reply<'_, Vec<Unsettled>> {
        Box::pin(async move { keep::unsettled(&mut *self.0.reader().await?, now, limit).await })
    }

    fn reconcile(&self, turn: TurnId, usage: Usage, now: Timestamp) -> Reply<'_, ()> {
        Box::pin(self.write(move |db, _| Box::pin(ledger::reconcile(db, turn, usage, now))))
    }

    fn postpone(&self, turn: TurnId, until: Option<Timestamp>) -> Reply<'_, ()> {
        Box::pin(self.write(move |db, _| Box::pin(keep::postpone(db, turn, until))))
    }

    fn sweep(&self, now: Timestamp) -> Reply<'_, Swept> {
        Box::pin(async move {
            let swept = self.write(move |db, base| Box::pin(keep::sweep(db, base, now))).await?;
            if swept.conversations > 0 && !swept.more {
                // What was deleted is in the log of changes still, until that begins anew.
                sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.0.store.pool).await?;
            }
            Ok(swept)
        })
    }

    fn rewrap(&self, limit: u32) -> Reply<'_, u32> {
        Box::pin(self.write(move |db, base| Box::pin(keep::rewrap(db, base, limit))))
    }
}

/// What belongs to one owner.
#[derive(Debug, Clone)]
struct Mine {
    base: Arc<Base>,
    tenant: String,
    owner: String,
    reads_shared: bool,
}

impl Owned for Mine {
    fn alias(&self) -> String {
        self.base.pepper.alias(&self.owner)
    }

    fn alias_of(&self, conversation: ConversationId) -> String {
        format!("c-{}", &self.base.pepper.alias(&conversation.to_string())[..32])
    }
}

impl Mine {
    async fn write<T, W>(&self, outlives: Outlives, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut SqliteConnection, &'c Mine) -> BoxFuture<'c, Result<T, Error>>
            + Send
            + 'static,
    {
        let mine = self.clone();
        self.base.writer.write(outlives, |db| Box::pin(async move { work(db, &mine).await })).await
    }

    /// Reads, all of it as it was at one time.
    async fn read<T, W>(&self, work: W) -> Result<T, Error>
    where
        W: for<'c> FnOnce(&'c mut SqliteConnection, &'c Mine) -> BoxFuture<'c, Result<T, Error>> + Send,
    {
        let mut connection = self.base.reader().await?;
        let mut transaction = connection.begin().await?;
        let read = work(&mut transaction, self).await;
        transaction.rollback().await?;
        read
    }
}
