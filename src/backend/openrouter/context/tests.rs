//! Is what is sent within its bounds, whole, and from the end?

#[cfg(test)]
use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
use serde_json::json;

use super::{
    super::upstream::{Content, Part, Role, completion::ToolCall},
    *,
};

fn item(role: Role, text: &str, tokens: u64) -> Item {
    Item { message: Message::new(role, text), tokens, media: Vec::new() }
}

/// A turn of two messages that count so much together.
fn turn(name: usize, tokens: u64) -> Turn {
    let ask = item(Role::User, &format!("ask {name}"), tokens / 2);
    Turn { items: vec![ask, item(Role::Assistant, &format!("answer {name}"), tokens - tokens / 2)] }
}

fn conversation(sizes: &[u64]) -> Conversation {
    Conversation {
        system: Some(item(Role::System, "system", 10)),
        tools_tokens: 5,
        history: sizes.iter().enumerate().map(|(name, tokens)| turn(name, *tokens)).collect(),
        current: Turn { items: vec![item(Role::User, "now", 20)] },
        strategy: Strategy::Window,
        keep_last_turns: None,
        attachment_turns: 2,
        summary: None,
    }
}

const fn room(tokens: u64) -> Budget {
    Budget { window: tokens * 2, reserve: 0, tokens }
}

fn words(fitted: &Fitted) -> Vec<String> {
    let text = |message: &Message| match &message.content {
        Content::Text(text) => text.clone(),
        other => json!(other).to_string(),
    };
    fitted.messages.iter().map(text).collect()
}

/// The first turn that is sent.
fn first(fitted: &Fitted) -> Option<usize> {
    words(fitted).iter().find_map(|text| text.strip_prefix("ask ")?.parse().ok())
}

#[test]
fn what_fits_is_sent_whole() {
    let fitted = conversation(&[100, 100]).fit(room(235)).unwrap();
    assert_eq!(words(&fitted), ["system", "ask 0", "answer 0", "ask 1", "answer 1", "now"]);
    let report = fitted.report;
    assert_eq!((report.estimated_prompt_tokens, report.sent_messages, report.dropped_turns), (235, 6, 0));
    assert!(!fitted.compress && fitted.wants_summary_of.is_none());
}

#[test]
fn old_turns_go_first_and_more_of_them_than_must() {
    // 35 are fixed; 10 turns of 100 do not fit into 1000, and 70 % are 700.
    let fitted = conversation(&[100; 10]).fit(room(1000)).unwrap();
    assert_eq!((first(&fitted), fitted.report.dropped_turns), (Some(4), 4));
    assert_eq!(fitted.report.estimated_prompt_tokens, 635);
    // The next turns find the same beginning.
    for turns in 11..=13 {
        assert_eq!(first(&conversation(&vec![100; turns]).fit(room(1000)).unwrap()), Some(4), "{turns}");
    }
    assert_eq!(first(&conversation(&[100; 14]).fit(room(1000)).unwrap()), Some(8));
}

#[test]
fn what_must_be_sent_and_does_not_fit_is_refused_with_the_numbers() {
    let refused = conversation(&[100]).fit(room(34)).unwrap_err();
    assert_eq!(refused, TooLarge { needed: 35, budget: 34, window: 68, all: false });
    assert!(refused.to_string().contains("35") && refused.to_string().contains("34"));
    assert_eq!(words(&conversation(&[100]).fit(room(35)).unwrap()), ["system", "now"]);
}

#[test]
fn a_turn_larger_than_all_room_ends_what_is_sent() {
    let fitted = conversation(&[10, 5000, 10, 10]).fit(room(1000)).unwrap();
    assert_eq!(first(&fitted), Some(2));
    let newest = conversation(&[10, 900]).fit(room(1000)).unwrap();
    assert_eq!(first(&newest), Some(0), "it still fits");
    let newest = conversation(&[100, 900]).fit(room(1000)).unwrap();
    assert_eq!(first(&newest), Some(1), "the newest stays though it is more than 70 %");
}

#[test]
fn no_more_turns_are_sent_than_asked_for() {
    let few = Conversation { keep_last_turns: Some(1), ..conversation(&[10, 10, 10]) };
    assert_eq!(first(&few.fit(room(1000)).unwrap()), Some(2));
}

#[test]
fn who_wants_nothing_left_out_is_refused() {
    let strict =
        |sizes: &[u64]| Conversation { strategy: Strategy::Error, ..conversation(sizes) }.fit(room(235));
    assert!(strict(&[100, 100]).is_ok());
    assert!(strict(&[100, 101]).is_err_and(|refused| refused.all && refused.needed == 236));
}

#[test]
fn what_is_compressed_may_be_twice_the_window() {
    let compressed = |sizes: &[u64]| {
        Conversation { strategy: Strategy::Compress, ..conversation(sizes) }.fit(room(1000)).unwrap()
    };
    assert!(!compressed(&[900]).compress);
    let all = compressed(&[900; 4]);
    assert!(all.compress && all.report.dropped_turns == 0);
    let most = compressed(&[900; 5]);
    assert!(most.report.estimated_prompt_tokens < 4000 && most.report.dropped_turns > 0);
}

#[test]
fn what_is_left_out_is_summarized() {
    let summarizing =
        |summary| Conversation { strategy: Strategy::Summarize, summary, ..conversation(&[100; 10]) };
    let without = summarizing(None).fit(room(1000)).unwrap();
    let missing = without.wants_summary_of.unwrap();
    assert_eq!(first(&without), Some(missing), "it is sent without, if there cannot be one");
    let summary =
        |covers, tokens| Some(Summary { message: Message::new(Role::System, "so far"), tokens, covers });
    let with = summarizing(summary(missing, 100)).fit(room(1000)).unwrap();
    assert_eq!(words(&with)[..3], ["system".to_owned(), "so far".into(), format!("ask {missing}")]);
    assert_eq!(
        (with.wants_summary_of, with.report.summarized_turns, with.report.dropped_turns),
        (None, missing, 0)
    );
    assert!(with.report.estimated_prompt_tokens <= 1000);
    let more = summarizing(summary(missing + 1, 100)).fit(room(1000)).unwrap();
    assert_eq!(first(&more), Some(missing + 1), "one of more turns is as good");
    for useless in [summary(missing - 1, 100), summary(missing, 999), summary(99, 1)] {
        assert_eq!(summarizing(useless).fit(room(1000)).unwrap().wants_summary_of, Some(missing));
    }
    let short = Conversation { strategy: Strategy::Summarize, ..conversation(&[100]) };
    assert_eq!(short.fit(room(1000)).unwrap().wants_summary_of, None);
}

#[test]
fn old_pictures_are_only_named() {
    let picture = || {
        let part: Part =
            serde_json::from_value(json!({"type": "image_url", "image_url": {"url": "https://x.invalid/"}}))
                .unwrap();
        let media =
            Media { part: 1, kind: "image".into(), name: "cat.png".into(), tokens: 765, wanted: false };
        let message = Message::new(Role::User, vec![Part::text("look"), part]);
        Turn { items: vec![Item { message, tokens: 770, media: vec![media] }] }
    };
    let mut wanted = picture();
    wanted.items[0].media[0].wanted = true;
    let history = vec![wanted, picture(), picture(), picture()];
    let fitted = Conversation { history, ..conversation(&[]) }.fit(room(10_000)).unwrap();
    let sent = words(&fitted);
    let named: Vec<_> = sent.iter().map(|text| text.contains("[image sent earlier: cat.png]")).collect();
    assert_eq!(named, [false, false, true, false, false, false]);
    assert_eq!(fitted.report.estimated_prompt_tokens, 35 + 770 * 3 + 5 + 8);
}

#[test]
fn calls_without_answers_are_not_sent() {
    let call = |id: &str| ToolCall { id: id.into(), ..ToolCall::default() };
    let calling = |ids: &[&str], text: &str| {
        let mut item = item(Role::Assistant, text, 1);
        item.message.tool_calls = ids.iter().map(|id| call(id)).collect();
        item
    };
    let answer = |id: &str| {
        let mut item = item(Role::Tool, "7", 1);
        item.message.tool_call_id = Some(id.into());
        item
    };
    let ask = || item(Role::User, "ask", 1);
    let roles = |items: Vec<Item>| {
        let fitted = Conversation { history: vec![Turn { items }], system: None, ..conversation(&[]) }
            .fit(room(1000))
            .unwrap();
        fitted.messages.iter().map(|message| (message.role, message.tool_calls.len())).collect::<Vec<_>>()
    };
    let end = (Role::User, 0);
    assert_eq!(
        roles(vec![ask(), calling(&["a"], ""), answer("a")]),
        [end, (Role::Assistant, 1), (Role::Tool, 0), end]
    );
    assert_eq!(roles(vec![ask(), calling(&["a"], "")]), [end, end]);
    assert_eq!(roles(vec![ask(), calling(&["a"], "wait")]), [end, (Role::Assistant, 0), end]);
    assert_eq!(roles(vec![ask(), calling(&["a", "b"], ""), answer("a")]), [end, end]);
    assert_eq!(roles(vec![ask(), answer("lost")]), [end, end]);
    assert_eq!(roles(vec![calling(&["a"], ""), answer("a")]), [end], "no turn begins with an answer");
}

proptest! {
    #[test]
    fn whatever_is_sent_is_a_whole_end_within_its_bounds(
        sizes in proptest::collection::vec(0_u64..3000, 0..40),
        tokens in 35_u64..20_000,
        keep in proptest::option::of(0_usize..50),
        strategy in proptest::sample::select(vec![Strategy::Window, Strategy::Summarize, Strategy::Compress, Strategy::Error]),
        summary in proptest::option::of((0_usize..45, 0_u64..3000)),
    ) {
        let summary = summary.map(|(covers, tokens)| Summary { message: Message::new(Role::System, "so far"), tokens, covers });
        let asked = Conversation { strategy, keep_last_turns: keep, summary, ..conversation(&sizes) };
        let all: u64 = 35 + sizes.iter().sum::<u64>();
        match asked.fit(room(tokens)) {
            Err(refused) => prop_assert!(strategy == Strategy::Error && all > tokens && refused.needed == all),
            Ok(fitted) => {
                let report = fitted.report;
                let most = if strategy == Strategy::Compress { tokens * 4 - 1 } else { tokens };
                prop_assert!(report.estimated_prompt_tokens <= most);
                prop_assert_eq!(fitted.compress, strategy == Strategy::Compress && report.estimated_prompt_tokens > tokens);
                let sent = words(&fitted);
                let gone = report.dropped_turns + report.summarized_turns;
                let turns = (gone..sizes.len()).flat_map(|name| [format!("ask {name}"), format!("answer {name}")]);
                let summary = (report.summarized_turns > 0 || sent.get(1).is_some_and(|text| text == "so far")).then(|| "so far".to_owned());
                let expected: Vec<_> = ["system".to_owned()].into_iter().chain(summary).chain(turns).chain(["now".to_owned()]).collect();
                prop_assert_eq!(sent, expected);
                prop_assert!(keep.is_none_or(|keep| sizes.len() - gone <= keep) || strategy == Strategy::Error);
                // All that fits is sent, but for the 30 % that are kept free.
                if keep.is_none() && all <= tokens {
                    prop_assert_eq!(gone, 0);
                }
            }
        }
    }

    #[test]
    fn pairs_stay_together(
        kinds in proptest::collection::vec(0_u8..6, 0..30),
        tokens in 35_u64..400,
    ) {
        // Turns of random shapes, some broken off.
        let mut history: Vec<Turn> = Vec::new();
        for (at, kind) in kinds.iter().enumerate() {
            let mut new = item([Role::User, Role::Assistant, Role::Assistant, Role::Tool, Role::Tool, Role::User][usize::from(*kind)], "x", 10);
            if *kind == 2 {
                new.message.tool_calls = vec![ToolCall { id: format!("c{}", at / 4), ..ToolCall::default() }];
            }
            if new.message.role == Role::Tool {
                new.message.tool_call_id = Some(format!("c{}", at / 4));
            }
            match history.last_mut() {
                Some(turn) if new.message.role != Role::User => turn.items.push(new),
                _ => history.push(Turn { items: vec![new] }),
            }
        }
        let fitted = Conversation { history, system: None, ..conversation(&[]) }.fit(room(tokens)).unwrap();
        prop_assert_eq!(fitted.messages[0].role, Role::User);
        let called: Vec<_> = fitted.messages.iter().flat_map(|message| &message.tool_calls).map(|call| &call.id).collect();
        let answered: Vec<_> = fitted.messages.iter().filter_map(|message| message.tool_call_id.as_ref()).collect();
        prop_assert!(called.iter().all(|id| answered.contains(id)));
        prop_assert!(answered.iter().all(|id| called.contains(id)));
    }
}
