//! What is done about a failure?
//!
//! A table as a pure function: what failed, what has been tried already and what the caller allows go
//! in, and the next step comes out. Chance is an argument.

use std::time::Duration;

use super::super::upstream::{Code, Failure, Phase, affordable};

/// Waits between attempts lie between these.
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(2);
/// Shorter answers than this are not worth having.
const LEAST_ANSWER: u64 = 256;
/// How often a call waits because it was told to, whatever the sum of it.
const MOST_WAITS: u32 = 5;

/// What the caller allows.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The shortest limit on the answer that is still of use, if the caller said one.
    pub min_output_tokens: Option<u64>,
    /// The largest limit that may be set when reasoning has used all of a smaller one.
    pub max_output_tokens: u64,
    /// Do answers that were cut off go on?
    pub auto_continue: bool,
    /// Of all pieces together.
    pub max_total_output: u64,
}

impl Default for Terms {
    fn default() -> Self {
        let (max_output_tokens, max_total_output) = (32_768, 32_768);
        Self { min_output_tokens: None, max_output_tokens, auto_continue: true, max_total_output }
    }
}

/// What has been tried.
#[derive(Debug, Clone, Default)]
pub struct Tried {
    pub retries: u32,
    pub waits: u32,
    pub waited: Duration,
    /// A request was sent again though it is not known what became of the first.
    pub blind: bool,
    /// A stream without content was asked for again.
    pub reopened: bool,
    pub in_flight: bool,
    pub capped: bool,
    pub refitted: bool,
    pub elsewhere: bool,
    pub more_room: bool,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Retry {
        after: Duration,
    },
    /// With a lower limit on the answer.
    Cap {
        tokens: u64,
    },
    /// With less of the conversation.
    Refit,
    /// Another model, if there is one.
    Fallback,
    GiveUp,
}

/// How often and how long in all.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    pub retries: u32,
    pub wait: Duration,
}

/// `chance` lies between 0 and 1, `left` is the time until the call must be answered.
pub fn next(
    failure: &Failure,
    tried: &mut Tried,
    terms: &Terms,
    most: Most,
    left: Duration,
    chance: f64,
) -> Next {
    // What has been said is paid for, and cannot be unsaid.
    if failure.partial.has_content() {
        return Next::GiveUp;
    }
    let step = match failure.code {
        Code::RateLimited => limited(failure, tried, most, chance),
        Code::PaymentRequired => unpaid(failure, tried, terms, most),
        Code::ContextTooLarge if std::mem::replace(&mut tried.refitted, true) => Next::GiveUp,
        Code::ContextTooLarge => Next::Refit,
        Code::ModelUnavailable => Next::Fallback,
        Code::UpstreamOverloaded
        | Code::UpstreamUnavailable
        | Code::UpstreamTimeout
        | Code::UpstreamProtocol => broken(failure, tried, most, chance),
        // Ours, or such as stay as they are.
        Code::InvalidInput
        | Code::ConversationNotFound
        | Code::ConversationBusy
        | Code::ConversationConflict
        | Code::IdempotencyMismatch
        | Code::ConfirmationRequired
        | Code::BudgetExceeded
        | Code::QuotaExceeded
        | Code::ModelNotFound
        | Code::ModelNotAllowed
        | Code::UnsupportedModality
        | Code::MediaRejected
        | Code::UpstreamAuth
        | Code::ContentBlocked
        | Code::EmptyAnswer
        | Code::Cancelled
        | Code::StorageUnavailable
        | Code::Internal => Next::GiveUp,
    };
    match step {
        Next::Retry { after } if after >= left => Next::GiveUp,
        step => step,
    }
}

fn limited(failure: &Failure, tried: &mut Tried, most: Most, chance: f64) -> Next {
    if failure.is_daily() || !failure.retryable {
        return Next::Fallback;
    }
    match failure.retry_after {
        Some(after) => wait(after, tried, most).unwrap_or(Next::Fallback),
        None => retry(tried, most, chance),
    }
}

fn unpaid(failure: &Failure, tried: &mut Tried, terms: &Terms, most: Most) -> Next {
    if failure.limit_source.as_deref() == Some("openrouter_in_flight_budget") {
        let after = failure.retry_after.filter(|_| !std::mem::replace(&mut tried.in_flight, true));
        return after.and_then(|after| wait(after, tried, most)).unwrap_or(Next::GiveUp);
    }
    let least = terms.min_output_tokens.unwrap_or(0).max(LEAST_ANSWER);
    match affordable(&failure.message) {
        Some(tokens) if tokens >= least && !std::mem::replace(&mut tried.capped, true) => {
            Next::Cap { tokens: tokens - tokens.div_ceil(10) }
        }
        Some(_) | None => Next::GiveUp,
    }
}

/// Failures that may pass by themselves.
fn broken(failure: &Failure, tried: &mut Tried, most: Most, chance: f64) -> Next {
    // What happened to the request is not known, or it was answered with nothing: once more, not twice.
    let once = match failure.phase {
        Phase::Sent => &mut tried.blind,
        Phase::Answering => &mut tried.reopened,
        Phase::Connecting | Phase::Refused => return told_or_retry(failure, tried, most, chance),
    };
    if std::mem::replace(once, true) { Next::Fallback } else { retry(tried, most, chance) }
}

fn told_or_retry(failure: &Failure, tried: &mut Tried, most: Most, chance: f64) -> Next {
    if !failure.retryable || tried.retries >= most.retries {
        return Next::Fallback;
    }
    match failure.retry_after {
        None => retry(tried, most, chance),
        Some(after) => match wait(after, tried, most) {
            Some(step) => {
                tried.retries += 1;
                step
            }
            None => Next::Fallback,
        },
    }
}

/// A wait that was asked for, if there is time for it.
fn wait(after: Duration, tried: &mut Tried, most: Most) -> Option<Next> {
    if tried.waited + after > most.wait || tried.waits >= MOST_WAITS {
        return None;
    }
    tried.waited += after;
    tried.waits += 1;
    Some(Next::Retry { after })
}

/// A wait of our own. Its length is left to chance, so that those who failed together do not come back
/// together.
fn retry(tried: &mut Tried, most: Most, chance: f64) -> Next {
    if tried.retries >= most.retries {
        return Next::Fallback;
    }
    tried.retries += 1;
    let longest = (SHORTEST * 2_u32.saturating_pow(tried.retries + 1)).min(LONGEST);
    Next::Retry { after: SHORTEST + (longest - SHORTEST).mul_f64(chance.clamp(0.0, 1.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most { retries: 2, wait: Duration::from_secs(20) };

    fn step(failure: &Failure, tried: &mut Tried) -> Next {
        next(failure, tried, &Terms::default(), MOST, Duration::from_secs(600), 0.5)
    }

    /// Every step that such a failure leads to if it comes again and again.
    fn steps(failure: &Failure) -> Vec<Next> {
        let mut tried = Tried::default();
        let mut steps = vec![step(failure, &mut tried)];
        while matches!(steps.last(), Some(Next::Retry { .. } | Next::Cap { .. } | Next::Refit)) {
            steps.push(step(failure, &mut tried));
        }
        steps
    }

    fn retries(failure: &Failure) -> usize {
        steps(failure).len() - 1
    }

    fn failure(code: Code, phase: Phase) -> Failure {
        Failure::new(code, phase, "")
    }

    const fn after(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn what_may_pass_is_tried_twice_more() {
        assert_eq!(retries(&failure(Code::UpstreamUnavailable, Phase::Connecting)), 2);
        for code in [
            Code::UpstreamUnavailable,
            Code::UpstreamOverloaded,
            Code::UpstreamTimeout,
            Code::UpstreamProtocol,
        ] {
            assert_eq!(retries(&failure(code, Phase::Refused)), 2, "{code}");
        }
    }

    #[test]
    fn what_may_have_been_done_is_tried_once_more() {
        assert_eq!(retries(&failure(Code::UpstreamTimeout, Phase::Sent)), 1);
        assert_eq!(retries(&failure(Code::UpstreamUnavailable, Phase::Answering)), 1);
    }

    #[test]
    fn nothing_is_tried_again_once_something_was_said() {
        let mut failed = failure(Code::UpstreamUnavailable, Phase::Answering);
        failed.partial.text = "Hel".into();
        assert_eq!(steps(&failed), [Next::GiveUp]);
    }

    #[test]
    fn an_upstream_that_says_how_long_is_waited_for_that_long() {
        let limited = Failure { retry_after: after(7), ..failure(Code::RateLimited, Phase::Refused) };
        let wait = Next::Retry { after: Duration::from_secs(7) };
        assert_eq!(steps(&limited), [wait, wait, Next::Fallback]);
        let far = Failure { retry_after: after(21), ..limited.clone() };
        assert_eq!(steps(&far), [Next::Fallback]);
        let soon = Failure { retry_after: after(0), ..limited };
        assert_eq!(retries(&soon), 5);
        let overloaded =
            Failure { retry_after: after(3), ..failure(Code::UpstreamOverloaded, Phase::Refused) };
        let wait = Next::Retry { after: Duration::from_secs(3) };
        assert_eq!(steps(&overloaded), [wait, wait, Next::Fallback]);
    }

    #[test]
    fn the_free_calls_of_a_day_do_not_come_back_in_seconds() {
        let mut daily = Failure { retry_after: after(1), ..failure(Code::RateLimited, Phase::Refused) };
        daily.limit_source = Some("openrouter_free_tier_daily".into());
        assert_eq!(steps(&daily), [Next::Fallback]);
    }

    #[test]
    fn money_in_flight_is_waited_for_once() {
        let mut unpaid = failure(Code::PaymentRequired, Phase::Refused);
        unpaid.limit_source = Some("openrouter_in_flight_budget".into());
        assert_eq!(steps(&unpaid), [Next::GiveUp]);
        unpaid.retry_after = after(1);
        assert_eq!(steps(&unpaid), [Next::Retry { after: Duration::from_secs(1) }, Next::GiveUp]);
    }

    #[test]
    fn a_poor_account_asks_for_a_shorter_answer_once() {
        let mut poor = failure(Code::PaymentRequired, Phase::Refused);
        poor.message = "You requested up to 65536 tokens, but can only afford 3919. To increase, …".into();
        assert_eq!(steps(&poor), [Next::Cap { tokens: 3527 }, Next::GiveUp]);
        let terms = Terms { min_output_tokens: Some(4000), ..Terms::default() };
        let refused = next(&poor, &mut Tried::default(), &terms, MOST, Duration::MAX, 0.0);
        assert_eq!(refused, Next::GiveUp);
        poor.message = "can only afford 255".into();
        assert_eq!(steps(&poor), [Next::GiveUp]);
    }

    #[test]
    fn what_is_too_long_is_shortened_once() {
        assert_eq!(steps(&failure(Code::ContextTooLarge, Phase::Refused)), [Next::Refit, Next::GiveUp]);
    }

    #[test]
    fn what_stays_as_it_is_is_not_tried_again() {
        for code in [Code::UpstreamAuth, Code::InvalidInput, Code::ModelNotFound, Code::ContentBlocked] {
            assert_eq!(steps(&failure(code, Phase::Refused)), [Next::GiveUp], "{code}");
        }
        assert_eq!(steps(&failure(Code::ModelUnavailable, Phase::Refused)), [Next::Fallback]);
    }

    #[test]
    fn there_is_no_wait_beyond_the_end_of_the_call() {
        let failed = failure(Code::UpstreamUnavailable, Phase::Refused);
        let late =
            next(&failed, &mut Tried::default(), &Terms::default(), MOST, Duration::from_millis(200), 0.0);
        assert_eq!(late, Next::GiveUp);
    }

    #[test]
    fn own_waits_lie_within_their_bounds() {
        let mut tried = Tried::default();
        for chance in [0.0, 1.0] {
            match retry(&mut tried, MOST, chance) {
                Next::Retry { after } => assert!((SHORTEST..=LONGEST).contains(&after), "{after:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
}
