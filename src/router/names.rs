//! What is a backend's tool, prompt or resource called on this side of the gateway?
//!
//! `<prefix>__<name>` for tools and prompts, kept within 64 characters because models' own
//! interfaces take no more. Nothing is ever found by taking a name apart: a table built from
//! all lists at once says what each name stands for, so a name that two backends could claim
//! belongs to exactly one of them, and the other is given another.

use std::collections::HashMap;

use aws_lc_rs::digest;

/// The longest name that every model's interface takes.
pub const LONGEST: usize = 64;
/// How many hexadecimal digits of a digest make a shortened name unlike its neighbours.
const DIGITS: usize = 8;

/// The name of a backend's tool or prompt, before any collision.
pub fn expose(prefix: &str, name: &str) -> String {
    let full = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}__{name}") };
    if full.len() <= LONGEST { full } else { marked(&full, &full) }
}

/// Could this be the name of something of a backend's with this prefix, as far as the name says?
pub fn may_be_of(prefix: &str, name: &str) -> bool {
    prefix.is_empty() || name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("__"))
}

/// A name cut to length with a digest at its end.
fn marked(name: &str, of: &str) -> String {
    let digest = digest::digest(&digest::SHA256, of.as_bytes());
    let digits: String = digest.as_ref().iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
    let mut end = name.len().min(LONGEST - DIGITS - 1);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{digits}", &name[..end])
}

/// Why a backend's name cannot be shown to clients (revision 2025-11-25, "Tool names"), if so.
pub fn unfit(name: &str) -> Option<&'static str> {
    let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    if name.is_empty() {
        Some("the name is empty")
    } else if name.len() > 128 {
        Some("the name is over 128 characters")
    } else if !name.bytes().all(fit) {
        Some("the name has characters besides letters, digits, '_', '.' and '-'")
    } else {
        None
    }
}

/// One thing that a backend offers, under the name it has there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub backend: usize,
    pub name: String,
}

/// Names given out, each once.
#[derive(Debug, Default)]
pub struct Names {
    taken: HashMap<String, Origin>,
}

impl Names {
    /// Gives an origin the first name of its list that nobody has; a last resort always exists.
    /// The second value says whether it had to give way to another.
    pub fn give(&mut self, origin: Origin, wanted: [String; 2]) -> (String, bool) {
        let last = || marked(&wanted[1], &format!("{} {}", origin.backend, origin.name));
        let free = wanted.iter().find(|name| !self.taken.contains_key(*name)).cloned();
        let name = free.unwrap_or_else(last);
        let gave_way = name != wanted[0];
        self.taken.insert(name.clone(), origin);
        (name, gave_way)
    }
}

/// The URI of a resource, told apart from the same one of another backend.
///
/// A prefix to the scheme leaves a URI a URI and a template a template. Clients look at some
/// schemes, though: those keep theirs and get the backend's name as the first part.
pub fn apart(backend: &str, uri: &str) -> String {
    for scheme in ["https://", "http://", "ui://"] {
        if let Some(rest) = uri.strip_prefix(scheme) {
            return format!("{scheme}{backend}/{rest}");
        }
    }
    format!("{backend}+{uri}")
}

/// A URI with [`apart`] undone, if it was done for this backend.
pub fn together(backend: &str, uri: &str) -> Option<String> {
    for scheme in ["https://", "http://", "ui://"] {
        if let Some(rest) = uri.strip_prefix(scheme) {
            let rest = rest.strip_prefix(backend)?.strip_prefix('/')?;
            return Some(format!("{scheme}{rest}"));
        }
    }
    Some(uri.strip_prefix(backend)?.strip_prefix('+')?.to_owned())
}

/// How specifically a URI template (RFC 6570) fits a URI: the number of its fixed characters,
/// or nothing if it does not fit. An expression stands for any characters.
pub fn fits(template: &str, uri: &str) -> Option<usize> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((fixed, more)) = rest.split_once('{') {
        parts.push(fixed);
        rest = more.split_once('}')?.1;
    }
    parts.push(rest);
    let (first, last) = (parts[0], parts[parts.len() - 1]);
    if parts.len() == 1 {
        return (first == uri).then_some(uri.len());
    }
    let mut inner = uri.strip_prefix(first)?.strip_suffix(last)?;
    for fixed in &parts[1..parts.len() - 1] {
        inner = &inner[inner.find(fixed)? + fixed.len()..];
    }
    Some(parts.iter().map(|fixed| fixed.len()).sum())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_the_prefix_and_the_name() {
        assert_eq!(expose("files", "read_file"), "files__read_file");
        assert_eq!(expose("", "read_file"), "read_file");
    }

    #[test]
    fn a_long_name_is_cut_the_same_way_each_time() {
        let long = "x".repeat(100);
        let name = expose("files", &long);
        assert_eq!((name.len(), expose("files", &long)), (LONGEST, name.clone()));
        assert_ne!(name, expose("files", &format!("{long}y")));
    }

    #[test]
    fn a_taken_name_gives_way_to_a_longer_one() {
        let mut names = Names::default();
        let origin = |backend| Origin { backend, name: "b".into() };
        let give = |names: &mut Names, n, wanted: &str, other: &str| {
            names.give(origin(n), [wanted.to_owned(), other.to_owned()])
        };
        assert_eq!(give(&mut names, 0, "b", "one__b"), ("b".into(), false));
        assert_eq!(give(&mut names, 1, "b", "two__b"), ("two__b".into(), true));
        let (third, gave_way) = give(&mut names, 2, "b", "two__b");
        assert!(gave_way && third.starts_with("two__b_"), "{third}");
    }

    #[test]
    fn uris_are_told_apart_and_put_together_again() {
        for (uri, other) in [
            ("test://a/{id}", "b+test://a/{id}"),
            ("https://x.org/a", "https://b/x.org/a"),
            ("ui://app", "ui://b/app"),
        ] {
            assert_eq!(apart("b", uri), other);
            assert_eq!(together("b", other).as_deref(), Some(uri));
            assert_eq!(together("c", other), None);
        }
    }

    #[test]
    fn templates_fit_what_they_describe() {
        assert_eq!(fits("test://{id}/data", "test://7/data"), Some(12));
        assert_eq!(fits("test://{id}/data", "test://7/other"), None);
        assert_eq!(fits("file:///{+path}", "file:///a/b"), Some(8));
        assert_eq!(fits("x:{a}-{b}-c", "x:1-2-c"), Some(5));
        assert_eq!(fits("x:{a}-{b}-c", "x:1-c"), None);
        assert_eq!(fits("x:{a", "x:1"), None);
        assert_eq!(fits("x:a", "x:a"), Some(3));
    }

    proptest! {
        #[test]
        fn no_two_origins_share_a_name(
            lists in proptest::collection::vec(proptest::collection::hash_set("[ab_]{1,70}", 0..12), 1..5),
            bare in any::<bool>(),
        ) {
            let mut names = Names::default();
            let mut seen = HashSet::new();
            for (backend, list) in lists.iter().enumerate() {
                for name in list {
                    let own = format!("b{}", "_".repeat(backend));
                    let prefix = if bare { "" } else { &own };
                    let wanted = [expose(prefix, name), expose(&own, name)];
                    let (given, _) = names.give(Origin { backend, name: name.clone() }, wanted);
                    prop_assert!(given.len() <= LONGEST.max(name.len()), "{}", given);
                    prop_assert!(seen.insert(given));
                }
            }
        }
    }
}
