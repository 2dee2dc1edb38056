//! How do many callers write to one disk, each knowing that what it wrote is there?
//!
//! SQLite has one writer, and to know that something is on disk takes milliseconds. So what waits is written
//! together: each caller's work is a savepoint of its own, and all of it is committed at once, which is when
//! its callers are told. Work that need not outlive the machine is committed without waiting for the disk,
//! and gets there with the next that does.

use futures_util::future::BoxFuture;
use sqlx::{Connection as _, SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use crate::store::conversations::Error;

/// Callers whose work is committed together at most.
const AT_ONCE: usize = 128;
/// Callers that wait in line; more wait before it.
const IN_LINE: usize = 1024;

/// What must outlive what?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlives {
    Process,
    Machine,
}

#[derive(Debug, Clone)]
pub struct Writer(mpsc::Sender<Job>);

struct Job {
    outlives: Outlives,
    work: Work,
}

type Work = Box<dyn for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Worked> + Send>;

/// Work that is done and not committed.
struct Worked {
    /// The transaction goes on. If not, nothing that was done in it will be kept.
    intact: bool,
    tell: Tell,
}

/// Tells a caller what its work came to, once it is known whether it is committed.
type Tell = Box<dyn FnOnce(Result<(), Error>) + Send>;

impl Writer {
    /// `lasting`: there is a disk to wait for.
    pub fn start(pool: SqlitePool, lasting: bool) -> Self {
        let (line, mut jobs) = mpsc::channel(IN_LINE);
        tokio::spawn(async move {
            let mut batch = Vec::new();
            while jobs.recv_many(&mut batch, AT_ONCE).await > 0 {
                write(&pool, lasting, std::mem::take(&mut batch)).await;
            }
        });
        Self(line)
    }

    /// Does the work, all of it or nothing, and answers when it is committed. Once it waits in line it is done
    /// even if nobody waits for the answer any more.
    pub async fn write<T, W>(&self, outlives: Outlives, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            outlives,
            work: Box::new(move |connection| {
                Box::pin(async move {
                    let (done, intact) = alone(connection, work).await;
                    let tell = move |committed: Result<(), Error>| {
                        // Nobody may wait for it any more.
                        let _ = answer.send(committed.and(done));
                    };
                    Worked { intact, tell: Box::new(tell) }
                })
            }),
        };
        let gone = || Error::Unavailable("the writer did not come to it".to_owned());
        self.0.send(job).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// Does one caller's work in a savepoint. The flag is false if the transaction around it is over.
async fn alone<T, W>(connection: &mut SqliteConnection, work: W) -> (Result<T, Error>, bool)
where
    W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Error>>,
{
    let mut savepoint = match connection.begin().await {
        Ok(savepoint) => savepoint,
        Err(why) => return (Err(why.into()), false),
    };
    let done = work(&mut savepoint).await;
    let ended = if done.is_ok() { savepoint.commit().await } else { savepoint.rollback().await };
    match ended {
        Ok(()) => (done, true),
        Err(why) => (done.and(Err(why.into())), false),
    }
}

async fn write(pool: &SqlitePool, lasting: bool, batch: Vec<Job>) {
    let waits = batch.iter().any(|job| job.outlives == Outlives::Machine);
    let mut told = Vec::with_capacity(batch.len());
    let written = async {
        let mut connection = pool.acquire().await?;
        let written = synchronized(&mut connection, waits || !lasting, batch, &mut told).await;
        if written.is_err() && lasting {
            // What state it is in is not known: a full disk ends transactions by itself. Another is opened in
            // its place.
            connection.close_on_drop();
        }
        written
    };
    let written: sqlx::Result<()> = written.await;
    let written = written.inspect_err(|why| tracing::warn!(%why, "conversations cannot be kept"));
    let written = written.map_err(Error::from);
    told.into_iter().for_each(|tell| tell(written.clone()));
}

/// Commits and waits for the disk, or does not.
async fn synchronized(
    connection: &mut SqliteConnection,
    waits: bool,
    batch: Vec<Job>,
    told: &mut Vec<Tell>,
) -> sqlx::Result<()> {
    if waits {
        return commit(connection, batch, told).await;
    }
    sqlx::query("PRAGMA synchronous = NORMAL").execute(&mut *connection).await?;
    commit(connection, batch, told).await?;
    sqlx::query("PRAGMA synchronous = FULL").execute(connection).await?;
    Ok(())
}

async fn commit(
    connection: &mut SqliteConnection,
    batch: Vec<Job>,
    told: &mut Vec<Tell>,
) -> sqlx::Result<()> {
    // At once a writer's transaction: one that becomes it later can find that another has written meanwhile.
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for job in batch {
        let Worked { intact, tell } = (job.work)(&mut transaction).await;
        told.push(tell);
        if !intact {
            return Err(sqlx::Error::Protocol("the transaction was ended by the disk".to_owned()));
        }
    }
    transaction.commit().await
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

    use super::*;

    async fn add(writer: &Writer, text: String, outlives: Outlives) -> Result<(), Error> {
        let add = writer.write(outlives, move |db| {
            Box::pin(async move {
                sqlx::query("INSERT INTO t VALUES ($1)").bind(&text).execute(&mut *db).await?;
                if text == "refused" { Err(Error::NotFound) } else { Ok(()) }
            })
        });
        add.await
    }

    async fn pool(file: &std::path::Path) -> SqlitePool {
        let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        sqlx::raw_sql("PRAGMA max_page_count = 100; CREATE TABLE t (x) ").execute(&pool).await.unwrap();
        pool
    }

    async fn count(pool: &SqlitePool) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM t").fetch_one(pool).await.unwrap()
    }

    #[tokio::test]
    async fn each_callers_work_is_done_or_not_whatever_that_of_others_comes_to() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool(&folder.path().join("a.db")).await;
        let writer = Writer::start(pool.clone(), true);
        let work = (0..300).map(|n| {
            let text = if n % 3 == 0 { "refused" } else { "kept" };
            add(&writer, text.to_owned(), if n % 2 == 0 { Outlives::Machine } else { Outlives::Process })
        });
        let done = join_all(work).await;
        assert_eq!(done.iter().filter(|done| **done == Err(Error::NotFound)).count(), 100);
        assert_eq!((done.iter().filter(|done| done.is_ok()).count(), count(&pool).await), (200, 200));
        add(&writer, "kept".to_owned(), Outlives::Process).await.unwrap();
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&pool).await.unwrap();
        assert_eq!(synchronous, 2, "the next writer waits for the disk again");
    }

    #[tokio::test]
    async fn a_full_disk_is_told_to_all_whose_work_it_has_undone() {
        let folder = tempfile::tempdir().unwrap();
        let pool = pool(&folder.path().join("a.db")).await;
        let writer = Writer::start(pool.clone(), true);
        let work = (0..20).map(|n| {
            let text = if n == 10 { "x".repeat(1 << 20) } else { "kept".to_owned() };
            add(&writer, text, Outlives::Machine)
        });
        let done = join_all(work).await;
        assert!(matches!(done[10], Err(Error::Unavailable(_))), "{:?}", done[10]);
        let kept = done.iter().filter(|done| done.is_ok()).count() as i64;
        assert_eq!(count(&pool).await, kept, "what was told to be kept is kept, and nothing else");
        add(&writer, "kept".to_owned(), Outlives::Machine).await.unwrap();
        assert_eq!(count(&pool).await, kept + 1);
    }
}
