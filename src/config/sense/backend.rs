//! Does a `[backends.NAME]` table make sense?

use std::{collections::HashSet, fmt::Display};

use http::{HeaderName, HeaderValue};
use reqwest::Url;

use super::time;
use crate::{
    backend::{Balance, Group, Settings, TransportKind},
    config::{
        Environment,
        complaint::{Complaint, Complaints},
        document::dotted,
        mcp_json, secret,
    },
    settings::{FromEnv, FromFile, Text},
};

const LONGEST_NAME: usize = 32;

/// Headers that are about one hop or about the message, and so are written for each request.
const OURS: [&str; 12] = [
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "accept",
    "last-event-id",
    "expect",
];

pub fn at(name: &str, key: &str) -> String {
    if key.is_empty() { dotted(&["backends", name]) } else { dotted(&["backends", name, key]) }
}

/// Why this cannot be a backend's name, and what could be.
pub fn name_fault(name: &str) -> Option<(String, String)> {
    let lower_or_digit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends =
        name.bytes().next().is_some_and(lower_or_digit) && name.bytes().last().is_some_and(lower_or_digit);
    let fine = ends && name.bytes().all(|b| lower_or_digit(b) || b == b'-');
    if name == "waystation" {
        Some(("is the name of the gateway's own backend".into(), "give it another name".into()))
    } else if !fine {
        let what = "a backend's name has small letters, digits and, between them, hyphens";
        let valid = mcp_json::valid_name(name);
        Some((what.into(), format!("call it [backends.{valid}]; a prefix may have other letters")))
    } else if name.len() > LONGEST_NAME {
        let what = format!("a backend's name has no more than {LONGEST_NAME} letters");
        Some((what, format!("call it for instance [backends.{}]", mcp_json::valid_name(name))))
    } else {
        None
    }
}

/// What one backend is looked at with.
pub struct Look<'a> {
    pub name: &'a str,
    pub settings: &'a Settings,
    pub environment: &'a Environment,
    /// Is a key written in the file, where a secret must not be?
    pub in_file: &'a dyn Fn(&str) -> bool,
    pub complaints: &'a mut Complaints,
}

impl Look<'_> {
    /// All that is wrong with it.
    pub fn through(mut self) {
        self.connection();
        if let Some(prefix) = &self.settings.prefix {
            self.prefix(prefix);
        }
        if let Some(timeout) = self.settings.connect_timeout {
            time(&at(self.name, "connect_timeout"), timeout, self.complaints);
        }
        if let Some(idle) = self.settings.idle {
            time(&at(self.name, "idle"), idle, self.complaints);
        }
        if self.settings.max_connections.is_some_and(|most| most < 2) {
            let what = "is not enough: one is always there, over which the gateway reads what there is";
            self.complain(at(self.name, "max_connections"), what, "write 2 or more");
        }
        self.env();
        self.headers();
        self.auth();
        self.plain_secrets();
    }

    fn complain(&mut self, at: impl Display, what: impl Display, instead: impl Display) {
        self.complaints.push(Complaint::new(at, what, instead));
    }

    /// A program or an address, and what belongs to the one and not to the other.
    fn connection(&mut self) {
        if self.settings.openrouter.is_some() {
            return self.models();
        }
        let replicas = !self.settings.urls.is_empty();
        match (&self.settings.command, &self.settings.url) {
            (None, None) if replicas => return self.replicas(),
            (_, Some(_)) | (Some(_), _) if replicas => {
                let what = "stands beside `command` or `url`, and a backend is one or the other";
                self.complain(at(self.name, "urls"), what, "leave out one of them");
            }
            _ => self.replicas_only(),
        }
        match (&self.settings.command, &self.settings.url) {
            (None, None) => self.complain(
                at(self.name, ""),
                "neither `command` nor `url` nor `openrouter` says what answers here",
                "write command = \"…\" for a program, url = \"https://…\" for a server, or openrouter = {} for models",
            ),
            (Some(_), Some(_)) => self.complain(
                at(self.name, "url"),
                "a backend is a program or a server, not both",
                "leave out `command` or `url`, or make two backends of it",
            ),
            (Some(program), None) => self.command(program),
            (None, Some(address)) => self.url(address),
        }
    }

    /// Models behind tools: nothing of a program or a server, and secrets that can be had.
    fn models(&mut self) {
        let Settings { command, url, urls, args, env, headers, auth, openrouter, .. } = self.settings;
        let foreign = [
            ("command", command.is_some()),
            ("url", url.is_some()),
            ("urls", !urls.is_empty()),
            ("args", !args.is_empty()),
            ("env", !env.is_empty()),
            ("headers", !headers.is_empty()),
            ("auth", auth.is_some()),
        ];
        for (key, _) in foreign.into_iter().filter(|(_, there)| *there) {
            let what = "stands beside `openrouter`, where the gateway itself answers";
            self.complain(at(self.name, key), what, "leave it out, or make two backends of it");
        }
        let Some(models) = openrouter else { return };
        let at = |key: &str| dotted(&["backends", self.name, "openrouter", key]);
        for (key, variable, text) in [
            ("api_key", "OPENROUTER_API_KEY", &models.api_key),
            ("management_key", "OPENROUTER_MANAGEMENT_KEY", &models.management_key),
            ("encryption_key", "WAYSTATION_CONVERSATIONS_KEY", &models.encryption_key),
        ] {
            if let Some(text) = text {
                self.text(&at(key), text, variable, |_| true);
            }
        }
        if self.settings.enabled != Some(false)
            && let Err(faults) = models.resolve()
        {
            for fault in faults {
                let (key, what) = fault.split_once(": ").unwrap_or(("openrouter", &fault));
                if !matches!(
                    key,
                    "openrouter.api_key" | "openrouter.management_key" | "openrouter.encryption_key"
                ) {
                    self.complain(self::at(self.name, key), what, "mend it, or leave it out");
                }
            }
        }
    }

    fn command(&mut self, program: &str) {
        let key = |key| at(self.name, key);
        let (command, headers, transport) = (key("command"), key("headers"), key("transport"));
        if program.trim().is_empty() {
            self.complain(&command, "is empty", "write the program's name or path");
        }
        // A path may have blanks; a name on PATH hardly does, but "npx -y server" is often written.
        let mut words = program.split_whitespace();
        if let (Some(first), true, false) =
            (words.next(), words.next().is_some(), program.contains(['/', '\\']))
        {
            let rest: Vec<_> = program.split_whitespace().skip(1).collect();
            let secrets = secret::in_arguments(rest.iter().copied());
            let shown =
                |(word, secret): (_, &bool)| if *secret { "\"…\"".into() } else { format!("{word:?}") };
            let rest: Vec<_> = rest.iter().zip(&secrets).map(shown).collect();
            let instead = format!("write command = {first:?} and args = [{}]", rest.join(", "));
            self.complain(&command, "is started without a shell, so this is one name", instead);
        }
        if !self.settings.headers.is_empty() {
            self.complain(
                headers,
                "a program gets no headers",
                "leave them out, or pass what they hold in `env`",
            );
        }
        if self.settings.auth.is_some() {
            let what = "is for servers with a `url`; a program gets its credentials in `env`";
            self.complain(key("auth"), what, "leave it out");
        }
        if self.settings.transport != TransportKind::Auto {
            let what =
                "is about servers with a `url`; a program is spoken to over its standard input and output";
            self.complain(transport, what, "leave it out");
        }
    }

    fn url(&mut self, address: &str) {
        if let Some((what, instead)) = url_fault(address) {
            self.complain(at(self.name, "url"), what, instead);
        }
        self.no_program();
    }

    fn no_program(&mut self) {
        let Settings { args, env, cwd, .. } = self.settings;
        let program_only = [("args", !args.is_empty()), ("env", !env.is_empty()), ("cwd", cwd.is_some())];
        for (key, _) in program_only.into_iter().filter(|(_, there)| *there) {
            let what = format!("`{key}` is for a program, and this backend has a `url`");
            self.complain(at(self.name, key), what, "leave it out");
        }
    }

    /// Keys that choose among several servers.
    fn replicas_only(&mut self) {
        let keys = [
            ("balance", self.settings.balance != Balance::default()),
            ("hedge", self.settings.hedge.is_some()),
        ];
        for (key, _) in keys.into_iter().filter(|(_, there)| *there) {
            let what = "chooses among several servers, and this backend is one";
            self.complain(
                at(self.name, key),
                what,
                "leave it out, or write the servers' addresses as `urls`",
            );
        }
    }

    /// Several servers that are the same.
    fn replicas(&mut self) {
        let mut seen = HashSet::new();
        for (place, address) in addresses(self.name, &self.settings.urls) {
            if let Some((what, instead)) = url_fault(address) {
                self.complain(place, what, instead);
            } else if !seen.insert(address) {
                self.complain(place, "is there twice", "leave out one of them");
            }
        }
        for (index, group) in self.settings.urls.iter().enumerate() {
            if group.addresses().is_empty() {
                let place = dotted(&["backends", self.name, "urls", &index.to_string()]);
                self.complain(place, "is empty", "write an address, or leave the list out");
            }
        }
        if let Some(hedge) = self.settings.hedge {
            time(&at(self.name, "hedge"), hedge, self.complaints);
        }
        if self.settings.auth.is_some() {
            let what = "gives tokens for one `url`, and these are several servers";
            self.complain(at(self.name, "auth"), what, "write `headers`, or one `url`");
        }
        self.no_program();
    }

    fn prefix(&mut self, prefix: &str) {
        let fine = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if !fine || prefix.len() > LONGEST_NAME {
            let what = format!("a prefix has up to {LONGEST_NAME} of the letters A-Z a-z 0-9 _ . -");
            self.complain(at(self.name, "prefix"), what, "write a shorter or plainer one, or \"\" for none");
        }
    }

    fn env(&mut self) {
        for (variable, text) in &self.settings.env {
            let at = dotted(&["backends", self.name, "env", variable]);
            if variable.is_empty() || variable.contains(['=', '\0']) {
                self.complain(&at, "is no name of a variable", "write a name such as API_KEY");
            }
            self.text(&at, text, &variable.to_uppercase(), secret::looks_like);
        }
    }

    fn headers(&mut self) {
        let variable = format!("{}_TOKEN", self.name.to_uppercase().replace('-', "_"));
        for (header, text) in &self.settings.headers {
            let at = dotted(&["backends", self.name, "headers", header]);
            match HeaderName::from_bytes(header.as_bytes()) {
                Err(_) => self.complain(&at, "is no name of a header", "write a name such as \"X-Api-Key\""),
                Ok(name) if OURS.contains(&name.as_str()) || name.as_str().starts_with("mcp-") => {
                    self.complain(&at, "is a header that the gateway writes itself", "leave it out");
                }
                Ok(_) => {}
            }
            let proof = secret::is_header_of_one(header);
            let value = self.text(&at, text, &variable, |text| proof || secret::looks_like(text));
            if value.is_some_and(|value| HeaderValue::from_str(&value).is_err()) {
                self.complain(at, "has a line end or another letter that no header can have", "take it out");
            }
        }
    }

    /// One source of tokens, and all that it needs.
    fn auth(&mut self) {
        let Some(auth) = &self.settings.auth else { return };
        let at = |key: &str| dotted(&["backends", self.name, "auth", key]);
        for (key, what, instead) in auth.faults() {
            self.complain(at(key), what, instead);
        }
        let has_header = self.settings.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"));
        if has_header {
            let what = "stands beside `auth`, and a server is proved to in one way";
            let header = dotted(&["backends", self.name, "headers", "Authorization"]);
            self.complain(header, what, "leave out this header, or the table [auth]");
        }
        if self.settings.transport == TransportKind::Sse {
            let what = "is how servers of 2024-11-05 are spoken to, which know no OAuth";
            self.complain(self::at(self.name, "transport"), what, "leave it out, or send `headers`");
        }
        let variable = format!("{}_SECRET", self.name.to_uppercase().replace('-', "_"));
        for (key, text) in [("client_secret", &auth.client_secret), ("private_key", &auth.private_key)] {
            if let Some(text) = text {
                self.text(&at(key), text, &variable, |_| true);
            }
        }
    }

    /// The text with its secret put in, if it can be had. `variable` could hold it instead.
    fn text(
        &mut self,
        at: &str,
        text: &Text,
        variable: &str,
        secret: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let left_out = self.settings.enabled == Some(false);
        match text {
            Text::Plain(text) if (self.in_file)(at) && secret(text) => {
                let prefix = ["Bearer ", "Basic "].into_iter().find(|scheme| text.starts_with(scheme));
                let prefix = prefix.map(|scheme| format!(", prefix = \"{scheme}\"")).unwrap_or_default();
                let instead = format!("write {{ env = \"{variable}\"{prefix} }} and set that variable");
                self.complain(at, "looks like a secret, which does not belong into a file", instead);
                None
            }
            Text::Plain(text) => Some(text.clone()),
            Text::Env(_) | Text::File(_) if left_out => None,
            Text::Env(FromEnv { env, prefix }) => {
                let secret = self.environment.get(env);
                if secret.is_none() {
                    let what = format!("the environment variable {env} is not set");
                    self.complain(at, what, "set it, or leave the entry out");
                }
                secret.map(|secret| format!("{prefix}{secret}"))
            }
            Text::File(FromFile { file, prefix }) => match std::fs::read_to_string(file) {
                Ok(secret) => Some(format!("{prefix}{}", secret.trim_end_matches(['\r', '\n']))),
                Err(why) => {
                    let what = format!("the secret's file {} cannot be read: {why}", file.display());
                    self.complain(at, what, "write the path of a file that holds nothing but the secret");
                    None
                }
            },
        }
    }

    /// Secrets in keys that take no references: such a key can be set from the environment as a
    /// whole.
    fn plain_secrets(&mut self) {
        let arguments = self.settings.args.iter().enumerate().map(|(index, text)| {
            (dotted(&["backends", self.name, "args", &index.to_string()]), "args", text)
        });
        // A user in it is told of on its own.
        let address = self.settings.url.iter().filter(|url| secret::user_info(url).is_none());
        let address = address.map(|text| (at(self.name, "url"), "url", text));
        let addresses = addresses(self.name, &self.settings.urls);
        let addresses = addresses.filter(|(_, url)| secret::user_info(url).is_none());
        let address = address.chain(addresses.map(|(at, text)| (at, "urls", text)));
        let secrets =
            arguments.chain(address).filter(|(at, _, text)| secret::looks_like(text) && (self.in_file)(at));
        for (at, key, _) in secrets.collect::<Vec<_>>() {
            let instead =
                format!("leave the key out here and set {} instead", mcp_json::overriding(self.name, key));
            self.complain(at, "looks like a secret, which does not belong into a file", instead);
        }
    }
}

/// The addresses of several servers, each with its place.
fn addresses<'a>(name: &'a str, groups: &'a [Group]) -> impl Iterator<Item = (String, &'a String)> {
    groups.iter().enumerate().flat_map(move |(at, group)| {
        let at = at.to_string();
        group.addresses().iter().enumerate().map(move |(inner, address)| {
            let inner = inner.to_string();
            let list = matches!(group, Group::Several(_));
            let path = ["backends", name, "urls", &at, &inner];
            (dotted(if list { &path } else { &path[..4] }), address)
        })
    })
}

fn url_fault(address: &str) -> Option<(String, &'static str)> {
    match Url::parse(address) {
        Err(why) => Some((format!("is no URL: {why}"), "write for instance \"https://example.com/mcp\"")),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            Some((format!("is not reached over HTTP but \"{}\"", url.scheme()), "write http:// or https://"))
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            let instead = "send them as a header: headers = { Authorization = { env = \"NAME\", prefix = \"Basic \" } }";
            Some(("holds a user's name or password, which would stand in logs".into(), instead))
        }
        Ok(url) if url.fragment().is_some() => {
            Some(("has a fragment, which is never sent".into(), "leave out # and what follows"))
        }
        Ok(_) => None,
    }
}
