//! How do servers from other programs' files look in `routes.toml`?

use std::{collections::BTreeMap, fmt::Write as _};

use super::{Server, server::overriding};
use crate::{
    backend::{Settings, TransportKind},
    settings::Text,
};

/// The servers as tables.
pub fn write(servers: &[Server]) -> String {
    servers.iter().map(table).collect::<Vec<_>>().join("\n")
}

fn table(server: &Server) -> String {
    // Only what such files can say; the rest has its defaults.
    let Settings { command, args, env, cwd, url, transport, headers, enabled, .. } = &server.settings;
    let mut out = format!("[backends.{}]\n", server.name);
    let mut line = |key: &str, value: Option<toml_edit::Value>| {
        if server.unwritten.contains(&key) {
            let variable = overriding(&server.name, key);
            let _ = writeln!(out, "# {key} holds a secret or names a variable: set {variable}");
        } else if let Some(value) = value {
            let _ = writeln!(out, "{key} = {value}");
        }
    };
    let text = |text: &Option<String>| text.as_ref().map(|text| text.as_str().into());
    line("command", text(command));
    line(
        "args",
        (!args.is_empty()).then(|| args.iter().map(String::as_str).collect::<toml_edit::Array>().into()),
    );
    line("cwd", cwd.as_ref().map(|cwd| cwd.display().to_string().into()));
    line("url", text(url));
    line("transport", (*transport == TransportKind::Sse).then(|| "sse".into()));
    line("enabled", enabled.map(Into::into));
    for (key, texts) in [("env", env), ("headers", headers)] {
        out.push_str(&texts_of(&server.name, key, texts));
    }
    out
}

fn texts_of(name: &str, key: &str, texts: &BTreeMap<String, Text>) -> String {
    if texts.is_empty() {
        return String::new();
    }
    let mut out = format!("\n[backends.{name}.{key}]\n");
    for (key, text) in texts {
        let key = toml_edit::Key::new(key);
        let _ = writeln!(out, "{} = {}", key.display_repr(), value(text));
    }
    out
}

fn value(text: &Text) -> toml_edit::Value {
    let (key, place, prefix) = match text {
        Text::Plain(text) => return text.as_str().into(),
        Text::Env(from) => ("env", from.env.clone(), &from.prefix),
        Text::File(from) => ("file", from.file.display().to_string(), &from.prefix),
    };
    let mut table = toml_edit::InlineTable::new();
    table.insert(key, place.into());
    if !prefix.is_empty() {
        table.insert("prefix", prefix.as_str().into());
    }
    table.into()
}
