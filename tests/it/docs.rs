//! Do the documents that are made from the code say what the code says?
//!
//! `REWRITE_DOCS=1 cargo test --test it docs` writes them anew.

use std::{fs, path::Path};

use waystation::{
    backend::openrouter,
    config::{BUILT_IN, Config, Environment, manual, schema},
};

use crate::support::certified::Certified;

const OPENROUTER: &str = include_str!("../../docs/openrouter.md");

fn compare(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("REWRITE_DOCS").is_some() {
        fs::write(&path, made).unwrap();
    }
    let shipped = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == made,
        "{file} is not what the code makes; write it anew: REWRITE_DOCS=1 cargo test --test it docs"
    );
}

#[test]
fn the_schema_shipped_is_that_of_the_code() {
    compare("docs/routes.schema.json", &schema::text());
}

#[test]
fn the_page_of_keys_is_that_of_the_code() {
    compare("docs/configuration.md", &manual::text());
}

/// routes.toml with every key set that is commented out.
fn uncommented() -> String {
    let key = |line: &str| {
        line.starts_with('#')
            && line[1..].starts_with(|c: char| c.is_ascii_lowercase() || c == '[' || c == '"')
    };
    BUILT_IN.lines().map(|line| if key(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn routes_toml_runs_as_shipped_and_needs_nothing() {
    let (config, _) = Config::parse("routes.toml", BUILT_IN, &Environment::default()).unwrap();
    // Nothing but models, which a simulator plays.
    let chat = config.backends["chat"].openrouter.as_ref().unwrap();
    assert!(chat.is_simulated());
    let mut usual = Config::default();
    usual.backends.clone_from(&config.backends);
    assert_eq!((config.backends.len(), config), (1, usual));
}

#[test]
fn routes_toml_is_right_in_every_line_that_is_commented_out() {
    let sealing = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let secrets = Environment::from_iter([
        ("GITHUB_TOKEN", "x"),
        ("DOCS_TOKEN", "y"),
        ("ISSUES_SECRET", "z"),
        ("OPENROUTER_API_KEY", "sk-or-v1-0"),
        ("WAYSTATION_CONVERSATIONS_KEY", sealing),
    ]);
    let folder = Certified::new("localhost");
    let text = uncommented().replace("/etc/waystation", folder.path().to_str().unwrap());
    let (mut config, _) = Config::parse("routes.toml", &text, &secrets).unwrap();
    let mut usual = Config::default();
    usual.listen.limits.connections_per_address = Some(100); // As it is for all but this machine.
    assert!(config.listen.tls.take().is_some());
    assert_eq!((config.listen, config.session, config.log), (usual.listen, usual.session, usual.log));
    let (of, usual) = (config.deadline, usual.deadline);
    assert_eq!((of.idle, of.total, of.heartbeat), (usual.idle, usual.total, usual.heartbeat));
    assert_eq!(config.backends.len(), 6);
}

#[test]
fn routes_toml_names_every_key_there_is() {
    let document: toml_edit::DocumentMut = uncommented().parse().unwrap();
    let mut keys = 0;
    for (table, key) in schema::root().keys() {
        let entries: Vec<_> = match key.entries() {
            None => vec![&document[table]],
            Some(_) => document[table].as_table().unwrap().iter().map(|(_, entry)| entry).collect(),
        };
        for (name, inner) in key.entries().unwrap_or(key).keys() {
            if table == "listen" {
                for (within, _) in inner.keys() {
                    let said = document[table][name].get(within).is_some();
                    assert!(said, "{table}.{name}.{within} is not in routes.toml");
                    keys += 1;
                }
            }
            assert!(
                entries.iter().any(|entry| entry.get(name).is_some()),
                "{table}.{name} is not in routes.toml"
            );
            keys += 1;
        }
    }
    assert!(keys > 20, "{keys}");
}

#[test]
fn editors_find_the_schema_in_the_first_line() {
    assert_eq!(BUILT_IN.lines().next(), Some("#:schema ./docs/routes.schema.json"));
}

#[test]
fn the_examples_are_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let secrets = Environment::from_iter([("ISSUES_TOKEN", "x")]);
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "toml")).collect();
    for file in &files {
        let parsed = Config::parse("example.toml", &fs::read_to_string(file).unwrap(), &secrets);
        let (config, _) = parsed.unwrap_or_else(|wrong| panic!("{}: {wrong}", file.display()));
        assert!(!config.backends.is_empty(), "{}", file.display());
    }
    assert_eq!(files.len(), 2);
}

/// All keys below a table, those of tables within it with its name before them. Tables that may hold anything
/// have none.
fn keys_of(table: &serde_json::Value, before: &str, found: &mut Vec<String>) {
    for (key, value) in table.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(inner) if !inner.is_empty() => keys_of(value, &format!("{before}{key}."), found),
            _ => found.push(format!("{before}{key}")),
        }
    }
}

#[test]
fn the_page_of_models_has_every_key_and_every_code() {
    let mut wanted = Vec::new();
    let usual = serde_json::to_value(openrouter::Settings::default()).unwrap();
    keys_of(&usual, "", &mut wanted);
    assert!(wanted.len() > 50, "{wanted:?}");
    wanted.extend(openrouter::Code::ALL.iter().map(|code| code.as_str().to_owned()));
    wanted.retain(|word| !OPENROUTER.contains(&format!("`{word}`")));
    assert!(wanted.is_empty(), "docs/openrouter.md does not name {wanted:?}");
}

#[test]
fn the_tests_that_the_page_of_models_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut named: Vec<_> = OPENROUTER.split('`').filter(|word| word.contains("::")).collect();
    named.retain(|word| {
        word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_:".contains(&b))
    });
    assert!(named.len() > 60, "{named:?}");
    named.retain(|path| {
        let (module, test) = path.rsplit_once("::").unwrap();
        let below = if module.starts_with("backend::") { "src" } else { "tests/it" };
        let file = root.join(below).join(module.replace("::", "/")).with_extension("rs");
        !fs::read_to_string(file).is_ok_and(|text| text.contains(&format!("fn {test}(")))
    });
    assert!(named.is_empty(), "docs/openrouter.md names tests that are not there: {named:?}");
}
