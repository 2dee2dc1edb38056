//! How does one entry of another program's file become a backend?

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    Entry, Names, Purpose, Server, Taken,
    reference::{Template, variable_for, variable_of_input},
};
use crate::{
    backend::{Settings, TransportKind},
    config::{Environment, complaint::Place, secret, similar},
    settings::{FromEnv, Text},
};

/// Keys that are about the client, and so mean nothing to a gateway.
const OF_THE_CLIENT: [&str; 12] = [
    "autoApprove",
    "alwaysAllow",
    "dev",
    "gallery",
    "version",
    "description",
    "icon",
    "id",
    "name",
    "displayName",
    "timeout",
    "trust",
];

/// Variables that name a place on this machine or whom it belongs to.
const PLACES: [&str; 5] = ["HOME", "USER", "PWD", "TMPDIR", "APPDATA"];

/// What is wrong, and what would be right.
type Fault = (String, String);

pub struct Reader<'a> {
    pub file: &'a str,
    pub purpose: Purpose,
    pub environment: &'a Environment,
    /// What VS Code asks the user for: the id, and how it asks.
    pub inputs: &'a BTreeMap<String, String>,
    pub taken: &'a mut Taken,
}

impl Reader<'_> {
    pub fn read(&mut self, entry: &Entry<'_>, names: &mut Names, place: Place) -> Result<(), Fault> {
        let Ok(mut members) = serde_json::from_str::<Map<String, Value>>(entry.json.get()) else {
            return Err(("is no server".into(), "write an object with \"command\" or \"url\"".into()));
        };
        let mut server =
            Server { name: names.give(&entry.name), settings: Settings::default(), unwritten: vec![], place };
        self.connection(&mut server, &mut members)?;
        if server.name != entry.name {
            let of = entry.project.as_ref().map(|project| format!(" of {project}")).unwrap_or_default();
            self.remark(&server, format!("was called \"{}\"{of}", entry.name));
        }
        server.settings.env = self.texts(&server, "env", members.remove("env"))?;
        server.settings.headers = self.texts(&server, "headers", members.remove("headers"))?;
        self.rest(&mut server, members);
        self.taken.servers.push(server);
        Ok(())
    }

    fn remark(&mut self, server: &Server, what: impl std::fmt::Display) {
        self.taken.remarks.push(format!("{}: {what}", server.name));
    }

    /// What is started, or what is called.
    fn connection(&mut self, server: &mut Server, members: &mut Map<String, Value>) -> Result<(), Fault> {
        let kind = ["type", "transport"].into_iter().find_map(|key| text_of(members.remove(key)));
        let url = ["url", "serverUrl", "httpUrl"].into_iter().find_map(|key| text_of(members.remove(key)));
        let command = text_of(members.remove("command"));
        let arguments = members.remove("args");
        let remote = match kind.as_deref() {
            None => command.is_none(),
            Some("stdio" | "local") => false,
            Some("http" | "streamable-http" | "streamableHttp" | "sse" | "remote") => true,
            Some(other) => {
                let instead = similar::did_you_mean(other, &["stdio", "http", "sse"]);
                return Err((format!("is reached by \"{other}\", which is not spoken here"), instead));
            }
        };
        match (remote, command, url) {
            (true, _, Some(url)) => {
                let url = self.without_user(server, url, members);
                server.settings.url = self.plain(server, "url", &url)?;
                if kind.as_deref() == Some("sse") {
                    server.settings.transport = TransportKind::Sse;
                }
            }
            (false, Some(command), _) => self.program(server, &command, arguments)?,
            _ => {
                let what = "does not say what to start or what to call".to_owned();
                return Err((what, "write \"command\" or \"url\"".into()));
            }
        }
        if let Some(cwd) = text_of(members.remove("cwd")) {
            server.settings.cwd = self.plain(server, "cwd", &cwd)?.map(Into::into);
        }
        Ok(())
    }

    /// The URL, with the user and password in it put into a header, where no log shows them.
    fn without_user(&mut self, server: &Server, url: String, members: &mut Map<String, Value>) -> String {
        let Some(user) = secret::user_info(&url).filter(|user| !url[user.clone()].contains("${")) else {
            return url;
        };
        let headers = members.entry("headers").or_insert_with(|| Value::Object(Map::new()));
        if let Some(headers) = headers.as_object_mut() {
            let value = format!("Basic {}", STANDARD.encode(percent_decoded(&url[user.clone()])));
            headers.entry("Authorization").or_insert(Value::String(value));
        }
        if self.purpose == Purpose::Use {
            return format!("{}{}", &url[..user.start], &url[user.end + 1..]);
        }
        let what = "user and password of its url are sent as a header; \
                    the variable is what this prints: printf %s USER:PASSWORD | base64";
        self.remark(server, what);
        format!("{}{}", &url[..user.start], &url[user.end + 1..])
    }

    fn program(&mut self, server: &mut Server, command: &str, arguments: Option<Value>) -> Result<(), Fault> {
        let arguments = match arguments {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => list.into_iter().filter_map(|value| text_of(Some(value))).collect(),
            Some(_) => {
                return Err(("has \"args\" that are no list".into(), "write [\"one\", \"two\"]".into()));
            }
        };
        let blanks = command.trim().contains(char::is_whitespace) && !command.contains(['/', '\\']);
        if blanks && arguments.is_empty() {
            // Some clients have the whole line here; they start it through a shell.
            let mut words = command.split_whitespace().map(str::to_owned);
            let program = words.next().unwrap_or_default();
            server.settings.command = self.plain(server, "command", &program)?;
            return self.arguments(server, &words.collect::<Vec<_>>());
        }
        server.settings.command = self.plain(server, "command", command)?;
        self.arguments(server, &arguments)
    }

    fn arguments(&mut self, server: &mut Server, arguments: &[String]) -> Result<(), Fault> {
        let templates: Vec<_> = arguments.iter().map(|argument| Template::parse(argument)).collect();
        let written: Result<Vec<_>, _> =
            templates.iter().map(|template| self.expand(template, "args")).collect();
        match self.purpose {
            Purpose::Use => server.settings.args = written?,
            Purpose::File => {
                let secrets = secret::in_arguments(arguments.iter().map(String::as_str));
                if let (Ok(written), false) = (written, secrets.contains(&true)) {
                    server.settings.args = written;
                } else {
                    let shown = arguments.iter().zip(&secrets).map(|(argument, secret)| {
                        if *secret { "\"…\"".to_owned() } else { format!("{argument:?}") }
                    });
                    let shown = shown.collect::<Vec<_>>().join(", ");
                    self.leave_out(
                        server,
                        "args",
                        &format!("the arguments of {}, as a list: [{shown}]", server.name),
                    );
                }
            }
        }
        Ok(())
    }

    /// The value of a key that takes no reference.
    fn plain(&mut self, server: &mut Server, key: &'static str, text: &str) -> Result<Option<String>, Fault> {
        let expanded = self.expand(&Template::parse(text), key);
        if self.purpose == Purpose::Use {
            return expanded.map(Some);
        }
        match expanded {
            Ok(plain) if !secret::looks_like(&plain) && secret::user_info(&plain).is_none() => {
                Ok(Some(plain))
            }
            Ok(_) => {
                self.leave_out(server, key, &format!("the {key} of {}, which holds a secret", server.name));
                Ok(None)
            }
            Err(_) => {
                self.leave_out(server, key, &format!("the {key} of {}: {}", server.name, secret::mask(text)));
                Ok(None)
            }
        }
    }

    fn expand(&self, template: &Template, key: &str) -> Result<String, Fault> {
        // What other variables hold may be secret, and must not get into a file.
        let shown = |name: &str| self.purpose == Purpose::Use || PLACES.contains(&name);
        let known = |name: &str| self.environment.get(name).filter(|_| shown(name)).map(str::to_owned);
        template.expand(known).map_err(|name| not_set(key, &name))
    }

    /// Has the key set from the environment, since it cannot stand in a file.
    fn leave_out(&mut self, server: &mut Server, key: &'static str, what: &str) {
        server.unwritten.push(key);
        self.taken.variables.insert(overriding(&server.name, key), what.to_owned());
    }

    /// A table of texts that may be secret.
    fn texts(
        &mut self,
        server: &Server,
        table: &str,
        value: Option<Value>,
    ) -> Result<BTreeMap<String, Text>, Fault> {
        let mut texts = BTreeMap::new();
        let members = match value {
            None | Some(Value::Null) => return Ok(texts),
            Some(Value::Object(members)) => members,
            Some(_) => {
                return Err((
                    format!("has \"{table}\" that is no table"),
                    "write { \"NAME\": \"value\" }".into(),
                ));
            }
        };
        for (key, value) in members {
            let Some(value) = text_of(Some(value)) else {
                self.remark(server, format!("{table} {key} is no text and was left out"));
                continue;
            };
            let text = match self.purpose {
                Purpose::Use => {
                    let text = Template::parse(&value).into_text(self.environment);
                    text.map_err(|name| not_set(&format!("{table} {key}"), &name))?
                }
                Purpose::File => self.without_secret(server, table, &key, &value),
            };
            texts.insert(key, text);
        }
        Ok(texts)
    }

    /// The text as it may stand in a file: with the variable to set instead of its secret.
    fn without_secret(&mut self, server: &Server, table: &str, key: &str, value: &str) -> Text {
        let template = Template::parse(value);
        let named: Vec<_> = template.variables().map(str::to_owned).collect();
        match template.into_text(&Environment::default()) {
            Ok(Text::Env(reference)) => {
                let asked = self.inputs.iter().find(|(id, _)| variable_of_input(id) == reference.env);
                let asked = asked.map(|(_, says)| format!(" ({says})")).unwrap_or_default();
                let what = format!("{table} {key} of {}{asked}", server.name);
                self.taken.variables.entry(reference.env.clone()).or_insert(what);
                Text::Env(reference)
            }
            Ok(Text::Plain(plain)) => {
                let name_says = if table == "headers" { secret::is_header_of_one(key) } else { false };
                if plain.is_empty()
                    || !(name_says || secret::is_name_of_one(key) || secret::looks_like(&plain))
                {
                    for name in named {
                        self.remark(server, format!("{table} {key} has its default, whatever {name} holds"));
                    }
                    return Text::Plain(plain);
                }
                self.in_variable(server, table, key, &plain)
            }
            Ok(Text::File(file)) => Text::File(file),
            Err(_) => {
                let env = variable_for(&server.name, key);
                let what = format!("{table} {key} of {}: {}", server.name, secret::mask(value));
                self.taken.variables.insert(env.clone(), what);
                Text::Env(FromEnv { env, prefix: String::new() })
            }
        }
    }

    fn in_variable(&mut self, server: &Server, table: &str, key: &str, secret: &str) -> Text {
        let scheme = ["Bearer ", "Basic ", "token "].into_iter().find(|scheme| secret.starts_with(scheme));
        let (prefix, secret) = secret.split_at(scheme.map_or(0, str::len));
        let own = match table {
            "headers" if key.eq_ignore_ascii_case("authorization") => variable_for(&server.name, "token"),
            "headers" => variable_for(&server.name, key),
            _ => key.to_owned(),
        };
        let free = |name: &String| self.taken.secrets.get(name).is_none_or(|taken| taken == secret);
        let candidates =
            [own, variable_for(&server.name, key), variable_for(&server.name, &format!("{table}_{key}"))];
        let last = candidates[2].clone();
        let env = candidates.into_iter().find(free).unwrap_or(last);
        self.taken.secrets.insert(env.clone(), secret.to_owned());
        let what = format!("{table} {key} of {}; its value stands in {}", server.name, self.file);
        self.taken.variables.entry(env.clone()).or_insert(what);
        Text::Env(FromEnv { env, prefix: prefix.to_owned() })
    }

    /// Everything that is not how it is reached.
    fn rest(&mut self, server: &mut Server, mut members: Map<String, Value>) {
        let off = members.remove("disabled") == Some(Value::Bool(true));
        if off || members.remove("enabled") == Some(Value::Bool(false)) {
            server.settings.enabled = Some(false);
        }
        if members.remove("envFile").is_some() {
            self.remark(server, "envFile was left out; write what is in it under `env`");
        }
        let (client, unknown): (Vec<_>, Vec<_>) =
            members.keys().map(String::as_str).partition(|key| OF_THE_CLIENT.contains(key));
        if !client.is_empty() {
            self.remark(server, format!("{} left out, being about the client", similar::list(&client)));
        }
        if !unknown.is_empty() {
            self.remark(server, format!("{} left out, having no counterpart here", similar::list(&unknown)));
        }
    }
}

/// The variable that sets a backend's key.
pub fn overriding(name: &str, key: &str) -> String {
    format!("WAYSTATION_BACKENDS__{}__{}", name.to_uppercase().replace('-', "_"), key.to_uppercase())
}

fn not_set(key: &str, variable: &str) -> Fault {
    (format!("{key} needs the variable {variable}, which is not set"), "set it".into())
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    bytes
}

/// A value as text; people write numbers and truths without quotes.
fn text_of(value: Option<Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
