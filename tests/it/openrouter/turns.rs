//! Many messages at once, the same message twice, the last one again, and from an earlier point.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{
    Rig, answered, chat, code, last_said, messages, refused, say,
    stream::{hear, params},
};
use crate::support::{Gateway, until};

async fn spent(gateway: &Gateway) -> Value {
    answered(&gateway.call("chat__usage_report", json!({})).send().await)["total"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_speak_at_once_and_one_after_the_other_is_answered() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let id = say(&gateway, None, "hello").await["conversation_id"].clone();
    let busy = std::sync::atomic::AtomicUsize::new(0);
    let turns = (0..64).map(async |number| {
        loop {
            let arguments = json!({ "conversation_id": id, "message": format!("speaker {number}") });
            let answer = chat(&gateway, arguments).send().await;
            if answer.result()["isError"] != true {
                return answered(&answer);
            }
            let why = refused(&answer);
            assert_eq!(
                (&why["code"], &why["retryable"]),
                (&json!("conversation_busy"), &json!(true)),
                "{why}"
            );
            assert_eq!(why["conversation_id"], id);
            busy.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let said = join_all(turns).await;
    println!("{} were told that the conversation is busy", busy.into_inner());
    let number = |said: &Value| -> usize {
        let text = said["text"].as_str().unwrap();
        text.split_once("turn ").unwrap().1.split(':').next().unwrap().parse().unwrap()
    };
    let mut turns: Vec<_> = said.iter().map(number).collect();
    turns.sort_unstable();
    assert_eq!(turns, (2..66).collect::<Vec<_>>(), "each found all that was said before");
    let all = messages(&gateway, &id).await;
    let seqs: Vec<_> = all.iter().map(|message| message["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=130).collect::<Vec<_>>());
    for pair in all.chunks(2) {
        assert_eq!((&pair[0]["role"], &pair[1]["role"]), (&json!("user"), &json!("assistant")));
        assert_eq!(pair[0]["turn_id"], pair[1]["turn_id"]);
        let asked = pair[0]["text"].as_str().unwrap();
        assert!(pair[1]["text"].as_str().unwrap().contains(&format!(": {asked} (#")), "{pair:?}");
    }
    assert_eq!(rig.asked().len(), 65);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_is_asked_once_whether_it_comes_at_once_or_later() {
    let rig = Rig::slow(Duration::from_millis(5)).await;
    let gateway = rig.gateway("").await;
    let id = say(&gateway, None, "hello").await["conversation_id"].clone();
    let cases = [
        json!({ "message": "new: [[sim:words n=60]]", "idempotency_key": "a new one" }),
        json!({ "message": "old: [[sim:words n=60]]", "idempotency_key": "in another", "conversation_id": id }),
    ];
    for arguments in cases {
        let before = (rig.asked().len(), messages(&gateway, &id).await.len());
        let all = join_all((0..10).map(|_| chat(&gateway, arguments.clone()).send())).await;
        let mut said: Vec<_> = all.iter().map(answered).collect();
        assert_eq!(rig.asked().len(), before.0 + 1, "one of ten is sent");
        let first = said.iter().filter(|one| one["replayed"] == false).count();
        assert_eq!(first, 1, "the others are told that it was not for them");
        let charged =
            all.iter().filter(|one| !one.result()["_meta"]["io.waystation/usage"].is_null()).count();
        assert_eq!(charged, 1);
        for one in &mut said {
            for member in ["replayed", "version"] {
                one.as_object_mut().unwrap().remove(member);
            }
        }
        assert!(said.windows(2).all(|two| two[0] == two[1]), "{said:#?}");
        let total = spent(&gateway).await;
        let again = chat(&gateway, arguments.clone()).send().await;
        let mut told = answered(&again);
        assert_eq!((&told["replayed"], rig.asked().len()), (&json!(true), before.0 + 1));
        for member in ["replayed", "version"] {
            told.as_object_mut().unwrap().remove(member);
        }
        assert_eq!(told, said[0]);
        assert_eq!(spent(&gateway).await, total, "nothing is charged again");
        let mut other = arguments.clone();
        other["message"] = "something else".into();
        assert_eq!(code(&chat(&gateway, other).send().await), "idempotency_mismatch");
        assert_eq!(rig.asked().len(), before.0 + 1);
    }
    assert_eq!(messages(&gateway, &id).await.len(), 4);
}

#[tokio::test]
async fn a_key_whose_turn_came_to_nothing_is_run_again() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let arguments = json!({ "message": "[[sim:422 times=1]] hello", "idempotency_key": "tried again" });
    let failed = refused(&chat(&gateway, arguments.clone()).send().await);
    assert_eq!(failed["code"], "invalid_input");
    let said = answered(&chat(&gateway, arguments).send().await);
    assert_eq!(
        (&said["status"], &said["conversation_id"]),
        (&json!("completed"), &failed["conversation_id"])
    );
    assert_eq!(messages(&gateway, &said["conversation_id"]).await.len(), 2, "it was said once");
}

#[tokio::test]
async fn a_key_whose_turn_was_cut_short_is_not_asked_again() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let arguments = json!({ "message": "[[sim:midstream times=1]] hello", "idempotency_key": "cut short" });
    let cut = answered(&chat(&gateway, arguments.clone()).send().await);
    let again = answered(&chat(&gateway, arguments).send().await);
    assert_eq!((&cut["status"], &again["replayed"]), (&json!("incomplete"), &json!(true)));
    for member in ["status", "incomplete_reason", "text", "turn_id", "usage"] {
        assert_eq!(cut[member], again[member], "{member}");
    }
    assert_eq!(rig.asked().len(), 1, "what was said is paid for");
}

#[tokio::test]
async fn whoever_expects_another_version_is_told() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let first = say(&gateway, None, "hello").await;
    let next = |version: &Value| {
        let id = &first["conversation_id"];
        chat(&gateway, json!({ "conversation_id": id, "message": "next", "expected_version": version }))
            .send()
    };
    let second = answered(&next(&first["version"]).await);
    assert_ne!(second["version"], first["version"]);
    assert_eq!(code(&next(&first["version"]).await), "conversation_conflict");
    answered(&next(&second["version"]).await);
    assert_eq!(rig.asked().len(), 3);
}

#[tokio::test]
async fn what_was_cut_short_is_run_again_in_its_place() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let id = say(&gateway, None, "hello").await["conversation_id"].clone();
    let retry = || chat(&gateway, json!({ "conversation_id": id, "retry": true })).send();
    assert_eq!(code(&retry().await), "invalid_input", "there is nothing to run again");
    for (fault, kept) in [("midstream times=1", 1), ("422 times=1", 0)] {
        let before = messages(&gateway, &id).await.len();
        let message = format!("[[sim:{fault}]] and then?");
        let cut = chat(&gateway, json!({ "conversation_id": id, "message": message })).send().await;
        assert_eq!(cut.result()["isError"] == true, kept == 0);
        let again = answered(&retry().await);
        assert_eq!(again["status"], "completed");
        let all = messages(&gateway, &id).await;
        assert_eq!(all.len(), before + 2 + kept);
        let old =
            all.iter().filter(|message| message["superseded_by"] == again["assistant_message_id"]).count();
        assert_eq!(old, kept, "{all:?}");
        let sent = rig.asked().pop().unwrap();
        assert!(last_said(&sent).contains("and then?"), "the answer that it replaces is not sent");
    }
    assert!(say(&gateway, Some(&id), "well").await["text"].as_str().unwrap().contains("turn 4:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_begins_where_it_is_wanted_and_waits_for_nobody() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let first = say(&gateway, None, "the root").await;
    let id = &first["conversation_id"];
    let second = say(&gateway, Some(id), "the trunk").await;
    let long = json!({ "conversation_id": id, "message": "[[sim:slow-tokens ms=50]] [[sim:words n=60]]" });
    let main = tokio::spawn(chat(&gateway, long).send());
    until("the model is asked", || rig.asked().len() == 3).await;
    // What is said at the end is no branch: it waits for what is said there already.
    let last = json!({ "conversation_id": id, "message": "at the end", "parent_message_id": second["assistant_message_id"] });
    let mut last = gateway.modern("tools/call", params(last)).open().await;
    let waits = last.message().await.unwrap();
    assert!(waits["params"]["message"].as_str().unwrap().starts_with("queued behind"), "{waits}");
    let aside = |message: &str| {
        let at = &first["assistant_message_id"];
        chat(&gateway, json!({ "conversation_id": id, "message": message, "parent_message_id": at })).send()
    };
    let one = answered(&aside("the one way").await);
    assert!(!main.is_finished(), "it did not wait");
    let other = answered(&aside("the other way").await);
    for (branch, way) in [(&one, "the one way"), (&other, "the other way")] {
        assert!(branch["text"].as_str().unwrap().contains(&format!("turn 2: {way}")), "{branch}");
    }
    answered(&main.await.unwrap());
    let last = hear(last).await;
    assert!(last.text.contains("turn 3: at the end"), "{last:?}");
    let parent = json!({ "conversation_id": id, "message": "further", "parent_message_id": one["assistant_message_id"] });
    let further = answered(&chat(&gateway, parent).send().await);
    assert!(further["text"].as_str().unwrap().contains("turn 3:"), "{further}");
    let sent = rig.asked().pop().unwrap().body["messages"].to_string();
    assert!(sent.contains("the one way") && !sent.contains("the other way"), "{sent}");
}
