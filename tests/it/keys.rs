//! Who comes in with a key that the gateway gave out, or with a token made for trying things?

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use waystation::{
    config::Config,
    store::{self, CallerKey, Store},
};

use crate::{
    fake::Fake,
    support::{Gateway, Post, names_of},
};

/// A folder with a routes.toml and a database.
struct Place {
    folder: tempfile::TempDir,
    toml: String,
}

impl Place {
    fn new(tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let toml = format!("{tables}\n[store]\npath = {:?}\n", folder.path().join("a.db"));
        std::fs::write(folder.path().join("routes.toml"), &toml).unwrap();
        Self { folder, toml }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn database(&self) -> PathBuf {
        self.path().join("a.db")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
        let state = self.path().join("state");
        command.current_dir(self.path()).env_clear().env("XDG_STATE_HOME", state).stdin(Stdio::null());
        command.args(arguments).output().unwrap()
    }

    /// What a command prints that succeeds.
    #[track_caller]
    fn does(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", told(&output));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str], words: &str) {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(told(&output).contains(words), "{words:?} is not in: {}", told(&output));
    }

    /// A gateway on the same database.
    fn gateway(&self) -> crate::support::Setup {
        Gateway::with(&self.toml).store(self.database())
    }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn with(post: Post, token: &str) -> Post {
    post.header("authorization", format!("Bearer {token}"))
}

async fn status(gateway: &Gateway, token: &str) -> u16 {
    with(gateway.modern("tools/list", json!({})), token).send().await.status
}

const KEYS: &str = "[identify]\nkeys = true\n";

#[tokio::test]
async fn a_key_comes_in_until_it_is_revoked() {
    let place = Place::new(KEYS);
    let fake = Fake::builder().start().await;
    let rules = "[[permit]]\nwho = { issuer = \"waystation\", subject = \"ci\", group = \"builders\", scope = \"read\" }\nallow = [\"one__echo\"]\n";
    let gateway = place.gateway().lines(rules).backend("one", &fake).start().await;
    assert_eq!(gateway.modern("tools/list", json!({})).send().await.status, 401);
    let made =
        ["key", "new", "ci", "--group", "builders", "--group", "x", "--scope", "read", "--expires", "90d"];
    let key = place.does(&made);
    assert!(key.starts_with("ws_") && key.len() == 46, "{key}");
    let begun = Instant::now();
    while status(&gateway, &key).await != 200 {
        assert!(begun.elapsed() < Duration::from_secs(2), "a new key is taken soon");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let listed = with(gateway.modern("tools/list", json!({})), &key).send().await.result();
    assert_eq!(names_of(&listed), ["one__echo"]);
    for other in [key.to_uppercase(), format!("{key}A"), key[..45].to_owned(), "ws_".into()] {
        assert_eq!(status(&gateway, &other).await, 401, "{other}");
    }
    let refused = with(gateway.modern("tools/list", json!({})), "ws_x").send().await;
    assert_eq!(refused.headers["www-authenticate"], "Bearer error=\"invalid_token\"");

    assert_eq!(place.does(&["key", "revoke", "ci"]), "the key ci is revoked");
    let begun = Instant::now();
    while status(&gateway, &key).await != 401 {
        assert!(begun.elapsed() < Duration::from_secs(1), "a revoked key is refused within a second");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once_after_a_reload() {
    let place = Place::new(KEYS);
    let key = place.does(&["key", "new", "ci"]);
    let gateway = place.gateway().start().await;
    assert_eq!(status(&gateway, &key).await, 200);
    place.does(&["key", "revoke", "ci"]);
    gateway.waystation.reload(gateway.waystation.config()).await.expect("the same configuration");
    assert_eq!(status(&gateway, &key).await, 401);
}

#[tokio::test]
async fn keys_are_taken_where_that_is_said_and_for_as_long_as_they_are_good() {
    let place = Place::new(KEYS);
    let store = Store::open(&store::Settings { path: Some(place.database()) }).await.unwrap();
    let key = |name: &str, expires_at| CallerKey {
        name: name.into(),
        groups: Vec::new(),
        scopes: Vec::new(),
        made_at: 0,
        expires_at,
    };
    let over = store.new_caller_key(&key("over", Some(1_700_000_000))).await.unwrap().unwrap();
    let good = store.new_caller_key(&key("good", Some(i64::MAX))).await.unwrap().unwrap();
    let gateway = place.gateway().start().await;
    assert_eq!((status(&gateway, &over).await, status(&gateway, &good).await), (401, 200));
    let other = Gateway::with("[identify]\nanonymous = true\n").store(place.database()).start().await;
    assert_eq!(status(&other, &good).await, 401);
    let none = gateway.waystation.reload(Config::default()).await.expect("nobody is asked on loopback");
    assert_eq!((none.changed, status(&gateway, &over).await), (vec!["identify"], 200));
}

#[test]
fn keys_are_shown_once_and_listed_without_themselves() {
    let place = Place::new(KEYS);
    assert_eq!(place.does(&["key", "list"]), "there are no keys; `waystation key new NAME` makes one");
    let made: Value =
        serde_json::from_str(&place.does(&["key", "new", "ci", "--json", "--group", "ops"])).unwrap();
    assert_eq!(
        (&made["name"], &made["groups"], &made["expires"]),
        (&json!("ci"), &json!(["ops"]), &Value::Null)
    );
    let key = made["key"].as_str().unwrap();
    let table = place.does(&["key", "list"]);
    assert!(table.contains("KEY  GROUPS  SCOPES  MADE") && table.contains("\nci   ops     -"), "{table}");
    let listed = place.does(&["key", "list", "--json"]);
    assert!(listed.contains("\"ci\"") && !listed.contains(key) && !table.contains(key));
    assert!(told(&place.run(&["key", "new", "me"])).contains("the only time that the key is shown"));

    place.fails(&["key", "new", "ci"], "there is a key \"ci\" already; revoke it");
    place.fails(&["key", "new", "a b"], "no blanks");
    place.fails(&["key", "revoke", "nobody"], "there is no key \"nobody\"");
    let forgetful = Place::new("[listen]\n");
    std::fs::write(forgetful.path().join("routes.toml"), "[store]\npath = \":memory:\"\n").unwrap();
    forgetful.fails(&["key", "new", "ci"], "name a file there");
    let useless = Place::new("");
    assert!(told(&useless.run(&["key", "new", "ci"])).contains("needs keys = true in [identify]"));
}

#[tokio::test]
async fn a_token_for_trying_is_believed_where_its_lines_are() {
    let place = Place::new("");
    let output =
        place.run(&["token", "--subject", "ada", "--group", "ops", "--scope", "read", "--expires", "5m"]);
    let hint = String::from_utf8(output.stderr).unwrap();
    let lines = hint.split_once("this does:\n").expect("a hint").1;
    let token = String::from_utf8(output.stdout).unwrap().trim_end().to_owned();
    let (fake, rules) = (
        Fake::builder().start().await,
        "[[permit]]\nwho = { subject = \"ada\", group = \"ops\", scope = \"read\" }\nallow = [\"one__echo\"]\n",
    );
    let gateway = Gateway::with(lines).lines(rules).backend("one", &fake).start().await;
    let listed = with(gateway.modern("tools/list", json!({})), &token).send().await.result();
    assert_eq!(names_of(&listed), ["one__echo"]);

    let file = place.path().join("state/waystation/development.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // The same key again; where the lines are in place, nothing is said of them.
    std::fs::write(place.path().join("routes.toml"), lines).unwrap();
    let again = place.run(&["token"]);
    assert!(again.stderr.is_empty(), "{}", told(&again));
    assert_eq!(status(&gateway, String::from_utf8(again.stdout).unwrap().trim_end()).await, 200);
    let other = place.does(&["token", "--audience", "https://other.example.com/mcp"]);
    assert_eq!(status(&gateway, &other).await, 401);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    place.fails(&["token"], "can be read by others");
    std::fs::remove_file(&file).unwrap();
    let foreign = place.does(&["token"]);
    assert_eq!(status(&gateway, &foreign).await, 401, "the gateway has the set of the old key");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_says_who_asks_and_what_to_do_if_it_must() {
    let place = Place::new(KEYS);
    let key = place.does(&["key", "new", "me"]);
    let fake = Fake::builder().start().await;
    let gateway = place.gateway().backend("one", &fake).start().await;
    let url = format!("http://{}/mcp", gateway.address);
    for arguments in [&["list"][..], &["status"], &["call", "one__echo"]] {
        let asked = [arguments, &["--url", &url]].concat();
        place.fails(&asked, "wants to know who asks; set WAYSTATION_TOKEN");
        place.fails(&[&asked[..], &["--token", "ws_old"]].concat(), "does not take this token");
        let output = place.does(&[&asked[..], &["--token", &key]].concat());
        assert!(!output.contains(&key));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
    command.env_clear().env("WAYSTATION_TOKEN", &key).current_dir(place.path());
    let output = command.args(["list", "--url", &url]).output().unwrap();
    assert!(told(&output).contains("one__echo"), "{}", told(&output));
}
