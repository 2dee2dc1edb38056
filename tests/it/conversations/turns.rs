//! Turns, step by step, and what becomes of them when somebody dies.

use std::collections::HashSet;

use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::json;
use waystation::store::conversations::{
    Deletion, Error, Failed, Finish, Lease, Order, Quota, Quotas, Reading, Role, Said, Start, TurnState,
};

use super::*;

fn keyed(place: Place, text: &str, key: &str) -> NewTurn {
    NewTurn { key: Some(key.to_owned()), ..say(place, text) }
}

fn incomplete(text: &str, reason: &str) -> Finish {
    Finish { incomplete_reason: Some(reason.to_owned()), ..answer(text) }
}

fn failed(code: &str) -> Failed {
    Failed { code: code.to_owned(), entry: None, reservation: None }
}

fn again(id: ConversationId) -> NewTurn {
    NewTurn { said: Said::Again, ..say(Place::In(id), "") }
}

#[tokio::test]
async fn a_turn_goes_through_its_steps_and_is_told_again() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let first = begun(ada.begin(keyed(anew(), "hello", "key-1"), at(0)).await.unwrap());
    assert_eq!((first.message.text.as_str(), first.message.parent), ("hello", None));
    ada.sent(first.lease, Some("gen-1".into()), at(1)).await.unwrap();
    ada.checkpoint(first.lease, "Hel".into(), at(2)).await.unwrap();
    let running = ada.begin(keyed(anew(), "hello", "key-1"), at(3)).await.unwrap();
    assert!(matches!(running, Start::Running(turn) if turn.id == first.lease.turn));
    let mismatch = ada.begin(keyed(anew(), "other", "key-1"), at(3)).await;
    assert_eq!(mismatch, Err(Error::Mismatch));
    let finished = ada.finish(first.lease, answer("Hello!"), at(4)).await.unwrap();
    assert_eq!(ada.finish(first.lease, answer("Twice!"), at(4)).await, Err(Error::Fenced));

    let here = here.again(Options::default()).await;
    let ada = here.ada();
    let Start::Replay(turn) = ada.begin(keyed(anew(), "hello", "key-1"), at(5)).await.unwrap() else {
        panic!()
    };
    let told = turn.answer.clone().unwrap();
    assert_eq!((told.text.as_str(), Some(told.id)), ("Hello!", finished.assistant_message));
    assert_eq!(turn.result, Some(json!({ "warnings": ["hot"] })));
    assert_eq!((turn.state, turn.generation.as_deref()), (TurnState::Completed, Some("gen-1")));
    assert_eq!(ada.turn(turn.id).await.unwrap(), *turn);
    let chat = ada.conversation(turn.conversation).await.unwrap();
    assert_eq!((chat.messages, chat.head, chat.version), (2, finished.assistant_message, finished.version));
    // A day later the key is forgotten.
    let later = ada.begin(keyed(anew(), "other", "key-1"), at(25 * 60 * 60)).await.unwrap();
    assert_ne!(begun(later).conversation.id, chat.id);
}

#[tokio::test]
async fn ten_that_begin_with_one_key_begin_one_turn() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let starts = join_all((0..10).map(|_| ada.begin(keyed(anew(), "hello", "key-1"), at(0)))).await;
    let mut turns = HashSet::new();
    let mut begun = 0;
    for start in starts {
        match start.unwrap() {
            Start::Begun(one) => {
                begun += 1;
                turns.insert(one.lease.turn);
            }
            Start::Running(turn) => drop(turns.insert(turn.id)),
            Start::Replay(turn) => panic!("{turn:?}"),
        }
    }
    assert_eq!((begun, turns.len()), (1, 1));
}

#[tokio::test]
async fn sixty_four_turns_of_one_conversation_come_one_after_another() {
    let here = Here::new(roomy()).await;
    let ada = here.ada();
    let id = ada.create(NewConversation::default(), at(0)).await.unwrap().id;
    join_all((0..64).map(async |n| {
        let begun = loop {
            match ada.begin(say(Place::In(id), &format!("q{n}")), at(0)).await {
                Ok(start) => break begun(start),
                Err(Error::Busy { .. }) => tokio::task::yield_now().await,
                Err(why) => panic!("{why}"),
            }
        };
        ada.checkpoint(begun.lease, format!("a{n}"), at(0)).await.unwrap();
        ada.finish(begun.lease, answer(&format!("a{n}")), at(0)).await.unwrap();
    }))
    .await;
    let path = ada.path(id, None, EVERYTHING).await.unwrap();
    let seqs: Vec<_> = path.messages.iter().rev().map(|message| message.seq).collect();
    assert_eq!(seqs, (1..=128).collect::<Vec<_>>(), "no gaps, and all on one line");
    for pair in path.messages.chunks(2) {
        assert_eq!((pair[0].role, pair[1].role), (Role::Assistant, Role::User));
        assert_eq!(pair[0].text[1..], pair[1].text[1..], "each answer is that of its question");
    }
}

#[tokio::test]
async fn whoever_has_lost_the_lease_changes_nothing() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let begun = begun(ada.begin(say(anew(), "hello"), at(0)).await.unwrap());
    ada.sent(begun.lease, None, at(0)).await.unwrap();
    ada.renew(begun.lease, at(20)).await.unwrap();
    assert_eq!(here.all.recover(at(40)).await.unwrap().incomplete, [], "a sign of life holds it");
    assert_eq!(here.all.recover(at(60)).await.unwrap().incomplete, [begun.lease.turn]);
    let before = ada.turn(begun.lease.turn).await.unwrap();
    for lease in [begun.lease, Lease { epoch: 2, ..begun.lease }] {
        assert_eq!(ada.sent(lease, Some("gen-2".into()), at(61)).await, Err(Error::Fenced));
        assert_eq!(ada.checkpoint(lease, "late".into(), at(61)).await, Err(Error::Fenced));
        assert_eq!(ada.renew(lease, at(61)).await, Err(Error::Fenced));
        assert_eq!(ada.finish(lease, answer("late"), at(61)).await, Err(Error::Fenced));
        assert_eq!(ada.fail(lease, failed("late"), at(61)).await, Err(Error::Fenced));
    }
    assert_eq!(ada.turn(begun.lease.turn).await.unwrap(), before);
    assert_eq!(ada.conversation(begun.conversation.id).await.unwrap().messages, 1);
}

#[tokio::test]
async fn a_turn_that_died_before_it_was_sent_is_run_again_with_the_message_that_is_there() {
    let here = Here::new(Options::default()).await;
    let first = begun(here.ada().begin(keyed(anew(), "hello", "key-1"), at(0)).await.unwrap());
    let here = here.again(Options::default()).await;
    let ada = here.ada();
    assert_eq!(here.all.recover(at(31)).await.unwrap().failed, [first.lease.turn]);
    let turn = ada.turn(first.lease.turn).await.unwrap();
    assert_eq!((turn.state, turn.error.as_deref()), (TurnState::Failed, Some("crashed")));
    let second = begun(ada.begin(keyed(anew(), "hello", "key-1"), at(32)).await.unwrap());
    assert_eq!((second.conversation.id, second.message.id), (first.conversation.id, first.message.id));
    ada.finish(second.lease, answer("Hello!"), at(33)).await.unwrap();
    let page = ada.messages(first.conversation.id, Reading { limit: 9, ..Reading::default() }).await.unwrap();
    assert_eq!(texts(&page.items), ["Hello!", "hello"]);
    assert_eq!(ada.usage(Default::default()).await.unwrap().total.cost, 500, "paid for once");
}

#[tokio::test]
async fn a_turn_that_died_while_it_was_answered_keeps_what_was_said_and_is_settled_later() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let first = begun(ada.begin(keyed(anew(), "hello", "key-1"), at(0)).await.unwrap());
    ada.sent(first.lease, Some("gen-1".into()), at(1)).await.unwrap();
    ada.checkpoint(first.lease, "Hel".into(), at(2)).await.unwrap();
    ada.checkpoint(first.lease, "Hello, w".into(), at(3)).await.unwrap();
    let here = here.again(Options::default()).await;
    let ada = here.ada();
    assert_eq!(here.all.recover(at(60)).await.unwrap().incomplete, [first.lease.turn]);
    assert_eq!(here.all.recover(at(60)).await.unwrap(), Default::default(), "once");
    let Start::Replay(turn) = ada.begin(keyed(anew(), "hello", "key-1"), at(61)).await.unwrap() else {
        panic!()
    };
    assert_eq!(turn.incomplete_reason.as_deref(), Some("crash_recovered"));
    assert_eq!(turn.answer.unwrap().text, "Hello, w");
    let path = ada.path(turn.conversation, None, EVERYTHING).await.unwrap();
    assert_eq!(texts(&path.messages), ["Hello, w", "hello"], "the next turn sees it");

    let total = ada.usage(Default::default()).await.unwrap().total;
    assert_eq!((total.cost, total.estimated, total.requests), (1_000, 1_000, 1));
    assert_eq!(here.all.unsettled(at(61), 9).await.unwrap(), []);
    here.all.postpone(turn.id, Some(at(100))).await.unwrap();
    assert_eq!(here.all.unsettled(at(99), 9).await.unwrap(), []);
    let due = here.all.unsettled(at(100), 9).await.unwrap();
    assert_eq!((due[0].generation.as_str(), due[0].tries), ("gen-1", 1));
    let real = Usage { prompt_tokens: 11, completion_tokens: 2, cost: 77, ..Usage::default() };
    here.all.reconcile(turn.id, real, at(100)).await.unwrap();
    assert_eq!(here.all.reconcile(turn.id, real, at(100)).await, Err(Error::NotFound), "once");
    let total = ada.usage(Default::default()).await.unwrap().total;
    assert_eq!((total.cost, total.estimated, total.requests), (77, 0, 1));
    assert_eq!((total.prompt_tokens, total.completion_tokens), (11, 2));
}

#[tokio::test]
async fn a_turn_that_died_without_a_word_is_never_run_again_by_itself() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let first = begun(ada.begin(keyed(anew(), "hello", "key-1"), at(0)).await.unwrap());
    ada.sent(first.lease, None, at(1)).await.unwrap();
    // Nobody recovers it but whoever comes next.
    let second = ada.begin(keyed(anew(), "hello", "key-1"), at(60)).await.unwrap();
    let Start::Replay(turn) = second else { panic!("{second:?}") };
    assert_eq!((turn.state, turn.answer), (TurnState::Incomplete, None), "it may have been paid for");
    // Whoever wants that says so.
    let second = begun(ada.begin(again(turn.conversation), at(61)).await.unwrap());
    assert_eq!(second.message.id, first.message.id);
    // Of one of which nothing was sent it is known.
    let unsent = begun(ada.begin(keyed(anew(), "hello", "key-2"), at(70)).await.unwrap());
    let anew = begun(ada.begin(keyed(anew(), "hello", "key-2"), at(140)).await.unwrap());
    assert_eq!(anew.message.id, unsent.message.id);
}

#[tokio::test]
async fn a_key_that_comes_again_after_others_have_spoken_asks_behind_them() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let id = talk(&ada, anew(), "q1", "a1").await;
    let lost = begun(ada.begin(keyed(Place::In(id), "q2", "key-2"), at(2)).await.unwrap());
    ada.fail(lost.lease, failed("x"), at(2)).await.unwrap();
    talk(&ada, Place::In(id), "q3", "a3").await;
    let late = begun(ada.begin(keyed(Place::In(id), "q2", "key-2"), at(3)).await.unwrap());
    ada.finish(late.lease, answer("a2"), at(3)).await.unwrap();
    let path = ada.path(id, None, EVERYTHING).await.unwrap();
    assert_eq!(texts(&path.messages), ["a2", "q2", "a3", "q3", "a1", "q1"]);
}

#[tokio::test]
async fn a_failed_question_is_not_asked_again_with_the_next_and_can_be_run_again() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let id = talk(&ada, anew(), "q1", "a1").await;
    assert_eq!(ada.begin(again(id), at(2)).await, Err(Error::NothingToRetry));
    let lost = begun(ada.begin(say(Place::In(id), "q2"), at(2)).await.unwrap());
    ada.fail(lost.lease, failed("rate_limited"), at(3)).await.unwrap();
    let path = ada.path(id, None, EVERYTHING).await.unwrap();
    assert_eq!(texts(&path.messages), ["a1", "q1"]);

    let retried = begun(ada.begin(again(id), at(4)).await.unwrap());
    assert_eq!(retried.message.id, lost.message.id);
    let cut = ada.finish(retried.lease, incomplete("a2 cu", "timeout"), at(5)).await.unwrap();
    let whole = begun(ada.begin(again(id), at(6)).await.unwrap());
    let whole = ada.finish(whole.lease, answer("a2"), at(7)).await.unwrap();
    let path = ada.path(id, None, EVERYTHING).await.unwrap();
    assert_eq!(texts(&path.messages), ["a2", "q2", "a1", "q1"]);
    let all = ada
        .messages(id, Reading { order: Order::OldestFirst, limit: 9, ..Reading::default() })
        .await
        .unwrap();
    assert_eq!(texts(&all.items), ["q1", "a1", "q2", "a2 cu", "a2"], "what was superseded stays readable");
    assert_eq!(all.items[3].id, cut.assistant_message.unwrap());
    assert_eq!(all.items[3].superseded_by, whole.assistant_message);
    let turns = ada.turns(id, 9).await.unwrap();
    let states: Vec<_> = turns.iter().map(|turn| turn.state).collect();
    let expected = [TurnState::Completed, TurnState::Incomplete, TurnState::Failed, TurnState::Completed];
    assert_eq!(states, expected);
}

#[tokio::test]
async fn a_branch_waits_for_nobody_and_is_the_head_when_it_has_its_answer() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let id = talk(&ada, anew(), "q1", "a1").await;
    let fork_here = ada.conversation(id).await.unwrap().head;
    talk(&ada, Place::In(id), "q2", "a2").await;
    let main = begun(ada.begin(say(Place::In(id), "q3"), at(2)).await.unwrap());
    let busy = ada.begin(say(Place::In(id), "q4"), at(2)).await;
    assert_eq!(busy, Err(Error::Busy { turn: main.lease.turn }));
    let branch = NewTurn { parent: fork_here, ..say(Place::In(id), "other") };
    let branch = begun(ada.begin(branch, at(2)).await.unwrap());
    let path = ada.path(id, branch.message.parent, EVERYTHING).await.unwrap();
    assert_eq!(texts(&path.messages), ["a1", "q1"]);
    ada.finish(main.lease, answer("a3"), at(3)).await.unwrap();
    ada.finish(branch.lease, answer("another"), at(4)).await.unwrap();
    let path = ada.path(id, None, EVERYTHING).await.unwrap();
    assert_eq!(texts(&path.messages), ["another", "other", "a1", "q1"]);
    assert_eq!(path.whole, 4);
}

#[tokio::test]
async fn what_may_not_begin_says_why() {
    let quotas = Quotas { conversations: 2, messages: 4, bytes: 4_000, attachment: 10, turns: 9 };
    let here = Here::new(Options { quotas, ..Options::default() }).await;
    let ada = here.ada();
    let id = talk(&ada, anew(), "q1", "a1").await;
    let version = ada.conversation(id).await.unwrap().version;
    let expecting = |version| NewTurn { expected_version: Some(version), ..say(Place::In(id), "q2") };
    assert_eq!(ada.begin(expecting(version - 1), at(2)).await, Err(Error::Conflict { version }));
    let turn = begun(ada.begin(expecting(version), at(2)).await.unwrap());
    ada.finish(turn.lease, answer("a2"), at(3)).await.unwrap();
    let full = ada.begin(say(Place::In(id), "q3"), at(4)).await;
    assert_eq!(full, Err(Quota::Messages(4).into()));
    let big = ada.begin(say(anew(), &"x".repeat(5_000)), at(4)).await;
    assert_eq!(big, Err(Quota::Bytes(4_000).into()));
    assert_eq!(ada.attach(id, "text/plain".into(), vec![0; 11]).await, Err(Quota::Attachment(10).into()));
    let other = begun(ada.begin(say(anew(), "q"), at(5)).await.unwrap());
    assert_eq!(ada.begin(say(anew(), "q"), at(5)).await, Err(Quota::Conversations(2).into()));
    let turn = NewTurn { parent: other.message.parent, ..say(Place::In(other.conversation.id), "q") };
    assert_eq!(ada.begin(turn, at(5)).await, Err(Error::Busy { turn: other.lease.turn }));
    let branch = NewTurn { parent: Some(other.message.id), ..say(Place::In(other.conversation.id), "b") };
    for _ in 0..2 {
        begun(ada.begin(branch.clone(), at(5)).await.unwrap());
    }
    assert_eq!(ada.begin(branch, at(5)).await, Err(Quota::Messages(4).into()));
    let bob = begun(here.bob().begin(say(anew(), "q"), at(5)).await.unwrap());
    assert_eq!(bob.conversation.messages, 1, "what ada has is not bob's");
}

#[tokio::test]
async fn so_many_turns_run_at_once_and_no_more() {
    let quotas = Quotas { turns: 2, ..Quotas::default() };
    let here = Here::new(Options { quotas, ..Options::default() }).await;
    let ada = here.ada();
    let one = begun(ada.begin(say(anew(), "1"), at(0)).await.unwrap());
    begun(ada.begin(say(anew(), "2"), at(0)).await.unwrap());
    assert_eq!(ada.begin(say(anew(), "3"), at(0)).await, Err(Quota::Turns(2).into()));
    ada.fail(one.lease, failed("x"), at(0)).await.unwrap();
    begun(ada.begin(say(anew(), "3"), at(0)).await.unwrap());
}

#[tokio::test]
async fn a_conversation_that_is_deleted_while_a_turn_runs_goes_with_the_turn() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let id = talk(&ada, anew(), "q1", "a1").await;
    let turn = begun(ada.begin(say(Place::In(id), "q2"), at(2)).await.unwrap()).lease;
    assert_eq!(ada.clear(id, at(2)).await, Err(Error::Busy { turn: turn.turn }));
    assert_eq!(ada.delete(id).await.unwrap(), Deletion::Waits { running: vec![turn.turn] });
    assert_eq!(ada.conversation(id).await, Err(Error::NotFound));
    assert_eq!(ada.begin(say(Place::In(id), "q3"), at(2)).await, Err(Error::NotFound));
    let finished = ada.finish(turn, incomplete("a2", "cancelled"), at(3)).await.unwrap();
    assert!(finished.deleted);
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM message").fetch_one(&mut here.rows().await).await.unwrap();
    assert_eq!(count, 0);
    let total = ada.usage(Default::default()).await.unwrap().total;
    assert_eq!((total.requests, total.cost), (2, 1_000), "what was paid for was paid for");
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_is_said_before_anything_is_sent() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let id = talk(&ada, anew(), "q1", "a1").await;
    // Somebody else writes and does not end.
    let mut other = here.rows().await;
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    let begun = ada.begin(say(Place::In(id), "q2"), at(2)).await;
    assert!(matches!(begun, Err(Error::Unavailable(_))), "{begun:?}");
    assert_eq!(ada.conversation(id).await.unwrap().messages, 2, "to read goes on");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    talk(&ada, Place::In(id), "q3", "a3").await;
    here.store.close().await;
    let begun = ada.begin(say(Place::In(id), "q4"), at(2)).await;
    assert!(matches!(begun, Err(Error::Unavailable(_))), "{begun:?}");
}

/// What can happen to a conversation.
#[derive(Debug, Clone)]
enum Step {
    Begin {
        key: Option<u8>,
    },
    Again,
    Sent,
    Checkpoint,
    Finish {
        text: bool,
        whole: bool,
    },
    Fail,
    /// The process died; so much later another recovers.
    Die,
    /// What an earlier epoch would write.
    Zombie,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => proptest::option::of(0..4u8).prop_map(|key| Step::Begin { key }),
        1 => Just(Step::Again),
        3 => Just(Step::Sent),
        2 => Just(Step::Checkpoint),
        4 => (any::<bool>(), any::<bool>()).prop_map(|(text, whole)| Step::Finish { text, whole }),
        1 => Just(Step::Fail),
        1 => Just(Step::Die),
        1 => Just(Step::Zombie),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Takes the steps one after another; then nothing may be lost, doubled or stuck.
async fn walk(steps: Vec<Step>) {
    let store = Store::in_memory().await.unwrap();
    let all = open(&store, roomy()).await.unwrap();
    let ada = all.of(&principal("ada"));
    let id = ada.create(NewConversation::default(), at(0)).await.unwrap().id;
    let (mut now, mut held, mut lost) = (0, None, None);
    let (mut asked, mut paid) = (0, 0);
    for step in steps {
        now += 1;
        match (step, held) {
            (Step::Begin { key }, _) => {
                let text = format!("q{}", key.map_or(99, u32::from));
                let turn = NewTurn { key: key.map(|key| format!("key-{key}")), ..say(Place::In(id), &text) };
                let before = ada.conversation(id).await.unwrap().messages;
                match ada.begin(turn, at(now)).await {
                    Ok(Start::Begun(begun)) => {
                        assert!(held.is_none(), "one at a time");
                        asked += ada.conversation(id).await.unwrap().messages - before;
                        held = Some((begun.lease, false));
                    }
                    Ok(Start::Running(turn)) => assert_eq!(Some(turn.id), held.map(|(lease, _)| lease.turn)),
                    Ok(Start::Replay(turn)) => {
                        assert!(turn.answer.is_some() || turn.state == TurnState::Incomplete);
                    }
                    Err(why) => assert_eq!(Error::Busy { turn: held.unwrap().0.turn }, why),
                }
            }
            (Step::Again, _) => match ada.begin(again(id), at(now)).await {
                Ok(start) => held = Some((begun(start).lease, false)),
                Err(why) => assert!(matches!(why, Error::Busy { .. } | Error::NothingToRetry), "{why}"),
            },
            (Step::Sent, Some((lease, _))) => {
                ada.sent(lease, Some("gen".into()), at(now)).await.unwrap();
                held = Some((lease, true));
            }
            (Step::Checkpoint, Some((lease, _))) => {
                ada.checkpoint(lease, "part".into(), at(now)).await.unwrap();
                held = Some((lease, true));
            }
            (Step::Finish { text, whole }, Some((lease, _))) => {
                let text = if text || whole { "a" } else { "" };
                let finish = if whole { answer(text) } else { incomplete(text, "timeout") };
                ada.finish(lease, finish, at(now)).await.unwrap();
                (held, lost, paid) = (None, Some(lease), paid + 1);
            }
            (Step::Fail, Some((lease, _))) => {
                ada.fail(lease, failed("x"), at(now)).await.unwrap();
                (held, lost) = (None, Some(lease));
            }
            (Step::Die, Some((lease, sent))) => {
                now += 40;
                let recovered = all.recover(at(now)).await.unwrap();
                let ended = if sent { recovered.incomplete } else { recovered.failed };
                assert_eq!(ended, [lease.turn]);
                (held, lost, paid) = (None, Some(lease), paid + i64::from(sent));
            }
            (Step::Zombie, _) => {
                if let Some(lease) = lost {
                    assert_eq!(ada.finish(lease, answer("late"), at(now)).await, Err(Error::Fenced));
                }
            }
            (_, None) => {}
        }
    }
    all.recover(at(now + 1_000)).await.unwrap();
    let reading = Reading { order: Order::OldestFirst, limit: 200, ..Reading::default() };
    let messages = ada.messages(id, reading).await.unwrap().items;
    let seqs: Vec<_> = messages.iter().map(|message| message.seq).collect();
    assert_eq!(seqs, (1..=messages.len() as i64).collect::<Vec<_>>());
    let of_users = messages.iter().filter(|message| message.role == Role::User).count();
    assert_eq!(of_users as u64, asked, "no question is lost or doubled");
    let turns = ada.turns(id, 1000).await.unwrap();
    assert!(turns.iter().all(|turn| turn.finished.is_some()), "none is stuck");
    let answers: HashSet<_> = turns.iter().filter_map(|turn| Some(turn.answer.as_ref()?.id)).collect();
    assert_eq!(answers.len() + of_users, messages.len(), "no turn has two answers");
    let path = ada.path(id, None, EVERYTHING).await.unwrap().messages;
    for (nth, message) in path.iter().enumerate() {
        let expected = if nth % 2 == 0 { Role::Assistant } else { Role::User };
        assert_eq!((message.role, message.superseded_by), (expected, None));
    }
    assert_eq!(path.len() % 2, 0, "it begins with a question");
    let requests = ada.usage(Default::default()).await.unwrap().total.requests;
    let stuck = i64::from(held.is_some_and(|(_, sent)| sent));
    assert_eq!(requests, paid + stuck, "what was sent is in the ledger once");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nothing_is_lost_doubled_or_stuck(steps in steps()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(walk(steps));
    }
}
