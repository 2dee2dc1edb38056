//! Which names look alike?
//!
//! By the runs of three letters that two names have in common, which forgives what people get wrong:
//! the author, a dash, the order of words.

use std::collections::HashSet;

/// Less alike than this is not alike.
const LEAST: f64 = 0.2;

/// The ids that are most like a name, the best first. Each id comes with what it is called in full.
pub fn most_like<'a>(name: &str, all: impl Iterator<Item = (&'a str, &'a str)>, most: usize) -> Vec<String> {
    let wanted = trigrams(name);
    let short = trigrams(after_author(name));
    let mut found: Vec<(f64, &str)> = all
        .map(|(id, called)| {
            let whole = alike(&wanted, &trigrams(id)).max(alike(&wanted, &trigrams(called)));
            (whole.max(alike(&short, &trigrams(after_author(id)))), id)
        })
        .filter(|(likeness, _)| *likeness >= LEAST)
        .collect();
    found.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
    found.into_iter().take(most).map(|(_, id)| id.to_owned()).collect()
}

fn after_author(id: &str) -> &str {
    id.split_once('/').map_or(id, |(_, name)| name)
}

fn trigrams(name: &str) -> HashSet<[char; 3]> {
    let letters = name.to_lowercase();
    let letters = letters.chars().map(|c| if c.is_alphanumeric() { c } else { ' ' });
    let letters: Vec<char> = [' ', ' '].into_iter().chain(letters).chain([' ']).collect();
    letters.windows(3).map(|three| [three[0], three[1], three[2]]).collect()
}

/// How much of both is common, from 0 to 1.
fn alike(one: &HashSet<[char; 3]>, other: &HashSet<[char; 3]>) -> f64 {
    let common = one.intersection(other).count();
    2.0 * common as f64 / (one.len() + other.len()).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(&str, &str); 4] = [
        ("acme/atlas-70b", "Acme: Atlas 70B"),
        ("acme/atlas-8b", "Acme: Atlas 8B"),
        ("other/zephyr-7b", "Other: Zephyr 7B"),
        ("beta/größe-1", "Beta: Größe 1"),
    ];

    #[track_caller]
    fn check(name: &str, first: Option<&str>) {
        let found = most_like(name, ALL.into_iter(), 5);
        assert_eq!(found.first().map(String::as_str), first, "{found:?}");
    }

    #[test]
    fn a_name_that_is_nearly_right_is_found() {
        check("acme/atlas70b", Some("acme/atlas-70b"));
        check("atlas 70b", Some("acme/atlas-70b"));
        check("acmee/zephyr-7b", Some("other/zephyr-7b"));
        check("Beta/Größe", Some("beta/größe-1"));
    }

    #[test]
    fn a_name_that_is_like_none_has_none() {
        check("qqqqqq", None);
        check("", None);
    }
}
