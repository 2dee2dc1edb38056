//! What is a server called here that has any name there?

use std::collections::BTreeSet;

const LONGEST: usize = 32;

/// The valid name most like this one.
pub fn valid_name(name: &str) -> String {
    let mut valid = String::new();
    for letter in name.trim().to_lowercase().chars() {
        if letter.is_ascii_lowercase() || letter.is_ascii_digit() {
            valid.push(letter);
        } else if !valid.is_empty() && !valid.ends_with('-') {
            valid.push('-');
        }
    }
    valid.truncate(LONGEST);
    let valid = valid.trim_end_matches('-');
    if valid.is_empty() { "server".into() } else { valid.into() }
}

/// The names that are given away.
#[derive(Debug, Clone)]
pub struct Names(BTreeSet<String>);

impl Names {
    pub fn new<'a>(taken: impl IntoIterator<Item = &'a str>) -> Self {
        // The gateway's own backend.
        Self(taken.into_iter().chain(["waystation"]).map(str::to_owned).collect())
    }

    /// A name like this one that nobody else has. The same file gives the same names each time.
    pub fn give(&mut self, name: &str) -> String {
        let base = valid_name(name);
        let numbered = (2..).map(|number| {
            let tail = format!("-{number}");
            let head = &base[..base.len().min(LONGEST - tail.len())];
            format!("{}{tail}", head.trim_end_matches('-'))
        });
        let mut candidates = std::iter::once(base.clone()).chain(numbered);
        let free = candidates.find(|name| !self.0.contains(name)).expect("there is no end of numbers");
        self.0.insert(free.clone());
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_a_valid_one() {
        let check = |name, expected| assert_eq!(valid_name(name), expected, "{name}");
        check("github", "github");
        check("My Server (prod)", "my-server-prod");
        check("io.github/foo_bar", "io-github-foo-bar");
        check("__x__", "x");
        check("日本", "server");
        check("a23456789-123456789-123456789-1-34", "a23456789-123456789-123456789-1");
    }

    #[test]
    fn no_two_servers_have_one_name() {
        let mut names = Names::new(["github"]);
        assert_eq!(names.give("GitHub"), "github-2");
        assert_eq!(names.give("GITHUB"), "github-3");
        assert_eq!(names.give("waystation"), "waystation-2");
        let long = "x".repeat(40);
        assert_eq!(names.give(&long).len(), 32);
        assert_eq!(names.give(&long), format!("{}-2", "x".repeat(30)));
    }
}
