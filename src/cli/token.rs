//! `waystation token`: a token for trying identities and rules, without an issuer.
//!
//! It is signed with a key that is made on this machine when it is first needed. No gateway believes
//! it until its routes.toml names the key set, which this command says how to write; there is no
//! default secret, and none that a program could guess.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use serde_json::json;

use super::{Outcome, Sources, fail, note, print};
use crate::{
    config::{Config, Environment},
    settings::Duration,
    store,
};

pub const EXAMPLES: &str = "\
Examples:
  waystation token --subject ada --group engineering
  WAYSTATION_TOKEN=$(waystation token --subject ada) waystation list

For trying things out: whoever can read the key file can be anybody. People and services get keys
(`waystation key`) or tokens of an issuer.";

/// Stands in the `iss` of these tokens. No name ends so, hence nobody answers under it.
const ISSUER: &str = "https://development.waystation.invalid";
const KEY_FILE: &str = "development.key";
const SET_FILE: &str = "development.jwks.json";
/// No gateway takes a token that is good for longer.
const LONGEST: u64 = 24 * 60 * 60;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Whose token it is.
    #[arg(long, value_name = "NAME", default_value = "developer")]
    subject: String,
    /// A group of theirs. May be given several times.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// A scope of the token. May be given several times.
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The gateway it is for [default: `identify.audience`, else the address that it listens on].
    #[arg(long, value_name = "URL")]
    audience: Option<String>,
    /// For how long it is good, up to 24h.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = lifetime)]
    expires: Duration,
    /// Where the key and, beside it, its public key set are kept
    /// [default: $XDG_STATE_HOME/waystation, which is in ~/.local/state unless set].
    #[arg(long, value_name = "FOLDER")]
    keys: Option<PathBuf>,
    #[command(flatten)]
    sources: Sources,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let time = Duration::try_from(text.to_owned())?;
    match time.0.as_secs() {
        1..=LONGEST => Ok(time),
        _ => Err("a token is good for 1s to 24h".into()),
    }
}

pub fn token(arguments: &Arguments, common: Sources, environment: &Environment) -> Outcome {
    let default = || store::Settings::default().file().parent().map(Path::to_owned).unwrap_or_default();
    let folder = arguments.keys.clone().unwrap_or_else(default);
    // First of all, since the configuration may name the key set already.
    let key = match key(&folder) {
        Ok(key) => key,
        Err(why) => return fail(format_args!("the key in {}: {why}", folder.display())),
    };
    let config = match arguments.sources.clone().or(common).load(environment) {
        Ok(loaded) => loaded.config,
        Err(outcome) => return outcome,
    };
    let usual =
        || config.identify.audience.clone().unwrap_or(format!("http://{}/mcp", config.listen.address));
    let audience = arguments.audience.clone().unwrap_or_else(usual);
    if !config.identify.issuer.iter().any(|issuer| issuer.issuer == ISSUER) {
        note(format_args!(
            "no gateway takes it yet; in routes.toml this does:\n{}",
            lines(&config, &audience, &folder)
        ));
    }
    print(&format!("{}\n", signed(&key, arguments, &audience, now())))
}

/// What makes a gateway believe tokens of this key.
fn lines(config: &Config, audience: &str, folder: &Path) -> String {
    let audience = match &config.identify.audience {
        None => format!("[identify]\naudience = {}\n", json!(audience)),
        Some(_) => String::new(),
    };
    let set = folder.join(SET_FILE);
    format!("\n{audience}[[identify.issuer]]\nissuer = {}\njwks_file = {}\n", json!(ISSUER), json!(set))
}

fn signed(key: &Ed25519KeyPair, arguments: &Arguments, audience: &str, now: u64) -> String {
    let Arguments { subject, groups, scopes, expires, .. } = arguments;
    let header = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": name_of(key) });
    let mut claims = json!({
        "iss": ISSUER, "aud": audience, "sub": subject, "iat": now, "exp": now + expires.0.as_secs(),
    });
    if !groups.is_empty() {
        claims["groups"] = json!(groups);
    }
    if !scopes.is_empty() {
        claims["scope"] = json!(scopes.join(" "));
    }
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&header), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes()));
    format!("{text}.{signature}")
}

/// The key of this folder, made where there is none, with its public set beside it.
fn key(folder: &Path) -> Result<Ed25519KeyPair, String> {
    let file = folder.join(KEY_FILE);
    let told = |why: io::Error| why.to_string();
    let text = match fs::read(&file) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder).map_err(told)?;
            let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new());
            let made = made.map_err(|_| "no random numbers can be had")?;
            let mut options = fs::OpenOptions::new();
            let mut out = options.write(true).create_new(true).mode(0o600).open(&file).map_err(told)?;
            io::Write::write_all(&mut out, made.as_ref()).map_err(told)?;
            made.as_ref().to_vec()
        }
        other => other.map_err(told)?,
    };
    let mode = fs::metadata(&file).map_err(told)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(format!(
            "{} can be read by others, who could be anybody then; delete it",
            file.display()
        ));
    }
    let wrong = |_| format!("{} is no Ed25519 key (PKCS #8); delete it for a new one", file.display());
    let key = Ed25519KeyPair::from_pkcs8(&text).map_err(wrong)?;
    let public = URL_SAFE_NO_PAD.encode(key.public_key());
    let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": name_of(&key), "x": public }] });
    fs::write(folder.join(SET_FILE), format!("{set:#}\n")).map_err(told)?;
    Ok(key)
}

/// Another key has another name.
fn name_of(key: &Ed25519KeyPair) -> String {
    let digest = digest::digest(&digest::SHA256, key.public_key().as_ref());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..12])
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
