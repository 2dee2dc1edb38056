//! What is heard of an answer while it is made: its text piece by piece, and nothing else in between.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::{CHAT, Rig, last_said};
use crate::support::{Gateway, LEGACY, MODERN, Opened, Post, until};

const META: &str = "io.waystation/chat";

/// What one caller heard.
#[derive(Debug, Default)]
pub struct Heard {
    pub text: String,
    pub reasoning: String,
    pub pieces: usize,
    pub remarks: Vec<String>,
    progress: Vec<f64>,
    seqs: Vec<u64>,
    turns: BTreeSet<String>,
    pub result: Value,
}

impl Heard {
    /// What is said of the answer; in texts where the revision has nothing else.
    pub fn said(&self) -> Value {
        if self.result.get("structuredContent").is_some() {
            return self.result["structuredContent"].clone();
        }
        let text = |at: usize| self.result["content"][at]["text"].as_str().expect("two texts");
        let mut said: Value = serde_json::from_str(text(1)).expect("JSON");
        said["text"] = text(0).into();
        said
    }

    /// Takes one message; true if it was the response.
    pub fn take(&mut self, message: &Value) -> bool {
        if message.get("method").is_none() {
            self.result = message["result"].clone();
            return true;
        }
        assert_eq!(message["method"], "notifications/progress", "{message}");
        let params = &message["params"];
        assert_eq!(params["progressToken"], "heard", "{message}");
        self.progress.push(params["progress"].as_f64().unwrap());
        let (words, meta) = (params["message"].as_str().unwrap(), &params["_meta"][META]);
        self.seqs.push(meta["seq"].as_u64().unwrap());
        if let Some(turn) = meta["turn_id"].as_str() {
            self.turns.insert(turn.to_owned());
        }
        match meta["kind"].as_str().unwrap() {
            "delta" => {
                self.pieces += 1;
                self.text += words;
            }
            "reasoning" => self.reasoning += words,
            _ => self.remarks.push(words.to_owned()),
        }
        false
    }

    /// Is it all in order, and is what was heard what was answered?
    #[track_caller]
    fn check(&self, what: &str) {
        let said = self.said();
        assert_eq!(self.text, said["text"].as_str().unwrap(), "{what}: {}", self.result);
        assert!(self.progress.is_sorted_by(|a, b| a < b), "{what}: {:?}", self.progress);
        assert!(self.seqs.is_sorted_by(|a, b| a < b), "{what}: {:?}", self.seqs);
        let turn = said["turn_id"].as_str().unwrap();
        assert_eq!(self.turns.iter().collect::<Vec<_>>(), [turn], "{what}");
    }
}

/// All that comes of a call, to its end.
pub async fn hear(mut stream: Opened) -> Heard {
    let mut heard = Heard::default();
    while let Some(message) = stream.message().await {
        if heard.take(&message) {
            break;
        }
    }
    heard
}

pub fn params(arguments: Value) -> Value {
    json!({ "name": CHAT, "arguments": arguments, "_meta": { "progressToken": "heard" } })
}

async fn asked(gateway: &Gateway, revision: &str, arguments: Value) -> Post {
    if revision == MODERN {
        return gateway.modern("tools/call", params(arguments));
    }
    gateway.legacy(revision).await.request("tools/call", params(arguments))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pieces_are_the_text_in_every_revision() {
    let rig = Rig::slow(Duration::from_millis(2)).await;
    let gateway = rig.gateway("").await;
    let cases = [
        json!({ "message": "[[sim:words n=200]]" }),
        json!({ "message": "[[sim:words n=200]] again", "max_output_tokens": 60 }),
        json!({ "message": "[[sim:split]] [[sim:say text=\"Grüße, 世界! 👋🏽 \\u0001 \\\"quoted\\\" \\n\\n end\"]]" }),
        json!({ "message": "[[sim:multi]] [[sim:words n=300]]" }),
        json!({ "message": "[[sim:midstream after=40]] [[sim:words n=200]]" }),
        json!({ "message": "[[sim:truncate after=30]] [[sim:words n=200]]" }),
        json!({ "message": "[[sim:429]] hello" }),
        json!({ "message": "[[sim:empty times=1]] hello" }),
    ];
    for revision in LEGACY.into_iter().chain([MODERN]) {
        for arguments in &cases {
            let heard = hear(asked(&gateway, revision, arguments.clone()).await.open().await).await;
            heard.check(&format!("{revision} {arguments}"));
            if arguments["message"].as_str().unwrap().contains("words n=") {
                assert!(heard.pieces >= 3, "{revision} {arguments}: {} pieces", heard.pieces);
            }
        }
    }
}

#[tokio::test]
async fn nobody_is_told_who_did_not_ask_for_it() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let arguments = json!({ "message": "[[sim:429]] hello" });
    let messages = gateway.call(CHAT, arguments).send().await.messages();
    assert_eq!(messages.len(), 1, "{messages:?}");
}

#[tokio::test]
async fn thoughts_are_told_apart_and_only_where_they_are_wanted() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    for wanted in [true, false] {
        let arguments =
            json!({ "message": "hello", "reasoning_effort": "high", "include_reasoning": wanted });
        let heard = hear(gateway.modern("tools/call", params(arguments)).open().await).await;
        heard.check("with thoughts");
        assert_eq!(heard.reasoning, heard.said()["reasoning"].as_str().unwrap_or_default());
        assert_eq!(!heard.reasoning.is_empty(), wanted, "{heard:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_again_hears_it_from_the_beginning() {
    let rig = Rig::slow(Duration::from_millis(10)).await;
    let gateway = rig.gateway("").await;
    let arguments = json!({ "message": "[[sim:words n=100]]", "idempotency_key": "the same key" });
    let mut first = gateway.modern("tools/call", params(arguments.clone())).open().await;
    let mut early = Heard::default();
    while early.pieces < 3 {
        assert!(!early.take(&first.message().await.unwrap()), "it goes on for a second");
    }
    let late = tokio::spawn(hear(gateway.modern("tools/call", params(arguments.clone())).open().await));
    while !early.take(&first.message().await.unwrap()) {}
    let late = late.await.unwrap();
    early.check("the first");
    late.check("the second");
    assert_eq!(
        (early.said()["replayed"].as_bool(), late.said()["replayed"].as_bool()),
        (Some(false), Some(true))
    );
    // And once more when all is done.
    let again = hear(gateway.modern("tools/call", params(arguments)).open().await).await;
    assert_eq!(again.said()["text"], early.said()["text"]);
    assert_eq!(rig.asked().len(), 1);
    assert!(last_said(&rig.asked()[0]).contains("words"));
    assert!(again.result["_meta"]["io.waystation/usage"].is_null(), "nothing is charged again");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_reads_slowly_keeps_nobody_waiting() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let arguments = json!({ "message": "[[sim:words n=20000]]", "max_output_tokens": 131_072 });
    let mut slow = gateway.modern("tools/call", params(arguments)).open().await;
    let mut heard = Heard::default();
    heard.take(&slow.message().await.unwrap());
    // The model's answer is taken whole though nobody reads on, and its conversation goes on.
    until("the answer is there", || rig.asked().iter().any(|entry| entry.done_at.is_some())).await;
    while !heard.take(&slow.message().await.unwrap()) {}
    heard.check("read late");
}
