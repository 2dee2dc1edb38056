//! What does an answer cost, and what is told of it afterwards?

use serde_json::{Map, Value, json};

use super::{account::Holder, catalogue::Model, clock, money::Money};

/// All that decides about the price of an answer, but how much of it there was.
#[derive(Debug, Clone)]
pub struct Bill {
    pub holder: Holder,
    /// The generation's id.
    pub id: String,
    pub model: Model,
    pub prompt: u64,
    /// How many of those were read from a cache.
    pub cached: u64,
    /// How many were written to one, at a price.
    pub written: u64,
    /// The generation whose answer is given again, for nothing.
    pub source: Option<String>,
    pub searches: u64,
    pub pictures: u64,
    /// All tokens of the answer, and how many of them are reasoning, which comes first.
    pub completion: u64,
    pub reasoning: u64,
    pub finish: &'static str,
    pub native_finish: &'static str,
    pub streamed: bool,
    pub begun_ms: u64,
    pub about: About,
}

/// What the client said about itself, to be found again in `/generation`.
#[derive(Debug, Clone, Default)]
pub struct About {
    pub user: Option<String>,
    pub session: Option<String>,
    pub referer: Option<String>,
    pub agent: Option<String>,
    pub api: &'static str,
}

/// An answer's price in its parts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub prompt: Money,
    pub completion: Money,
    pub tools: Money,
}

impl Cost {
    pub fn total(self) -> Money {
        [self.prompt, self.completion, self.tools].into_iter().sum()
    }
}

impl Bill {
    /// The price when the answer has so many tokens.
    pub fn cost(&self, completion: u64) -> Cost {
        if self.source.is_some() {
            return Cost::default();
        }
        let prices = self.model.prices();
        let (prompt, each) = match prices.from {
            Some((from, prompt, completion)) if self.prompt >= from => (prompt, completion),
            _ => (prices.prompt, prices.completion),
        };
        let fresh = self.prompt.saturating_sub(self.cached + self.written);
        let caches = [prices.cached.times(self.cached), prices.written.times(self.written)];
        Cost {
            prompt: [prompt.times(fresh)].into_iter().chain(caches).sum(),
            completion: [each.times(completion), prices.picture.times(self.pictures)].into_iter().sum(),
            tools: prices.search.times(self.searches),
        }
    }

    /// The member `usage` of an answer.
    pub fn usage(&self) -> Value {
        let cost = self.cost(self.completion);
        let count = |tokens: u64| if self.source.is_some() { 0 } else { tokens };
        let mut usage = json!({
            "prompt_tokens": count(self.prompt),
            "completion_tokens": count(self.completion),
            "total_tokens": count(self.prompt + self.completion),
            "cost": cost.total().json(),
            "is_byok": false,
            "prompt_tokens_details": {
                "cached_tokens": count(self.cached),
                "cache_write_tokens": count(self.written),
                "audio_tokens": 0,
                "video_tokens": 0,
            },
            "cost_details": {
                "upstream_inference_cost": null,
                "upstream_inference_prompt_cost": cost.prompt.json(),
                "upstream_inference_completions_cost": cost.completion.json(),
            },
            "completion_tokens_details": {
                "reasoning_tokens": count(self.reasoning),
                "image_tokens": 0,
                "audio_tokens": 0,
            },
        });
        if self.searches > 0 {
            usage["server_tool_use_details"] = json!({
                "web_search_requests": self.searches,
                "tool_calls_requested": self.searches,
                "tool_calls_executed": self.searches,
            });
            usage["cost_details"]["server_tool_cost"] = cost.tools.json();
        }
        usage
    }

    /// As `/generation` tells of it: so many tokens were delivered, and so much was charged.
    pub fn generation(&self, completion: u64, charged: Money, cancelled: bool, now: u64) -> Value {
        let reasoning = self.reasoning.min(completion);
        let took = now.saturating_sub(self.begun_ms);
        let provider = self.model.provider().name;
        let finish = (!cancelled).then_some((self.finish, self.native_finish));
        let mut data = Map::new();
        let mut put = |members: Value| data.extend(members.as_object().cloned().unwrap_or_default());
        put(json!({
            "id": self.id,
            "upstream_id": null,
            "total_cost": charged.json(),
            "cache_discount": null,
            "upstream_inference_cost": 0,
            "created_at": clock::moment(self.begun_ms),
            "model": self.model.canonical,
            "app_id": null,
            "streamed": self.streamed,
            "cancelled": cancelled,
            "provider_name": provider,
            "latency": took,
            "moderation_latency": null,
            "generation_time": took,
            "finish_reason": finish.map(|finish| finish.0),
            "native_finish_reason": finish.map(|finish| finish.1),
            "tokens_prompt": self.prompt,
            "tokens_completion": completion,
            "native_tokens_prompt": self.prompt,
            "native_tokens_completion": completion,
            "native_tokens_reasoning": reasoning,
            "native_tokens_cached": self.cached,
            "native_tokens_completion_images": 0,
            "num_media_prompt": 0,
            "num_media_completion": self.pictures,
            "num_input_audio_prompt": 0,
            "num_search_results": self.searches * 3,
            "num_fetches": 0,
        }));
        put(json!({
            "origin": self.about.referer.as_deref().unwrap_or_default(),
            "usage": charged.json(),
            "is_byok": false,
            "external_user": self.about.user,
            "api_type": self.about.api,
            "router": null,
            "provider_responses": [{
                "endpoint_id": "ep_1",
                "id": "r_1",
                "is_byok": false,
                "latency": took,
                "model_permaslug": self.model.canonical,
                "provider_name": provider,
                "status": 200,
            }],
            "user_agent": self.about.agent,
            "http_referer": self.about.referer,
            "data_region": "global",
            "preset_id": null,
            "service_tier": null,
            "session_id": self.about.session,
            "request_id": self.id.replacen("gen-", "req-", 1),
            "web_search_engine": null,
            "workspace_id": null,
            "response_cache_source_id": self.source,
        }));
        json!({ "data": data })
    }
}
