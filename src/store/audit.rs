//! Who did what, row by row: written many at once, forgotten when they are old, and read while a
//! gateway writes them.

use jiff::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::Value;
use sqlx::{
    QueryBuilder, Row as _, Sqlite, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow},
};

use super::{Error, Settings, Store};

/// Lines that one statement takes.
const AT_ONCE: usize = 200;
/// Lines that one statement forgets, so that nobody waits long for the database.
const FORGOTTEN: i64 = 5_000;

/// A line of the audit trail.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Line {
    /// When the call came.
    #[serde(rename = "time", serialize_with = "as_text")]
    pub at: Timestamp,
    /// The request's id, which the log has too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The subject of a token, `local`, or `stranger` with a digest of the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// Of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// What the client says it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The tool, prompt or resource by the backend's name for it; as it was asked for, where no
    /// backend has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    pub outcome: String,
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

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Store {
    /// Does what is written outlive the process?
    pub fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// Adds lines, all at once or none.
    pub async fn add_lines(&self, lines: &[Line]) -> Result<(), Error> {
        let added = async {
            let mut transaction = self.pool.begin().await?;
            for lines in lines.chunks(AT_ONCE) {
                insert(lines).build().execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        added.await.map_err(failed)
    }

    /// Forgets lines from before a time, and the oldest where there are more than `most`.
    pub async fn forget_lines(&self, before: Timestamp, most: usize) -> Result<(), Error> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        loop {
            let forgotten = sqlx::query(
                "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE at < $1
                 OR id <= (SELECT max(id) FROM audit) - $2 LIMIT $3)",
            );
            let forgotten = forgotten.bind(before.as_microsecond()).bind(most).bind(FORGOTTEN);
            let forgotten = forgotten.execute(&self.pool).await.map_err(failed)?;
            if forgotten.rows_affected() < FORGOTTEN.cast_unsigned() {
                return Ok(());
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn failed(why: sqlx::Error) -> Error {
    Error { file: "of the audit trail".into(), why: why.to_string() }
}

fn insert(lines: &[Line]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(
        "INSERT INTO audit (at, request, who, issuer, client, endpoint, method, backend, target, outcome, \
         code, took, cached, count, usage, arguments) ",
    );
    query.push_values(lines, |mut row, line| {
        let json = |value: &Option<Value>| value.as_ref().map(Value::to_string);
        row.push_bind(line.at.as_microsecond());
        let Line { request, who, issuer, client, endpoint, method, backend, target, .. } = line;
        for text in [request, who, issuer, client, endpoint, method, backend, target] {
            row.push_bind(text.clone());
        }
        row.push_bind(line.outcome.clone()).push_bind(line.code).push_bind(line.took);
        row.push_bind(line.cached).push_bind(line.count);
        row.push_bind(json(&line.usage)).push_bind(json(&line.arguments));
    });
    query
}

/// Which lines are wanted. In the texts `*` stands for any letters.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub who: Option<String>,
    /// `<backend>__<name>`, or the name alone.
    pub tool: Option<String>,
    pub outcome: Option<String>,
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
        let row = sqlx::query("SELECT coalesce(max(id), 0) AS newest FROM audit").fetch_one(&self.0).await;
        row.and_then(|row| row.try_get("newest")).map_err(failed)
    }

    /// The lines that are wanted with their numbers, oldest first.
    pub async fn lines(&self, wanted: &Wanted) -> Result<Vec<(i64, Line)>, Error> {
        let glob = |text: &Option<String>| text.as_deref().map(glob);
        let rows = sqlx::query(
            "SELECT * FROM audit WHERE id > $1
             AND ($2 IS NULL OR who GLOB $2)
             AND ($3 IS NULL OR target GLOB $3 OR backend || '__' || target GLOB $3)
             AND ($4 IS NULL OR outcome GLOB $4)
             AND at >= $5 ORDER BY id DESC LIMIT $6",
        );
        let since = wanted.since.map_or(i64::MIN, Timestamp::as_microsecond);
        let rows = rows.bind(wanted.after).bind(glob(&wanted.who)).bind(glob(&wanted.tool));
        let rows = rows.bind(glob(&wanted.outcome)).bind(since);
        let rows = rows.bind(i64::try_from(wanted.last).unwrap_or(i64::MAX));
        let rows = rows.fetch_all(&self.0).await.map_err(failed)?;
        let lines: Result<Vec<_>, _> = rows.iter().rev().map(line).collect();
        lines.map_err(failed)
    }
}

/// A pattern of ours as SQLite writes it, to which more letters than `*` mean something.
fn glob(pattern: &str) -> String {
    pattern.chars().fold(String::new(), |mut text, letter| {
        match letter {
            '[' | '?' => text.extend(['[', letter, ']']),
            _ => text.push(letter),
        }
        text
    })
}

fn line(row: &SqliteRow) -> sqlx::Result<(i64, Line)> {
    let json = |column| -> sqlx::Result<_> {
        let text: Option<String> = row.try_get(column)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    };
    let line = Line {
        at: Timestamp::from_microsecond(row.try_get("at")?).unwrap_or_default(),
        request: row.try_get("request")?,
        who: row.try_get("who")?,
        issuer: row.try_get("issuer")?,
        client: row.try_get("client")?,
        endpoint: row.try_get("endpoint")?,
        method: row.try_get("method")?,
        backend: row.try_get("backend")?,
        target: row.try_get("target")?,
        outcome: row.try_get("outcome")?,
        code: row.try_get("code")?,
        took: row.try_get("took")?,
        cached: row.try_get("cached")?,
        count: row.try_get("count")?,
        usage: json("usage")?,
        arguments: json("arguments")?,
    };
    Ok((row.try_get("id")?, line))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn a_line(second: i64, who: &str, target: &str) -> Line {
        Line {
            at: Timestamp::from_second(second).unwrap(),
            who: Some(who.into()),
            backend: Some("files".into()),
            target: Some(target.into()),
            outcome: "ok".into(),
            took: Some(7),
            usage: Some(json!({ "cost": 0.5 })),
            ..Line::default()
        }
    }

    #[tokio::test]
    async fn lines_are_read_while_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { path: Some(folder.path().join("a.db")) };
        assert!(Reader::open(&settings).await.is_err(), "there is no file to read, and none is made");
        let store = Store::open(&settings).await.unwrap();
        let many: Vec<_> = (0..450).map(|n| a_line(n, "ada", &format!("t{n}"))).collect();
        store.add_lines(&many).await.unwrap();
        let reader = Reader::open(&settings).await.unwrap();
        let read = reader.lines(&Wanted { last: 1000, ..Wanted::default() }).await.unwrap();
        let lines: Vec<_> = read.iter().map(|(_, line)| line.clone()).collect();
        assert_eq!(lines, many);
        store.add_lines(&[a_line(450, "b[o]b?", "read")]).await.unwrap();
        let after = read.last().unwrap().0;
        let more = Wanted { after, last: 1000, ..Wanted::default() };
        assert_eq!(reader.lines(&more).await.unwrap().len(), 1);
        let by = |who: &str, tool: &str, outcome: &str, last| Wanted {
            who: Some(who.into()),
            tool: Some(tool.into()),
            outcome: Some(outcome.into()),
            last,
            ..Wanted::default()
        };
        for (wanted, expected) in [
            (by("b[o]b?", "files__re*", "ok", 9), 1),
            (by("b[o]b?", "read", "o*", 9), 1),
            (by("bob?", "*", "*", 9), 0),
            (by("*", "files__t1*", "*", 1000), 111),
            (by("*", "*", "*", 5), 5),
        ] {
            assert_eq!(reader.lines(&wanted).await.unwrap().len(), expected, "{wanted:?}");
        }
        let since = Wanted { since: Timestamp::from_second(440).ok(), last: 99, ..Wanted::default() };
        assert_eq!(reader.lines(&since).await.unwrap().len(), 11);
    }

    #[tokio::test]
    async fn old_lines_are_forgotten_and_the_oldest_of_too_many() {
        let store = Store::in_memory().await.unwrap();
        let many: Vec<_> = (0..100).map(|n| a_line(n, "ada", "t")).collect();
        store.add_lines(&many).await.unwrap();
        let count = async || {
            let row = sqlx::query("SELECT count(*) AS n, min(at) AS first FROM audit");
            let row = row.fetch_one(&store.pool).await.unwrap();
            (row.get::<i64, _>("n"), row.get::<i64, _>("first") / 1_000_000)
        };
        store.forget_lines(Timestamp::from_second(10).unwrap(), 1000).await.unwrap();
        assert_eq!(count().await, (90, 10));
        store.forget_lines(Timestamp::from_second(10).unwrap(), 25).await.unwrap();
        assert_eq!(count().await, (25, 75));
    }

    #[test]
    fn a_line_is_one_line_of_json() {
        let line = a_line(0, "a\nb\u{2028}c", "t");
        let expected = "{\"time\":\"1970-01-01T00:00:00.000000Z\",\"who\":\"a\\nb\u{2028}c\",\"backend\":\"files\",\
                        \"target\":\"t\",\"outcome\":\"ok\",\"took_us\":7,\"usage\":{\"cost\":0.5}}";
        assert_eq!(serde_json::to_string(&line).unwrap(), expected);
    }
}
