//! Who makes and who serves the models that there are not?

/// Slug, name and family of those who make models. Each makes the same range, so there are many.
pub const AUTHORS: [(&str, &str, &str); 24] = [
    ("acme", "Acme", "atlas"),
    ("beta-labs", "Beta Labs", "basil"),
    ("cobalt", "Cobalt", "comet"),
    ("delphi", "Delphi", "dorian"),
    ("ember", "Ember", "ensign"),
    ("fjord", "Fjord", "ålesund"),
    ("granite-works", "Granite Works", "gabbro"),
    ("helios", "Helios", "halo"),
    ("ion-ai", "Ion AI", "isotope"),
    ("juniper", "Juniper", "jetty"),
    ("kestrel", "Kestrel", "kite"),
    ("lumen-labs", "Lumen Labs", "lantern"),
    ("meridian", "Meridian", "mosaic"),
    ("nimbus", "Nimbus", "nova"),
    ("orchid", "Orchid", "opal"),
    ("polaris", "Polaris", "pilot"),
    ("quartz", "Quartz", "quill"),
    ("rivulet", "Rivulet", "reed"),
    ("sable", "Sable", "sonnet"),
    ("tundra", "Tundra", "taiga"),
    ("umbra", "Umbra", "ultra"),
    ("vesper", "Vesper", "violet"),
    ("willow", "Willow", "wren"),
    ("zephyr", "Zéphyr 微风", "zenith"),
];

/// What a family's models are called, and how many billions of parameters a price is for.
pub const RANGE: [(&str, u64); 17] = [
    ("1b", 1),
    ("3b", 3),
    ("8b", 8),
    ("14b", 14),
    ("32b", 32),
    ("70b", 70),
    ("120b", 120),
    ("405b", 405),
    ("mini", 6),
    ("small", 12),
    ("medium", 60),
    ("large", 150),
    ("pro", 250),
    ("max", 500),
    ("flash", 10),
    ("coder", 40),
    ("vision", 50),
];

/// Ids that people type without looking. They are as synthetic as the others.
pub const KNOWN: [(&str, &str, u64); 12] = [
    ("openai/gpt-4o", "OpenAI: GPT-4o", 200),
    ("openai/gpt-4o-mini", "OpenAI: GPT-4o-mini", 12),
    ("openai/gpt-5", "OpenAI: GPT-5", 300),
    ("anthropic/claude-sonnet-4.5", "Anthropic: Claude Sonnet 4.5", 250),
    ("anthropic/claude-opus-4.1", "Anthropic: Claude Opus 4.1", 500),
    ("google/gemini-2.5-pro", "Google: Gemini 2.5 Pro", 250),
    ("google/gemini-2.5-flash", "Google: Gemini 2.5 Flash", 20),
    ("meta-llama/llama-3.3-70b-instruct", "Meta: Llama 3.3 70B Instruct", 70),
    ("deepseek/deepseek-chat", "DeepSeek: DeepSeek Chat", 60),
    ("mistralai/mistral-large", "Mistral: Mistral Large", 123),
    ("qwen/qwen3-235b-a22b", "Qwen: Qwen3 235B A22B", 90),
    ("x-ai/grok-4", "xAI: Grok 4", 300),
];

/// Models that choose a model. Their price is that of their choice, which is written as -1.
pub const ROUTERS: [(&str, &str); 7] = [
    ("openrouter/auto", "Auto Router"),
    ("openrouter/auto-beta", "Auto Router (beta)"),
    ("openrouter/free", "Free Models Router"),
    ("openrouter/fusion", "Fusion"),
    ("openrouter/fusion-flash", "Fusion Flash"),
    ("openrouter/pareto-code", "Pareto Code Router"),
    ("openrouter/bodybuilder", "Body Builder (beta)"),
];

/// Names that stand for the newest of a family.
pub const ALIASES: [(&str, &str); 6] = [
    ("~acme/atlas-latest", "acme/atlas-70b"),
    ("~beta-labs/basil-latest", "beta-labs/basil-large"),
    ("~cobalt/comet-latest", "cobalt/comet-pro"),
    ("~helios/halo-latest", "helios/halo-max"),
    ("~openai/gpt-latest", "openai/gpt-5"),
    ("~anthropic/claude-latest", "anthropic/claude-sonnet-4.5"),
];

/// One who runs models of others.
#[derive(Debug)]
pub struct Provider {
    pub name: &'static str,
    pub slug: &'static str,
    pub country: &'static str,
    /// Keeps nothing of what it is sent.
    pub zdr: bool,
    /// Stops, and stops billing, when the one who asked goes away.
    pub cancels: bool,
}

const fn provider(
    name: &'static str,
    slug: &'static str,
    country: &'static str,
    zdr: bool,
    cancels: bool,
) -> Provider {
    Provider { name, slug, country, zdr, cancels }
}

pub const PROVIDERS: [Provider; 12] = [
    provider("Acme Cloud", "acme-cloud", "US", true, true),
    provider("Beta Inference", "beta-inference", "US", false, true),
    provider("Gamma GPU", "gamma-gpu", "DE", true, true),
    provider("Delta Compute", "delta-compute", "FR", false, true),
    provider("Epsilon AI", "epsilon-ai", "US", true, true),
    provider("Zeta Hosting", "zeta-hosting", "NL", false, true),
    provider("Eta Works", "eta-works", "SG", false, true),
    provider("Theta Models", "theta-models", "JP", true, true),
    // Of those that go on when nobody listens any more there are some, too.
    provider("Iota Batch", "iota-batch", "US", false, false),
    provider("Kappa Nodes", "kappa-nodes", "GB", true, false),
    provider("Lambda Yard", "lambda-yard", "SE", false, true),
    provider("Mu Tensor", "mu-tensor", "KR", false, true),
];

pub const CATEGORIES: [&str; 12] = [
    "programming",
    "roleplay",
    "marketing",
    "marketing/seo",
    "technology",
    "science",
    "translation",
    "legal",
    "finance",
    "health",
    "trivia",
    "academia",
];

pub const CONTEXTS: [u64; 11] =
    [4096, 8192, 16_384, 32_768, 65_536, 128_000, 131_072, 200_000, 262_144, 1_000_000, 2_000_000];

pub const PARAMETERS: [&str; 14] = [
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "response_format",
    "structured_outputs",
    "logit_bias",
];
