//! How does a model vote? Each has an inclination, and four are always the same.

use crate::simulator::random;

/// How a model thinks of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vote {
    Yes,
    No,
    /// Nothing that could be counted.
    Garbage,
}

impl Vote {
    pub fn of(model: &str, question: &str) -> Self {
        let hash = random::number(&[model.as_bytes(), b"\0", question.as_bytes()]);
        let yes_rate = match model.strip_prefix("sim/persona-") {
            Some("yes") => 100,
            Some("no") => 0,
            Some("garbage") => return Self::Garbage,
            Some(_) => 50,
            // From 30 to 70.
            None => 30 + random::number(&[model.as_bytes()]) % 41,
        };
        if hash % 100 < yes_rate { Self::Yes } else { Self::No }
    }

    pub fn opinion(self) -> Option<bool> {
        match self {
            Self::Yes => Some(true),
            Self::No => Some(false),
            Self::Garbage => None,
        }
    }
}

/// What a model answers to a prompt that asks for a verdict, an answer or how sure it is, if it does.
pub fn answer(model: &str, prompt: &str, question: &str) -> Option<String> {
    let asks = |word: &str| prompt.contains(word);
    if !(asks("VERDICT") || asks("ANSWER:") || asks("CONFIDENCE")) {
        return None;
    }
    let vote = Vote::of(model, question);
    let word = match vote {
        Vote::Yes => "YES",
        Vote::No => "NO",
        Vote::Garbage => return Some("Well, it depends on how one looks at it.".to_owned()),
    };
    let mut lines = Vec::new();
    if asks("VERDICT") {
        lines.push(format!("VERDICT: {word}"));
        lines.push("REASON: synthetic".to_owned());
    }
    if asks("ANSWER:") {
        let options = options(question);
        let hash = random::number(&[model.as_bytes(), question.as_bytes()]);
        let chosen = usize::try_from(hash).unwrap_or(0).checked_rem(options.len()).map(|at| options[at]);
        lines.push(format!("ANSWER: {}", chosen.unwrap_or(word)));
    }
    if asks("CONFIDENCE") {
        let sure = 50 + random::number(&[question.as_bytes(), model.as_bytes()]) % 51;
        lines.push(format!("CONFIDENCE: {sure}"));
    }
    Some(lines.join("\n"))
}

/// The lines of a question that look like a list: `- red`, `* red`, `1. red`, `A) red`.
fn options(question: &str) -> Vec<&str> {
    let option = |line| -> Option<&str> {
        let line: &str = str::trim(line);
        let (mark, rest) = line.split_once(' ')?;
        let label = mark.strip_suffix(['.', ')']);
        let is_label = label
            .is_some_and(|label| (1..=2).contains(&label.len()) && label.chars().all(char::is_alphanumeric));
        (matches!(mark, "-" | "*") || is_label).then_some(rest.trim())
    };
    question.lines().filter_map(option).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn personas_keep_to_what_they_are() {
        for question in ["Is it?", "Was it?", "Will it be?"] {
            assert_eq!(Vote::of("sim/persona-yes", question), Vote::Yes);
            assert_eq!(Vote::of("sim/persona-no", question), Vote::No);
            assert_eq!(Vote::of("sim/persona-garbage", question), Vote::Garbage);
        }
        let votes: Vec<_> = (0..200).map(|n| Vote::of("sim/persona-split", &n.to_string())).collect();
        let yes = votes.iter().filter(|vote| **vote == Vote::Yes).count();
        assert!((60..140).contains(&yes), "{yes}");
    }

    #[test]
    fn one_of_the_options_is_the_answer() {
        let question = "Which?\n- red\n2. green\nC) blue\nEnd with ANSWER: and the option.";
        assert_eq!(options(question), ["red", "green", "blue"]);
        let answer = answer("acme/atlas-70b", question, question).unwrap();
        let chosen = answer.strip_prefix("ANSWER: ").unwrap();
        assert!(["red", "green", "blue"].contains(&chosen), "{answer}");
        assert!(super::answer("acme/atlas-70b", "hello", "hello").is_none());
    }
}
