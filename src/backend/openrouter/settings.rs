//! What can be said of `openrouter = {…}` in `routes.toml`?

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    catalog, media,
    money::{Money, Price},
    policy,
    upstream::{self, Key, Keys},
};
use crate::{
    settings::{Duration, Size, Text},
    store::conversations,
};

/// A few signs of life may be late.
const SHORTEST_LEASE: std::time::Duration = std::time::Duration::from_secs(5);

/// `openrouter = {…}` in `[backends.NAME]`: models behind tools, with conversations that last.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The key of an account at OpenRouter. Without one a simulator in the gateway answers, and each
    /// answer says that it did.
    pub api_key: Option<Text>,
    /// A management key, which is needed to ask for the account's credits and activity.
    pub management_key: Option<Text>,
    /// Which tools there are. By default all but those that draw pictures (media), measure models
    /// (benchmark) or ask several of them for one answer (collective).
    pub packs: Vec<Pack>,
    /// The model that is asked where a caller names none.
    pub model: Option<String>,
    /// Models that are asked in this order where the first one fails before it has said anything.
    pub fallback_models: Vec<String>,
    /// Names that callers may use for models, such as fast = "google/gemini-3-flash".
    pub aliases: BTreeMap<String, String>,
    /// Models that are asked together, by a name that callers may use for them.
    pub panels: BTreeMap<String, Vec<String>>,
    /// The models that callers may use, by their ids; "*" stands for any letters. All by default.
    pub allow: Vec<String>,
    /// Of those, the models that they may not use.
    pub deny: Vec<String>,
    /// The highest price of a million tokens that a model may read for, in US dollars.
    pub max_prompt_price_per_m: Option<f64>,
    /// The highest price of a million tokens that a model may write for, in US dollars.
    pub max_output_price_per_m: Option<f64>,
    /// May models be used whose price is not known beforehand, such as those that choose a model?
    pub allow_unknown_price: bool,
    /// A call that may cost more US dollars than this has to be agreed to: by `max_cost_usd`, or by whoever calls, if
    /// their client can ask them.
    pub confirm_above_usd: Option<f64>,
    /// What each caller may spend in a day (UTC), in US dollars. Calls at the same time cannot spend
    /// more together.
    pub daily_budget_usd: Option<f64>,
    /// What all callers of a tenant may spend in a day together.
    pub tenant_daily_budget_usd: Option<f64>,
    /// The claim of a token that says which tenant its caller belongs to. Without one there is a
    /// single tenant.
    pub tenant_claim: Option<String>,
    /// Are only providers used that keep nothing of what they are sent?
    pub zdr: bool,
    /// The longest answer that is asked for where a caller does not say, in tokens.
    pub max_output_tokens: u64,
    /// From how many tokens on that a conversation begins with again in the next turn the provider is told to keep them,
    /// where it wants to be told: reading them again then costs a tenth. 0 is never.
    pub prompt_cache_from: u64,
    /// For how many turns attachments are sent again.
    pub attachment_turns: usize,
    /// Folders whose files callers on standard input may attach by path. None by default.
    pub folders: Vec<PathBuf>,
    /// A key of 32 bytes, as base64, with which conversations are sealed on disk. Without one they are
    /// in clear, in a file that only its owner can read.
    pub encryption_key: Option<Text>,
    /// Keys of before, for what is sealed with them still.
    pub earlier_encryption_keys: Vec<Text>,
    /// How long an answer that is being made may give no sign of life, which it does every two seconds,
    /// until the process that made it counts as gone and its conversation goes on without it.
    pub lease: Duration,
    /// How long a conversation is kept that nobody uses.
    pub retention: Duration,
    /// How many conversations a caller may have.
    pub max_conversations: u64,
    /// How many messages a conversation may have.
    pub max_messages: u64,
    /// How much of a caller's is kept in all.
    pub max_bytes: Size,
    /// The way to OpenRouter, and how long is waited for what.
    pub upstream: upstream::Settings,
    /// When requests are sent again, and how many at once.
    pub retry: policy::Settings,
    /// How long the list of models is used.
    pub catalog: catalog::Settings,
    /// What attachments may be.
    pub media: media::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        let quotas = conversations::Quotas::default();
        Self {
            api_key: None,
            management_key: None,
            packs: Pack::USUAL.to_vec(),
            model: None,
            fallback_models: Vec::new(),
            aliases: BTreeMap::new(),
            panels: BTreeMap::new(),
            allow: Vec::new(),
            deny: Vec::new(),
            max_prompt_price_per_m: None,
            max_output_price_per_m: None,
            allow_unknown_price: false,
            confirm_above_usd: None,
            daily_budget_usd: None,
            tenant_daily_budget_usd: None,
            tenant_claim: None,
            zdr: false,
            max_output_tokens: 4096,
            prompt_cache_from: 1024,
            attachment_turns: 2,
            folders: Vec::new(),
            encryption_key: None,
            earlier_encryption_keys: Vec::new(),
            lease: Duration(conversations::Options::default().lease),
            retention: Duration::seconds(30 * 24 * 60 * 60),
            max_conversations: quotas.conversations,
            max_messages: quotas.messages,
            max_bytes: Size(quotas.bytes as usize),
            upstream: upstream::Settings::default(),
            retry: policy::Settings::default(),
            catalog: catalog::Settings::default(),
            media: media::Settings::default(),
        }
    }
}

/// Tools, and what belongs to them, that are there together or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pack {
    Core,
    Catalog,
    Account,
    Embed,
    Media,
    Benchmark,
    Collective,
}

impl Pack {
    pub const USUAL: [Self; 4] = [Self::Core, Self::Catalog, Self::Account, Self::Embed];
}

/// The settings with their secrets put in and their numbers read.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub keys: Keys,
    pub options: conversations::Options,
    pub max_prompt_price: Option<Price>,
    pub max_output_price: Option<Price>,
    pub confirm_above: Option<Money>,
    pub daily_budget: Option<Money>,
    pub tenant_daily_budget: Option<Money>,
}

impl Settings {
    /// Is there nobody but the simulator to ask?
    pub fn is_simulated(&self) -> bool {
        self.api_key.is_none()
    }

    /// Is there the tool that answers once, without a conversation?
    pub fn can_complete(&self) -> bool {
        self.packs.contains(&Pack::Core)
    }

    /// What is asked where nothing is said.
    pub fn usual_model(&self) -> &str {
        self.model.as_deref().unwrap_or(if self.is_simulated() {
            "acme/atlas-70b"
        } else {
            "openrouter/auto"
        })
    }

    /// How conversations are kept.
    fn options(&self, keys: Option<conversations::Keys>) -> conversations::Options {
        let quotas = conversations::Quotas {
            conversations: self.max_conversations,
            messages: self.max_messages,
            bytes: self.max_bytes.0 as u64,
            attachment: self.media.max_size.0 as u64,
            turns: self.retry.at_once_per_caller as u64,
        };
        conversations::Options {
            lease: self.lease.0,
            idle: self.retention.0,
            quotas,
            keys,
            ..conversations::Options::default()
        }
    }

    /// Puts secrets in; or says all that is wrong.
    pub fn resolve(&self) -> Result<Resolved, Vec<String>> {
        let mut faults = Vec::new();
        let mut note = |key: &str, why: String| faults.push(format!("openrouter.{key}: {why}"));
        let mut key = |name: &str, text: &Option<Text>| {
            let text = text.as_ref()?;
            match text.resolve().and_then(|text| Key::new(&text.text)) {
                Ok(key) => Some(key),
                Err(why) => {
                    note(name, why);
                    None
                }
            }
        };
        let keys = Keys {
            inference: key("api_key", &self.api_key),
            management: key("management_key", &self.management_key),
        };
        let mut sealing =
            |name: &str, text: &Text| match text.resolve().and_then(|text| sealing_key(&text.text)) {
                Ok(key) => Some(key),
                Err(why) => {
                    note(name, why);
                    None
                }
            };
        let current = self.encryption_key.as_ref().and_then(|text| sealing("encryption_key", text));
        let earlier: Vec<_> = self
            .earlier_encryption_keys
            .iter()
            .filter_map(|text| sealing("earlier_encryption_keys", text))
            .collect();
        if current.is_none() && !earlier.is_empty() {
            note("earlier_encryption_keys", "there is no `encryption_key` of now beside them".into());
        }
        if self.lease.0 < SHORTEST_LEASE {
            let shortest = SHORTEST_LEASE.as_secs();
            note("lease", format!("is less than {shortest} s, so that a busy process would count as gone"));
        }
        let mut dollars = |name, amount| noted(&mut note, name, dollars(amount));
        let confirm_above = dollars("confirm_above_usd", self.confirm_above_usd);
        let daily_budget = dollars("daily_budget_usd", self.daily_budget_usd);
        let tenant_daily_budget = dollars("tenant_daily_budget_usd", self.tenant_daily_budget_usd);
        let mut price = |name, amount| noted(&mut note, name, price(amount));
        let max_prompt_price = price("max_prompt_price_per_m", self.max_prompt_price_per_m);
        let max_output_price = price("max_output_price_per_m", self.max_output_price_per_m);
        if !faults.is_empty() {
            return Err(faults);
        }
        let options = self.options(current.map(|current| conversations::Keys { current, earlier }));
        Ok(Resolved {
            keys,
            options,
            max_prompt_price,
            max_output_price,
            confirm_above,
            daily_budget,
            tenant_daily_budget,
        })
    }
}

/// What was read, or nothing if it is noted why not.
fn noted<T>(note: &mut impl FnMut(&str, String), key: &str, read: Option<Result<T, String>>) -> Option<T> {
    read?.map_err(|why| note(key, why)).ok()
}

fn dollars(amount: Option<f64>) -> Option<Result<Money, String>> {
    let amount = amount?;
    let money = amount.to_string().parse().ok().filter(|_| amount >= 0.0);
    Some(money.ok_or_else(|| format!("{amount} is no amount of US dollars; write for instance 2.5")))
}

fn price(amount: Option<f64>) -> Option<Result<Price, String>> {
    let amount = amount?;
    let price = Price::per_million(&amount.to_string());
    Some(price.ok_or_else(|| format!("{amount} is no price in US dollars; write for instance 2.5")))
}

fn sealing_key(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "it is not 32 bytes as base64; `openssl rand -base64 32` makes such a key".to_owned();
    let bytes = STANDARD.decode(text.trim()).map_err(|_| wrong())?;
    bytes.try_into().map_err(|_| wrong())
}
