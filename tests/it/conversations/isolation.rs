//! Nobody learns of another's conversations, whatever is asked.

use futures_util::future::BoxFuture;
use waystation::store::conversations::{
    BenchmarkId, Budgets, Changes, Error, Failed, Fork, Lease, MessageId, NewBenchmark, NewSummary, Reading,
    Reserved, Search, TurnId, Visibility,
};

use super::*;

/// What belongs to somebody.
#[derive(Clone)]
struct Things {
    chat: ConversationId,
    message: MessageId,
    turn: TurnId,
    lease: Lease,
    attachment: String,
    benchmark: BenchmarkId,
}

async fn things(owner: &Arc<dyn Owned>, name: &str) -> Things {
    let chat = talk(owner, anew(), "a needle", "found").await;
    let turn = begun(owner.begin(say(Place::In(chat), "more"), at(2)).await.unwrap());
    owner.sent(turn.lease, Some(format!("gen-1-{name}")), at(2)).await.unwrap();
    let entry = Entry { generation: Some(format!("gen-2-{name}")), ..cost(5, CostSource::Reported) };
    owner.record(entry, None, at(2)).await.unwrap();
    let run = NewBenchmark {
        id: BenchmarkId::new().unwrap(),
        models: vec!["a/model".into()],
        body: json!({ "a": 1 }),
    };
    Things {
        chat,
        message: turn.message.id,
        turn: turn.lease.turn,
        lease: turn.lease,
        attachment: owner.attach(chat, "text/plain".into(), b"file".to_vec()).await.unwrap(),
        benchmark: owner.keep_benchmark(run, at(2)).await.unwrap(),
    }
}

/// Every method that takes an id, with ids of these things.
fn every<'a>(who: &'a dyn Owned, of: &'a Things) -> Vec<(&'static str, BoxFuture<'a, Result<(), Error>>)> {
    macro_rules! list {
        ($($name:ident($($argument:expr),*)),* $(,)?) => {
            vec![$((stringify!($name), Box::pin(async move { who.$name($($argument),*).await.map(drop) }) as _)),*]
        };
    }
    let fork = move || Fork { at: Some(of.message), ..Fork::default() };
    let summary = move || NewSummary {
        upto: of.message,
        model: "m".into(),
        text: "short".into(),
        tokens: 1,
        source: "s".into(),
    };
    let branch = move || NewTurn { parent: Some(of.message), ..say(Place::In(of.chat), "b") };
    let again = move || NewTurn { said: Said::Again, ..say(Place::In(of.chat), "") };
    let failed = move || Failed { code: "x".into(), entry: None, reservation: None };
    list![
        conversation(of.chat),
        messages(of.chat, Reading::default()),
        path(of.chat, None, EVERYTHING),
        path(of.chat, Some(of.message), EVERYTHING),
        change(of.chat, Changes::default(), at(3)),
        fork(of.chat, Fork::default(), at(3)),
        fork(of.chat, fork(), at(3)),
        delete(of.chat),
        clear(of.chat, at(3)),
        keep_summary(of.chat, summary(), at(3)),
        summaries(of.chat),
        begin(say(Place::In(of.chat), "in"), at(3)),
        begin(branch(), at(3)),
        begin(again(), at(3)),
        sent(of.lease, None, at(3)),
        checkpoint(of.lease, "x".into(), at(3)),
        renew(of.lease, at(3)),
        finish(of.lease, answer("x"), at(3)),
        fail(of.lease, failed(), at(3)),
        turn(of.turn),
        turns(of.chat, 9),
        generation("gen-1-ada".into()),
        generation("gen-2-ada".into()),
        attach(of.chat, "text/plain".into(), b"more".to_vec()),
        attached(of.chat, of.attachment.clone()),
        benchmark(of.benchmark),
    ]
}

/// All rows of all tables, as text.
async fn everything(here: &Here) -> Vec<String> {
    let mut rows = here.rows().await;
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut rows).await.unwrap();
    let mut all = Vec::new();
    for table in tables {
        let columns = format!(
            "SELECT group_concat('quote(\"' || name || '\")', '||') FROM pragma_table_info('{table}')"
        );
        let columns: String =
            sqlx::query_scalar(sqlx::AssertSqlSafe(columns)).fetch_one(&mut rows).await.unwrap();
        let texts = format!("SELECT {columns} FROM \"{table}\"");
        let texts: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(texts)).fetch_all(&mut rows).await.unwrap();
        all.extend(texts.into_iter().map(|text| format!("{table} {text}")));
    }
    all.sort();
    all
}

async fn nobody_else(options: Options) {
    let here = Here::new(options).await;
    let (ada, bob) = (here.ada(), here.bob());
    let (of_ada, _of_bob) = (things(&ada, "ada").await, things(&bob, "bob").await);
    let before = everything(&here).await;
    assert!(before.len() > 30, "only {} rows: is this test still looking?", before.len());
    for (name, asked) in every(&*bob, &of_ada) {
        assert_eq!(asked.await, Err(Error::NotFound), "{name}");
    }
    // The same person elsewhere is another.
    let elsewhere = [
        Principal { tenant: "other".into(), ..principal("ada") },
        Principal { issuer: "https://other.example".into(), ..principal("ada") },
        Principal { reads_shared: true, ..principal("eve") },
    ];
    for who in elsewhere {
        let who = here.all.of(&who);
        for (name, asked) in every(&*who, &of_ada) {
            assert_eq!(asked.await, Err(Error::NotFound), "{name}");
        }
        let words = Search { query: "needle".into(), limit: 9, ..Search::default() };
        assert_eq!(who.search(words).await.unwrap().hits, []);
        assert_eq!(who.list(Default::default(), at(3)).await.unwrap().items, []);
        assert_eq!(who.benchmarks(Default::default()).await.unwrap().items, []);
        assert_eq!(who.usage(Default::default()).await.unwrap().total.requests, 0);
    }
    assert_eq!(everything(&here).await, before, "nothing was written either");
    let words = Search { query: "needle".into(), limit: 9, ..Search::default() };
    assert_eq!(bob.search(words).await.unwrap().hits.len(), 1, "bob's own");
    assert_eq!(bob.list(Default::default(), at(3)).await.unwrap().items.len(), 1);
    // What is answered is answered to whom it belongs, so that the above says something.
    let own = every(&*ada, &of_ada).into_iter().filter(|(name, _)| {
        ["conversation", "messages", "path", "summaries", "turn", "turns", "attached", "benchmark", "renew"]
            .contains(name)
    });
    for (name, asked) in own {
        assert_eq!(asked.await, Ok(()), "{name}");
    }
}

#[tokio::test]
async fn what_is_anothers_is_not_there() {
    nobody_else(roomy()).await;
}

#[tokio::test]
async fn what_is_anothers_is_not_there_when_it_is_sealed() {
    nobody_else(Options { keys: Some(sealed::keys(1, &[])), ..roomy() }).await;
}

#[tokio::test]
async fn a_key_of_one_is_not_a_key_of_another() {
    let here = Here::new(Options::default()).await;
    let keyed = || NewTurn { key: Some("key-1".into()), ..say(anew(), "hello") };
    let of_ada = begun(here.ada().begin(keyed(), at(0)).await.unwrap());
    let of_bob = begun(here.bob().begin(keyed(), at(0)).await.unwrap());
    assert_ne!(of_ada.conversation.id, of_bob.conversation.id);
}

#[tokio::test]
async fn a_reservation_is_ended_by_its_owner_only() {
    let here = Here::new(Options::default()).await;
    let (ada, bob) = (here.ada(), here.bob());
    let budgets = Budgets { own: Some(10), tenant: None };
    let Reserved::Held(held) = ada.reserve(10, budgets, at(0)).await.unwrap() else { panic!() };
    bob.release(held).await.unwrap();
    bob.record(cost(0, CostSource::Reported), Some(held), at(0)).await.unwrap();
    assert_eq!(ada.reserve(1, budgets, at(0)).await.unwrap(), Reserved::Over { used: 10, budget: 10 });
}

#[tokio::test]
async fn what_is_shared_may_be_read_in_the_tenant_and_not_written() {
    let here = Here::new(roomy()).await;
    let ada = here.ada();
    let id = talk(&ada, anew(), "hello", "Hello!").await;
    let eve = here.all.of(&Principal { reads_shared: true, ..principal("eve") });
    let visibility = Some(Visibility::Tenant);
    ada.change(id, Changes { visibility, ..Changes::default() }, at(2)).await.unwrap();
    assert!(!eve.conversation(id).await.unwrap().own);
    assert_eq!(eve.messages(id, Reading { limit: 9, ..Reading::default() }).await.unwrap().items.len(), 2);
    assert_eq!(here.bob().conversation(id).await, Err(Error::NotFound), "who may not read what is shared");
    let other = Principal { tenant: "other".into(), reads_shared: true, ..principal("eve") };
    assert_eq!(here.all.of(&other).conversation(id).await, Err(Error::NotFound));
    assert_eq!(eve.change(id, Changes::default(), at(3)).await, Err(Error::NotFound));
    assert_eq!(eve.begin(say(Place::In(id), "x"), at(3)).await, Err(Error::NotFound));
    assert_eq!(eve.delete(id).await, Err(Error::NotFound));
    let own = eve.fork(id, Fork::default(), at(3)).await.unwrap();
    assert!(own.own, "a fork is its own");
    assert_eq!(ada.conversation(own.id).await, Err(Error::NotFound));
}

#[tokio::test]
async fn the_database_names_nobody() {
    let here = Here::new(Options::default()).await;
    // A name that no digest has in it by chance, as "ada" may be in one.
    let ada = here.all.of(&principal("Somebody"));
    let id = talk(&ada, anew(), "hello", "Hello!").await;
    for row in everything(&here).await {
        assert!(!row.contains("Somebody") && !row.contains("login.example"), "{row}");
    }
    assert_eq!(ada.alias(), here.all.of(&principal("Somebody")).alias());
    assert_ne!(ada.alias(), here.bob().alias());
    assert_eq!(ada.alias_of(id).len(), 34);
    assert!(!ada.alias_of(id).contains(&id.to_string()[4..]));
}
