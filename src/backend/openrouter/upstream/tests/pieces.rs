//! Does a stream mean the same however its bytes are cut?

#[cfg(test)]
use proptest::prelude::*;
use serde_json::json;

use super::{
    super::{Code, Completion, Event, Failure, assembly::Assembly, body::feed, failure::Break},
    stage::{ALIVE, DONE, USAGE, USAGE_ALONE, finish, said},
};
use crate::wire::sse::Decoder;

const LIMIT: usize = 8 << 10;

type Outcome = Result<Completion, Box<Failure>>;

/// What is heard of a stream that comes in these pieces, and what comes of it.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Outcome) {
    let (mut decoder, mut assembly, mut events) =
        (Decoder::new(LIMIT), Assembly::new(None, None), Vec::new());
    for piece in pieces {
        if let Err(failure) = feed(&mut decoder, piece, &mut assembly, &mut |event| events.push(event)) {
            return (events, Err(failure));
        }
    }
    (events, assembly.end())
}

/// The same whole stream.
fn whole(text: &str) -> (Vec<Event>, Outcome) {
    read([text.as_bytes()])
}

fn comparable(outcome: &Outcome) -> (Option<(Code, Break, String)>, Completion) {
    match outcome {
        Ok(completion) => (None, completion.clone()),
        Err(failure) => {
            let why = (failure.code, failure.broken_by, failure.message.clone());
            (Some(why), failure.partial.as_ref().clone())
        }
    }
}

fn check_every_cut(text: &str) {
    let (events, outcome) = whole(text);
    let expected = comparable(&outcome);
    for cut in 0..=text.len() {
        let (before, after) = text.as_bytes().split_at(cut);
        let (heard, got) = read([before, after]);
        assert_eq!(heard, events, "cut at {cut}");
        assert_eq!(comparable(&got), expected, "cut at {cut}");
    }
    let (heard, got) = read(text.as_bytes().chunks(1));
    assert_eq!((heard, comparable(&got)), (events, expected), "byte by byte");
}

/// The stream of the samples.
fn sample() -> String {
    [ALIVE, ALIVE, &said("Hel"), ALIVE, &said("lö 🦀"), &finish("stop"), USAGE, DONE].concat()
}

#[test]
fn the_sample_is_an_answer_however_it_is_cut() {
    let (events, outcome) = whole(&sample());
    assert_eq!(events, [Event::Delta("Hel".into()), Event::Delta("lö 🦀".into())]);
    let completion = outcome.unwrap();
    assert_eq!(completion.text, "Hello".replace("lo", "lö 🦀"));
    assert_eq!(completion.finish_reason.as_deref(), Some("stop"));
    assert_eq!(completion.provider.as_deref(), Some("Acme Cloud"));
    assert_eq!(completion.generation_id.as_deref(), Some("gen-1-abc"));
    let usage = completion.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.cost.unwrap().nanos()), (21, 85_500));
    check_every_cut(&sample());
    check_every_cut(&sample().replace('\n', "\r\n"));
    check_every_cut(&sample().replace('\n', "\r"));
}

#[test]
fn what_was_used_comes_in_two_forms_or_not_at_all() {
    for (tail, tokens) in [
        ([USAGE, DONE].concat(), 21),
        ([USAGE_ALONE, DONE].concat(), 21),
        (USAGE_ALONE.to_owned(), 21),
        ([USAGE, USAGE_ALONE, DONE].concat(), 21),
        (DONE.to_owned(), 0),
        (String::new(), 0),
    ] {
        let (_, outcome) = whole(&[said("Hi"), finish("stop"), tail].concat());
        let completion = outcome.unwrap();
        assert_eq!(completion.text, "Hi");
        assert_eq!(completion.usage.unwrap_or_default().prompt_tokens, tokens);
    }
}

#[test]
fn an_answer_without_an_end_is_no_answer() {
    for text in [
        said("Hel"),
        [said("Hel").as_str(), DONE].concat(),
        [said("Hel").as_str(), "data: {\"choices\":[{\"delta\":{\"content\":\"never en"].concat(),
        said("Hel") + &finish("error"),
    ] {
        let failure = whole(&text).1.unwrap_err();
        assert_eq!((failure.broken_by, failure.partial.text.as_str()), (Break::Truncated, "Hel"), "{text}");
        assert!(failure.partial.has_content());
        check_every_cut(&text);
    }
    for nothing in ["", ALIVE, DONE, "\n\n\n"] {
        let failure = whole(nothing).1.unwrap_err();
        assert!(!failure.partial.has_content());
    }
}

#[test]
fn errors_in_the_middle_are_found_in_all_their_forms() {
    let full = r#"data: {"id":"gen-1-abc","error":{"code":502,"message":"Provider disconnected unexpectedly","metadata":{"error_type":"provider_unavailable"}},"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"error"}]}"#;
    for (error, code) in [
        (full, Code::UpstreamUnavailable),
        (r#"data: {"error":{"code":"server_error","message":"oops"}}"#, Code::UpstreamUnavailable),
        (r#"data: {"error":{"code":429,"message":"slow"},"choices":[]}"#, Code::RateLimited),
        (
            r#"data: {"choices":[{"index":0,"delta":{},"error":{"code":503,"message":"busy"}}]}"#,
            Code::UpstreamOverloaded,
        ),
        ("data: {\"choices\":[{", Code::UpstreamProtocol),
        ("data: [1]", Code::UpstreamProtocol),
    ] {
        let text = format!("{}{error}\n\n", said("Hel"));
        let failure = whole(&text).1.unwrap_err();
        assert_eq!((failure.code, failure.partial.text.as_str()), (code, "Hel"), "{error}");
        assert_eq!(failure.provider.as_deref(), Some("Acme Cloud"));
        check_every_cut(&text);
    }
}

#[test]
fn calls_of_tools_are_put_together() {
    let piece = |text: &str| {
        format!(
            "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":null,\"tool_calls\":[{text}]}}}}]}}\n\n"
        )
    };
    let text = [
        piece(r#"{"index":0,"id":"call_1","type":"function","function":{"name":"get_weather","arguments":"{\"ci"}}"#),
        piece(r#"{"index":0,"function":{"arguments":"ty\":\"Oslo\"}"}}"#),
        piece(r#"{"index":1,"id":"call_2","function":{"name":"noon"}},{"index":0,"id":"call_3","function":{"name":"again","arguments":"{}"}}"#),
        piece(r#"{"index":1,"id":"call_2","function":{"arguments":"{}"}}"#),
        finish("tool_calls"),
    ]
    .concat();
    let calls = whole(&text).1.unwrap().tool_calls;
    let calls: Vec<_> =
        calls.iter().map(|call| (&*call.id, &*call.function.name, &*call.function.arguments)).collect();
    let expected = [
        ("call_1", "get_weather", "{\"city\":\"Oslo\"}"),
        ("call_2", "noon", "{}"),
        ("call_3", "again", "{}"),
    ];
    assert_eq!(calls, expected);
    check_every_cut(&text);
    let many: String =
        (0..300).map(|index| piece(&format!(r#"{{"index":{index},"id":"c{index}"}}"#))).collect();
    assert_eq!(whole(&many).1.unwrap_err().code, Code::UpstreamProtocol);
}

#[test]
fn reasoning_is_joined_as_it_will_be_replayed() {
    let piece = |detail: &str| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":null,\"reasoning\":\"ab\",\"reasoning_details\":[{detail}]}}}}]}}\n\n"
        )
    };
    let text = [
        piece(r#"{"type":"reasoning.text","text":"Let me ","format":"unknown","index":0,"signature":null}"#),
        piece(r#"{"type":"reasoning.text","text":"think","index":0,"signature":"s1"}"#),
        piece(r#"{"type":"reasoning.encrypted","data":"x","index":1}"#),
        piece(r#"{"type":"reasoning.encrypted","data":"y","index":1}"#),
        piece(r#"{"type":"reasoning.text","text":"more","index":2}"#),
        said("Yes"),
        finish("stop"),
    ]
    .concat();
    let (events, outcome) = whole(&text);
    let completion = outcome.unwrap();
    assert_eq!((completion.reasoning.as_str(), completion.text.as_str()), ("ababababab", "Yes"));
    assert_eq!(events.iter().filter(|event| matches!(event, Event::Reasoning(_))).count(), 5);
    let expected = json!([
        {"type": "reasoning.text", "text": "Let me think", "format": "unknown", "index": 0, "signature": "s1"},
        {"type": "reasoning.encrypted", "data": "x", "index": 1},
        {"type": "reasoning.encrypted", "data": "y", "index": 1},
        {"type": "reasoning.text", "text": "more", "index": 2}
    ]);
    assert_eq!(json!(completion.reasoning_details), expected);
}

#[test]
fn oddities_are_put_up_with() {
    for odd in [
        r#"{"choices":[],"debug":{"echo_upstream_body":{}}}"#,
        r#"{"id":null,"provider":null,"model":null,"choices":[{"index":null,"delta":null,"finish_reason":null}],"usage":null,"error":null}"#,
        r#"{"choices":null}"#,
        r#"{"choices":[{"index":1,"delta":{"content":"another choice"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":[{"type":"text","text":""}],"brand_new":[1]}}],"x":{"y":1}}"#,
        r#"{"choices":[{"index":0,"delta":{"content":7,"tool_calls":null,"reasoning_details":null}}]}"#,
        "{}",
    ] {
        let text = [&said("Hel"), "data: ", odd, "\n\n", &said("lo"), &finish("stop"), DONE].concat();
        assert_eq!(whole(&text).1.unwrap().text, "Hello", "{odd}");
    }
    let refused =
        r#"data: {"choices":[{"delta":{"refusal":"No."},"finish_reason":"stop"}]}"#.to_owned() + "\n\n";
    assert_eq!(whole(&refused).1.unwrap().refusal.as_deref(), Some("No."));
    let extras = r#"data: {"choices":[{"delta":{"content":"x","annotations":[{"type":"url_citation"}],"images":[{"type":"image_url"}]},"finish_reason":"stop"}]}"#.to_owned() + "\n\n";
    let completion = whole(&extras).1.unwrap();
    assert_eq!((completion.annotations.len(), completion.images.len()), (1, 1));
}

#[test]
fn nothing_after_the_end_is_read() {
    let text = [&said("Hi"), &finish("stop"), DONE, &said(" there"), "data: rubbish\n\n"].concat();
    assert_eq!(whole(&text).1.unwrap().text, "Hi");
}

#[test]
fn an_event_that_does_not_end_is_broken_off() {
    for text in [
        format!("data: {}", "x".repeat(LIMIT)),
        format!(":{}", "x".repeat(LIMIT + 1)),
        "data: x\n".repeat(LIMIT),
    ] {
        let text = said("Hel") + &text;
        let failure = whole(&text).1.unwrap_err();
        assert_eq!((failure.code, failure.partial.text.as_str()), (Code::UpstreamProtocol, "Hel"));
    }
    let padded = format!(":{}\n\n{}{}", "x".repeat(LIMIT - 1), said("Hi"), finish("stop"));
    assert!(whole(&padded).1.is_ok(), "a long comment is none of the answer");
}

proptest! {
    #[test]
    fn any_cuts_give_the_same(
        texts in proptest::collection::vec("[a-zäöü漢🦀\"\\\\\n ]{1,12}", 1..6),
        reason in "(stop|length|tool_calls|error)?",
        ends in "(\n|\r\n|\r)",
        cuts in proptest::collection::vec(0_usize..4000, 0..12),
    ) {
        let chunks: String = texts.iter().flat_map(|text| [said(text), ALIVE.to_owned()]).collect();
        let end = if reason.is_empty() { String::new() } else { finish(&reason) };
        let text = [chunks, end, USAGE.to_owned(), DONE.to_owned()].concat().replace('\n', &ends);
        let (events, outcome) = whole(&text);
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]);
        let (heard, got) = read(pieces);
        prop_assert_eq!(&heard, &events);
        prop_assert_eq!(comparable(&got), comparable(&outcome));
        let deltas: String = heard.iter().filter_map(|event| match event { Event::Delta(text) => Some(text.as_str()), _ => None }).collect();
        prop_assert_eq!(&deltas, &comparable(&got).1.text);
        prop_assert_eq!(deltas, texts.concat());
    }

    #[test]
    fn any_bytes_are_taken_or_refused(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        prefix in "(data: |data: \\{|: |data: \\{\"choices\":\\[\\{\"delta\":)?",
    ) {
        let text = [prefix.as_bytes(), &bytes, b"\n\n"].concat();
        let _ = read(text.chunks(7));
    }

    #[test]
    fn any_json_is_taken_or_refused(text in r#"\{"(choices|error|usage|id)":(\[\{"(delta|message|error|index)":(null|7|"x"|\[\]|\{"(content|tool_calls|reasoning_details)":(\[\{"(id|index|function|text|type)":(1|"a"|\{\})\}\]|null|7|"x")\})\}\]|null|7|"x"|\{\}|\[\])\}"#) {
        let _ = whole(&format!("data: {text}\n\n"));
    }
}
