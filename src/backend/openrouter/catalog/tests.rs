//! Is the list of models right, whatever is written in it, and fresh enough?

#[cfg(test)]
use std::{
    collections::{HashSet, VecDeque},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{super::money::Price, resolve::Aliases, *};

const HOUR: Duration = Duration::from_secs(3600);

fn entry(id: &str, prompt: &str, context: u64) -> Value {
    json!({
        "id": id, "canonical_slug": format!("{id}-20260801"), "name": format!("Name of {id}"), "created": context,
        "context_length": context, "pricing": {"prompt": prompt, "completion": prompt},
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
        "top_provider": {"context_length": context}, "supported_parameters": ["temperature"]
    })
}

fn snapshot(entries: Vec<Value>) -> Snapshot {
    Snapshot::new(entries, SystemTime::now())
}

/// The entry of the samples.
fn sample() -> Value {
    serde_json::from_str(r#"{"id":"acme/atlas-70b","canonical_slug":"acme/atlas-70b-20260801","hugging_face_id":null,"name":"Acme: Atlas 70B","created":1754006400,"description":"Synthetic entry.","context_length":1048576,"architecture":{"modality":"text+image->text","input_modalities":["text","image","file"],"output_modalities":["text"],"tokenizer":"Other","instruct_type":null},"pricing":{"prompt":"0.0000015","completion":"0.000006","request":"0","image":"0","web_search":"0.01","overrides":[{"min_prompt_tokens":200000,"prompt":"0.000003","completion":"0.000012"}]},"top_provider":{"context_length":262144,"max_completion_tokens":16384,"is_moderated":false},"per_request_limits":null,"supported_parameters":["max_tokens","tools","reasoning"],"benchmarks":{"artificial_analysis":{"intelligence_index":61.2,"coding_index":55.1,"agentic_index":null},"design_arena":[]},"links":{"details":"/x"}}"#).unwrap()
}

#[test]
fn the_sample_is_read() {
    let model = Model::read(sample()).unwrap();
    assert_eq!(
        (model.author(), model.window(None), model.window(Some(1000))),
        ("acme", Some(262_144), Some(1000))
    );
    assert_eq!(
        (model.longest_answer(), model.reasons(), model.reads("image")),
        (Some(16_384), true, Some(true))
    );
    assert_eq!((model.index("coding"), model.index("agentic")), (Some(55.1), None));
    assert_eq!(model.entry, sample(), "all of it is kept");
}

#[test]
fn traps_are_walked_around() {
    let mut odd = entry("acme/odd", "0.1", 4096);
    odd["context_length"] = json!(null);
    odd["architecture"]["tokenizer"] = json!("Brand-New");
    odd["supported_parameters"] = json!(["time_travel", 7, null]);
    odd["architecture"]["input_modalities"] = json!(["text", "smell"]);
    odd["name"] = json!("Größe 漢字");
    odd["description"] = json!("漢".repeat(20_000));
    let mut nowhere = entry("acme/nowhere", "0.1", 4096);
    nowhere["context_length"] = json!(null);
    nowhere["top_provider"] = json!({"context_length": null, "max_completion_tokens": null});
    let mut bare = entry("acme/bare", "0.1", 1);
    bare.as_object_mut().unwrap().remove("pricing");
    let list = vec![
        odd,
        nowhere,
        bare,
        json!(null),
        json!({"id": 7}),
        json!({"pricing": {}}),
        sample(),
        entry("openrouter/auto", "-1", 2_000_000),
    ];
    let models = snapshot(list);
    assert_eq!((models.len(), models.broken), (4, 4));
    let odd = models.find("acme/odd").unwrap();
    assert_eq!(
        (odd.window(None), odd.supported_parameters.clone()),
        (Some(4096), vec!["time_travel".to_owned()])
    );
    assert_eq!(
        (odd.reads("smell"), odd.entry["architecture"]["tokenizer"].clone()),
        (Some(true), json!("Brand-New"))
    );
    assert_eq!(models.find("acme/nowhere").unwrap().window(None), None);
    let auto = models.find("openrouter/auto").unwrap();
    assert_eq!((auto.pricing.prompt, auto.pricing.is_free()), (None, false));
}

#[test]
fn names_lead_to_models() {
    let mut latest = entry("~acme/atlas-latest", "0.1", 1);
    latest["alias_target"] = json!({"slug": "acme/atlas-70b", "name": "Atlas"});
    let mut circle = entry("~acme/circle", "0.1", 1);
    circle["alias_target"] = json!({"slug": "~acme/circle"});
    let models = snapshot(vec![
        sample(),
        latest,
        circle,
        entry("acme/atlas-8b", "0.1", 1),
        entry("acme/atlas-8b:free", "0", 1),
    ]);
    let aliases: Aliases =
        [("fast", "acme/atlas-8b"), ("quick", "fast"), ("a", "b"), ("b", "a"), ("gone", "acme/none")]
            .map(|(name, id)| (name.to_owned(), id.to_owned()))
            .into();
    for (name, id, found) in [
        ("acme/atlas-70b", "acme/atlas-70b", true),
        ("Acme/Atlas-70B", "acme/atlas-70b", true),
        ("acme/atlas-70b-20260801", "acme/atlas-70b", true),
        ("~acme/atlas-latest", "acme/atlas-70b", true),
        ("acme/atlas-70b:nitro", "acme/atlas-70b:nitro", true),
        ("~acme/atlas-latest:floor", "acme/atlas-70b:floor", true),
        ("acme/atlas-8b:free", "acme/atlas-8b:free", true),
        ("fast", "acme/atlas-8b", true),
        ("FAST", "acme/atlas-8b", true),
        ("quick", "acme/atlas-8b", true),
        ("~acme/circle", "~acme/circle", true),
        ("acme/unknown", "acme/unknown", false),
        ("gone", "acme/none", false),
    ] {
        let resolved = models.resolve(name, &aliases);
        assert_eq!((resolved.id.as_str(), resolved.model.is_some()), (id, found), "{name}");
        assert_eq!(resolved.alias.as_deref(), (name != id).then_some(name));
    }
    assert!(models.resolve("a", &aliases).model.is_none(), "circles lead nowhere");
    assert_eq!(models.suggestions("acme/atlas70b", 1), ["acme/atlas-70b"]);
    assert!(models.suggestions("zzz", 5).is_empty());
}

/// The ids that a search finds, of a few models.
fn found(search: Search<'_>) -> Vec<String> {
    let mut image = entry("beta/painter", "0.000002", 8000);
    image["architecture"] = json!({"input_modalities": ["text", "image"], "output_modalities": ["image"]});
    image["description"] = json!("Knows Atlas, the giant.");
    let list = vec![
        image,
        entry("acme/mini:free", "0", 4000),
        sample(),
        entry("gamma/auto", "-1", 100_000),
        entry("beta/coder", "0.000001", 32_000),
    ];
    let search = Search { limit: if search.limit == 0 { 50 } else { search.limit }, ..search };
    snapshot(list).search(&search).models.iter().map(|model| model.id.clone()).collect()
}

#[test]
fn a_search_finds_what_fits_all_that_is_said() {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        found(Search { query: Some("ATLAS"), ..Search::default() }),
        ["acme/atlas-70b", "beta/painter"]
    );
    assert_eq!(found(Search { query: Some("atlas 70b"), ..Search::default() }), ["acme/atlas-70b"]);
    assert_eq!(found(Search { author: Some("Beta"), ..Search::default() }), ["beta/painter", "beta/coder"]);
    assert_eq!(
        found(Search { input_modalities: &words(&["text", "image", "file"]), ..Search::default() }),
        ["acme/atlas-70b"]
    );
    assert_eq!(
        found(Search { output_modalities: &words(&["image"]), ..Search::default() }),
        ["beta/painter"]
    );
    assert_eq!(
        found(Search { supported_parameters: &words(&["tools"]), ..Search::default() }),
        ["acme/atlas-70b"]
    );
    assert_eq!(
        found(Search { min_context: Some(100_000), ..Search::default() }),
        ["acme/atlas-70b", "gamma/auto"]
    );
    let cheap = Search { max_prompt_price: Price::per_million("1.5"), ..Search::default() };
    assert_eq!(found(cheap.clone()), ["acme/mini:free", "acme/atlas-70b", "beta/coder"]);
    let cheap = Search { max_output_price: Price::per_million("1.5"), ..cheap };
    assert_eq!(found(cheap), ["acme/mini:free", "beta/coder"]);
    assert_eq!(found(Search { price: PriceKind::Free, ..Search::default() }), ["acme/mini:free"]);
    assert_eq!(found(Search { price: PriceKind::Paid, ..Search::default() }).len(), 4);
    assert_eq!(found(Search { min_intelligence: Some(60.0), ..Search::default() }), ["acme/atlas-70b"]);
    assert!(found(Search { min_agentic: Some(1.0), ..Search::default() }).is_empty());
    let among = HashSet::from(["beta/coder".to_owned(), "acme/none".to_owned()]);
    assert_eq!(found(Search { among: Some(&among), ..Search::default() }), ["beta/coder"]);
}

#[test]
fn what_is_found_is_in_order() {
    let sorted = |sort| found(Search { sort, ..Search::default() });
    assert_eq!(sorted(Sort::PriceLowToHigh)[..2], ["acme/mini:free", "beta/coder"]);
    assert_eq!(sorted(Sort::PriceLowToHigh)[4], "gamma/auto", "a price nobody knows is not low");
    assert_eq!(sorted(Sort::PriceHighToLow)[..2], ["acme/atlas-70b", "beta/painter"]);
    assert_eq!(sorted(Sort::PriceHighToLow)[4], "gamma/auto");
    assert_eq!(sorted(Sort::ContextHighToLow)[0], "acme/atlas-70b");
    assert_eq!(sorted(Sort::Newest)[0], "acme/atlas-70b");
    assert_eq!(sorted(Sort::IntelligenceHighToLow)[0], "acme/atlas-70b");
    assert_eq!(sorted(Sort::CodingHighToLow)[0], "acme/atlas-70b");
    assert_eq!(sorted(Sort::AgenticHighToLow), sorted(Sort::Relevance), "none was measured");
    assert_eq!(sorted(Sort::Name)[0], "acme/atlas-70b");
}

#[test]
fn what_is_found_comes_in_pages() {
    let models = snapshot((0..5).map(|number| entry(&format!("a/{number}"), "0", 1)).collect());
    let page = |offset| models.search(&Search { offset, limit: 2, ..Search::default() });
    assert_eq!((page(0).models.len(), page(0).total, page(0).next_offset), (2, 5, Some(2)));
    assert_eq!((page(4).models.len(), page(4).next_offset), (1, None));
    assert_eq!((page(9).models.len(), page(9).next_offset), (0, None));
}

/// Answers with what is in line, and counts how often it was asked.
fn fetching(answers: Vec<Result<Vec<Value>, String>>) -> (Fetch, Arc<AtomicUsize>) {
    let (answers, asked) = (Arc::new(Mutex::new(VecDeque::from(answers))), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let fetch: Fetch = Arc::new(move || {
        count.fetch_add(1, Ordering::SeqCst);
        let answer = answers.lock().unwrap().pop_front().expect("nobody asks so often");
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            answer
        })
    });
    (fetch, asked)
}

fn one(id: &str) -> Result<Vec<Value>, String> {
    Ok(vec![entry(id, "0", 1)])
}

async fn after(time: Duration) {
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn the_list_is_fetched_once_for_all_and_then_in_the_background() {
    let (fetch, asked) = fetching(vec![one("a/1"), one("a/2"), one("a/3")]);
    let catalog = Catalog::open(Settings::default(), fetch).await;
    assert!(catalog.now().stale && catalog.now().find("openrouter/auto").is_some());
    let all = futures_util::future::join_all((0..20).map(|_| catalog.get())).await;
    assert!(all.iter().all(|models| models.find("a/1").is_some()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    after(HOUR / 2).await;
    assert!(catalog.get().await.find("a/1").is_some(), "nobody waits for a new one");
    after(Duration::from_secs(1)).await;
    assert!(catalog.get().await.find("a/2").is_some());
    after(25 * HOUR).await;
    assert!(catalog.get().await.find("a/3").is_some(), "a day is too long to do without");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_fetched_is_kept_and_called_stale() {
    let (fetch, asked) = fetching(vec![one("a/1"), Err("down".into()), Ok(vec![]), one("a/2")]);
    let catalog = Catalog::open(Settings::default(), fetch).await;
    assert!(!catalog.get().await.stale);
    for _ in 0..2 {
        after(25 * HOUR).await;
        let models = catalog.get().await;
        assert!(models.stale && models.find("a/1").is_some());
        assert!(catalog.get().await.stale, "an outage is not asked about by every call");
    }
    after(HOUR).await;
    assert!(!catalog.get().await.stale);
    assert_eq!(asked.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_missing_is_asked_for_once_a_minute() {
    let (fetch, asked) = fetching(vec![one("a/1"), one("a/2")]);
    let catalog = Catalog::open(Settings::default(), fetch).await;
    catalog.get().await;
    after(Duration::from_secs(30)).await;
    assert!(catalog.refresh().await.find("a/2").is_none());
    after(Duration::from_secs(31)).await;
    assert!(catalog.refresh().await.find("a/2").is_some());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_does_not_stop_the_fetch() {
    let (fetch, asked) = fetching(vec![one("a/1")]);
    let catalog = Catalog::open(Settings::default(), fetch).await;
    assert!(tokio::time::timeout(Duration::from_millis(10), catalog.get()).await.is_err());
    after(Duration::from_secs(1)).await;
    assert!(catalog.now().find("a/1").is_some());
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_copy_on_disk_bridges_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.json");
    let settings = Settings { file: Some(file.clone()), ..Settings::default() };
    let (fetch, _) = fetching(vec![Ok(vec![sample(), json!({"id": "broken"})])]);
    assert_eq!(Catalog::open(settings.clone(), fetch).await.get().await.broken, 1);
    let nothing = || fetching(vec![]).0;
    let again = Catalog::open(settings.clone(), nothing()).await;
    let models = again.get().await;
    assert!(!models.stale);
    assert_eq!(models.find("acme/atlas-70b").unwrap().entry, sample());
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["models.json"], "nothing is left beside it");
    let text = std::fs::read_to_string(&file).unwrap();
    for damaged in [
        text.replace("Acme", "Evil"),
        text[..text.len() / 2].to_owned(),
        text.replace("\"version\":1", "\"version\":2"),
        String::new(),
    ] {
        std::fs::write(&file, damaged).unwrap();
        assert!(Catalog::open(settings.clone(), nothing()).await.now().stale);
    }
}
