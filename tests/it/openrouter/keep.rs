//! Conversations outlive the gateway, and are nobody else's.

use serde_json::{Value, json};

use super::{Rig, answered, chat, code, messages, say};
use crate::{
    identify::{Issuer, with},
    support::{Answer, Gateway},
};

/// An id as good as any, of nothing.
const NEVER: &str = "cnv_0000000000000000000000";

#[tokio::test]
async fn a_conversation_goes_on_after_a_restart() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let first = say(&gateway, None, "my name is Ada").await;
    assert!(first["text"].as_str().unwrap().contains("turn 1: my name is Ada"), "{first}");
    assert_ne!(first["simulated"], true, "there is a key");
    gateway.stop().await;
    let gateway = rig.gateway("").await;
    let second = say(&gateway, Some(&first["conversation_id"]), "who am I?").await;
    assert!(second["text"].as_str().unwrap().contains("turn 2: who am I?"), "{second}");
    let sent = rig.asked()[1].body["messages"].clone();
    let said: Vec<_> = sent.as_array().unwrap().iter().map(|one| one["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["my name is Ada", first["text"].as_str().unwrap(), "who am I?"]);
    assert_eq!(messages(&gateway, &first["conversation_id"]).await.len(), 4);
}

/// Arguments for a tool that takes a conversation's id.
fn arguments(tool: &Value, id: &str) -> Option<Value> {
    let schema = &tool["inputSchema"];
    schema["properties"].get("conversation_id")?;
    let mut arguments = json!({ "conversation_id": id });
    for name in ["message", "query"] {
        if schema["properties"].get(name).is_some() {
            arguments[name] = "said by Ada".into();
        }
    }
    Some(arguments)
}

/// All that is said, but the ids that the caller gave.
fn words(answer: &Answer, ids: [&str; 2]) -> (u16, String) {
    let mut response = answer.response();
    response["id"] = Value::Null;
    let text = ids.iter().fold(response.to_string(), |text, id| text.replace(id, "ID"));
    (answer.status, text)
}

#[tokio::test]
async fn what_is_anothers_is_not_there() {
    let rig = Rig::new().await;
    let issuer = Issuer::new();
    let setup = Gateway::with(&issuer.tables()).lines(&rig.tables(""));
    let gateway = setup.store(rig.folder.path().join("a.db")).start().await;
    let (ada, eve) = (issuer.of("ada", &[]), issuer.of("eve", &[]));
    let first =
        with(chat(&gateway, json!({ "message": "said by Ada", "idempotency_key": "ada's key" })), &ada);
    let first = answered(&first.send().await);
    let id = first["conversation_id"].as_str().unwrap();
    let list = with(gateway.modern("tools/list", json!({})), &eve).send().await.result();
    let mut tried = 0;
    for tool in list["tools"].as_array().unwrap() {
        let name = tool["name"].as_str().unwrap();
        let (Some(foreign), Some(never)) = (arguments(tool, id), arguments(tool, NEVER)) else { continue };
        let foreign = with(gateway.call(name, foreign), &eve).send().await;
        let never = with(gateway.call(name, never), &eve).send().await;
        assert_eq!(words(&foreign, [id, NEVER]), words(&never, [id, NEVER]), "{name}");
        assert_eq!(code(&foreign), "conversation_not_found", "{name}");
        tried += 1;
    }
    assert!(tried >= 9, "{tried} tools");
    // Nor in any other way: by a message, a turn, a generation, a key, a search, a list.
    let own = answered(&with(chat(&gateway, json!({ "message": "mine" })), &eve).send().await);
    let in_own = |name: &str, id: &Value| json!({ "conversation_id": own["conversation_id"], name: id, "message": "x" });
    let branch =
        with(chat(&gateway, in_own("parent_message_id", &first["user_message_id"])), &eve).send().await;
    assert_eq!(code(&branch), "conversation_not_found");
    let get = json!({ "conversation_id": own["conversation_id"], "turn_id": first["turn_id"] });
    let got = with(gateway.call("chat__conversation_get", get), &eve).send().await;
    assert!(!got.text().contains("said by Ada"), "{}", got.text());
    let generation = json!({ "generation_id": first["generation_id"] });
    let generation = with(gateway.call("chat__generation_get", generation), &eve).send().await;
    assert_eq!(generation.result()["isError"], true);
    let keyed = json!({ "message": "said by Ada", "idempotency_key": "ada's key" });
    let keyed = answered(&with(chat(&gateway, keyed), &eve).send().await);
    assert_eq!(keyed["replayed"], false, "a key is its caller's own");
    let search =
        with(gateway.call("chat__conversation_search", json!({ "query": "said" })), &eve).send().await;
    assert!(!search.text().contains(id));
    let list = with(gateway.call("chat__conversation_list", json!({})), &eve).send().await;
    assert!(!list.text().contains(id));
    // All of it is as it was.
    let get = json!({ "conversation_id": id });
    let got = answered(&with(gateway.call("chat__conversation_get", get), &ada).send().await);
    assert_eq!(
        (got["messages"].as_array().unwrap().len(), &got["conversation"]["version"]),
        (2, &first["version"])
    );
}
