//! Which messages have clients with sessions missed?

use std::collections::HashMap;

use bytes::Bytes;
use sqlx::{QueryBuilder, Row as _, Sqlite, Transaction, sqlite::SqliteRow};

use super::Store;

/// Events that one statement takes.
const AT_ONCE: usize = 200;

/// A stream of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stream {
    pub number: u64,
    /// The id of the request it answers, as JSON.
    pub request: Option<Bytes>,
    pub done: bool,
    /// Up to which event somebody has read.
    pub read: u64,
    /// With their numbers. In a [`Change`] they are those that are new.
    pub events: Vec<(u64, Bytes)>,
}

/// What is to be changed.
#[derive(Debug)]
pub enum Change {
    /// Events before `forgotten` are dropped.
    Keep {
        session: String,
        stream: Stream,
        forgotten: Option<u64>,
    },
    Forget {
        session: String,
        number: u64,
    },
}

impl Store {
    /// Makes all these changes at once. Streams of sessions that are not kept are left out.
    pub async fn keep_streams(&self, changes: &[Change]) {
        let kept = async {
            let mut transaction = self.pool.begin().await?;
            let mut events = Vec::new();
            for change in changes {
                match change {
                    Change::Keep { session, stream, forgotten } => {
                        if keep(&mut transaction, session, stream, *forgotten).await? {
                            events.push((session, stream));
                        }
                    }
                    Change::Forget { session, number } => {
                        add(&mut transaction, &std::mem::take(&mut events)).await?;
                        let query = sqlx::query("DELETE FROM stream WHERE session = $1 AND number = $2");
                        let query = query.bind(session).bind(number.cast_signed());
                        query.execute(&mut *transaction).await?;
                    }
                }
            }
            add(&mut transaction, &events).await?;
            transaction.commit().await
        };
        if let Err(why) = kept.await {
            tracing::warn!(%why, "messages cannot be kept; after a restart they cannot be sent again");
        }
    }

    /// The streams that were kept, by their sessions.
    pub async fn streams(&self) -> HashMap<String, Vec<Stream>> {
        let read = async {
            let mut sessions: HashMap<String, Vec<Stream>> = HashMap::new();
            let rows = sqlx::query("SELECT session, number, request, done, read FROM stream");
            for row in rows.fetch_all(&self.pool).await? {
                sessions.entry(row.try_get("session")?).or_default().push(stream(&row)?);
            }
            let rows = sqlx::query(
                "SELECT session, stream, number, message FROM event ORDER BY session, stream, number",
            );
            for row in rows.fetch_all(&self.pool).await? {
                let (session, number): (&str, _) = (row.try_get("session")?, unsigned(&row, "stream")?);
                let streams = sessions.get_mut(session).into_iter().flatten();
                for stream in streams.filter(|stream| stream.number == number) {
                    let message: Vec<u8> = row.try_get("message")?;
                    stream.events.push((unsigned(&row, "number")?, message.into()));
                }
            }
            Ok::<_, sqlx::Error>(sessions)
        };
        let read = read.await.inspect_err(|why| tracing::warn!(%why, "messages of earlier cannot be read"));
        read.unwrap_or_default()
    }
}

/// All but the new events. False if the session is not kept.
async fn keep(
    transaction: &mut Transaction<'_, Sqlite>,
    session: &str,
    stream: &Stream,
    forgotten: Option<u64>,
) -> sqlx::Result<bool> {
    let number = stream.number.cast_signed();
    let row = sqlx::query(
        "INSERT INTO stream (session, number, request, done, read)
         SELECT $1, $2, $3, $4, $5 WHERE EXISTS (SELECT 1 FROM session WHERE id = $1)
         ON CONFLICT (session, number) DO UPDATE SET done = $4, read = $5",
    );
    let row = row.bind(session).bind(number).bind(stream.request.as_deref());
    let row = row.bind(stream.done).bind(stream.read.cast_signed());
    let known = row.execute(&mut **transaction).await?.rows_affected() > 0;
    if let Some(first) = forgotten {
        let delete = sqlx::query("DELETE FROM event WHERE session = $1 AND stream = $2 AND number < $3");
        let delete = delete.bind(session).bind(number).bind(first.cast_signed());
        delete.execute(&mut **transaction).await?;
    }
    Ok(known)
}

/// The new events of streams, many in one statement.
async fn add(transaction: &mut Transaction<'_, Sqlite>, streams: &[(&String, &Stream)]) -> sqlx::Result<()> {
    let mut events = Vec::new();
    for (session, stream) in streams {
        let number = stream.number.cast_signed();
        let new = stream.events.iter();
        events.extend(new.map(|(event, message)| (session.as_str(), number, event, &message[..])));
    }
    for events in events.chunks(AT_ONCE) {
        let insert = "INSERT OR REPLACE INTO event (session, stream, number, message) ";
        let mut insert = QueryBuilder::<Sqlite>::new(insert);
        insert.push_values(events, |mut row, (session, number, event, message)| {
            row.push_bind(*session).push_bind(*number).push_bind(event.cast_signed()).push_bind(*message);
        });
        insert.build().persistent(false).execute(&mut **transaction).await?;
    }
    Ok(())
}

fn stream(row: &SqliteRow) -> sqlx::Result<Stream> {
    let request: Option<Vec<u8>> = row.try_get("request")?;
    Ok(Stream {
        number: unsigned(row, "number")?,
        request: request.map(Bytes::from),
        done: row.try_get("done")?,
        read: unsigned(row, "read")?,
        events: Vec::new(),
    })
}

fn unsigned(row: &SqliteRow, column: &str) -> sqlx::Result<u64> {
    row.try_get::<i64, _>(column).map(i64::cast_unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(session: &str, number: u64, events: std::ops::Range<u64>, forgotten: Option<u64>) -> Change {
        let events = events.map(|event| (event, Bytes::from(format!("m{event}")))).collect();
        let stream = Stream { number, events, ..Stream::default() };
        Change::Keep { session: session.to_owned(), stream, forgotten }
    }

    #[tokio::test]
    async fn streams_are_kept_event_by_event_and_end_with_their_session() {
        let store = Store::in_memory().await.unwrap();
        store.keep_sessions(&[("a".into(), Some("{}".into())), ("b".into(), Some("{}".into()))]).await;
        let unknown = change("c", 0, 1..2, None);
        store.keep_streams(&[change("a", 0, 1..3, None), change("b", 0, 1..2, None), unknown]).await;
        let request = Some(Bytes::from_static(b"\"x\""));
        let later = Stream { number: 7, request, done: true, read: 1 << 50, events: Vec::new() };
        let keep = Change::Keep { session: "a".into(), stream: later.clone(), forgotten: None };
        store.keep_streams(&[change("a", 0, 3..4, Some(2)), keep]).await;

        let mut streams = store.streams().await;
        let numbers = |stream: &Stream| stream.events.iter().map(|(event, _)| *event).collect::<Vec<_>>();
        assert_eq!(streams.len(), 2);
        let of_a = streams.remove("a").unwrap();
        assert_eq!((numbers(&of_a[0]), &of_a[1]), (vec![2, 3], &later));
        assert_eq!(of_a[0].events[1].1, "m3");

        store.keep_sessions(&[("b".into(), None)]).await;
        store.keep_streams(&[Change::Forget { session: "a".into(), number: 0 }]).await;
        let left = store.streams().await;
        assert_eq!((left.len(), &left["a"][..]), (1, &[later][..]));
        let events = sqlx::query("SELECT * FROM event").fetch_all(&store.pool).await.unwrap();
        assert_eq!(events.len(), 0);
    }

    #[tokio::test]
    async fn many_changes_at_once_are_made_in_their_order() {
        let store = Store::in_memory().await.unwrap();
        store.keep_sessions(&[("a".into(), Some("{}".into()))]).await;
        let forget = Change::Forget { session: "a".into(), number: 1 };
        let many = (AT_ONCE as u64) * 2 + 7;
        store.keep_streams(&[change("a", 1, 1..3, None), forget, change("a", 2, 1..many, None)]).await;
        let streams = store.streams().await.remove("a").unwrap();
        assert_eq!((streams.len(), streams[0].number, streams[0].events.len() as u64), (1, 2, many - 1));
    }
}
