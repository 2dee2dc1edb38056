//! The list of models: its size, its traps, and every question that can be asked of it.

use super::*;

async fn ids(rig: &Rig, query: &str) -> Vec<String> {
    let answer = rig.get(&format!("models?{query}")).await.json();
    let data = answer["data"].as_array().unwrap_or_else(|| panic!("{query}: {answer}"));
    data.iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn there_are_as_many_models_of_each_kind_as_there_should_be() {
    let rig = Rig::new().await;
    let answer = rig.get("models").await;
    assert!((500_000..900_000).contains(&answer.body.len()), "{} bytes", answer.body.len());
    let all = answer.json();
    let models = all["data"].as_array().unwrap();
    let count = |test: &dyn Fn(&Value) -> bool| models.iter().filter(|model| test(model)).count();
    let has = |name: &'static str| move |model: &Value| !model[name].is_null();
    assert!(models.len() >= 400 && all["total_count"] == models.len());
    assert_eq!(count(&|model| model["id"].as_str().unwrap().ends_with(":free")), 40);
    assert_eq!(count(&|model| model["id"].as_str().unwrap().ends_with(":thinking")), 6);
    let vision = count(&|model| {
        model["architecture"]["input_modalities"].as_array().unwrap().contains(&json!("image"))
    });
    assert!((25..45).contains(&(vision * 100 / models.len())), "{vision} of {} see", models.len());
    for (name, least) in [("reasoning", 12), ("benchmarks", 10), ("expiration_date", 5), ("alias_target", 6)]
    {
        assert!((least..least + 8).contains(&count(&has(name))), "{}: {}", name, count(&has(name)));
    }
    let overrides = count(&|model| !model["pricing"]["overrides"].is_null());
    assert!((8..16).contains(&overrides), "{overrides}");
    let routers = count(&|model| model["pricing"]["prompt"] == "-1");
    assert!(routers >= 7, "{routers}");
    for (kind, least) in
        [("image", 24), ("embeddings", 20), ("rerank", 6), ("speech", 5), ("transcription", 5)]
    {
        assert_eq!(ids(&rig, &format!("output_modalities={kind}")).await.len(), least, "{kind}");
    }
    let authors: std::collections::BTreeSet<_> = models
        .iter()
        .map(|model| model["id"].as_str().unwrap().split('/').next().unwrap().to_owned())
        .collect();
    assert!(authors.len() >= 24);
    let unique: std::collections::BTreeSet<_> =
        models.iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(unique.len(), models.len());
    assert!(models.iter().all(|model| model["description"].as_str().unwrap().contains("synthetic")));
    // Prices are decimals, without exponents.
    assert!(models.iter().all(|model| {
        model["pricing"]["prompt"].as_str().unwrap().chars().all(|letter| "-.0123456789".contains(letter))
    }));
}

#[tokio::test]
async fn traps_are_where_they_should_be() {
    let rig = Rig::new().await;
    let model = async |id: &str| rig.get(&format!("model/{id}")).await.json()["data"].clone();
    let atlas = model("acme/atlas-70b").await;
    assert_eq!(
        (&atlas["context_length"], &atlas["top_provider"]["context_length"]),
        (&json!(1_048_576), &json!(262_144))
    );
    assert_eq!(
        (&atlas["pricing"]["prompt"], &atlas["pricing"]["completion"]),
        (&json!("0.0000015"), &json!("0.000006"))
    );
    let whole = model("acme/atlas-8b").await;
    assert_eq!(whole["top_provider"]["max_completion_tokens"], whole["context_length"]);
    assert!(model("beta-labs/basil-8b").await["context_length"].is_null());
    assert_eq!(model("cobalt/comet-8b").await["architecture"]["tokenizer"], "Quantum");
    assert!(
        model("cobalt/comet-14b").await["supported_parameters"]
            .as_array()
            .unwrap()
            .contains(&json!("telepathy"))
    );
    assert!(model("delphi/dorian-8b").await["description"].as_str().unwrap().len() > 20_000);
    assert!(!model("zephyr/zenith-8b").await["name"].as_str().unwrap().is_ascii());
    assert_eq!(model("~acme/atlas-latest").await["id"], "acme/atlas-70b");
    assert_eq!(model("acme/atlas-8b:nitro").await["id"], "acme/atlas-8b:nitro");
    assert_eq!(rig.get("model/no/such").await.status, 404);
    let endpoints = rig.get("models/acme/atlas-70b/endpoints").await.json();
    assert_eq!(endpoints["data"]["endpoints"][1]["provider_name"], "Beta Inference");
    assert_eq!(endpoints["data"]["endpoints"][0]["context_length"], 262_144);
    let broken = Rig::with(Settings { broken_entries: true, ..Settings::default() }).await;
    let list = broken.get("models").await.json();
    assert_eq!(
        list["data"].as_array().unwrap().iter().filter(|model| model.get("pricing").is_none()).count(),
        1
    );
}

#[tokio::test]
async fn pages_lead_to_one_another() {
    let rig = Rig::new().await;
    let whole = ids(&rig, "").await;
    let (mut path, mut seen, mut pages) = ("models?limit=150&sort=newest".to_owned(), Vec::new(), 0);
    loop {
        let page = rig.get(&path).await.json();
        assert_eq!(page["total_count"], whole.len());
        seen.extend(
            page["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()),
        );
        pages += 1;
        let Some(next) = page["links"]["next"].as_str() else { break };
        assert!(next.contains("sort=newest"), "{next}");
        path = next.strip_prefix("/api/v1/").unwrap().to_owned();
    }
    let mut whole = whole;
    seen.sort();
    whole.sort();
    assert_eq!((pages, seen), (whole.len().div_ceil(150), whole));
    assert_eq!(ids(&rig, "offset=3").await.len(), ids(&rig, "").await.len().min(503) - 3);
    assert!(ids(&rig, "offset=100000").await.is_empty());
    for wrong in
        ["limit=0", "limit=1001", "limit=x", "offset=-1", "sort=best", "category=none", "min_price=cheap"]
    {
        assert_eq!(rig.get(&format!("models?{wrong}")).await.status, 400, "{wrong}");
    }
    let count = rig.get("models/count?output_modalities=all").await.json();
    assert_eq!(count["data"]["count"], ids(&rig, "output_modalities=all").await.len());
}

/// Every parameter leaves some, and not all; and of what it leaves each one fits.
#[tokio::test]
async fn every_parameter_chooses() {
    let rig = Rig::new().await;
    let all = ids(&rig, "").await.len();
    let number = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap() * 1e6;
    type Fits<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let rows: Vec<(&str, Fits<'_>)> = vec![
        ("q=atlas+70b", Box::new(|model| model.to_string().to_lowercase().contains("atlas"))),
        (
            "supported_parameters=tools,stop",
            Box::new(|model| model["supported_parameters"].to_string().contains("\"tools\"")),
        ),
        (
            "input_modalities=image",
            Box::new(|model| model["architecture"]["input_modalities"].to_string().contains("image")),
        ),
        (
            "output_modalities=image",
            Box::new(|model| model["architecture"]["output_modalities"].to_string().contains("image")),
        ),
        ("context=200000", Box::new(|model| model["context_length"].as_u64().unwrap() >= 200_000)),
        ("min_price=1", Box::new(|model| number(&model["pricing"]["prompt"]) >= 1.0)),
        ("max_price=1", Box::new(|model| (0.0..=1.0).contains(&number(&model["pricing"]["prompt"])))),
        ("min_output_price=4", Box::new(|model| number(&model["pricing"]["completion"]) >= 4.0)),
        (
            "max_output_price=4",
            Box::new(|model| (0.0..=4.0).contains(&number(&model["pricing"]["completion"]))),
        ),
        ("arch=qwen", Box::new(|model| model["architecture"]["tokenizer"] == "Qwen")),
        (
            "model_authors=acme,cobalt",
            Box::new(|model| {
                ["acme", "~acme", "cobalt", "~cobalt"]
                    .contains(&model["id"].as_str().unwrap().split('/').next().unwrap())
            }),
        ),
        ("providers=acme-cloud", Box::new(|_| true)),
        ("category=science", Box::new(|_| true)),
        ("distillable=true", Box::new(|_| true)),
        ("distillable=false", Box::new(|_| true)),
        ("zdr=true", Box::new(|_| true)),
        ("region=eu", Box::new(|_| true)),
        ("min_age_days=400", Box::new(|_| true)),
        ("max_age_days=400", Box::new(|_| true)),
        (
            "min_intelligence_index=66",
            Box::new(|model| {
                model["benchmarks"]["artificial_analysis"]["intelligence_index"].as_f64().unwrap() >= 66.0
            }),
        ),
        (
            "max_intelligence_index=66",
            Box::new(|model| {
                model["benchmarks"]["artificial_analysis"]["intelligence_index"].as_f64().unwrap() <= 66.0
            }),
        ),
        ("min_coding_index=58", Box::new(|model| model["benchmarks"].is_object())),
        ("max_coding_index=58", Box::new(|model| model["benchmarks"].is_object())),
        ("min_agentic_index=47", Box::new(|model| model["benchmarks"].is_object())),
        ("max_agentic_index=49", Box::new(|model| model["benchmarks"].is_object())),
        ("min_tool_success_rate=0.8", Box::new(|_| true)),
        ("max_tool_success_rate=0.8", Box::new(|_| true)),
    ];
    for (query, fits) in rows {
        let found = rig.get(&format!("models?{query}")).await.json();
        let found = found["data"].as_array().unwrap();
        assert!(!found.is_empty() && found.len() < all, "{query}: {} of {all}", found.len());
        let wrong = found.iter().find(|model| !fits(model));
        assert!(wrong.is_none(), "{query}: {wrong:?}");
    }
}

#[tokio::test]
async fn every_order_is_one() {
    let rig = Rig::new().await;
    let first = async |sort: &str| {
        rig.get(&format!("models?limit=40&sort={sort}")).await.json()["data"].as_array().unwrap().clone()
    };
    let usual = ids(&rig, "limit=40").await;
    for sort in [
        "most-popular",
        "top-weekly",
        "throughput-high-to-low",
        "latency-low-to-high",
        "design-arena-elo-high-to-low",
    ] {
        let order: Vec<_> =
            first(sort).await.iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect();
        assert_ne!(order, usual, "{sort}");
    }
    let falls = |models: &[Value], of: &dyn Fn(&Value) -> f64| {
        models.windows(2).all(|pair| of(&pair[0]) >= of(&pair[1]))
    };
    let price = |model: &Value| model["pricing"]["prompt"].as_str().unwrap().parse::<f64>().unwrap();
    assert!(falls(&first("pricing-high-to-low").await, &price));
    let cheap = first("pricing-low-to-high").await;
    assert!(falls(&cheap, &|model| -price(model)) && price(&cheap[0]) == 0.0);
    assert!(falls(&first("newest").await, &|model| model["created"].as_f64().unwrap()));
    assert!(falls(&first("context-high-to-low").await, &|model| model["context_length"].as_f64().unwrap()));
    for name in ["intelligence", "coding", "agentic"] {
        let of = |model: &Value| {
            model["benchmarks"]["artificial_analysis"][format!("{name}_index")].as_f64().unwrap_or(0.0)
        };
        let best = first(&format!("{name}-high-to-low")).await;
        assert!(falls(&best, &of) && of(&best[0]) > 0.0, "{name}");
    }
}

#[tokio::test]
async fn windows_are_those_of_the_provider() {
    let rig = Rig::new().await;
    let chat = async |model: &str, cap: u64, messages: Value| {
        rig.chat(&json!({ "model": model, "max_completion_tokens": cap, "messages": messages }), &[]).await
    };
    let short = json!([{ "role": "user", "content": "x" }]);
    assert_eq!(chat(MODEL, 262_100, short.clone()).await.status, 200);
    let no = chat(MODEL, 262_144, short.clone()).await;
    assert!(
        no.status == 400 && no.text().contains("maximum context length is 262144 tokens"),
        "{}",
        no.text()
    );
    // The whole window as output leaves no room for the question.
    assert_eq!(chat("acme/atlas-8b", 131_072, short).await.status, 400);
    // Small windows are made to fit, the middle first.
    let mut long = vec![json!({ "role": "system", "content": "first" })];
    long.extend(
        (0..40)
            .map(|number| json!({ "role": "user", "content": format!("{number} {}", "word ".repeat(100)) })),
    );
    long.push(json!({ "role": "user", "content": "[[sim:len]]" }));
    let fitted = chat("acme/atlas-1b", 100, long.into()).await.json();
    let said = fitted["choices"][0]["message"]["content"].as_str().unwrap();
    let kept: usize = said.split([' ', '=']).nth(1).unwrap().parse().unwrap();
    assert!((10..42).contains(&kept), "{said}");
}
