//! What does a tool's entry say that calling it needs?

use crate::{
    backend::{Mirrored, TaskSupport},
    call::Hints,
    wire::json,
};

/// What a tool says of what calling it does.
pub fn hints(tool: &[u8]) -> Hints {
    let annotations = json::member(tool, "annotations").unwrap_or_default();
    let said = |hint| match json::member(annotations, hint) {
        Some(b"true") => Some(true),
        Some(b"false") => Some(false),
        _ => None,
    };
    Hints {
        read_only: said("readOnlyHint") == Some(true),
        idempotent: said("idempotentHint") == Some(true),
        destructive: said("destructiveHint"),
        open_world: said("openWorldHint"),
    }
}

/// What a tool of 2025-11-25 says of tasks.
pub fn task_support(tool: &[u8]) -> TaskSupport {
    let execution = json::member(tool, "execution").unwrap_or_default();
    let said = json::member(execution, "taskSupport").and_then(json::string);
    match said.as_deref() {
        Some("optional") => TaskSupport::Optional,
        Some("required") => TaskSupport::Required,
        _ => TaskSupport::None,
    }
}

/// The arguments that it wants repeated in headers.
pub fn mirrored(tool: &[u8]) -> Result<Vec<Mirrored>, String> {
    // Most tools have no such annotation, and looking for the word is cheaper than reading.
    if memchr::memmem::find(tool, b"x-mcp-header").is_none() {
        return Ok(Vec::new());
    }
    let schema = json::member(tool, "inputSchema").and_then(|schema| serde_json::from_slice(schema).ok());
    schema.map_or_else(|| Ok(Vec::new()), |schema| Mirrored::all(&schema))
}
