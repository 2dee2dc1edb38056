//! Does `[listen]` make sense?

use std::net::{IpAddr, SocketAddr};

use super::time;
use crate::{
    config::complaint::{Complaint, Complaints},
    listener::{self, connection, tls},
    settings::Size,
    weaken,
};

const PAGE_SIZES: std::ops::RangeInclusive<usize> = 1..=10_000;
const LARGEST_BODY: usize = 1 << 30;
/// The least that a head needs, and the most that is held of one.
const HEADS: [Size; 2] = [Size(1 << 10), Size(1 << 20)];

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
    limits(&settings.limits, complaints);
    if let Some(Err(wrong)) = settings.tls.as_ref().map(tls::Certificate::read) {
        complaints.push(Complaint::new(format!("listen.tls.{}", wrong.key), wrong.what, ""));
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
    ip.to_canonical().is_loopback() || weaken::is("defaults-open")
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

fn limits(settings: &connection::limits::Settings, complaints: &mut Complaints) {
    let connection::limits::Settings {
        connections,
        connections_per_address,
        head,
        headers,
        header_size,
        head_size,
        body,
        body_rate: _, // Any will do, and none is none.
        write,
        idle,
        streams,
        drain,
    } = settings;
    for (key, set) in [("head", head), ("body", body), ("write", write), ("idle", idle), ("drain", drain)] {
        time(&format!("listen.limits.{key}"), *set, complaints);
    }
    for (key, none, usual) in [
        ("connections", *connections == 0, "10000"),
        ("connections_per_address", *connections_per_address == Some(0), "100"),
        ("streams", *streams == 0, "100"),
        ("headers", *headers < 16, "64"),
    ] {
        if none {
            let instead = format!("write {usual}, which is the default");
            complaints.push(Complaint::new(format!("listen.limits.{key}"), "no client could call", instead));
        }
    }
    for (key, set, usual) in
        [("header_size", header_size, Size(8 << 10)), ("head_size", head_size, Size(32 << 10))]
    {
        if !(HEADS[0].0..=HEADS[1].0).contains(&set.0) {
            let what = format!("is not between {} and {}", HEADS[0], HEADS[1]);
            let instead = format!("write \"{usual}\", which is the default");
            complaints.push(Complaint::new(format!("listen.limits.{key}"), what, instead));
        }
    }
    if header_size.0 > head_size.0 {
        let what = format!("is more than listen.limits.head_size, {head_size}, which all headers share");
        complaints.push(Complaint::new("listen.limits.header_size", what, "write less, or more there"));
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
