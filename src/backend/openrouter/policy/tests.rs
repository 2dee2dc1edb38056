//! Is each row of the table kept, and what is said to the sink the text of the answer?

#[cfg(test)]
use std::{collections::VecDeque, sync::Mutex};

use serde_json::json;

use super::{
    super::upstream::{Code, Content, Message, Phase, Role},
    *,
};

type Outcome = Result<Completion, Box<Failure>>;

/// Sends nothing; says what it is told to, and remembers what it was asked.
struct Script {
    outcomes: Mutex<VecDeque<Outcome>>,
    asked: Mutex<Vec<(ChatRequest, Instant)>>,
}

impl Script {
    fn new(outcomes: impl IntoIterator<Item = Outcome>) -> Self {
        Self { outcomes: Mutex::new(outcomes.into_iter().collect()), asked: Mutex::default() }
    }

    fn models(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(request, _)| request.model.clone()).collect()
    }

    fn request(&self, number: usize) -> ChatRequest {
        self.asked.lock().unwrap()[number].0.clone()
    }

    /// How long it was until each request after the first.
    fn waits(&self) -> Vec<Duration> {
        self.asked.lock().unwrap().windows(2).map(|two| two[1].1 - two[0].1).collect()
    }
}

impl Chat for Script {
    fn base_url(&self) -> &str {
        "https://stage.invalid/"
    }

    fn account(&self) -> u64 {
        7
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(600)
    }

    fn chat<'a>(&'a self, request: &'a ChatRequest, _: Instant, sink: Sink<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let number = {
                let mut asked = self.asked.lock().unwrap();
                asked.push((request.clone(), Instant::now()));
                asked.len()
            };
            let outcome = self.outcomes.lock().unwrap().pop_front().expect("more requests than expected");
            let so_far = outcome.as_ref().unwrap_or_else(|failure| &failure.partial);
            if outcome.as_ref().err().is_none_or(|failure| failure.phase == Phase::Answering) {
                sink(Event::Opened { generation_id: Some(format!("gen-{number}")) });
            }
            let letters: Vec<char> = so_far.text.chars().collect();
            letters.chunks(3).for_each(|piece| sink(Event::Delta(piece.iter().collect())));
            outcome
        })
    }
}

fn said(text: &str, finish: &str) -> Completion {
    let usage = Usage { prompt_tokens: 10, completion_tokens: text.len() as u64, ..Usage::default() };
    Completion {
        text: text.into(),
        finish_reason: Some(finish.into()),
        provider: Some("Acme".into()),
        usage: Some(usage),
        ..Completion::default()
    }
}

fn hello() -> Outcome {
    Ok(said("Hello", "stop"))
}

fn fail(code: Code, phase: Phase) -> Failure {
    Failure::new(code, phase, "it failed")
}

fn failed(failure: Failure) -> Outcome {
    Err(Box::new(failure))
}

fn down() -> Outcome {
    failed(fail(Code::UpstreamUnavailable, Phase::Refused))
}

fn request() -> ChatRequest {
    let messages = vec![Message::new(Role::User, "Hi")];
    ChatRequest { model: "m".into(), messages, max_completion_tokens: Some(1000), ..ChatRequest::default() }
}

fn call(fallback_models: &[String]) -> Call<'_> {
    Call { request: request(), principal: "me", fallback_models, terms: Terms::default(), refit: None }
}

/// What comes of a call, and the text that was said meanwhile.
async fn run(policy: &Policy, chat: &Script, call: Call<'_>) -> (Result<Answer, Box<Unanswered>>, String) {
    let mut heard = String::new();
    let mut listen = |event| {
        if let Event::Delta(text) = event {
            heard.push_str(&text);
        }
    };
    let outcome = policy.run(chat, call, &mut listen).await;
    let text = match &outcome {
        Ok(answer) => &answer.completion.text,
        Err(unanswered) => &unanswered.failure.partial.text,
    };
    assert_eq!(&heard, text, "what was said is the text");
    assert_eq!(chat.outcomes.lock().unwrap().len(), 0, "fewer requests than expected");
    (outcome, heard)
}

fn policy() -> Policy {
    Policy::new(&Settings::default())
}

async fn answered(chat: &Script, call: Call<'_>) -> Answer {
    run(&policy(), chat, call).await.0.unwrap()
}

async fn unanswered(chat: &Script, call: Call<'_>) -> Unanswered {
    *run(&policy(), chat, call).await.0.unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn failures_that_pass_are_passed_over() {
    let chat = Script::new([down(), failed(fail(Code::UpstreamOverloaded, Phase::Refused)), hello()]);
    let answer = answered(&chat, call(&[])).await;
    assert_eq!((answer.report.requests, answer.report.warnings.len()), (3, 2));
    assert!(chat.waits().iter().all(|wait| (250..=2001).contains(&wait.as_millis())), "{:?}", chat.waits());
    let chat = Script::new([down(), down(), down()]);
    assert_eq!(unanswered(&chat, call(&[])).await.failure.code, Code::UpstreamUnavailable);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_may_have_been_worked_on_is_sent_once_more() {
    for phase in [Phase::Sent, Phase::Answering] {
        let lost = || failed(fail(Code::UpstreamTimeout, phase));
        let chat = Script::new([lost(), lost()]);
        assert_eq!(unanswered(&chat, call(&[])).await.report.requests, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_begun_is_not_begun_again() {
    let mut broken = fail(Code::UpstreamUnavailable, Phase::Answering);
    *broken.partial = said("Hel", "");
    let chat = Script::new([failed(broken)]);
    let Unanswered { failure, report } = unanswered(&chat, call(&["other".into()])).await;
    assert_eq!((failure.partial.text.as_str(), report.generation_ids), ("Hel", vec!["gen-1".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn limits_are_waited_out_and_then_others_are_asked() {
    let limited = |seconds| {
        let retry_after = Some(Duration::from_secs(seconds));
        failed(Failure { retry_after, ..fail(Code::RateLimited, Phase::Refused) })
    };
    let chat = Script::new([limited(1), hello()]);
    assert_eq!(
        answered(&chat, call(&[])).await.report.warnings[0].to_string(),
        "trying again in 1.0 s: too many requests"
    );
    assert_eq!(chat.waits()[0].as_secs(), 1);
    let chat = Script::new([limited(15), limited(15), limited(30), hello()]);
    let answer = answered(&chat, call(&["second".into(), "third".into()])).await;
    assert_eq!(chat.models(), ["m", "m", "second", "third"]);
    assert_eq!(answer.report.model, "third");
    let chat = Script::new([limited(30)]);
    let failure = unanswered(&chat, call(&[])).await.failure;
    assert_eq!((failure.code, failure.retry_after), (Code::RateLimited, Some(Duration::from_secs(30))));
}

#[tokio::test(start_paused = true)]
async fn free_calls_that_are_used_up_are_not_asked_for() {
    let mut daily = fail(Code::RateLimited, Phase::Refused);
    (daily.retryable, daily.limit_source) = (false, Some("openrouter_free_tier_daily".into()));
    daily.resets_at = Some(std::time::SystemTime::now() + Duration::from_secs(3600));
    let policy = policy();
    let free = |fallbacks| {
        let mut call = call(fallbacks);
        call.request.model = "m:free".into();
        call
    };
    let chat = Script::new([failed(daily)]);
    assert!(run(&policy, &chat, free(&[])).await.0.is_err());
    let nobody = Script::new([]);
    let failure = run(&policy, &nobody, free(&[])).await.0.unwrap_err().failure;
    assert!(failure.is_daily() && failure.retry_after.is_some());
    let (others, paid) = (["other:free".to_owned(), "paid".to_owned()], Script::new([hello()]));
    assert!(run(&policy, &paid, free(&others)).await.0.is_ok());
    assert_eq!(paid.models(), ["paid"]);
}

#[tokio::test(start_paused = true)]
async fn a_poor_account_gets_a_shorter_answer() {
    let mut poor = fail(Code::PaymentRequired, Phase::Refused);
    poor.message = "You requested up to 1000 tokens, but can only afford 300.".into();
    let chat = Script::new([failed(poor.clone()), hello()]);
    let answer = answered(&chat, call(&[])).await;
    assert_eq!(chat.request(1).max_completion_tokens, Some(270));
    assert_eq!(answer.report.warnings, [Status::Capped { tokens: 270 }]);
    let chat = Script::new([failed(poor)]);
    let terms = Terms { min_output_tokens: Some(400), ..Terms::default() };
    assert_eq!(unanswered(&chat, Call { terms, ..call(&[]) }).await.failure.code, Code::PaymentRequired);
}

#[tokio::test(start_paused = true)]
async fn money_in_flight_is_waited_for_once() {
    let mut busy = fail(Code::PaymentRequired, Phase::Refused);
    (busy.limit_source, busy.retry_after) =
        (Some("openrouter_in_flight_budget".into()), Some(Duration::from_secs(1)));
    let chat = Script::new([failed(busy.clone()), hello()]);
    answered(&chat, call(&[])).await;
    let chat = Script::new([failed(busy.clone()), failed(busy)]);
    assert_eq!(unanswered(&chat, call(&[])).await.failure.code, Code::PaymentRequired);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_is_fitted_again_once() {
    let mut long = fail(Code::ContextTooLarge, Phase::Refused);
    long.message =
        "This endpoint's maximum context length is 100 tokens. However, you requested about 200 tokens"
            .into();
    let learned = Mutex::new(Vec::new());
    let refit = |model: &str, overflow: Overflow| {
        learned.lock().unwrap().push((model.to_owned(), overflow.limit));
        Some(Smaller { messages: vec![Message::new(Role::User, "short")], max_completion_tokens: Some(20) })
    };
    let chat = Script::new([failed(long.clone()), failed(long.clone())]);
    let outcome = unanswered(&chat, Call { refit: Some(&refit), ..call(&[]) }).await;
    assert_eq!(outcome.failure.code, Code::ContextTooLarge);
    assert_eq!(*learned.lock().unwrap(), [("m".to_owned(), Some(100))]);
    assert_eq!(chat.request(1).messages[0].content, Content::Text("short".into()));
    assert_eq!(chat.request(1).max_completion_tokens, Some(20));
    let chat = Script::new([failed(long.clone())]);
    unanswered(&chat, call(&[])).await;
    let chat = Script::new([failed(long)]);
    unanswered(&chat, Call { refit: Some(&|_, _| None), ..call(&[]) }).await;
}

#[tokio::test(start_paused = true)]
async fn what_stays_wrong_is_not_sent_again() {
    for code in [Code::UpstreamAuth, Code::ModelNotFound, Code::InvalidInput, Code::ContentBlocked] {
        let chat = Script::new([failed(fail(code, Phase::Refused))]);
        assert_eq!(unanswered(&chat, call(&["other".into()])).await.failure.code, code);
    }
    let chat = Script::new([failed(fail(Code::ModelUnavailable, Phase::Refused)), hello()]);
    answered(&chat, call(&["other".into()])).await;
    let unreachable = || failed(fail(Code::UpstreamUnavailable, Phase::Connecting));
    let chat = Script::new([unreachable(), unreachable(), unreachable()]);
    unanswered(&chat, call(&["other".into()])).await;
    assert_eq!(chat.models(), ["m", "m", "m"], "no other model can be reached either");
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_asked_for_elsewhere_once() {
    let chat = Script::new([Ok(said("", "stop")), hello()]);
    let answer = answered(&chat, call(&[])).await;
    assert_eq!(json!(chat.request(1).provider), json!({"ignore": ["Acme"]}));
    assert_eq!(answer.completion.usage.unwrap().prompt_tokens, 20, "both were used");
    let chat = Script::new([Ok(said("", "stop")), Ok(said("", "stop"))]);
    assert_eq!(unanswered(&chat, call(&[])).await.failure.code, Code::EmptyAnswer);
    let chat = Script::new([Ok(said(" \n", "stop"))]);
    assert_eq!(unanswered(&chat, call(&[])).await.failure.code, Code::EmptyAnswer, "white space was said");
    let mut thought = said("", "stop");
    thought.reasoning = "hm".into();
    let chat = Script::new([Ok(thought)]);
    unanswered(&chat, call(&[])).await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_only_thought_gets_more_room_once() {
    let mut thought = said("", "length");
    thought.usage.as_mut().unwrap().completion_tokens = 1000;
    thought.reasoning = "hm".into();
    let chat = Script::new([Ok(thought.clone()), hello()]);
    answered(&chat, call(&[])).await;
    assert_eq!(chat.request(1).max_completion_tokens, Some(4000));
    let chat = Script::new([Ok(thought.clone()), Ok(thought.clone())]);
    let terms = Terms { max_output_tokens: 1500, ..Terms::default() };
    let outcome = unanswered(&chat, Call { terms, ..call(&[]) }).await;
    assert_eq!(chat.request(1).max_completion_tokens, Some(1500));
    assert!(outcome.failure.message.contains("reasoning"), "{}", outcome.failure.message);
    let chat = Script::new([Ok(thought)]);
    let terms = Terms { max_output_tokens: 1000, ..Terms::default() };
    unanswered(&chat, Call { terms, ..call(&[]) }).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_blocked_is_no_empty_answer() {
    let chat = Script::new([Ok(said("", "content_filter"))]);
    assert_eq!(unanswered(&chat, call(&[])).await.failure.code, Code::ContentBlocked);
    let refused = Completion { refusal: Some("I will not.".into()), ..said("", "stop") };
    let chat = Script::new([Ok(refused)]);
    assert!(unanswered(&chat, call(&[])).await.failure.message.contains("I will not."));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_cut_off_goes_on() {
    let chat = Script::new([
        Ok(said("It was the best of times, it was ", "length")),
        Ok(said("best of times, it was the worst of", "length")),
        Ok(said(" times.", "stop")),
    ]);
    let answer = answered(&chat, call(&[])).await;
    assert_eq!(answer.completion.text, "It was the best of times, it was the worst of times.");
    assert_eq!(answer.completion.finish_reason.as_deref(), Some("stop"));
    assert_eq!((answer.report.continuations, answer.report.generation_ids.len()), (2, 3));
    assert_eq!(answer.completion.usage.unwrap().prompt_tokens, 30);
    let last = chat.request(1).messages.pop().unwrap();
    assert_eq!((last.role, last.content), (Role::Assistant, "It was the best of times, it was".into()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_does_not_go_on_for_ever() {
    let pieces = ["one ", "two ", "three ", "four "].map(|text| Ok(said(text, "length")));
    let chat = Script::new(pieces);
    let answer = answered(&chat, call(&[])).await;
    assert_eq!(answer.completion.text, "one two three four ");
    assert!(answer.completion.was_cut());
    let chat = Script::new([Ok(said("Hello", "length"))]);
    let terms = Terms { max_total_output: 20, ..Terms::default() };
    answered(&chat, Call { terms, ..call(&[]) }).await;
    let chat = Script::new([Ok(said("Hello", "length"))]);
    let terms = Terms { auto_continue: false, ..Terms::default() };
    answered(&chat, Call { terms, ..call(&[]) }).await;
    let chat = Script::new([Ok(said("{\"a\":", "length"))]);
    let mut json = call(&[]);
    json.request.response_format = Some(json!({"type": "json_schema"}));
    answered(&chat, json).await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_does_not_take_a_beginning_is_told_to_go_on() {
    let refused = failed(fail(Code::InvalidInput, Phase::Refused));
    let chat = Script::new([Ok(said("Hello", "length")), refused, Ok(said(" world", "stop"))]);
    let answer = answered(&chat, call(&[])).await;
    assert_eq!(answer.completion.text, "Hello world");
    assert_eq!(chat.request(2).messages.last().unwrap().role, Role::User);
}

#[tokio::test(start_paused = true)]
async fn a_continuation_that_breaks_leaves_what_there_is() {
    let mut broken = fail(Code::UpstreamUnavailable, Phase::Answering);
    *broken.partial = said(" wor", "");
    let chat = Script::new([Ok(said("Hello", "length")), failed(broken)]);
    let answer = answered(&chat, call(&[])).await;
    assert_eq!(answer.completion.text, "Hello wor");
    assert!(answer.completion.was_cut());
    assert!(matches!(answer.report.warnings.last(), Some(Status::NotContinued { .. })));
    let chat = Script::new([Ok(said("Hello", "length")), down(), Ok(said(" world", "stop"))]);
    assert_eq!(answered(&chat, call(&[])).await.completion.text, "Hello world");
}

#[tokio::test(start_paused = true)]
async fn what_fails_again_and_again_is_left_alone() {
    let policy = policy();
    for _ in 0..2 {
        let chat = Script::new([down(), down(), down()].into_iter().take(3));
        let outcome = run_loosely(&policy, &chat, call(&[])).await;
        assert!(outcome.is_err());
    }
    assert_eq!(policy.resting(), ["m"]);
    let chat = Script::new([hello()]);
    let answer = run(&policy, &chat, call(&["other".into()])).await.0.unwrap();
    assert_eq!((chat.models(), answer.report.warnings.len()), (vec!["other".to_owned()], 1));
    let nobody = Script::new([]);
    let failure = run(&policy, &nobody, call(&[])).await.0.unwrap_err().failure;
    assert!(failure.retry_after.is_some_and(|wait| wait <= Duration::from_secs(15)));
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(run(&policy, &Script::new([hello()]), call(&[])).await.0.is_ok());
    assert!(policy.resting().is_empty());
}

/// Without looking whether all was asked for that could be.
async fn run_loosely(policy: &Policy, chat: &Script, call: Call<'_>) -> Result<Answer, Box<Unanswered>> {
    policy.run(chat, call, &mut |_| ()).await
}

#[tokio::test(start_paused = true)]
async fn an_upstream_nobody_reaches_is_left_alone_with_all_its_models() {
    let policy = policy();
    let unreachable = || failed(fail(Code::UpstreamUnavailable, Phase::Connecting));
    for _ in 0..2 {
        let _ = run_loosely(&policy, &Script::new((0..3).map(|_| unreachable())), call(&[])).await;
    }
    assert_eq!(policy.resting(), ["https://stage.invalid/"]);
    let nobody = Script::new([]);
    assert!(run(&policy, &nobody, call(&["other".into()])).await.0.is_err());
}

#[tokio::test(start_paused = true)]
async fn who_has_many_calls_under_way_waits() {
    let policy = Policy::new(&Settings {
        at_once_per_caller: 1,
        queue_wait: settings::Duration::seconds(1),
        ..Settings::default()
    });
    let held = policy.enter("me").await.unwrap();
    let nobody = Script::new([]);
    let outcome = run(&policy, &nobody, call(&[])).await.0.unwrap_err();
    assert_eq!((outcome.failure.code, outcome.report.requests), (Code::RateLimited, 0));
    drop(held);
    assert!(run(&policy, &Script::new([hello()]), call(&[])).await.0.is_ok());
}
