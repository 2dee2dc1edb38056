//! Does a `[backends.NAME]` table make sense?

use http::{HeaderName, HeaderValue};
use reqwest::Url;

use super::time;
use crate::{
    backend::Settings,
    config::{
        Environment,
        complaint::{Complaint, Complaints},
        document::dotted,
        secret,
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
        let valid = crate::config::mcp_json::valid_name(name);
        Some((what.into(), format!("call it [backends.{valid}]; a prefix may have other letters")))
    } else if name.len() > LONGEST_NAME {
        let what = format!("a backend's name has no more than {LONGEST_NAME} letters");
        Some((what, format!("call it for instance [backends.{}]", crate::config::mcp_json::valid_name(name))))
    } else {
        None
    }
}

/// All that is wrong with one backend.
pub fn backend(
    name: &str,
    settings: &Settings,
    environment: &Environment,
    in_file: &dyn Fn(&str) -> bool,
    complaints: &mut Complaints,
) {
    connection(name, settings, complaints);
    if let Some(prefix) = &settings.prefix {
        prefix_letters(&at(name, "prefix"), prefix, complaints);
    }
    if let Some(timeout) = settings.connect_timeout {
        time(&at(name, "connect_timeout"), timeout, complaints);
    }
    for (variable, text) in &settings.env {
        let at = dotted(&["backends", name, "env", variable]);
        if variable.is_empty() || variable.contains(['=', '\0']) {
            complaints.push(Complaint::new(&at, "is no name of a variable", "write a name such as API_KEY"));
        }
        if let Err(complaint) =
            value(&at, text, &variable.to_uppercase(), false, settings, environment, in_file)
        {
            complaints.push(complaint);
        }
    }
    for (header, text) in &settings.headers {
        let at = dotted(&["backends", name, "headers", header]);
        header_name(&at, header, complaints);
        let proof = secret::is_header_of_one(header);
        let variable = format!("{}_TOKEN", name.to_uppercase().replace('-', "_"));
        match value(&at, text, &variable, proof, settings, environment, in_file) {
            Err(complaint) => complaints.push(complaint),
            Ok(Some(text)) if HeaderValue::from_str(&text).is_err() => {
                let what = "has a line end or another letter that no header can have";
                complaints.push(Complaint::new(at, what, "take it out"));
            }
            Ok(_) => {}
        }
    }
    plain_secrets(name, settings, in_file, complaints);
}

/// A program or an address, and what belongs to the one and not to the other.
fn connection(name: &str, settings: &Settings, complaints: &mut Complaints) {
    match (&settings.command, &settings.url) {
        (None, None) => complaints.push(Complaint::new(
            at(name, ""),
            "neither `command` nor `url` says what answers here",
            "write command = \"…\" for a program, or url = \"https://…\" for a server",
        )),
        (Some(_), Some(_)) => complaints.push(Complaint::new(
            at(name, "url"),
            "a backend is a program or a server, not both",
            "leave out `command` or `url`, or make two backends of it",
        )),
        (Some(program), None) => command(name, program, settings, complaints),
        (None, Some(address)) => url(name, address, settings, complaints),
    }
}

fn command(name: &str, program: &str, settings: &Settings, complaints: &mut Complaints) {
    if program.trim().is_empty() {
        complaints.push(Complaint::new(at(name, "command"), "is empty", "write the program's name or path"));
    }
    // A path may have blanks; a name on PATH hardly does, but "npx -y server" is often written.
    let mut words = program.split_whitespace();
    if let (Some(first), true, false) = (words.next(), words.next().is_some(), program.contains(['/', '\\']))
    {
        let rest: Vec<_> = program.split_whitespace().skip(1).map(|word| format!("{word:?}")).collect();
        let instead = format!("write command = {first:?} and args = [{}]", rest.join(", "));
        complaints.push(Complaint::new(
            at(name, "command"),
            "is started without a shell, so this is one name",
            instead,
        ));
    }
    if !settings.headers.is_empty() {
        let instead = "leave them out, or pass what they hold in `env`";
        complaints.push(Complaint::new(at(name, "headers"), "a program gets no headers", instead));
    }
    if settings.transport != crate::backend::TransportKind::Auto {
        let what = "is about servers with a `url`; a program is spoken to over its standard input and output";
        complaints.push(Complaint::new(at(name, "transport"), what, "leave it out"));
    }
}

fn url(name: &str, address: &str, settings: &Settings, complaints: &mut Complaints) {
    let (what, instead) = match Url::parse(address) {
        Err(why) => (format!("is no URL: {why}"), "write for instance \"https://example.com/mcp\""),
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            (format!("is not reached over HTTP but \"{}\"", url.scheme()), "write http:// or https://")
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            let instead = "send them as a header: headers = { Authorization = { env = \"NAME\", prefix = \"Basic \" } }";
            ("holds a user's name or password, which would stand in logs".into(), instead)
        }
        Ok(url) if url.fragment().is_some() => {
            ("has a fragment, which is never sent".into(), "leave out # and what follows")
        }
        Ok(_) => (String::new(), ""),
    };
    if !what.is_empty() {
        complaints.push(Complaint::new(at(name, "url"), what, instead));
    }
    let program_only = [
        ("args", settings.args.is_empty()),
        ("env", settings.env.is_empty()),
        ("cwd", settings.cwd.is_none()),
    ];
    for (key, _) in program_only.into_iter().filter(|(_, absent)| !absent) {
        let what = format!("`{key}` is for a program, and this backend has a `url`");
        complaints.push(Complaint::new(at(name, key), what, "leave it out"));
    }
}

fn prefix_letters(at: &str, prefix: &str, complaints: &mut Complaints) {
    let fine = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !fine || prefix.len() > LONGEST_NAME {
        let what = format!("a prefix has up to {LONGEST_NAME} of the letters A-Z a-z 0-9 _ . -");
        complaints.push(Complaint::new(at, what, "write a shorter or plainer one, or \"\" for none"));
    }
}

fn header_name(at: &str, header: &str, complaints: &mut Complaints) {
    let Ok(name) = HeaderName::from_bytes(header.as_bytes()) else {
        complaints.push(Complaint::new(at, "is no name of a header", "write a name such as \"X-Api-Key\""));
        return;
    };
    if OURS.contains(&name.as_str()) || name.as_str().starts_with("mcp-") {
        let what = "is a header that the gateway writes itself";
        complaints.push(Complaint::new(at, what, "leave it out"));
    }
}

/// The text that may be secret, if it need be looked at, or what is wrong with it.
fn value(
    at: &str,
    text: &Text,
    variable: &str,
    proof: bool,
    settings: &Settings,
    environment: &Environment,
    in_file: &dyn Fn(&str) -> bool,
) -> Result<Option<String>, Complaint> {
    let left_out = settings.enabled == Some(false);
    match text {
        Text::Plain(text) => {
            if in_file(at) && (proof || secret::looks_like(text)) {
                let prefix = ["Bearer ", "Basic "].into_iter().find(|scheme| text.starts_with(scheme));
                let prefix = prefix.map(|scheme| format!(", prefix = \"{scheme}\"")).unwrap_or_default();
                let instead = format!("write {{ env = \"{variable}\"{prefix} }} and set that variable");
                return Err(Complaint::new(
                    at,
                    "looks like a secret, which does not belong into a file",
                    instead,
                ));
            }
            Ok(Some(text.clone()))
        }
        Text::Env(_) | Text::File(_) if left_out => Ok(None),
        Text::Env(FromEnv { env, prefix }) => match environment.get(env) {
            Some(secret) => Ok(Some(format!("{prefix}{secret}"))),
            None => {
                let what = format!("the environment variable {env} is not set");
                Err(Complaint::new(at, what, "set it, or leave the entry out"))
            }
        },
        Text::File(FromFile { file, prefix }) => match std::fs::read_to_string(file) {
            Ok(secret) => Ok(Some(format!("{prefix}{}", secret.trim_end_matches(['\r', '\n'])))),
            Err(why) => {
                let what = format!("the secret's file {} cannot be read: {why}", file.display());
                Err(Complaint::new(at, what, "write the path of a file that holds nothing but the secret"))
            }
        },
    }
}

/// Secrets in keys that take no references: such a key can be set from the environment as a whole.
fn plain_secrets(
    name: &str,
    settings: &Settings,
    in_file: &dyn Fn(&str) -> bool,
    complaints: &mut Complaints,
) {
    let arguments = settings
        .args
        .iter()
        .enumerate()
        .map(|(index, text)| (dotted(&["backends", name, "args", &index.to_string()]), "ARGS", text));
    let address = settings.url.iter().map(|text| (at(name, "url"), "URL", text));
    for (at, key, _) in
        arguments.chain(address).filter(|(at, _, text)| secret::looks_like(text) && in_file(at))
    {
        let variable = format!("WAYSTATION_BACKENDS__{}__{key}", name.to_uppercase().replace('-', "_"));
        let instead = format!("leave the key out here and set {variable} instead");
        complaints.push(Complaint::new(
            at,
            "looks like a secret, which does not belong into a file",
            instead,
        ));
    }
}
