//! What do several answers come to together?

use std::collections::HashSet;

/// How one member has decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Vote {
    pub choice: String,
    pub weight: f64,
}

/// What most have decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally {
    pub choice: String,
    /// Its share of all weight, from 0 to 1.
    pub share: f64,
    /// Another has as much.
    pub tied: bool,
}

/// What stands behind a word at the beginning of a line, such as `ANSWER: blue`. The last such line counts,
/// since models quote the question before they answer it.
pub fn line<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let is_mark =
        |letter: char| matches!(letter, '*' | '_' | '#' | '>' | '`' | '-') || letter.is_whitespace();
    text.lines().rev().find_map(|line| {
        let line = line.trim_start_matches(is_mark);
        let (head, rest) = line.split_at_checked(word.len())?;
        let rest = rest.trim_start_matches(is_mark).strip_prefix(':')?;
        let said = rest.trim_matches(is_mark).trim_end_matches('.');
        (head.eq_ignore_ascii_case(word) && !said.is_empty()).then_some(said)
    })
}

/// The same for answers that differ only in how they are written.
pub fn normal(choice: &str) -> String {
    let words = choice.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty());
    let words = words.collect::<Vec<_>>().join(" ").to_lowercase();
    // Of signs alone, nothing would be left.
    if words.is_empty() { choice.trim().to_lowercase() } else { words }
}

/// The option that is meant: the one that is said, or the only one that is named in what is said.
pub fn option<'a>(options: &'a [String], said: &str) -> Option<&'a String> {
    let said = normal(said);
    if let Some(option) = options.iter().find(|option| normal(option) == said) {
        return Some(option);
    }
    let spaced = format!(" {said} ");
    let mut named = options.iter().filter(|option| spaced.contains(&format!(" {} ", normal(option))));
    let only = named.next()?;
    named.next().is_none().then_some(only)
}

/// Counts votes. Of choices with as much weight, the one that was named first is taken.
pub fn tally(votes: &[Vote]) -> Option<Tally> {
    let mut sums: Vec<(String, &str, f64)> = Vec::new();
    for vote in votes {
        let key = normal(&vote.choice);
        match sums.iter_mut().find(|(other, ..)| *other == key) {
            Some((.., sum)) => *sum += vote.weight,
            None => sums.push((key, &vote.choice, vote.weight)),
        }
    }
    let all: f64 = sums.iter().map(|(.., sum)| sum).sum();
    let most = sums.iter().map(|(.., sum)| *sum).fold(f64::NEG_INFINITY, f64::max);
    let mut first = sums.iter().filter(|(.., sum)| (sum - most).abs() < 1e-9);
    let (_, choice, sum) = first.next()?;
    let share = if all > 0.0 { sum / all } else { 0.0 };
    Some(Tally { choice: (*choice).to_owned(), share, tied: first.next().is_some() })
}

/// How near each text is to all others, from 0 to 1, by their vectors or else by their words.
pub fn nearness(texts: &[String], vectors: Option<&[Vec<f64>]>) -> Vec<f64> {
    let near = |one: usize, other: usize| match vectors {
        Some(vectors) => cosine(&vectors[one], &vectors[other]).clamp(0.0, 1.0),
        None => overlap(&texts[one], &texts[other]),
    };
    let others = texts.len().saturating_sub(1).max(1) as f64;
    let to_others = |one: usize| {
        (0..texts.len()).filter(|other| *other != one).map(|other| near(one, other)).sum::<f64>()
    };
    (0..texts.len()).map(|one| if texts.len() == 1 { 1.0 } else { to_others(one) / others }).collect()
}

pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

fn cosine(one: &[f64], other: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let length = (dot(one, one) * dot(other, other)).sqrt();
    if length > 0.0 { dot(one, other) / length } else { 0.0 }
}

/// The share of words that both have.
fn overlap(one: &str, other: &str) -> f64 {
    let words = |text: &str| normal(text).split(' ').map(str::to_owned).collect::<HashSet<_>>();
    let (one, other) = (words(one), words(other));
    let all = one.union(&other).count();
    if all == 0 { 1.0 } else { one.intersection(&other).count() as f64 / all as f64 }
}

/// The numbers below `count` in an order that only the seed decides, so that whoever judges answers has
/// nothing of the order in which they came.
pub fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut state = seed;
    let mut next = || {
        // Sebastiano Vigna's SplitMix64, which is enough for mixing.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    let mut order: Vec<_> = (0..count).collect();
    for last in (1..count).rev() {
        let place = usize::try_from(next() % (last as u64 + 1)).unwrap_or(0);
        order.swap(last, place);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes(all: &[(&str, f64)]) -> Vec<Vote> {
        all.iter().map(|(choice, weight)| Vote { choice: (*choice).into(), weight: *weight }).collect()
    }

    #[test]
    fn the_last_line_with_the_word_counts_however_it_is_dressed() {
        let quoted = "End with ANSWER: and the option.\n\n**Answer: Blue.**\n";
        assert_eq!(line(quoted, "ANSWER"), Some("Blue"));
        assert_eq!(line("> ANSWER: red\nANSWER : green", "ANSWER"), Some("green"));
        assert_eq!(line("**VERDICT:** YES\nREASON: so", "VERDICT"), Some("YES"));
        for none in ["", "ANSWER:", "the ANSWER: blue", "ANSWERED: blue", "ÄNSWER: x", "ANSWER blue"] {
            assert_eq!(line(none, "ANSWER"), None, "{none}");
        }
    }

    #[test]
    fn an_option_is_found_if_only_it_is_meant() {
        let options = ["Red", "Dark red", "blue (sky)"].map(str::to_owned);
        assert_eq!(option(&options, "red"), Some(&options[0]));
        assert_eq!(option(&options, "I take Blue, sky."), Some(&options[2]));
        // "dark red" names "red" too, but is said itself.
        assert_eq!(option(&options, "dark-red"), Some(&options[1]));
        assert_eq!(option(&options, "the dark red one"), None);
        assert_eq!(option(&options, "green"), None);
    }

    #[test]
    fn most_weight_wins_and_a_tie_is_said() {
        let tally = |all: &[(&str, f64)]| tally(&votes(all));
        let most = tally(&[("Yes", 1.0), ("no", 1.0), ("yes!", 1.0)]).unwrap();
        assert_eq!((most.choice.as_str(), most.tied), ("Yes", false));
        assert!((most.share - 2.0 / 3.0).abs() < 1e-9);
        let heavy = tally(&[("yes", 0.2), ("yes", 0.3), ("no", 0.9)]).unwrap();
        assert_eq!(heavy.choice, "no");
        let tied = tally(&[("b", 1.0), ("a", 1.0)]).unwrap();
        assert_eq!((tied.choice.as_str(), tied.tied, tied.share), ("b", true, 0.5));
        assert_eq!(tally(&[]), None);
    }

    #[test]
    fn like_texts_are_near() {
        let texts = ["one two three", "three two one", "four five"].map(str::to_owned);
        let near = nearness(&texts, None);
        assert!((near[0] - 0.5).abs() < 1e-9 && near[2] == 0.0, "{near:?}");
        let vectors = [vec![1.0, 0.0], vec![2.0, 0.0], vec![0.0, 1.0]];
        assert_eq!(nearness(&texts, Some(&vectors)), [0.5, 0.5, 0.0]);
        assert_eq!(nearness(&texts[..1], None), [1.0]);
    }

    #[test]
    fn the_seed_alone_decides_the_order() {
        for count in [0, 1, 2, 7] {
            let mut order = shuffled(count, 5);
            assert_eq!(order, shuffled(count, 5));
            order.sort_unstable();
            assert_eq!(order, (0..count).collect::<Vec<_>>());
        }
        let orders: HashSet<_> = (0..50).map(|seed| shuffled(4, seed)).collect();
        assert!(orders.len() > 10, "{}", orders.len());
    }
}
