//! What we promise each other about the code, kept by a machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Every Rust file under `src`, with its text.
fn sources() -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 30, "only {} files found: is this test still looking?", found.len());
    found
}

/// The part of a file that is not its tests.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

/// The top-level module a file belongs to.
fn module_of(file: &Path) -> String {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let first = file.strip_prefix(src).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The table of `docs/architecture.md`.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let text = fs::read_to_string(path).unwrap();
    let table = text.split("## Who may use whom").nth(1).unwrap().split("## ").next().unwrap();
    let names =
        |cell: &str| -> BTreeSet<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').collect();
        (names(cells[1]).pop_first().unwrap(), names(cells[2]))
    })
    .collect()
}

/// The top-level modules of this crate that a text names: `crate::x`, `use crate::{x, y::z}`.
fn uses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            let mut begins = true;
            for letter in group.chars() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => begins = true,
                    _ if depth == 0 && begins && (letter.is_alphanumeric() || letter == '_') => {
                        word.push(letter)
                    }
                    _ => {}
                }
                if depth == 0 && begins && !word.is_empty() && !letter.is_alphanumeric() && letter != '_' {
                    found.insert(std::mem::take(&mut word));
                    begins = letter == ',';
                }
            }
            if !word.is_empty() {
                found.insert(word);
            }
        } else {
            found.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found
}

#[test]
fn imports_are_found_in_all_their_spellings() {
    let text = "use crate::wire; use crate::{call::{Call, Reply}, error::{self, Error}, store};\nfn f() { crate::app::run() }";
    let expected = ["app", "call", "error", "store", "wire"].map(str::to_owned);
    assert_eq!(uses(text), expected.into());
}

#[test]
fn modules_use_only_what_the_architecture_allows() {
    let allowed = allowed();
    let modules: BTreeSet<_> = sources().iter().map(|(file, _)| module_of(file)).collect();
    let mut seen = 0;
    for (file, text) in sources() {
        let module = module_of(&file);
        if module == "lib" || module == "main" {
            continue;
        }
        let may = allowed.get(&module).unwrap_or_else(|| panic!("{module} has no row"));
        let code: String =
            product(&text).lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for used in uses(&code) {
            // What is no module of ours is an item re-exported at the root, of which there is none.
            assert!(modules.contains(&used), "{}: crate::{used} is no module", file.display());
            seen += 1;
            assert!(used == module || may.contains(&used), "{}: {module} may not use {used}", file.display());
        }
    }
    assert!(seen > 60, "only {seen} imports found: is this test still looking?");
}

#[test]
fn the_arrows_lead_nowhere_in_a_circle() {
    let allowed = allowed();
    let mut done: BTreeSet<String> = BTreeSet::new();
    while done.len() < allowed.len() {
        let next = allowed.iter().find(|(module, may)| !done.contains(*module) && may.is_subset(&done));
        let (module, _) = next.expect("what is left uses one another in a circle");
        done.insert(module.clone());
    }
}

#[test]
fn every_file_opens_with_the_question_it_answers() {
    for (file, text) in sources() {
        assert!(text.starts_with("//! "), "{} does not open with //!", file.display());
    }
}

#[test]
fn files_and_functions_stay_within_one_readers_head() {
    for (file, text) in sources() {
        let lines = product(&text).lines().count();
        assert!(lines <= 480, "{} has {lines} lines: is it two files?", file.display());
        let mut begun: Option<(usize, String)> = None;
        for (number, line) in product(&text).lines().enumerate() {
            let body = line.trim_start();
            let indent = line.len() - body.len();
            let head =
                body.trim_start_matches("pub ").trim_start_matches("const ").trim_start_matches("async ");
            if head.starts_with("fn ") && !line.trim_end().ends_with(';') {
                begun = Some((number, " ".repeat(indent)));
            }
            if let Some((start, closing)) = &begun
                && line == format!("{closing}}}")
            {
                let length = number - start + 1;
                assert!(length <= 70, "{}:{} is a function of {length} lines", file.display(), start + 1);
                begun = None;
            }
        }
    }
}

#[test]
fn what_belongs_to_one_place_is_in_that_place() {
    let only = |words: &[&str], places: &[&str]| {
        let mut seen = 0;
        for (file, text) in sources() {
            let path = file.display().to_string();
            for word in words.iter().filter(|word| product(&text).contains(**word)) {
                seen += 1;
                assert!(places.iter().any(|place| path.contains(place)), "{path} mentions {word}");
            }
        }
        assert!(seen > 0, "{words:?} are nowhere: is this test still looking?");
    };
    only(&["sqlx::", "SELECT ", "INSERT "], &["src/store/"]);
    only(
        &["hyper::", "http::Re", "HeaderMap"],
        &[
            "src/listener/",
            "src/backend/",
            "src/console/",
            "src/app/",
            "src/engine.rs",
            "src/cli/",
            "src/simulator/",
        ],
    );
}

#[test]
fn there_is_no_unsafe_code_and_nothing_left_undone() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    assert!(lib.contains("#![forbid(unsafe_code)]"));
    for (file, text) in sources() {
        for word in [".unwrap()", "todo!(", "unimplemented!(", "dbg!(", "TODO", "FIXME", "#[allow("] {
            assert!(!product(&text).contains(word), "{} has {word}", file.display());
        }
    }
}

#[test]
fn a_release_that_could_be_weakened_does_not_compile() {
    let compile = |debug_assertions: &str| {
        let checks = format!("debug-assertions={debug_assertions}");
        let words = ["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "-o", "/dev/null"];
        let words = words.into_iter().chain(["--cfg", "feature=\"weaken\"", "-C", &checks, "src/weaken.rs"]);
        let output = Command::new("rustc").args(words).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        String::from_utf8(output.expect("rustc, as cargo has it").stderr).unwrap()
    };
    let refusal = "the feature `weaken` switches guards off for tests; it is not for releases";
    assert!(compile("off").contains(refusal) && !compile("on").contains(refusal));
}

#[test]
fn what_batteries_are_to_notice_can_be_switched_off() {
    let listed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/weaknesses")).unwrap();
    let lines = listed.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let names: BTreeSet<&str> =
        lines.flat_map(|line| line.split_whitespace().nth(1).unwrap().split(',')).collect();
    let sources = sources();
    for name in names {
        let asked = format!("\"{name}\"");
        assert!(sources.iter().any(|(_, text)| text.contains(&asked)), "nothing in src/ asks for {name}");
    }
}
