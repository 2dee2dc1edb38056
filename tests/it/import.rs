//! What becomes of other programs' files?
//!
//! Beside each sample in `import/` stands the routes.toml that is made of it and what is said on
//! the way; `REWRITE_GOLDEN=1 cargo test --test it import` writes both anew.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use waystation::config::{
    Config, Environment,
    mcp_json::{self, Intake, Names, Purpose},
};

const SAMPLES: [&str; 5] = ["claude_desktop_config", "claude-code.mcp", "claude", "cursor-mcp", "vscode-mcp"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/import")
}

/// `waystation import` of a sample, in an environment with nothing but a home in it.
fn import(files: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
    command
        .arg("import")
        .args(files)
        .current_dir(folder())
        .env_clear()
        .env("HOME", "/home/me")
        .output()
        .unwrap()
}

#[track_caller]
fn compare(file: &str, made: &[u8]) {
    let path = folder().join(file);
    if std::env::var_os("REWRITE_GOLDEN").is_some() {
        fs::write(&path, made).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(made), golden, "{file}");
}

#[test]
fn each_clients_file_becomes_a_routes_toml() {
    for sample in SAMPLES {
        let output = import(&[&format!("{sample}.json")]);
        assert!(output.status.success(), "{sample}: {output:?}");
        compare(&format!("{sample}.toml"), &output.stdout);
        compare(&format!("{sample}.notes"), &output.stderr);
        for shown in [&output.stdout, &output.stderr] {
            let shown = String::from_utf8_lossy(shown);
            assert!(!shown.contains("hush"), "{sample}: {shown}");
        }
    }
}

/// The variables that the notes say to set.
fn variables(notes: &[u8]) -> Vec<(String, String)> {
    let notes = String::from_utf8_lossy(notes);
    let lines = notes.lines().filter_map(|line| line.strip_prefix("  "));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    let value = |name: &str| match name.rsplit("__").next() {
        Some("ARGS") => "[\"a\"]",
        Some("URL") => "https://example.com",
        _ => "value",
    };
    names.map(|name| (name.to_owned(), value(name).to_owned())).collect()
}

#[test]
fn what_is_made_is_right_once_the_variables_are_set_that_it_names() {
    for sample in SAMPLES {
        let output = import(&[&format!("{sample}.json")]);
        let text = String::from_utf8(output.stdout).unwrap();
        let variables = variables(&output.stderr);
        if let Err(complaints) = Config::parse(sample, &text, &variables.into_iter().collect()) {
            panic!("{text}\n{complaints}");
        }
    }
}

#[test]
fn several_files_become_one_without_clashes() {
    let files: Vec<_> = SAMPLES.iter().map(|sample| format!("{sample}.json")).collect();
    let output = import(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let text = String::from_utf8(output.stdout).unwrap();
    let variables: Environment = variables(&output.stderr).into_iter().collect();
    let (config, _) = Config::parse("all", &text, &variables).unwrap();
    assert!(config.backends.len() > 12, "{text}");
    for name in ["db", "db-2", "db-3", "brave-search", "brave-search-2", "memory"] {
        assert!(config.backends.contains_key(name), "{name} is not in {:?}", config.backends.keys());
    }
}

/// Loads a client's file as it is.
fn take_over(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mcp.json");
    let routes = folder.path().join("routes.toml");
    fs::write(&file, text).unwrap();
    fs::write(&routes, "[backends.docs]\nurl = \"https://docs.example.com\"\n").unwrap();
    let loaded = Config::load_with(Some(&routes), &[file], &variables.iter().copied().collect());
    loaded.map(|loaded| loaded.config).map_err(|complaints| complaints.to_string())
}

#[test]
fn a_clients_file_is_taken_as_it_is() {
    let text = r#"{"mcpServers": {"Docs": {"command": "x", "env": {"TOKEN": "ghp_Q1w2E3r4T5y6U7i8O9p0"}}}}"#;
    let config = take_over(text, &[]).unwrap();
    let names: Vec<_> = config.backends.keys().collect();
    assert_eq!(names, ["docs", "docs-2"]);
    let token = config.backends["docs-2"].env["TOKEN"].resolve().unwrap();
    assert_eq!(token.text, "ghp_Q1w2E3r4T5y6U7i8O9p0");
}

#[test]
fn its_references_are_filled_in() {
    let text = r#"{"mcpServers": {"a": {"command": "x", "args": ["${SET}", "${UNSET:-else}"]}}}"#;
    let config = take_over(text, &[("SET", "value")]).unwrap();
    assert_eq!(config.backends["a"].args, ["value", "else"]);
    let wrong = take_over(text, &[]).unwrap_err();
    assert!(wrong.contains("mcp.json:1:") && wrong.contains("SET, which is not set"), "{wrong}");
}

#[test]
fn a_password_in_an_address_becomes_a_header() {
    let text = r#"{"mcpServers": {"a": {"url": "https://me:h%20h@example.com/mcp"}}}"#;
    let config = take_over(text, &[]).unwrap();
    assert_eq!(config.backends["a"].url.as_deref(), Some("https://example.com/mcp"));
    let header = config.backends["a"].headers["Authorization"].resolve().unwrap();
    assert_eq!(header.text, "Basic bWU6aCBo");
}

#[test]
fn what_is_wrong_in_it_is_told_at_the_servers_line() {
    let text = "{\"mcpServers\": {\n  \"a\": {\"url\": \"ftp://x\"},\n  \"b\": {},\n  \"c\": 3\n}}";
    let wrong = take_over(text, &[]).unwrap_err();
    for place in ["mcp.json:2:", "mcp.json:3:", "mcp.json:4:"] {
        assert!(wrong.contains(place), "{place} is not in {wrong}");
    }
}

#[test]
fn a_file_that_is_no_clients_is_refused() {
    let check = |text: &str, word: &str| {
        let wrong = take_over(text, &[]).unwrap_err();
        assert!(wrong.contains(word), "{word:?} is not in {wrong}");
    };
    check("{\"mcpServers\": {", "is no JSON");
    check("{\n\"mcpServers\": }", "mcp.json:2:");
    check("{\"other\": {}}", "names no servers");
    check("[backends.x]", "is no JSON");
}

proptest::proptest! {
    #[test]
    fn any_file_is_taken_over_or_refused(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..16),
        whole in proptest::bool::ANY,
    ) {
        let inner = pieces.concat();
        let text = if whole { format!("{{\"mcpServers\": {{{inner}}}}}") } else { inner };
        for purpose in [Purpose::File, Purpose::Use] {
            let environment = Environment::from_iter([("A", "1")]);
            let mut intake = Intake::new(purpose, &environment, Names::new([]));
            let _ = intake.read("mcp.json", &text);
            let written = mcp_json::write(&intake.taken.servers);
            proptest::prop_assert!(written.parse::<toml_edit::DocumentMut>().is_ok(), "{text}\n{written}");
        }
    }
}

/// What such files consist of, and what breaks them.
const PIECES: &[&str] = &[
    "\"a\": {\"command\": \"npx -y x\"},",
    "\"é\": {\"url\": \"https://me:pw@x.y/${A}\"},",
    "\"b\": {\"command\": \"x\", \"args\": [\"${B}\", 3, null]},",
    "\"c\": {\"command\": \"x\\\"'\\n\", \"env\": {\"K EY\": \"a\\tb\", \"TOKEN\": \"${input:é}\", \"N\": null}},",
    "\"a\": {\"type\": \"sse\", \"url\": \"x\", \"headers\": {\"Authorization\": \"Bearer x\"}}",
    "\"d\": 3,",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "//",
    "/*",
    "*/",
    "\\",
    "é",
    "\n",
    "\"x\"",
    "\"servers\": {",
    "\"projects\": {\"p\": {\"mcpServers\": {}}},",
    "\u{feff}",
];
