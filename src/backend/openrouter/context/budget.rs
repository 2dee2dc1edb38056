//! How many tokens is there room for?

/// The shortest answer that room is kept for; some providers refuse to give less.
const LEAST_ANSWER: u64 = 16;
/// What is kept for an answer where nothing is said, and at least for models that think first.
const USUAL_ANSWER: u64 = 4096;
/// Kept free because the count is an estimate: so many tokens, and 3 % of the window.
const MARGIN: u64 = 256;
const MARGIN_PERCENT: u64 = 3;

/// What limits a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of the model, by all that is known about it.
    pub window: u64,
    /// The longest answer the provider gives.
    pub longest_answer: Option<u64>,
    /// What was asked for.
    pub max_output: Option<u64>,
    pub max_input: Option<u64>,
    /// The model thinks before it answers.
    pub reasons: bool,
}

/// How the window is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub window: u64,
    /// Kept for the answer.
    pub reserve: u64,
    /// What may be sent.
    pub tokens: u64,
}

impl Budget {
    pub fn new(limits: Limits) -> Self {
        let Limits { window, longest_answer, max_output, max_input, reasons } = limits;
        // A provider whose longest answer is the window itself does not mean that nothing may be sent.
        let most = longest_answer.unwrap_or(u64::MAX).min(window / 2).max(LEAST_ANSWER);
        let wanted = max_output.unwrap_or(USUAL_ANSWER).max(if reasons { USUAL_ANSWER } else { 0 });
        let reserve = wanted.clamp(LEAST_ANSWER, most);
        let margin = MARGIN + window / 100 * MARGIN_PERCENT + window % 100 * MARGIN_PERCENT / 100;
        let room = window.saturating_sub(reserve).saturating_sub(margin);
        Self { window, reserve, tokens: room.min(max_input.unwrap_or(u64::MAX)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(limits: Limits, reserve: u64, tokens: u64) {
        let budget = Budget::new(limits);
        assert_eq!((budget.reserve, budget.tokens), (reserve, tokens));
    }

    #[test]
    fn answer_and_margin_are_kept_free() {
        let limits = Limits { window: 100_000, ..Limits::default() };
        check(limits, 4096, 100_000 - 4096 - 256 - 3000);
        check(Limits { max_output: Some(512), ..limits }, 512, 100_000 - 512 - 3256);
        check(Limits { max_output: Some(1), ..limits }, 16, 100_000 - 16 - 3256);
        check(Limits { max_output: Some(512), reasons: true, ..limits }, 4096, 100_000 - 4096 - 3256);
        check(Limits { max_input: Some(1000), ..limits }, 4096, 1000);
    }

    #[test]
    fn an_answer_takes_half_of_the_window_at_most() {
        let limits = Limits { window: 4096, max_output: Some(100_000), ..Limits::default() };
        check(limits, 2048, 4096 - 2048 - 256 - 122);
        check(Limits { longest_answer: Some(4096), ..limits }, 2048, 4096 - 2048 - 256 - 122);
        check(Limits { longest_answer: Some(1000), ..limits }, 1000, 4096 - 1000 - 256 - 122);
    }

    #[test]
    fn a_window_of_nothing_has_no_room() {
        check(Limits::default(), 16, 0);
        check(
            Limits { window: u64::MAX, ..Limits::default() },
            4096,
            Budget::new(Limits { window: u64::MAX, ..Limits::default() }).tokens,
        );
    }
}
