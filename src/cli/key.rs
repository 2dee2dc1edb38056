//! `waystation key`: who may come in with a key of the gateway's own?
//!
//! The keys are in the database, as digests; a gateway that runs on the same database obeys a change
//! within a second, without being told.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Outcome, Sources, fail, note, print, stop,
    table::{draw, shortened},
};
use crate::{
    config::{Config, Environment},
    settings::Duration,
    store::{CallerKey, Store},
};

pub const EXAMPLES: &str = "\
Examples:
  waystation key new ci --group builders --expires 90d     prints the key, this once
  waystation key list
  waystation key revoke ci

A key is sent as Authorization: Bearer ws_…, where routes.toml has [identify] keys = true. Rules know
its caller as { issuer = \"waystation\", subject = \"ci\" } and by its groups and scopes.";

/// The longest name: it stands in tables and logs.
const LONGEST_NAME: usize = 64;
/// As much of a list as a column has room for.
const CELL: usize = 32;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a key and print it. It cannot be shown again.
    New(New),
    /// List all keys, without the keys themselves.
    List {
        /// Prints the list as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        sources: Sources,
    },
    /// Take a key back. Gateways that run stop taking it within a second.
    Revoke {
        name: String,
        #[command(flatten)]
        sources: Sources,
    },
}

#[derive(Debug, Args)]
struct New {
    /// Who gets it; what rules call its `subject`.
    name: String,
    /// A group of its caller, for rules. May be given several times.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// A scope of its caller, for rules. May be given several times.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// For how long it is good, such as 90d [default: until it is revoked].
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    expires: Option<Duration>,
    /// Prints the key and what belongs to it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sources: Sources,
}

fn expiry(text: &str) -> Result<Duration, String> {
    let time = Duration::try_from(text.to_owned())?;
    if time.0.as_secs() == 0 {
        return Err("it would be over at once; write a time such as 90d".into());
    }
    Ok(time)
}

pub fn key(arguments: &Arguments, common: Sources, environment: &Environment) -> Outcome {
    let sources = match &arguments.what {
        What::New(New { sources, .. }) | What::List { sources, .. } | What::Revoke { sources, .. } => sources,
    };
    let config = match sources.clone().or(common).load(environment) {
        Ok(loaded) => loaded.config,
        Err(outcome) => return outcome,
    };
    stop::run(|_| async move {
        match done(&arguments.what, &config).await {
            Ok(text) => print(&text),
            Err(why) => fail(why),
        }
    })
}

async fn done(what: &What, config: &Config) -> Result<String, String> {
    if config.store.file().as_os_str() == ":memory:" {
        return Err("`store.path` is \":memory:\", which keeps no keys; name a file there".into());
    }
    let said = |why: crate::store::Error| why.to_string();
    let store = Store::open(&config.store).await.map_err(said)?;
    let told = match what {
        What::New(new) => made(new, &store, config).await,
        What::List { json, .. } => {
            let keys = store.caller_keys().await.map_err(said)?;
            let keys: Vec<_> = keys.into_iter().map(|(_, key)| key).collect();
            Ok(if *json { as_json(&keys) } else { as_table(&keys, now()) })
        }
        What::Revoke { name, .. } => match store.revoke_caller_key(name).await.map_err(said)? {
            true => Ok(format!("the key {name} is revoked\n")),
            false => Err(format!("there is no key {name:?}; `waystation key list` has them all")),
        },
    };
    store.close().await;
    told
}

async fn made(new: &New, store: &Store, config: &Config) -> Result<String, String> {
    let New { name, groups, scopes, expires, json, sources: _ } = new;
    if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("a name has 1 to {LONGEST_NAME} letters, digits and signs, and no blanks"));
    }
    if let Some(scope) = scopes.iter().find(|scope| scope.contains(' ') || scope.is_empty()) {
        return Err(format!("{scope:?} is no scope; give each with a --scope of its own"));
    }
    let made_at = now();
    let expires_at = expires.map(|time| made_at.saturating_add_unsigned(time.0.as_secs()));
    let (groups, scopes) = (groups.clone(), scopes.clone());
    let key = CallerKey { name: name.clone(), groups, scopes, made_at, expires_at };
    let text = store.new_caller_key(&key).await.map_err(|why| why.to_string())?;
    let text =
        text.ok_or_else(|| format!("there is a key {name:?} already; revoke it, or choose another name"))?;
    if !config.identify.keys {
        note("no gateway takes it yet: that needs keys = true in [identify] of routes.toml");
    }
    if *json {
        let mut entry = entry(&key);
        entry["key"] = json!(text);
        return Ok(format!("{entry:#}\n"));
    }
    note("this is the only time that the key is shown");
    Ok(format!("{text}\n"))
}

fn entry(key: &CallerKey) -> Value {
    let CallerKey { name, groups, scopes, made_at, expires_at } = key;
    json!({ "name": name, "groups": groups, "scopes": scopes, "made": date(*made_at), "expires": expires_at.map(date) })
}

fn as_json(keys: &[CallerKey]) -> String {
    format!("{:#}\n", Value::from(keys.iter().map(entry).collect::<Vec<_>>()))
}

fn as_table(keys: &[CallerKey], now: i64) -> String {
    if keys.is_empty() {
        return "there are no keys; `waystation key new NAME` makes one\n".into();
    }
    let day = |at: i64| date(at).chars().take("2026-07-28".len()).collect::<String>();
    let rows = keys.iter().map(|key| {
        let lists = [&key.groups, &key.scopes].map(|list| match list.is_empty() {
            true => "-".to_owned(),
            false => shortened(&list.join(" "), CELL),
        });
        let expires = match key.expires_at {
            None => "never".to_owned(),
            Some(at) if at <= now => format!("{}, over", day(at)),
            Some(at) => day(at),
        };
        let [groups, scopes] = lists;
        vec![key.name.clone(), groups, scopes, day(key.made_at), expires]
    });
    draw(&["KEY", "GROUPS", "SCOPES", "MADE", "EXPIRES"], &rows.collect::<Vec<_>>())
}

fn date(at: i64) -> String {
    Timestamp::from_second(at).map_or_else(|_| at.to_string(), |at| at.to_string())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_with_what_they_are_good_for() {
        let key = |name: &str, groups: &[&str], expires_at| CallerKey {
            name: name.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            scopes: Vec::new(),
            made_at: 1_795_000_000,
            expires_at,
        };
        let keys = [key("ci", &["builders", "ops"], Some(1_795_100_000)), key("me", &[], None)];
        let expected = "\
KEY  GROUPS        SCOPES  MADE        EXPIRES
ci   builders ops  -       2026-11-18  2026-11-19, over
me   -             -       2026-11-18  never
";
        assert_eq!(as_table(&keys, 1_795_100_000), expected);
        assert_eq!(as_table(&[], 0), "there are no keys; `waystation key new NAME` makes one\n");
        let listed: Value = serde_json::from_str(&as_json(&keys)).unwrap();
        assert_eq!((&listed[0]["groups"][1], &listed[1]["expires"]), (&json!("ops"), &Value::Null));
    }
}
