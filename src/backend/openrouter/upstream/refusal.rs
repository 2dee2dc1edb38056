//! What does an error of OpenRouter's mean?
//!
//! It comes as the body of a refusal, as the body of a success, as an event in the middle of a
//! stream, or inside a choice; its code is a number or a word; its type stands in one of two places.
//! All of them are read here, and the texts only where nothing else says it.

use std::{
    borrow::Cow,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderMap;
use serde_json::Value;

use super::failure::{Availability, Code, Failure, Phase};
use crate::secret;

/// The longest message of others that is passed on, in characters.
const LONGEST_MESSAGE: usize = 500;
/// What a message says that says nothing.
const NOTHING_SAID: &str = "Provider returned error";

/// Reads `{"error": {…}}`, if it is one.
pub fn read(body: &Value, status: Option<u16>, headers: &HeaderMap, phase: Phase) -> Option<Failure> {
    let error = body.get("error").filter(|error| !error.is_null())?;
    Some(of_error(error, status, headers, phase))
}

/// What stands under `error`.
pub fn of_error(error: &Value, status: Option<u16>, headers: &HeaderMap, phase: Phase) -> Failure {
    let metadata = error.get("metadata").unwrap_or(&Value::Null);
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let said = text(error, "message").or_else(|| error.as_str().map(str::to_owned)).unwrap_or_default();
    let upstream_code = text(error, "code").filter(|code| code.parse::<u16>().is_err());
    let number = number(error.get("code")).or_else(|| number(error.get("http_status"))).or(status);
    let error_type =
        text(metadata, "error_type").or_else(|| text(error, "error_type")).or(upstream_code.clone());
    let availability = error.get("availability").unwrap_or(&Value::Null);
    let facts = Facts {
        status: number,
        kind: error_type.as_deref().unwrap_or_default(),
        availability: availability.get("code").and_then(Value::as_str).unwrap_or_default(),
        limit: metadata.get("limit_source").and_then(Value::as_str).unwrap_or_default(),
        moderated: ["reasons", "flagged_input", "patterns"].iter().any(|name| metadata.get(*name).is_some()),
        said: &said,
    };
    let code = facts.code();
    let message = match metadata.get("raw").and_then(Value::as_str) {
        Some(raw) if said.is_empty() || said == NOTHING_SAID => raw,
        _ => &said,
    };
    let mut failure = Failure::new(code, phase, presentable(message, code));
    let retry_after = availability.get("retry_after").and_then(Value::as_f64).and_then(seconds);
    failure.resets_at = resets_at(headers, metadata);
    let until = || failure.resets_at?.duration_since(SystemTime::now()).ok();
    failure.retry_after = retry_after_of(headers).or(retry_after).or_else(until);
    failure.retryable = match availability.get("retryable").and_then(Value::as_bool) {
        Some(retryable) => retryable,
        None => failure.retryable || facts.is_in_flight() && failure.retry_after.is_some(),
    };
    failure.http_status = number;
    failure.limit_source = text(metadata, "limit_source");
    failure.provider = text(metadata, "provider_name");
    failure.availability = Availability {
        code: text(availability, "code"),
        fallback_models: strings(availability.get("fallback_models")),
    };
    if failure.is_daily() {
        failure.retryable = false;
    }
    (failure.upstream_code, failure.error_type) = (upstream_code, error_type);
    tracing::debug!(code = %failure.code, status = ?number, raw = ?metadata.get("raw").map(|raw| presentable(&raw.to_string(), code)), "refused");
    failure
}

/// A refusal whose body says nothing that can be read, such as a page in HTML.
pub fn of_status(status: u16, headers: &HeaderMap) -> Failure {
    let code = match Facts::of(status).code() {
        Code::UpstreamUnavailable => Code::UpstreamProtocol,
        code => code,
    };
    let message = format!("answered HTTP {status} without a reason");
    let mut failure = Failure::new(code, Phase::Refused, message);
    failure.http_status = Some(status);
    failure.retry_after = retry_after_of(headers);
    failure
}

/// What of an error decides its code.
struct Facts<'a> {
    status: Option<u16>,
    kind: &'a str,
    availability: &'a str,
    limit: &'a str,
    moderated: bool,
    said: &'a str,
}

impl Facts<'_> {
    fn of(status: u16) -> Self {
        Self { status: Some(status), kind: "", availability: "", limit: "", moderated: false, said: "" }
    }

    fn is_in_flight(&self) -> bool {
        self.limit == "openrouter_in_flight_budget"
    }

    fn code(&self) -> Code {
        self.by_availability().or_else(|| self.by_type()).unwrap_or_else(|| self.by_status())
    }

    fn by_availability(&self) -> Option<Code> {
        Some(match self.availability {
            "model_not_found" => Code::ModelNotFound,
            "capacity_exhausted" if self.status == Some(429) => Code::RateLimited,
            "capacity_exhausted" | "temporarily_unavailable" => Code::UpstreamOverloaded,
            "wrong_endpoint" => Code::InvalidInput,
            "constraint_filtered" if self.says("support image") || self.says("support audio") => {
                Code::UnsupportedModality
            }
            "no_endpoints"
            | "model_deprecated"
            | "model_unavailable_upstream"
            | "region_restricted"
            | "privacy_restricted"
            | "constraint_filtered"
            | "free_variant_ended" => Code::ModelUnavailable,
            _ => return None,
        })
    }

    fn by_type(&self) -> Option<Code> {
        Some(match self.kind {
            "context_length_exceeded" | "token_limit_exceeded" | "string_too_long" => Code::ContextTooLarge,
            "content_policy_violation" | "refusal" => Code::ContentBlocked,
            "invalid_image"
            | "image_too_large"
            | "image_too_small"
            | "unsupported_image_format"
            | "image_download_failed"
            | "image_not_found" => Code::MediaRejected,
            "authentication" => Code::UpstreamAuth,
            "payment_required" => Code::PaymentRequired,
            "rate_limit_exceeded" => Code::RateLimited,
            "provider_overloaded" => Code::UpstreamOverloaded,
            "timeout" => Code::UpstreamTimeout,
            "payload_too_large" | "unprocessable" | "precondition_failed" | "max_tokens_exceeded" => {
                Code::InvalidInput
            }
            // Others say no more than the status does.
            _ => return None,
        })
    }

    fn by_status(&self) -> Code {
        match self.status {
            Some(400 | 422) if self.says("maximum context length") => Code::ContextTooLarge,
            Some(400) if self.says("not a valid model ID") => Code::ModelNotFound,
            Some(400 | 409 | 412 | 413 | 415 | 422) => Code::InvalidInput,
            Some(401) => Code::UpstreamAuth,
            Some(402) => Code::PaymentRequired,
            Some(403) if self.moderated => Code::ContentBlocked,
            Some(403) if !self.limit.is_empty() => Code::PaymentRequired,
            Some(403) => Code::UpstreamAuth,
            Some(404) if self.says("that support") => Code::UnsupportedModality,
            Some(404) => Code::ModelUnavailable,
            Some(408 | 504 | 524) => Code::UpstreamTimeout,
            Some(429) => Code::RateLimited,
            Some(503 | 529) => Code::UpstreamOverloaded,
            Some(400..=498) => Code::InvalidInput,
            Some(_) | None => Code::UpstreamUnavailable,
        }
    }

    fn says(&self, words: &str) -> bool {
        self.said.to_ascii_lowercase().contains(&words.to_ascii_lowercase())
    }
}

/// How much a model reads and how much it was given, from the text of an overflow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overflow {
    pub limit: Option<u64>,
    pub requested: Option<u64>,
}

impl Overflow {
    pub fn read(message: &str) -> Self {
        let after = |words: &str| number_in(message.split_once(words)?.1);
        Self { limit: after("context length is"), requested: after("requested about") }
    }
}

/// How long an answer the account can pay for, in tokens.
pub fn affordable(message: &str) -> Option<u64> {
    number_in(message.split_once("can only afford")?.1)
}

/// The number that begins a text.
fn number_in(text: &str) -> Option<u64> {
    let text = text.trim_start();
    let digits: String =
        text.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(|c| *c != ',').collect();
    digits.parse().ok()
}

/// `Retry-After`, in seconds.
pub fn retry_after_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    text.parse::<f64>().ok().and_then(seconds)
}

/// When a limit begins anew, in milliseconds of our era: as a header, or as one that is told of.
fn resets_at(headers: &HeaderMap, metadata: &Value) -> Option<SystemTime> {
    let header = headers.get("x-ratelimit-reset").and_then(|value| value.to_str().ok()).map(Cow::Borrowed);
    let told = || match metadata.get("headers")?.get("X-RateLimit-Reset")? {
        Value::String(text) => Some(Cow::Borrowed(text.as_str())),
        other => Some(Cow::Owned(other.to_string())),
    };
    let ms = header.or_else(told)?.trim().parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::from_millis(ms))
}

fn seconds(number: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(number).ok()
}

/// A status, whether it is written as a number or as a text.
fn number(value: Option<&Value>) -> Option<u16> {
    match value? {
        Value::Number(number) => u16::try_from(number.as_u64()?).ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let all = value.and_then(Value::as_array).into_iter().flatten();
    all.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// What a caller may read of it. About the operator's key, nothing.
fn presentable(message: &str, code: Code) -> String {
    match code {
        Code::UpstreamAuth => Code::UpstreamAuth.meaning().to_owned(),
        _ if message.is_empty() => code.meaning().to_owned(),
        _ => clean(message),
    }
}

/// Without control characters and secrets, and not too long.
pub fn clean(message: &str) -> String {
    let printable: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut words = Vec::new();
    let mut after_bearer = false;
    for word in printable.split_whitespace() {
        let bare = word.trim_start_matches(|c: char| !c.is_alphanumeric());
        let secret = after_bearer || bare.starts_with("sk-or-") || bare.starts_with("user_");
        after_bearer = bare.eq_ignore_ascii_case("bearer");
        words.push(if secret { Cow::Borrowed("…") } else { secret::mask(word) });
    }
    let text = words.join(" ");
    match text.char_indices().nth(LONGEST_MESSAGE - 1) {
        Some((end, _)) if text[end..].chars().nth(1).is_some() => format!("{}…", &text[..end]),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(error: Value, status: u16, code: Code, retryable: bool) -> Failure {
        let body = json!({ "error": error, "user_id": "user_sim0000000000000000000000" });
        let failure = read(&body, Some(status), &HeaderMap::new(), Phase::Refused).unwrap();
        assert_eq!((failure.code, failure.retryable), (code, retryable), "{failure:?}");
        failure
    }

    #[test]
    fn each_documented_error_has_its_code() {
        check(json!({"message":"Missing Authentication header","code":401}), 401, Code::UpstreamAuth, false);
        let pool = json!({"message":"Provider returned error","code":429,"metadata":{"raw":"acme/atlas-70b is temporarily rate-limited upstream.","provider_name":"Acme Cloud","error_type":"rate_limit_exceeded","limit_source":"upstream_provider_shared_pool"}});
        let failure = check(pool, 429, Code::RateLimited, true);
        assert_eq!(failure.message, "acme/atlas-70b is temporarily rate-limited upstream.");
        assert_eq!(failure.provider.as_deref(), Some("Acme Cloud"));
        let daily = json!({"message":"Rate limit exceeded: free-models-per-day.","code":429,"metadata":{"headers":{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1763769600000"},"provider_name":null,"error_type":"rate_limit_exceeded","limit_source":"openrouter_free_tier_daily"}});
        let failure = check(daily, 429, Code::RateLimited, false);
        assert_eq!(failure.resets_at, Some(UNIX_EPOCH + Duration::from_secs(1_763_769_600)));
        let capacity = json!({"message":"All providers are at capacity.","code":429,"error_type":"rate_limit_exceeded","http_status":429,"availability":{"code":"capacity_exhausted","retryable":true,"retry_after":2,"fallback_models":["acme/atlas-8b"]},"metadata":{"error_type":"rate_limit_exceeded"}});
        let failure = check(capacity, 429, Code::RateLimited, true);
        assert_eq!(failure.retry_after, Some(Duration::from_secs(2)));
        assert_eq!(failure.availability.fallback_models, ["acme/atlas-8b"]);
        let context = json!({"message":"This endpoint's maximum context length is 131072 tokens. However, you requested about 135349 tokens (…).","code":400,"metadata":{"provider_name":null,"error_type":"context_length_exceeded"}});
        let failure = check(context, 400, Code::ContextTooLarge, false);
        let overflow = Overflow { limit: Some(131_072), requested: Some(135_349) };
        assert_eq!(Overflow::read(&failure.message), overflow);
        let model = json!({"message":"acme/fake-1.0 is not a valid model ID","code":400});
        check(model, 400, Code::ModelNotFound, false);
        let flagged = json!({"code":403,"message":"Your input was flagged","metadata":{"reasons":["violence"],"flagged_input":"…","error_type":"permission_denied"}});
        check(flagged, 403, Code::ContentBlocked, false);
        let spent = json!({"code":403,"message":"Key limit exceeded","metadata":{"error_type":"permission_denied","limit_source":"openrouter_key_limit"}});
        check(spent, 403, Code::PaymentRequired, false);
        let afford = json!({"message":"This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can only afford 3919.","code":402,"metadata":{"error_type":"payment_required"}});
        assert_eq!(affordable(&check(afford, 402, Code::PaymentRequired, false).message), Some(3919));
        check(json!({"message":"No endpoints found for x.","code":404}), 404, Code::ModelUnavailable, false);
        let image = json!({"message":"No endpoints found that support image input","code":404});
        check(image, 404, Code::UnsupportedModality, false);
        let bad = json!({"message":"Provider returned error","code":502,"metadata":{"raw":"upstream connect error","error_type":"provider_unavailable"}});
        assert_eq!(check(bad, 502, Code::UpstreamUnavailable, true).message, "upstream connect error");
    }

    #[test]
    fn a_code_may_be_a_word_or_nothing() {
        let failure =
            check(json!({"code":"server_error","message":"oops"}), 200, Code::UpstreamUnavailable, true);
        assert_eq!(failure.upstream_code.as_deref(), Some("server_error"));
        check(json!({"code":"429","message":"slow"}), 200, Code::RateLimited, true);
        check(json!({"code":null,"message":null}), 503, Code::UpstreamOverloaded, true);
        check(json!("broken"), 502, Code::UpstreamUnavailable, true);
        check(json!({"code":"rate_limit_exceeded"}), 200, Code::RateLimited, true);
    }

    #[test]
    fn money_in_flight_may_be_waited_for_if_it_is_said_how_long() {
        let error = json!({"error":{"message":"In flight.","code":402,"metadata":{"limit_source":"openrouter_in_flight_budget"}}});
        let mut headers = HeaderMap::new();
        assert!(!read(&error, Some(402), &headers, Phase::Refused).unwrap().retryable);
        headers.insert("retry-after", "1".parse().unwrap());
        let failure = read(&error, Some(402), &headers, Phase::Refused).unwrap();
        assert_eq!((failure.code, failure.retryable), (Code::PaymentRequired, true));
        assert_eq!(failure.retry_after, Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_limit_that_begins_anew_says_when() {
        let mut headers = HeaderMap::new();
        let later = SystemTime::now() + Duration::from_secs(3600);
        let later = later.duration_since(UNIX_EPOCH).unwrap().as_millis();
        headers.insert("x-ratelimit-reset", later.to_string().parse().unwrap());
        let error = json!({"error": {"message": "slow", "code": 429}});
        let wait = read(&error, Some(429), &headers, Phase::Refused).unwrap().retry_after.unwrap();
        assert!((3000..=3600).contains(&wait.as_secs()), "{wait:?}");
    }

    #[test]
    fn a_page_instead_of_a_reason_is_a_broken_protocol() {
        assert_eq!(of_status(502, &HeaderMap::new()).code, Code::UpstreamProtocol);
        assert_eq!(of_status(429, &HeaderMap::new()).code, Code::RateLimited);
        assert_eq!(of_status(302, &HeaderMap::new()).code, Code::UpstreamProtocol);
    }

    #[test]
    fn messages_are_passed_on_without_secrets() {
        let key = ["sk-or-v1", "-sim"].concat();
        let text = format!("Key {key} of user_sim000 is\u{1b}[31m bad: Bearer abc, ok");
        assert_eq!(clean(&text), "Key … of … is [31m bad: Bearer … ok");
        assert_eq!(clean(&"ä".repeat(500)), "ä".repeat(500));
        assert_eq!(clean(&"ä".repeat(501)).chars().count(), 500);
        let failure = check(json!({"message":"User not found","code":401}), 401, Code::UpstreamAuth, false);
        assert!(!failure.message.contains("User"));
    }
}
