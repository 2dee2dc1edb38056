//! Who did what, line by line: written many at once, forgotten when they are old, and read while a
//! gateway writes them.

use std::borrow::Cow;

use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sqlx::{
    Row as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};

use super::{Error, Settings, Store};

/// Batches that one statement forgets, so that nobody waits long for the database.
const FORGOTTEN: i64 = 1_000;

/// A line of the audit trail.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line<'a> {
    /// When the call came.
    #[serde(rename = "time", serialize_with = "as_text", deserialize_with = "from_text")]
    pub at: Timestamp,
    /// The request's id, which the log has too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Cow<'a, str>>,
    /// The subject of a token, `local`, or `stranger` with a digest of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<Cow<'a, str>>,
    /// Of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<Cow<'a, str>>,
    /// What the client says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<Cow<'a, str>>,
    /// The tool, prompt or resource by the backend's name for it; as it was asked for, where no
    /// backend has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Cow<'a, str>>,
    /// The backend that asked for it in the middle of another call, where it was not the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<Cow<'a, str>>,
    pub outcome: Cow<'a, str>,
    /// Of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// How long it took, in microseconds.
    #[serde(rename = "took_us", skip_serializing_if = "Option::is_none")]
    pub took: Option<i64>,
    #[serde(skip_serializing_if = "is_false")]
    pub cached: bool,
    /// How many the line stands for, where it is more than a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// What the backend said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
}

fn as_text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{at:.6}"))
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    text.parse().map_err(serde::de::Error::custom)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Lines that are written together.
#[derive(Debug, Default)]
pub struct Batch {
    text: String,
    count: i64,
    /// When the latest of the calls came.
    at: Timestamp,
}

impl Batch {
    /// Adds a line, which is a JSON object without line ends.
    pub fn push(&mut self, at: Timestamp, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        self.count += 1;
        self.at = self.at.max(at);
    }

    /// The lines, each with its end.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Store {
    /// Does what is written outlive the process?
    pub fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// Adds lines, all at once or none.
    pub async fn add_lines(&self, batch: &Batch) -> Result<(), Error> {
        let added = sqlx::query(
            "INSERT INTO audit (upto, count, at, lines) SELECT coalesce(max(upto), 0) + $1, $1, $2, $3 FROM audit",
        );
        let added = added.bind(batch.count).bind(batch.at.as_microsecond()).bind(&*batch.text);
        added.execute(&self.pool).await.map(drop).map_err(failed)
    }

    /// Forgets lines from before a time, and the oldest where there are more than `most`; in whole
    /// batches.
    pub async fn forget_lines(&self, before: Timestamp, most: usize) -> Result<(), Error> {
        let (before, most) = (before.as_microsecond(), i64::try_from(most).unwrap_or(i64::MAX));
        loop {
            // The last one says which number comes next.
            let forgotten = sqlx::query(
                "DELETE FROM audit WHERE upto IN (SELECT upto FROM audit, (SELECT max(upto) AS last FROM audit)
                 WHERE upto < last AND (at < $1 OR upto - count < last - $2) LIMIT $3)",
            );
            let forgotten = forgotten.bind(before).bind(most).bind(FORGOTTEN);
            let forgotten = forgotten.execute(&self.pool).await.map_err(failed)?;
            if forgotten.rows_affected() < FORGOTTEN.cast_unsigned() {
                break;
            }
        }
        let emptied = sqlx::query("UPDATE audit SET count = 0, lines = '' WHERE at < $1 AND count > 0");
        emptied.bind(before).execute(&self.pool).await.map(drop).map_err(failed)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn failed(why: sqlx::Error) -> Error {
    Error { file: "of the audit trail".into(), why: why.to_string() }
}

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    pub since: Option<Timestamp>,
    /// Only newer ones than that of this number.
    pub after: i64,
    /// The newest of them, so many.
    pub last: usize,
}

/// The trail of a gateway, which may be at work.
#[derive(Debug)]
pub struct Reader(SqlitePool);

impl Reader {
    /// Opens the database and changes nothing in it.
    pub async fn open(settings: &Settings) -> Result<Self, Error> {
        let file = settings.file();
        let options = SqliteConnectOptions::new().filename(&file).read_only(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        pool.map(Self).map_err(|why| Error { file: file.display().to_string(), why: why.to_string() })
    }

    /// The number of the newest line.
    pub async fn newest(&self) -> Result<i64, Error> {
        let row = sqlx::query("SELECT coalesce(max(upto), 0) AS newest FROM audit").fetch_one(&self.0).await;
        row.and_then(|row| row.try_get("newest")).map_err(failed)
    }

    /// The lines that are wanted and fit with their numbers, oldest first.
    pub async fn lines(
        &self,
        wanted: Wanted,
        fits: impl Fn(&Line<'_>) -> bool,
    ) -> Result<Vec<(i64, Line<'static>)>, Error> {
        let since = wanted.since.unwrap_or(Timestamp::MIN);
        let batches = sqlx::query(
            "SELECT upto, lines FROM audit WHERE upto > $1 AND at >= $2 AND count > 0 ORDER BY upto DESC",
        );
        let mut batches = batches.bind(wanted.after).bind(since.as_microsecond()).fetch(&self.0);
        let mut found = Vec::new();
        while found.len() < wanted.last
            && let Some(batch) = batches.try_next().await.map_err(failed)?
        {
            let upto: i64 = batch.try_get("upto").map_err(failed)?;
            let text: &str = batch.try_get("lines").map_err(failed)?;
            let numbered = (wanted.after + 1..=upto).rev().zip(text.lines().rev());
            let lines =
                numbered.filter_map(|(number, text)| Some((number, serde_json::from_str(text).ok()?)));
            let lines = lines.filter(|(_, line): &(_, Line<'_>)| line.at >= since && fits(line));
            found.extend(lines.take(wanted.last - found.len()));
        }
        found.reverse();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn a_line(second: i64, who: &str, target: &str) -> Line<'static> {
        Line {
            at: Timestamp::from_second(second).unwrap(),
            who: Some(who.to_owned().into()),
            backend: Some("files".into()),
            target: Some(target.to_owned().into()),
            outcome: "ok".into(),
            took: Some(7),
            usage: Some(json!({ "cost": 0.5 })),
            ..Line::default()
        }
    }

    fn batch<'a>(lines: impl IntoIterator<Item = &'a Line<'static>>) -> Batch {
        let mut batch = Batch::default();
        for line in lines {
            batch.push(line.at, &serde_json::to_string(line).unwrap());
        }
        batch
    }

    #[tokio::test]
    async fn lines_are_read_while_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { path: Some(folder.path().join("a.db")) };
        assert!(Reader::open(&settings).await.is_err(), "there is no file to read, and none is made");
        let store = Store::open(&settings).await.unwrap();
        let many: Vec<_> = (0..450).map(|n| a_line(n, "ada", &format!("t{n}"))).collect();
        for some in many.chunks(100) {
            store.add_lines(&batch(some)).await.unwrap();
        }
        let reader = Reader::open(&settings).await.unwrap();
        let all = Wanted { last: 1000, ..Wanted::default() };
        let read = reader.lines(all, |_| true).await.unwrap();
        assert_eq!(read, (1..).zip(many).collect::<Vec<_>>());
        assert_eq!(reader.newest().await.unwrap(), 450);
        store.add_lines(&batch([&a_line(450, "bob", "read"), &a_line(451, "eve", "read")])).await.unwrap();
        let count = async |wanted, fits: fn(&Line<'_>) -> bool| {
            let read = reader.lines(wanted, fits).await.unwrap();
            assert!(read.is_sorted_by_key(|(number, _)| *number));
            (read.len(), read.last().map(|(number, _)| *number))
        };
        for (wanted, fits, expected) in [
            (Wanted { after: 450, ..all }, (|_| true) as fn(&Line<'_>) -> bool, (2, Some(452))),
            // In the middle of a batch.
            (Wanted { after: 451, ..all }, |_| true, (1, Some(452))),
            (Wanted { after: 448, ..all }, |_| true, (4, Some(452))),
            (all, |line| line.who.as_deref() == Some("bob"), (1, Some(451))),
            (all, |line| line.target.as_deref() == Some("t7"), (1, Some(8))),
            (Wanted { last: 5, ..all }, |line| line.who.as_deref() == Some("ada"), (5, Some(450))),
            (Wanted { since: Timestamp::from_second(440).ok(), ..all }, |_| true, (12, Some(452))),
        ] {
            assert_eq!(count(wanted, fits).await, expected, "{wanted:?}");
        }
    }

    #[tokio::test]
    async fn old_lines_are_forgotten_and_the_oldest_of_too_many() {
        let store = Store::in_memory().await.unwrap();
        let many: Vec<_> = (0..100).map(|n| a_line(n, "ada", "t")).collect();
        for some in many.chunks(10) {
            store.add_lines(&batch(some)).await.unwrap();
        }
        let left = async || {
            let row = sqlx::query("SELECT coalesce(sum(count), 0) AS n, max(upto) AS last FROM audit");
            let row = row.fetch_one(&store.pool).await.unwrap();
            (row.get::<i64, _>("n"), row.get::<i64, _>("last"))
        };
        let second = |second| Timestamp::from_second(second).unwrap();
        store.forget_lines(second(10), 1000).await.unwrap();
        assert_eq!(left().await, (90, 100));
        // A batch of which one line is too old stays until all of it is.
        store.forget_lines(second(15), 1000).await.unwrap();
        assert_eq!(left().await, (90, 100));
        store.forget_lines(second(10), 25).await.unwrap();
        assert_eq!(left().await, (20, 100));
        store.forget_lines(second(1000), 25).await.unwrap();
        assert_eq!(left().await, (0, 100));
        store.add_lines(&batch(&many[..3])).await.unwrap();
        assert_eq!(left().await, (3, 103), "no number is used twice");
    }

    #[test]
    fn a_line_is_one_line_of_json() {
        let line = a_line(0, "a\nb\u{2028}c", "t");
        let expected = "{\"time\":\"1970-01-01T00:00:00.000000Z\",\"who\":\"a\\nb\u{2028}c\",\"backend\":\"files\",\
                        \"target\":\"t\",\"outcome\":\"ok\",\"took_us\":7,\"usage\":{\"cost\":0.5}}";
        assert_eq!(serde_json::to_string(&line).unwrap(), expected);
        assert_eq!(serde_json::from_str::<Line<'_>>(expected).unwrap(), line);
    }
}
