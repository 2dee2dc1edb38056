//! Whose conversation changes hears of it, and nobody else; and long work goes on without its client.

use serde_json::{Value, json};

use super::{Rig, answered, chat};
use crate::{
    identify::{Issuer, with},
    support::Gateway,
    tasks,
};

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_conversation_are_told_to_its_owner_alone() {
    let rig = Rig::new().await;
    let issuer = Issuer::new();
    let setup = Gateway::with(&issuer.tables()).lines(&rig.tables(""));
    let gateway = setup.store(rig.folder.path().join("a.db")).start().await;
    let (ada, eve) = (issuer.of("ada", &[]), issuer.of("eve", &[]));
    let say =
        async |token: &str, arguments: Value| answered(&with(chat(&gateway, arguments), token).send().await);
    let own = say(&ada, json!({ "message": "mine" })).await["conversation_id"].clone();
    let eves = say(&eve, json!({ "message": "hers" })).await["conversation_id"].clone();
    let uri = |id: &Value| format!("conversation://{}", id.as_str().unwrap());
    let listen = async |token: &str| {
        let filter = json!({ "resourceSubscriptions": [uri(&own), uri(&eves)] });
        let post = gateway.modern("subscriptions/listen", json!({ "notifications": filter }));
        let mut stream = with(post, token).open().await;
        let first = stream.message().await.expect("an acknowledgement");
        let honoured = first["params"]["notifications"]["resourceSubscriptions"].as_array().unwrap().len();
        assert_eq!(honoured, 2, "what is another's is as good as what is not there");
        stream
    };
    let (mut hers, mut others) = (listen(&ada).await, listen(&eve).await);
    say(&ada, json!({ "message": "more", "conversation_id": own })).await;
    let heard = hers.message().await.expect("a notification");
    assert_eq!(heard["method"], "notifications/resources/updated", "{heard}");
    assert_eq!(heard["params"]["uri"], uri(&own));
    // Eve's first news are of her own.
    say(&eve, json!({ "message": "more", "conversation_id": eves })).await;
    let heard = others.message().await.expect("a notification");
    assert_eq!(heard["params"]["uri"], uri(&eves), "{heard}");
    // Renamed and removed: both are changes. What Ada hears last is of her own still.
    let renamed = json!({ "conversation_id": own, "title": "Mine" });
    answered(&with(gateway.call("chat__conversation_update", renamed), &ada).send().await);
    answered(
        &with(gateway.call("chat__conversation_delete", json!({ "conversation_id": own })), &ada)
            .send()
            .await,
    );
    for _ in 0..3 {
        let heard = hers.message().await.expect("a notification");
        assert_eq!(heard["params"]["uri"], uri(&own), "{heard}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_benchmark_is_a_task_for_those_who_take_tasks() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("packs = [\"core\", \"benchmark\"]").await;
    let asked = json!({ "models": ["acme/atlas-8b"], "prompt": "[[sim:slow-first ms=300]]", "runs": 1 });
    let made = tasks::call(&gateway, "chat__benchmark_run", asked.clone()).send().await.result();
    assert_eq!((&made["resultType"], &made["status"]), (&json!("task"), &json!("working")), "{made}");
    let id = made["taskId"].as_str().unwrap();
    // Its client is not there any more, and it is done all the same.
    let done = tasks::until_status(&gateway, id, &["completed", "failed"]).await;
    let ran = &done["result"]["structuredContent"];
    assert_eq!(ran["ranking"][0]["model"], "acme/atlas-8b", "{done}");
    let listed = answered(&gateway.call("chat__benchmark_list", json!({})).send().await);
    assert_eq!(listed["runs"].as_array().map(Vec::len), Some(1), "{listed}");

    let wrong = json!({ "models": ["acme/atlas-8b"], "prompt": " " });
    let refused = tasks::call(&gateway, "chat__benchmark_run", wrong).send().await.result();
    assert_eq!((&refused["resultType"], &refused["isError"]), (&json!("complete"), &json!(true)), "at once");
    let waits = gateway.call("chat__benchmark_run", asked).send().await;
    assert_eq!(answered(&waits)["ranking"][0]["model"], "acme/atlas-8b", "who takes no tasks waits");
}
