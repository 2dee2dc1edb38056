//! What 2026-07-28 wants around a request: its `_meta`, and the headers that repeat what the body says.

use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::answer::MODERN;

pub const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";

/// The status and the error of the refusal, where one thing is missing or two disagree.
pub fn check(headers: &HeaderMap, message: &Value) -> Result<(), (StatusCode, Value)> {
    let refuse =
        |code: i64, text: String| (StatusCode::BAD_REQUEST, json!({ "code": code, "message": text }));
    let (params, method) = (&message["params"], message["method"].as_str().unwrap_or_default());
    let version = params["_meta"][VERSION_KEY].as_str().unwrap_or_default();
    if !params["_meta"][CAPABILITIES_KEY].is_object() {
        return Err(refuse(-32602, format!("{CAPABILITIES_KEY} is missing")));
    }
    let mut mirrored = vec![("mcp-protocol-version", version), ("mcp-method", method)];
    match method {
        "tools/call" | "prompts/get" => {
            mirrored.push(("mcp-name", params["name"].as_str().unwrap_or_default()))
        }
        "resources/read" => mirrored.push(("mcp-name", params["uri"].as_str().unwrap_or_default())),
        _ => {}
    }
    for (name, expected) in mirrored {
        let mut values = headers.get_all(name).iter().map(|value| decoded(value.as_bytes()));
        let one = (values.next().flatten(), values.next().is_none());
        if one != (Some(expected.as_bytes().to_vec()), true) {
            return Err(refuse(-32020, format!("{name} does not match the body")));
        }
    }
    if version != MODERN {
        let mut refused = refuse(-32022, "Unsupported protocol version".to_owned());
        refused.1["data"] = json!({ "supported": [MODERN], "requested": version });
        return Err(refused);
    }
    Ok(())
}

/// A mirrored value: itself, or `=?base64?…?=`.
fn decoded(value: &[u8]) -> Option<Vec<u8>> {
    let Some(text) = value.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?=")) else {
        return Some(value.to_vec());
    };
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_ascii_end().split(|byte| *byte == b'=').next()?;
    let mut bytes = Vec::new();
    for four in digits.chunks(4) {
        let mut bits = 0u32;
        for digit in four {
            bits = bits << 6 | ALPHABET.iter().position(|letter| letter == digit)? as u32;
        }
        bits <<= 6 * (4 - four.len());
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    Some(bytes)
}
