//! Do the tables about clients make sense: `[listen]`, `[session]`, `[deadline]`, `[log]`?

use std::net::{IpAddr, SocketAddr};

use tracing_subscriber::EnvFilter;

use super::time;
use crate::{
    backend,
    config::{
        complaint::{Complaint, Complaints},
        document::dotted,
        secret, similar,
    },
    listener, middleware, telemetry,
};

const PAGE_SIZES: std::ops::RangeInclusive<usize> = 1..=10_000;
const LARGEST_BODY: usize = 1 << 30;

/// `guarded`: identities are configured.
pub fn listen(settings: &listener::Settings, guarded: bool, complaints: &mut Complaints) {
    for (at, address) in [("listen.address", settings.address), ("listen.admin", settings.admin)] {
        let may_be_open = guarded && at == "listen.address";
        if !may_be_open && !is_loopback(address.ip()) {
            complaints.push(open_to_the_network(at, address));
        }
    }
    if settings.address == settings.admin && settings.address.port() != 0 {
        let what = "is also the address for clients, who must not reach what is for operators";
        complaints.push(Complaint::new("listen.admin", what, "give it another port"));
    }
    if !PAGE_SIZES.contains(&settings.page_size) {
        let what = format!("a page has {} to {} entries", PAGE_SIZES.start(), PAGE_SIZES.end());
        complaints.push(Complaint::new("listen.page_size", what, "write 1000, which is the default"));
    }
    if settings.body_limit.0 == 0 || settings.body_limit.0 > LARGEST_BODY {
        let what = "is not between 1 B and 1 GiB";
        complaints.push(Complaint::new("listen.body_limit", what, "write \"4 MiB\", which is the default"));
    }
    for (index, host) in settings.hosts.iter().enumerate() {
        if let Some(instead) = no_host(host) {
            complaints.push(Complaint::new(
                format!("listen.hosts.{index}"),
                "is not the name of a host",
                instead,
            ));
        }
    }
    for (index, origin) in settings.origins.iter().enumerate() {
        if let Some(instead) = no_origin(origin) {
            complaints.push(Complaint::new(format!("listen.origins.{index}"), "is not an origin", instead));
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Whoever can reach the address can use every backend with the gateway's own credentials.
fn open_to_the_network(at: &str, address: SocketAddr) -> Complaint {
    let port = address.port();
    if at == "listen.admin" {
        let what =
            format!("{address} can be reached from other machines, and it tells operators' matters to all");
        return Complaint::new(at, what, format!("write \"127.0.0.1:{port}\""));
    }
    let what = format!(
        "{address} can be reached from other machines, and since no identities are configured \
         everyone there could call every tool"
    );
    Complaint::new(at, what, format!("write \"127.0.0.1:{port}\", or say in [identify] who may come in"))
}

pub fn identify(settings: &middleware::identify::Settings, complaints: &mut Complaints) {
    if let Err(faults) = middleware::identify::Identify::new(settings) {
        for fault in faults {
            let (what, instead) = fault.split_once("; ").unwrap_or((&fault, ""));
            complaints.push(Complaint::new("identify", what, instead));
        }
    }
}

pub fn permit(
    rules: &[middleware::permit::Rule],
    identify: &middleware::identify::Settings,
    complaints: &mut Complaints,
) {
    for (index, rule) in rules.iter().enumerate() {
        let at = format!("permit.{index}");
        if rule.allow.is_empty() && rule.deny.is_empty() {
            let instead = "name what it allows, such as allow = [\"time__*\"]";
            complaints.push(Complaint::new(at.clone(), "allows nothing and denies nothing", instead));
        }
        if rule.who != Default::default() && *identify == Default::default() {
            let instead = "say in [identify] who issues tokens, or leave `who` out";
            complaints.push(Complaint::new(at, "is for somebody, but nobody is known here", instead));
        }
    }
}

/// What is looked at there needs no connection, so the part itself says what is wrong.
pub fn connect(settings: &backend::credential::DeskSettings, complaints: &mut Complaints) {
    for fault in backend::credential::Desk::new(settings, "http://localhost").err().into_iter().flatten() {
        let (what, instead) = fault.split_once("; ").unwrap_or((&fault, ""));
        complaints.push(Complaint::new("connect", what, instead));
    }
}

fn no_host(host: &str) -> Option<String> {
    let rest = host.split_once("://").map_or(host, |(_, rest)| rest);
    let bare = rest.split(['/', '?']).next().unwrap_or_default();
    let bare = bare.rsplit_once('@').map_or(bare, |(_, bare)| bare);
    let name = |text: &str| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c == '*');
    let right = if name(bare) { bare } else { "mcp.example.com" };
    (bare != host || !name(host)).then(|| format!("write a name alone, such as \"{right}\""))
}

fn no_origin(origin: &str) -> Option<String> {
    let right = "write scheme and host, such as \"https://app.example.com\"";
    let Ok(url) = reqwest::Url::parse(origin) else { return Some(right.into()) };
    // The one form that browsers send: without path, and without a port that goes without saying.
    let canonical = url.origin().ascii_serialization();
    match canonical == origin {
        true => None,
        false if url.origin().is_tuple() => Some(format!("write \"{canonical}\"")),
        false => Some(right.into()),
    }
}

pub fn session(settings: &listener::session::Settings, complaints: &mut Complaints) {
    time("session.idle", settings.idle, complaints);
    if settings.max == 0 {
        complaints.push(Complaint::new(
            "session.max",
            "no session at all could begin",
            "write 10000, which is the default",
        ));
    }
}

pub fn deadline(settings: &middleware::deadline::Settings, complaints: &mut Complaints) {
    time("deadline.idle", settings.idle, complaints);
    time("deadline.total", settings.total, complaints);
    if !settings.heartbeat.0.is_zero() {
        time("deadline.heartbeat", settings.heartbeat, complaints);
    }
    for (tool, times) in &settings.tools {
        for (key, set) in [("idle", times.idle), ("total", times.total)] {
            if let Some(set) = set {
                time(&dotted(&["deadline", "tools", tool, key]), set, complaints);
            }
        }
    }
}

pub fn log(settings: &telemetry::Settings, complaints: &mut Complaints) {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    let level = settings.level.trim();
    let right = "write a level such as \"info\", or a filter such as \"info,waystation=debug\"";
    // A word alone would be taken for the name of a module, and nothing would be logged.
    if !level.contains(['=', ',']) {
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            let hidden = secret::better_hidden(level);
            let what = if hidden { "is no level".into() } else { format!("\"{level}\" is no level") };
            complaints.push(Complaint::new("log.level", what, similar::did_you_mean(level, &LEVELS)));
        }
    } else if let Err(why) = EnvFilter::builder().parse(level) {
        complaints.push(Complaint::new("log.level", format!("is no filter: {why}"), right));
    }
}
