//! What was said is read with the key only.

use waystation::store::conversations::{BenchmarkId, Error, Keys, NewBenchmark, NewSummary, Reading, Search};

use super::*;

pub fn keys(current: u8, earlier: &[u8]) -> Keys {
    Keys { current: [current; 32], earlier: earlier.iter().map(|one| [*one; 32]).collect() }
}

fn with(keys: Keys) -> Options {
    Options { keys: Some(keys), ..roomy() }
}

/// A conversation in which everything is a secret.
async fn secrets(here: &Here) -> ConversationId {
    let ada = here.ada();
    let new = NewConversation {
        title: Some("hush-title".into()),
        system_prompt: Some("hush-prompt".into()),
        tags: vec!["hush-tag".into()],
        settings: json!({ "hush": "hush-settings" }),
        ..NewConversation::default()
    };
    let id = ada.create(new, at(0)).await.unwrap().id;
    let extras = Some(json!({ "reasoning": "hush-extras" }));
    let said = Said::Message { text: "hush-question".into(), extras, tokens: 5 };
    let turn = begun(ada.begin(NewTurn { said, ..say(Place::In(id), "") }, at(0)).await.unwrap());
    let result = Some(json!({ "result": "hush-result" }));
    let done = ada.finish(turn.lease, Finish { result, ..answer("hush-answer") }, at(1)).await.unwrap();
    let summary = NewSummary {
        upto: done.assistant_message.unwrap(),
        model: "m".into(),
        text: "hush-summary".into(),
        tokens: 1,
        source: "s".into(),
    };
    ada.keep_summary(id, summary, at(1)).await.unwrap();
    ada.attach(id, "text/plain".into(), b"hush-file".to_vec()).await.unwrap();
    let run = NewBenchmark {
        id: BenchmarkId::new().unwrap(),
        models: vec!["a/model".into()],
        body: json!({ "prompt": "hush-run" }),
    };
    ada.keep_benchmark(run, at(1)).await.unwrap();
    let running = begun(ada.begin(say(Place::In(id), "hush-next"), at(2)).await.unwrap());
    ada.checkpoint(running.lease, "hush-partial".into(), at(2)).await.unwrap();
    id
}

/// All of it, as its owner reads it.
async fn told(here: &Here, id: ConversationId) -> String {
    let ada = here.ada();
    let words = Search { query: "question HUSH".into(), limit: 9, ..Search::default() };
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        ada.conversation(id).await.unwrap(),
        ada.messages(id, Reading { limit: 200, ..Reading::default() }).await.unwrap(),
        ada.turns(id, 9).await.unwrap(),
        ada.summaries(id).await.unwrap(),
        ada.benchmark(ada.benchmarks(Default::default()).await.unwrap().items[0].id).await.unwrap(),
        ada.search(words).await.unwrap().hits.iter().map(|hit| &hit.snippet).collect::<Vec<_>>(),
    )
}

/// Does any file of the database hold the text?
fn holds(here: &Here, text: &str) -> bool {
    let folder = here.file().parent().unwrap().read_dir().unwrap();
    let mut files = folder.map(|file| std::fs::read(file.unwrap().path()).unwrap());
    files.any(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
}

#[tokio::test]
async fn without_the_key_nothing_that_was_said_is_to_be_read() {
    let clear = Here::new(roomy()).await;
    secrets(&clear).await;
    assert!(holds(&clear, "hush-question"), "is this test still looking?");
    let here = Here::new(with(keys(1, &[]))).await;
    let id = secrets(&here).await;
    assert!(!holds(&here, "hush"));
    let all = told(&here, id).await;
    for secret in
        ["title", "prompt", "tag", "settings", "question", "extras", "answer", "result", "summary", "run"]
    {
        assert!(all.contains(&format!("hush-{secret}")), "{secret}");
    }
    let kept = sqlx::query_scalar::<_, Vec<u8>>("SELECT value FROM key");
    let kept = kept.fetch_all(&mut here.rows().await).await.unwrap();
    assert!(kept.iter().all(|key| key[..] != [1; 32]), "the key is not in the database");
}

#[tokio::test]
async fn keys_are_rotated_and_without_the_right_one_nothing_is_opened() {
    let here = Here::new(with(keys(1, &[]))).await;
    let id = secrets(&here).await;
    let before = told(&here, id).await;
    let here = here.again(with(keys(2, &[1]))).await;
    assert_eq!(told(&here, id).await, before, "the earlier key still opens");
    assert_eq!(here.all.rewrap(2).await.unwrap(), 2);
    assert_eq!(here.all.rewrap(9).await.unwrap(), 1);
    assert_eq!(here.all.rewrap(9).await.unwrap(), 0);
    for wrong in [roomy(), with(keys(1, &[])), with(keys(3, &[4, 5]))] {
        let refused = open(&here.store, wrong).await.unwrap_err();
        assert!(matches!(refused, Error::UnknownKey(_)), "{refused}");
    }
    let here = here.again(with(keys(2, &[]))).await;
    assert_eq!(told(&here, id).await, before);
}

#[tokio::test]
async fn what_was_in_clear_is_sealed_when_a_key_is_configured() {
    let here = Here::new(roomy()).await;
    let id = secrets(&here).await;
    let before = told(&here, id).await;
    let here = here.again(with(keys(1, &[]))).await;
    assert_eq!(told(&here, id).await, before);
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut here.rows().await).await.unwrap();
    assert!(!holds(&here, "hush"));
}

#[tokio::test]
async fn a_row_in_anothers_place_opens_for_nobody() {
    for swap in [
        "UPDATE message SET body = (SELECT body FROM m WHERE m.conversation = message.conversation
         AND m.seq = 3 - message.seq)",
        "UPDATE message SET body = (SELECT body FROM m WHERE m.conversation <> message.conversation
         AND m.seq = message.seq)",
        "UPDATE message SET body = CAST('in clear' AS BLOB)",
        "UPDATE message SET seq = 7 WHERE seq = 1",
        "UPDATE conversation SET dek = (SELECT dek FROM c WHERE c.id <> conversation.id)",
        "UPDATE conversation SET face = (SELECT face FROM c WHERE c.id <> conversation.id)",
        "UPDATE conversation SET owner = (SELECT owner FROM c WHERE c.id <> conversation.id)",
        "UPDATE conversation SET kek = NULL, dek = NULL",
        "UPDATE conversation SET kek = NULL, dek = NULL, face = CAST('{\"tags\":[],\"settings\":null}' AS BLOB)",
    ] {
        let here = Here::new(with(keys(1, &[]))).await;
        let id = talk(&here.ada(), anew(), "one", "two").await;
        let other = talk(&here.bob(), anew(), "three", "four").await;
        let mut rows = here.rows().await;
        sqlx::raw_sql(
            "CREATE TEMP TABLE m AS SELECT * FROM message; CREATE TEMP TABLE c AS SELECT * FROM conversation",
        )
        .execute(&mut rows)
        .await
        .unwrap();
        let reading = || Reading { limit: 9, ..Reading::default() };
        assert!(here.ada().messages(id, reading()).await.is_ok());
        sqlx::query(swap).execute(&mut rows).await.unwrap();
        for (who, id) in [(here.ada(), id), (here.bob(), other), (here.ada(), other)] {
            let read = who.messages(id, reading()).await;
            assert!(matches!(read, Err(Error::Unavailable(_) | Error::NotFound)), "{swap}: {read:?}");
        }
    }
}
