//! What is each entry of the catalogue?

use super::{
    Model, Prices, Reasoning,
    table::{ALIASES, AUTHORS, CATEGORIES, CONTEXTS, KNOWN, PARAMETERS, PROVIDERS, RANGE, ROUTERS},
};
use crate::simulator::{money::Money, random::Random};

/// The first release of all; the others follow day by day.
const FIRST: u64 = 1_719_792_000;
const DAY: u64 = 86_400;

/// Every entry, in the order in which the list has them.
pub fn all(broken_entries: bool) -> Vec<Model> {
    let mut models = Vec::new();
    for (slug, author, family) in AUTHORS {
        for (form, size) in RANGE {
            // Ids are ASCII even where names are not.
            let word = if family.is_ascii() { family } else { "alesund" };
            let name = format!("{author}: {} {}", capital(family), capital(form));
            models.push(text(&format!("{slug}/{word}-{form}"), name, size));
        }
    }
    models.extend(KNOWN.iter().map(|(id, name, size)| text(id, (*name).to_owned(), *size)));
    oddities(&mut models);
    variants(&mut models);
    models.extend(ROUTERS.iter().map(|(id, name)| router(id, name)));
    for (index, (id, target)) in ALIASES.iter().enumerate() {
        if let Some(model) = models.iter().find(|model| model.id == *target) {
            let name = format!("{} (latest)", model.name);
            let target = Some((*target).to_owned());
            // Of some aliases the price depends on what they stand for today.
            let prices = if index % 2 == 0 { None } else { model.prices };
            let alias = Model {
                id: (*id).to_owned(),
                canonical: (*id).to_owned(),
                name,
                alias_of: target,
                prices,
                ..model.clone()
            };
            models.push(alias);
        }
    }
    media(&mut models);
    if broken_entries {
        let name = "Broken: an entry without prices".to_owned();
        models.push(Model { broken: true, ..text("broken/no-pricing", name, 1) });
    }
    models
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A model that answers in text. `size` is in billions of parameters, and sets the price.
fn text(id: &str, name: String, size: u64) -> Model {
    let mut random = Random::new(0, id);
    let age = u64::try_from(random.below(800)).unwrap_or(0);
    let created = FIRST + age * DAY;
    let context = random.pick(&CONTEXTS);
    let vision = id.ends_with("-vision") || random.percent(33);
    let mut inputs = vec!["text"];
    if vision {
        inputs.extend(["image", "file"]);
    }
    if random.percent(5) {
        inputs.push("audio");
    }
    let count = 6 + random.below(PARAMETERS.len() - 5);
    let mut parameters: Vec<_> = PARAMETERS.iter().take(count).copied().collect();
    if random.percent(70) {
        parameters.extend(["tools", "tool_choice"]);
    }
    let first = random.below(PROVIDERS.len());
    let providers = (0..=random.below(3)).map(|next| (first + next * 5) % PROVIDERS.len()).collect();
    let prompt = Money(i128::from(size) * 20_000 + 5_000);
    Model {
        id: id.to_owned(),
        canonical: format!("{id}-{}", 20_240_701 + age),
        description: description(&mut random, &name, 560),
        name,
        created,
        context: Some(context),
        window: Some(context),
        max_output: random.percent(70).then_some((context / 4).min(65_536)),
        inputs,
        outputs: vec!["text"],
        tokenizer: random.pick(&["Other", "GPT", "Llama3", "Claude", "Qwen", "Mistral", "Gemini"]),
        prices: Some(Prices {
            prompt,
            completion: prompt.times(4),
            cached: Money(prompt.0 / 10),
            written: if id.starts_with("anthropic/") { Money(prompt.0 * 5 / 4) } else { Money::ZERO },
            search: Money(10_000_000_000),
            ..Prices::default()
        }),
        parameters,
        reasoning: None,
        benchmarks: None,
        expires: None,
        alias_of: None,
        providers,
        categories: (0..3).map(|_| random.pick(&CATEGORIES)).collect(),
        distillable: random.percent(40),
        tool_success: 600 + u64::try_from(random.below(400)).unwrap_or(0),
        traffic: 1_000_000 + random.next() % 1_000_000_000_000,
        broken: false,
    }
}

/// About so many bytes of text that nobody takes for a real model's.
fn description(random: &mut Random, name: &str, length: usize) -> String {
    const WORDS: [&str; 16] = [
        "answers",
        "questions",
        "with",
        "care",
        "about",
        "code",
        "prose",
        "tables",
        "long",
        "short",
        "and",
        "in",
        "many",
        "languages",
        "for",
        "people",
    ];
    let mut text = format!("{name}: a synthetic entry of the OpenRouter simulator. It");
    while text.len() < length {
        text.push(' ');
        text.push_str(random.pick(&WORDS));
    }
    text + "."
}

/// What makes readers stumble, and what tests count on.
fn oddities(models: &mut [Model]) {
    let mut change = |id: &str, how: &dyn Fn(&mut Model)| {
        models.iter_mut().filter(|model| model.id == id).for_each(how);
    };
    change("acme/atlas-70b", &|model| {
        // The window is not what the model says of itself.
        (model.context, model.window, model.max_output) = (Some(1_048_576), Some(262_144), Some(16_384));
        (model.inputs, model.tokenizer) = (vec!["text", "image", "file", "audio"], "Other");
        model.canonical = "acme/atlas-70b-20260801".to_owned();
        model.providers = vec![0, 1];
        model.parameters = PARAMETERS.to_vec();
        model.parameters.extend(["tools", "tool_choice", "reasoning", "include_reasoning"]);
        let (prompt, completion) = (Money(1_500_000), Money(6_000_000));
        let (cached, search) = (Money(150_000), Money(10_000_000_000));
        let from = Some((200_000, Money(3_000_000), Money(12_000_000)));
        let (written, picture) = (Money::ZERO, Money::ZERO);
        model.prices = Some(Prices { prompt, completion, cached, written, search, picture, from });
    });
    // As much output as window: who asks for all of it leaves no room for the question.
    change("acme/atlas-8b", &|model| {
        (model.context, model.window, model.max_output) = (Some(131_072), Some(131_072), Some(131_072));
        model.providers = vec![1, 2];
        model.parameters.extend(["tools", "tool_choice"]);
    });
    // Long texts are shortened here without being asked to.
    change("acme/atlas-1b", &|model| {
        (model.context, model.window, model.max_output) = (Some(4096), Some(4096), Some(1024));
    });
    change("acme/atlas-3b", &|model| {
        (model.context, model.window, model.max_output) = (Some(16_384), Some(16_384), Some(4096));
    });
    // Goes on, and costs, when nobody listens any more.
    change("acme/atlas-14b", &|model| model.providers = vec![8]);
    change("beta-labs/basil-8b", &|model| model.context = None);
    change("beta-labs/basil-14b", &|model| (model.context, model.window) = (None, None));
    change("cobalt/comet-8b", &|model| model.tokenizer = "Quantum");
    change("cobalt/comet-14b", &|model| model.parameters.push("telepathy"));
    change("delphi/dorian-8b", &|model| {
        let mut random = Random::new(0, "long description");
        model.description = description(&mut random, &model.name, 20 * 1024);
    });
    for (index, (slug, _, family)) in AUTHORS.iter().enumerate().filter(|(_, author)| author.2.is_ascii()) {
        let half = f64::from(u32::try_from(index).unwrap_or(0)) / 2.0;
        if index < 12 {
            change(&format!("{slug}/{family}-pro"), &|model| {
                model.reasoning = Some(Reasoning { mandatory: index == 3, by_default: index % 4 == 3 });
                model.parameters.extend(["reasoning", "include_reasoning"]);
            });
        }
        if index < 11 {
            change(&format!("{slug}/{family}-max"), &|model| {
                model.benchmarks = Some([70.0 - half, 60.0 - half, 50.0 - half]);
            });
        }
        if index > 18 {
            change(&format!("{slug}/{family}-mini"), &|model| model.expires = Some("2027-06-30"));
        }
        if (12..19).contains(&index) {
            change(&format!("{slug}/{family}-large"), &|model| {
                let Some(prices) = &mut model.prices else { return };
                prices.from = Some((200_000, prices.prompt.times(2), prices.completion.times(2)));
            });
        }
    }
    change("acme/atlas-70b", &|model| {
        model.reasoning = Some(Reasoning { mandatory: false, by_default: false });
        model.benchmarks = Some([61.2, 55.1, 48.0]);
    });
}

/// Forms of models under names of their own.
fn variants(models: &mut Vec<Model>) {
    let variant = |model: &Model, suffix: &str, name: &str| Model {
        id: format!("{}:{suffix}", model.id),
        name: format!("{} ({name})", model.name),
        benchmarks: None,
        ..model.clone()
    };
    let small = |model: &&Model| ["-8b", "-mini"].iter().any(|end| model.id.ends_with(end));
    let free: Vec<_> =
        models.iter().filter(small).take(40).map(|model| variant(model, "free", "free")).collect();
    models.extend(free.into_iter().map(|model| Model { prices: Some(Prices::default()), ..model }));
    let slow = |model: &&Model| model.id.ends_with("-120b");
    let thinking: Vec<_> =
        models.iter().filter(slow).take(6).map(|model| variant(model, "thinking", "thinking")).collect();
    models.extend(thinking.into_iter().map(|mut model| {
        model.parameters.extend(["reasoning", "include_reasoning"]);
        model
    }));
}

fn router(id: &str, name: &str) -> Model {
    let free = id == "openrouter/free";
    Model {
        canonical: id.to_owned(),
        context: Some(2_000_000),
        window: None,
        max_output: None,
        tokenizer: "Router",
        inputs: vec!["text"],
        prices: free.then(Prices::default),
        parameters: Vec::new(),
        providers: vec![0],
        ..text(id, name.to_owned(), 1)
    }
}

/// Models whose answers are no text.
fn media(models: &mut Vec<Model>) {
    let mut add = |id: String, name: String, outputs: &[&'static str], prices: Prices| {
        let base = text(&id, name, 4);
        let (inputs, parameters) = (vec!["text"], vec!["seed"]);
        let (outputs, prices, max_output) = (outputs.to_vec(), Some(prices), None);
        models.push(Model { inputs, outputs, prices, max_output, parameters, ..base });
    };
    let per_token = |prompt| Prices { prompt: Money(prompt), ..Prices::default() };
    for (slug, author, family) in AUTHORS {
        let word = if family.is_ascii() { family } else { "alesund" };
        let prices = Prices { picture: Money(20_000_000_000), ..per_token(100_000) };
        // Every other one also writes.
        let outputs: &[_] = if slug.len().is_multiple_of(2) { &["image", "text"] } else { &["image"] };
        add(format!("{slug}/{word}-image"), format!("{author}: {} Image", capital(family)), outputs, prices);
    }
    for (slug, author, _) in AUTHORS.iter().take(10) {
        for (size, price) in [("small", 20_000), ("large", 130_000)] {
            let name = format!("{author}: Embed {}", capital(size));
            add(format!("{slug}/embed-{size}"), name, &["embeddings"], per_token(price));
        }
    }
    for (slug, author, _) in AUTHORS.iter().take(6) {
        let prices = Prices { search: Money(2_000_000_000), ..per_token(0) };
        add(format!("{slug}/rerank-1"), format!("{author}: Rerank 1"), &["rerank"], prices);
    }
    for (slug, author, _) in AUTHORS.iter().take(5) {
        add(format!("{slug}/speak-1"), format!("{author}: Speak 1"), &["speech"], per_token(600_000));
        add(
            format!("{slug}/listen-1"),
            format!("{author}: Listen 1"),
            &["transcription"],
            per_token(600_000),
        );
    }
}
