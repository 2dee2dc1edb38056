//! How is an entry of the catalogue written?

use serde_json::{Map, Value, json};

use super::{Catalogue, Model, PROVIDERS, Provider};

impl Model {
    /// As `/models` lists it.
    pub fn shown(&self, catalogue: &Catalogue) -> Value {
        let mut shown = json!({
            "id": self.id,
            "canonical_slug": self.canonical,
            "hugging_face_id": null,
            "name": self.name,
            "created": self.created,
            "description": self.description,
            "context_length": self.context,
            "architecture": self.architecture(),
            "pricing": self.pricing(),
            "top_provider": {
                "context_length": self.window,
                "max_completion_tokens": self.max_output,
                "is_moderated": self.author() == "openai",
            },
            "per_request_limits": null,
            "supported_parameters": self.parameters,
            "default_parameters": self.defaults(),
            "supported_voices": self.outputs.contains(&"speech").then_some(["ash", "birch"]),
            "knowledge_cutoff": "2026-03-31",
            "expiration_date": self.expires,
            "links": { "details": format!("/api/v1/models/{}/endpoints", self.id) },
        });
        if let Some(reasoning) = self.reasoning {
            shown["reasoning"] = json!({
                "mandatory": reasoning.mandatory,
                "default_enabled": reasoning.by_default,
                "default_effort": "medium",
                "supported_efforts": ["high", "medium", "low"],
            });
        }
        if let Some([intelligence, coding, agentic]) = self.benchmarks {
            let indices = json!({
                "intelligence_index": intelligence,
                "coding_index": coding,
                "agentic_index": agentic,
            });
            shown["benchmarks"] = json!({ "artificial_analysis": indices, "design_arena": [] });
        }
        if let Some(target) = self.alias_of.as_deref().and_then(|target| catalogue.get(target)) {
            shown["alias_target"] = json!({ "slug": target.id, "name": target.name });
        }
        if self.broken
            && let Some(members) = shown.as_object_mut()
        {
            members.remove("pricing");
        }
        shown
    }

    fn defaults(&self) -> Value {
        if self.prices.is_none() {
            return Value::Null;
        }
        json!({ "temperature": 0.7, "top_p": null, "frequency_penalty": null })
    }

    fn architecture(&self) -> Value {
        let modality = format!("{}->{}", self.inputs.join("+"), self.outputs.join("+"));
        json!({
            "modality": modality,
            "input_modalities": self.inputs,
            "output_modalities": self.outputs,
            "tokenizer": self.tokenizer,
            "instruct_type": null,
        })
    }

    /// Decimal texts, in dollars for one of each.
    fn pricing(&self) -> Map<String, Value> {
        let mut pricing = Map::new();
        let mut put = |name: &str, price: String| pricing.insert(name.to_owned(), price.into());
        let Some(prices) = self.prices else {
            put("prompt", "-1".to_owned());
            put("completion", "-1".to_owned());
            return pricing;
        };
        put("prompt", prices.prompt.to_string());
        put("completion", prices.completion.to_string());
        put("request", "0".to_owned());
        put("image", prices.picture.to_string());
        put("web_search", prices.search.to_string());
        put("internal_reasoning", "0".to_owned());
        put("input_cache_read", prices.cached.to_string());
        if self.caches_on_demand() {
            put("input_cache_write", prices.written.to_string());
        }
        if let Some((from, prompt, completion)) = prices.from {
            let (prompt, completion) = (prompt.to_string(), completion.to_string());
            let other = json!({ "min_prompt_tokens": from, "prompt": prompt, "completion": completion });
            pricing.insert("overrides".to_owned(), json!([other]));
        }
        pricing
    }

    /// As `/models/{author}/{slug}/endpoints` answers.
    pub fn with_endpoints(&self) -> Value {
        let endpoints: Vec<_> =
            self.providers.iter().map(|index| self.endpoint(&PROVIDERS[*index])).collect();
        json!({
            "id": self.id,
            "name": self.name,
            "created": self.created,
            "description": self.description,
            "architecture": self.architecture(),
            "endpoints": endpoints,
        })
    }

    /// The model at one of its providers.
    pub fn endpoint(&self, provider: &Provider) -> Value {
        let mut pricing = self.pricing();
        pricing.remove("overrides");
        pricing.insert("discount".to_owned(), 0.into());
        json!({
            "name": format!("{} | {}", provider.name, self.canonical),
            "model_id": self.canonical,
            "model_name": self.name,
            "context_length": self.limit(),
            "pricing": pricing,
            "provider_name": provider.name,
            "tag": format!("{}/fp8", provider.slug),
            "quantization": "fp8",
            "max_completion_tokens": self.max_output,
            "max_prompt_tokens": null,
            "supported_parameters": self.parameters,
            "status": 0,
            "uptime_last_30m": 99.9,
            "uptime_last_5m": 100,
            "uptime_last_1d": 99.8,
            "supports_implicit_caching": false,
            "supports_tool_choice": { "auto": true, "function": true, "none": true, "required": true },
            "supports_voice_cloning": false,
            "supports_diarization": false,
            "native_tools": {},
            "service_tier": null,
            "latency_last_30m": { "p50": 250, "p75": 400, "p90": 700, "p99": 1500 },
            "throughput_last_30m": { "p50": 80, "p75": 95, "p90": 110, "p99": 140 },
        })
    }

    /// As `/images/models` lists it.
    pub fn shown_as_painter(&self) -> Value {
        let resolutions = json!({ "type": "enum", "values": ["1K", "2K"] });
        json!({
            "id": self.id,
            "name": self.name,
            "created": self.created,
            "description": self.description,
            "architecture": { "input_modalities": self.inputs, "output_modalities": self.outputs },
            "endpoints": format!("/api/v1/images/models/{}/endpoints", self.id),
            "supported_parameters": { "resolution": resolutions },
            "supports_streaming": true,
        })
    }
}

impl Provider {
    /// As `/providers` lists it.
    pub fn shown(&self) -> Value {
        json!({
            "name": self.name,
            "slug": self.slug,
            "headquarters": self.country,
            "datacenters": [self.country],
            "privacy_policy_url": format!("https://sim.invalid/{}/privacy", self.slug),
            "terms_of_service_url": format!("https://sim.invalid/{}/terms", self.slug),
            "status_page_url": null,
        })
    }
}
