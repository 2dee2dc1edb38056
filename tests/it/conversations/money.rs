//! What calls have cost, to the last billionth.

use futures_util::future::join_all;
use proptest::prelude::*;
use waystation::store::conversations::{
    BenchmarkId, Budgets, Error, GroupBy, NewBenchmark, Reserved, UsageWanted,
};

use super::*;

fn by(group_by: GroupBy) -> UsageWanted {
    UsageWanted { group_by, limit: 100, ..UsageWanted::default() }
}

#[tokio::test]
async fn a_million_rows_add_up_exactly() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    ada.record(cost(1, CostSource::Reported), None, at(0)).await.unwrap();
    let mut rows = here.rows().await;
    // Costs that no floating-point sum would get right.
    let million = "INSERT INTO ledger (at, tenant, owner, tool, model, requests, prompt, completion, reasoning,
         cached, cost, estimated, source, simulated)
         WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 999999)
         SELECT l.at, l.tenant, l.owner, 'chat', 'm' || (n % 7), 1, n, 0, 0, 0, 9007199254 + n * 7919 % 1000003, 0,
         'reported', 0 FROM n, (SELECT * FROM ledger LIMIT 1) l";
    sqlx::raw_sql("PRAGMA cache_size = -300000; PRAGMA synchronous = OFF").execute(&mut rows).await.unwrap();
    sqlx::query(million).execute(&mut rows).await.unwrap();
    let expected: i64 = (0..1_000_000i64).map(|n| 9_007_199_254 + n * 7919 % 1_000_003).sum();
    for (group, rows) in [(GroupBy::Day, 1), (GroupBy::Model, 8)] {
        let report = ada.usage(by(group)).await.unwrap();
        assert_eq!((report.total.cost, report.total.requests), (expected + 1, 1_000_001));
        assert_eq!(report.rows.len(), rows);
        assert_eq!(report.rows.iter().map(|row| row.cost).sum::<i64>(), report.total.cost);
    }
}

#[tokio::test]
async fn usage_is_told_by_what_is_asked_for() {
    let here = Here::new(Options::default()).await;
    let (ada, bob) = (here.ada(), here.bob());
    let id = talk(&ada, anew(), "hello", "Hello!").await;
    let embed = Entry { tool: "embed".into(), model: "b/model".into(), ..cost(20, CostSource::Estimated) };
    ada.record(embed, None, at(2 * 24 * 60 * 60)).await.unwrap();
    bob.record(cost(7, CostSource::Reported), None, at(5)).await.unwrap();
    let keys = async |wanted| {
        let report = ada.usage(wanted).await.unwrap();
        report.rows.into_iter().map(|row| (row.key, row.cost, row.estimated)).collect::<Vec<_>>()
    };
    let row = |key: &str, cost, estimated| (key.to_owned(), cost, estimated);
    assert_eq!(keys(by(GroupBy::Tool)).await, [row("chat", 500, 0), row("embed", 20, 20)]);
    assert_eq!(keys(by(GroupBy::Model)).await, [row("a/model", 500, 0), row("b/model", 20, 20)]);
    assert_eq!(keys(by(GroupBy::Day)).await, [row("2027-01-17", 20, 20), row("2027-01-15", 500, 0)]);
    assert_eq!(keys(by(GroupBy::Conversation)).await, [row(&id.to_string(), 500, 0), row("", 20, 20)]);
    let since = UsageWanted { since: Some(at(10)), ..by(GroupBy::Tool) };
    assert_eq!(keys(since).await, [row("embed", 20, 20)]);
    let of_one = UsageWanted { conversation: Some(id), until: Some(at(10)), ..by(GroupBy::Tool) };
    assert_eq!(keys(of_one).await, [row("chat", 500, 0)]);
    let everybody = ada.usage(UsageWanted { tenant: true, limit: 1, ..by(GroupBy::Subject) }).await.unwrap();
    assert_eq!((everybody.rows.len(), everybody.total.cost), (1, 527), "the total is of all");
}

#[tokio::test]
async fn parallel_calls_cannot_overshoot_together() {
    let here = Here::new(Options::default()).await;
    let (ada, bob) = (here.ada(), here.bob());
    let budgets = Budgets { own: Some(1_000), tenant: Some(1_500) };
    let reserved = join_all((0..50).map(|_| ada.reserve(100, budgets, at(0)))).await;
    let held: Vec<_> = reserved
        .into_iter()
        .filter_map(|reserved| match reserved.unwrap() {
            Reserved::Held(held) => Some(held),
            Reserved::Over { used, budget } => {
                assert_eq!((used, budget), (1_000, 1_000));
                None
            }
        })
        .collect();
    assert_eq!(held.len(), 10);
    let over = bob.reserve(600, budgets, at(0)).await.unwrap();
    assert_eq!(over, Reserved::Over { used: 1_000, budget: 1_500 }, "the tenant's");
    // One was cheaper than expected, one came to nothing.
    ada.record(cost(30, CostSource::Reported), Some(held[0]), at(1)).await.unwrap();
    ada.release(held[1]).await.unwrap();
    let over = ada.reserve(171, budgets, at(1)).await.unwrap();
    assert_eq!(over, Reserved::Over { used: 830, budget: 1_000 });
    assert!(matches!(ada.reserve(170, budgets, at(1)).await.unwrap(), Reserved::Held(_)));
    let tomorrow = at(24 * 60 * 60);
    assert!(matches!(ada.reserve(1_000, budgets, tomorrow).await.unwrap(), Reserved::Held(_)));
    // What nobody ends ends by itself.
    let over = Reserved::Over { used: 30, budget: 1_000 };
    assert_eq!(ada.reserve(971, budgets, at(2 * 60 * 60)).await.unwrap(), over);
}

#[tokio::test]
async fn a_generation_is_known_to_whom_it_was_made_for() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    let entry = Entry { generation: Some("gen-1".into()), ..cost(5, CostSource::Reported) };
    ada.record(entry.clone(), None, at(0)).await.unwrap();
    assert_eq!(ada.generation("gen-1".into()).await.unwrap(), entry);
    assert_eq!(ada.generation("gen-2".into()).await, Err(Error::NotFound));
}

#[tokio::test]
async fn benchmarks_are_listed_page_by_page() {
    let here = Here::new(Options::default()).await;
    let ada = here.ada();
    for n in 0..5 {
        let models = vec!["a/model".to_owned(), format!("m{}", n % 2)];
        ada.keep_benchmark(
            NewBenchmark { id: BenchmarkId::new().unwrap(), models, body: json!({ "n": n }) },
            at(n),
        )
        .await
        .unwrap();
    }
    let mut wanted = waystation::store::conversations::BenchmarkWanted { limit: 2, ..Default::default() };
    let mut read = Vec::new();
    loop {
        let page = ada.benchmarks(wanted.clone()).await.unwrap();
        for run in page.items {
            assert!(run.body.is_null());
            read.push(ada.benchmark(run.id).await.unwrap().body["n"].as_i64().unwrap());
        }
        wanted.cursor = page.next;
        if wanted.cursor.is_none() {
            break;
        }
    }
    assert_eq!(read, [4, 3, 2, 1, 0]);
    wanted = Default::default();
    (wanted.limit, wanted.model, wanted.since) = (9, Some("m1".into()), Some(at(2)));
    assert_eq!(ada.benchmarks(wanted).await.unwrap().items.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_spent_is_reported(costs in proptest::collection::vec((0..1i64 << 50, 0..3usize), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Store::in_memory().await.unwrap();
            let ada = open(&store, Options::default()).await.unwrap().of(&principal("ada"));
            let source = [CostSource::Reported, CostSource::Reconciled, CostSource::Estimated];
            join_all(costs.iter().map(|(nano, of)| ada.record(cost(*nano, source[*of]), None, at(0)))).await;
            let total = ada.usage(by(GroupBy::Tool)).await.unwrap().total;
            assert_eq!(total.cost, costs.iter().map(|(nano, _)| nano).sum::<i64>());
            let estimated = costs.iter().filter(|(_, of)| *of == 2);
            assert_eq!(total.estimated, estimated.map(|(nano, _)| nano).sum::<i64>());
        });
    }
}
