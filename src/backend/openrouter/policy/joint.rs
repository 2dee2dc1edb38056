//! Where do two pieces of an answer overlap?
//!
//! A model that goes on with a text often repeats its last words first. They are held back until it
//! is clear whether they are a repetition, so that nothing is said twice and nothing taken back.

/// The longest repetition that is looked for, in bytes.
const LONGEST: usize = 400;
/// Shorter ones may be meant: "ha, ha", or the next row of a table.
const SHORTEST: usize = 16;
/// Letters that a repetition must have, which lines and spaces are not.
const LETTERS: usize = 8;

/// Between what was said and what comes.
#[derive(Debug)]
pub struct Joint {
    /// The end of what was said.
    before: String,
    /// What came and may be a repetition.
    held: String,
    settled: bool,
    /// What was let through.
    said: String,
}

impl Joint {
    pub fn new(before: &str) -> Self {
        let start = before.ceil_char_boundary(before.len().saturating_sub(LONGEST));
        let (held, said) = (String::new(), String::new());
        Self { before: before[start..].to_owned(), held, settled: false, said }
    }

    /// Takes what comes, and gives what of it is new.
    pub fn push(&mut self, text: &str) -> Option<String> {
        if self.settled {
            self.said.push_str(text);
            return Some(text.to_owned());
        }
        self.held.push_str(text);
        let may_grow = |(at, _): (usize, char)| {
            self.before.len() - at > self.held.len() && self.before[at..].starts_with(&self.held)
        };
        if self.before.char_indices().any(may_grow) { None } else { self.settle() }
    }

    /// Nothing comes any more: gives what was held back, and all that was let through.
    pub fn end(mut self, tell: impl FnOnce(String)) -> String {
        if !self.settled
            && let Some(text) = self.settle()
        {
            tell(text);
        }
        self.said
    }

    fn settle(&mut self) -> Option<String> {
        self.settled = true;
        let held = std::mem::take(&mut self.held);
        let text = &held[repeated(&self.before, &held)..];
        self.said.push_str(text);
        (!text.is_empty()).then(|| text.to_owned())
    }
}

/// How many bytes at the beginning of a text repeat the end of another.
fn repeated(before: &str, text: &str) -> usize {
    let ends = before.char_indices().map(|(at, _)| &before[at..]);
    let overlap = ends
        .filter(|end| text.starts_with(end))
        .find(|end| end.len() >= SHORTEST && end.chars().filter(|c| c.is_alphanumeric()).count() >= LETTERS);
    match overlap {
        Some(end) => end.len(),
        // White space at the end was not sent back, so the model may write it again.
        None => {
            let space = &before[before.trim_end().len()..];
            let same = space
                .char_indices()
                .map(|(at, c)| at + c.len_utf8())
                .take_while(|end| text.starts_with(&space[..*end]));
            same.last().unwrap_or(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is new, with the text in pieces of so many letters.
    fn joined(before: &str, text: &str, piece: usize) -> String {
        let mut joint = Joint::new(before);
        let mut told = String::new();
        let letters: Vec<char> = text.chars().collect();
        for piece in letters.chunks(piece) {
            told.extend(joint.push(&piece.iter().collect::<String>()));
        }
        let said = joint.end(|text| told.push_str(&text));
        assert_eq!(said, told);
        said
    }

    #[track_caller]
    fn check(before: &str, text: &str, new: &str) {
        for piece in [1, 2, 3, 7, 1000] {
            assert_eq!(joined(before, text, piece), new, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_text_that_goes_on_is_left_as_it_is() {
        check("The quick brown", " fox jumps", " fox jumps");
        check("The quick br", "own fox", "own fox");
        check("", "Hello", "Hello");
    }

    #[test]
    fn repeated_words_are_left_out() {
        check("It was the best of times, it was", "best of times, it was the worst", " the worst");
        check("Grüße an die schöne Müllerin", "die schöne Müllerin und", " und");
    }

    #[test]
    fn what_may_be_meant_stays() {
        check("ha ha", " ha ha", " ha ha");
        check("| a |\n|---|---|---|---|---|", "|---|---|---|---|---|", "|---|---|---|---|---|");
    }

    #[test]
    fn white_space_that_was_not_sent_back_is_not_doubled() {
        check("One.\n\n", "\n\nTwo.", "Two.");
        check("One. ", " Two.", "Two.");
        check("One. ", "Two.", "Two.");
        check("One.", "\nTwo.", "\nTwo.");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(before in "[a-c \n]{0,60}", text in "[a-c \n]{0,60}", piece in 1_usize..9) {
            prop_assert_eq!(joined(&before, &text, piece), joined(&before, &text, 1000));
        }
    }
}
