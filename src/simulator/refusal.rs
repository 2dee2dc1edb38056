//! How does OpenRouter say no?
//!
//! The words are those that were seen on the wire, since programs look for them.

use serde_json::{Value, json};

const USER: &str = "user_sim0000000000000000000000";

/// An error, before anything was generated.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub status: u16,
    pub body: Value,
    pub headers: Vec<(&'static str, String)>,
}

impl Refusal {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        let error = json!({ "message": message.into(), "code": status });
        Self { status, body: json!({ "error": error }), headers: Vec::new() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, message).with(json!({ "provider_name": null, "error_type": "invalid_request" }))
    }

    /// With this `error.metadata`.
    pub fn with(mut self, metadata: Value) -> Self {
        self.body["error"]["metadata"] = metadata;
        self
    }

    /// With this `error.availability`.
    pub fn available(mut self, availability: Value) -> Self {
        self.body["error"]["availability"] = availability;
        self
    }

    /// The account is known by now, and named.
    pub fn of_user(mut self) -> Self {
        self.body["user_id"] = USER.into();
        self
    }

    pub fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    /// Come again in so many seconds.
    pub fn after(self, seconds: u64) -> Self {
        self.header("retry-after", seconds)
    }

    pub fn no_key() -> Self {
        Self::new(401, "Missing Authentication header")
    }

    pub fn unknown_key() -> Self {
        Self::new(401, "User not found")
    }

    pub fn nothing_here() -> Self {
        Self::new(404, "Resource not found")
    }

    pub fn unknown_model(id: &str) -> Self {
        let availability = json!({
            "code": "model_not_found",
            "retryable": false,
            "requested_models": [id],
            "docs_url": "https://openrouter.ai/docs/errors#model_not_found",
        });
        Self::new(400, format!("{id} is not a valid model ID")).available(availability).of_user()
    }

    pub fn no_endpoints(id: &str) -> Self {
        let availability = json!({
            "code": "no_endpoints",
            "retryable": false,
            "requested_models": [id],
            "docs_url": "https://openrouter.ai/docs/errors#no_endpoints",
        });
        let no = Self::new(404, format!("No endpoints found for {id}."));
        no.with(json!({ "error_type": "not_found" })).available(availability).of_user()
    }

    /// Question and answer are longer than the model's window.
    pub fn too_long(window: u64, text: u64, tools: u64, output: u64) -> Self {
        let asked = text + tools + output;
        let message = format!(
            "This endpoint's maximum context length is {window} tokens. However, you requested about {asked} \
             tokens ({text} of text input, {tools} of tool input, {output} in the output). Please reduce the \
             length of either one, or use the context-compression plugin to compress your prompt automatically."
        );
        let metadata = json!({ "provider_name": null, "error_type": "context_length_exceeded" });
        Self::new(400, message).with(metadata)
    }

    pub fn no_credit() -> Self {
        let message = "Insufficient credits. Add more using https://openrouter.ai/settings/credits";
        let metadata = json!({ "provider_name": null, "error_type": "payment_required" });
        Self::new(402, message).with(metadata).of_user()
    }

    pub fn cannot_afford(asked: u64, affordable: u64) -> Self {
        let message = format!(
            "This request requires more credits, or fewer max_tokens. You requested up to {asked} tokens, but can \
             only afford {affordable}. To increase, visit https://openrouter.ai/settings/credits and upgrade to a \
             paid account"
        );
        let metadata = json!({ "provider_name": null, "error_type": "payment_required" });
        Self::new(402, message).with(metadata).of_user()
    }

    pub fn in_flight() -> Self {
        let message = "Your in-flight requests already use your spending budget. Retry after 1 second.";
        let metadata =
            json!({ "error_type": "payment_required", "limit_source": "openrouter_in_flight_budget" });
        Self::new(402, message).with(metadata).of_user().after(1)
    }

    /// The free requests of the day are used up; `reset` is in milliseconds since 1970.
    pub fn daily_quota(limit: u64, reset: u64) -> Self {
        let message = if limit < 1000 {
            "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day"
        } else {
            "Rate limit exceeded: free-models-per-day-high-balance."
        };
        Self::limited(message, "openrouter_free_tier_daily", limit, reset)
    }

    pub fn per_minute(limit: u64, reset: u64) -> Self {
        let message = "Rate limit exceeded: free-models-per-min.";
        Self::limited(message, "openrouter_free_tier_minute", limit, reset)
    }

    fn limited(message: &str, source: &str, limit: u64, reset: u64) -> Self {
        let headers = json!({
            "X-RateLimit-Limit": limit.to_string(),
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": reset.to_string(),
        });
        let metadata = json!({
            "headers": headers,
            "provider_name": null,
            "error_type": "rate_limit_exceeded",
            "limit_source": source,
        });
        Self::new(429, message)
            .with(metadata)
            .of_user()
            .header("x-ratelimit-limit", limit)
            .header("x-ratelimit-remaining", 0)
            .header("x-ratelimit-reset", reset)
    }

    /// The provider's shared pool is exhausted.
    pub fn shared_pool(model: &str, provider: &str) -> Self {
        let raw = format!(
            "{model} is temporarily rate-limited upstream. Please retry shortly, or add your own key to \
             accumulate your rate limits: https://openrouter.ai/settings/integrations"
        );
        let metadata = json!({
            "raw": raw,
            "provider_name": provider,
            "error_type": "rate_limit_exceeded",
            "limit_source": "upstream_provider_shared_pool",
            "remedy_hint": "Retry shortly, add your own provider key, or route to another provider",
        });
        Self::new(429, "Provider returned error").with(metadata).of_user()
    }

    /// All providers are busy.
    pub fn capacity(model: &str, seconds: u64) -> Self {
        let availability = json!({
            "code": "capacity_exhausted",
            "retryable": true,
            "retry_after": seconds,
            "requested_models": [model],
            "affected_providers": ["acme-cloud", "beta-inference"],
            "fallback_models": ["acme/atlas-8b"],
            "docs_url": "https://openrouter.ai/docs/errors#capacity_exhausted",
        });
        let previous = json!([{ "provider": "acme-cloud", "code": "capacity_exhausted", "status": 429 }]);
        let metadata = json!({ "error_type": "rate_limit_exceeded", "previous_errors": previous });
        let message = format!("All providers for {model} are at capacity. Retry after {seconds} seconds.");
        let mut no = Self::new(429, message).with(metadata).available(availability);
        // This family of errors says it here as well.
        no.body["error"]["error_type"] = "rate_limit_exceeded".into();
        no.body["error"]["http_status"] = 429.into();
        no
    }

    /// What a provider answered, passed on.
    pub fn upstream(status: u16, raw: &str, error_type: &str, provider: &str) -> Self {
        let metadata = json!({ "provider_name": provider, "raw": raw, "error_type": error_type });
        Self::new(status, "Provider returned error").with(metadata).of_user()
    }
}
