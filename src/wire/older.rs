//! What of a result or a list do older revisions of the legacy era not have, and what stands for it?
//!
//! Some clients refuse a block whose kind they do not know, so links and sound become what the
//! revision has. Other members would most often be passed over, but they are not in the
//! revision's schema, and a client that keeps to it may refuse them.

use serde_json::json;

use super::{
    json,
    mcp::{Method, Revision},
    message::object_with,
};

/// A result as the revision has it; nothing if there is nothing to change about it.
pub fn result(result: &[u8], method: Method, revision: Revision) -> Option<Vec<u8>> {
    match method {
        Method::ToolsCall if revision < Revision::V2025_06_18 => Some(tool_result(result, revision)),
        Method::PromptsGet if revision < Revision::V2025_06_18 => {
            let message = |message: &[u8]| {
                let content = json::member(message, "content").and_then(|content| block(content, revision));
                content.map(|content| object_with(message, |_| false, &[("content", &content)]))
            };
            Some(object_with(
                result,
                |_| false,
                &[("messages", &mapped(json::member(result, "messages")?, message))],
            ))
        }
        _ if revision < Revision::V2025_11_25 => {
            let list = method.list()?;
            let entry = |entry: &[u8]| Some(listed(entry, method, revision));
            Some(object_with(
                result,
                |_| false,
                &[(list.member(), &mapped(json::member(result, list.member())?, entry))],
            ))
        }
        _ => None,
    }
}

/// No links, no structured content, and before 2025-03-26 no sound.
fn tool_result(result: &[u8], revision: Revision) -> Vec<u8> {
    let content = json::member(result, "content").unwrap_or(b"[]");
    let mut blocks = mapped(content, |one| block(one, revision));
    if let Some(structured) = json::member(result, "structuredContent")
        && !json::elements(content)
            .iter()
            .any(|place| json::member(place.of(content), "type") == Some(b"\"text\""))
    {
        let said = json!({ "type": "text", "text": String::from_utf8_lossy(structured) }).to_string();
        let comma = if json::elements(content).is_empty() { "" } else { "," };
        blocks.pop(); // The bracket.
        blocks.extend_from_slice(format!("{comma}{said}]").as_bytes());
    }
    object_with(result, |key| key == "structuredContent", &[("content", &blocks)])
}

fn block(block: &[u8], revision: Revision) -> Option<Vec<u8>> {
    let value: serde_json::Value = serde_json::from_slice(block).ok()?;
    let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let new = match value["type"].as_str()? {
        "resource_link" => json!({ "type": "text", "text": format!("{} ({})", text("name"), text("uri")) }),
        "audio" if revision < Revision::V2025_03_26 => json!({
            "type": "resource",
            "resource": { "uri": "urn:waystation:audio", "mimeType": text("mimeType"), "blob": text("data") },
        }),
        _ => return None,
    };
    Some(new.to_string().into_bytes())
}

/// An entry of a list without what came later.
fn listed(entry: &[u8], method: Method, revision: Revision) -> Vec<u8> {
    let later = |key: &str| match key {
        "icons" | "execution" => true,
        "title" | "outputSchema" | "_meta" => revision < Revision::V2025_06_18,
        "annotations" => method == Method::ToolsList && revision < Revision::V2025_03_26,
        _ => false,
    };
    let arguments = json::member(entry, "arguments").filter(|_| method == Method::PromptsList);
    let arguments = arguments.map(|list| mapped(list, |argument| Some(object_with(argument, later, &[]))));
    let put: Vec<(&str, &[u8])> = arguments.iter().map(|list| ("arguments", list.as_slice())).collect();
    object_with(entry, later, &put)
}

/// An array with other elements in place of some.
fn mapped(array: &[u8], change: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let elements = json::elements(array).into_iter().map(|place| place.of(array));
    let changed: Vec<_> =
        elements.map(|element| change(element).unwrap_or_else(|| element.to_vec())).collect();
    [b"[", &changed.join(&b',')[..], b"]"].concat()
}
