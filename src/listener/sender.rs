//! From which address does a request come, where a proxy stands in front of the gateway?
//!
//! What a header says of that is believed only of proxies that are configured, and only of the last
//! one that is: the list is read from its end, and the first address that is no proxy of ours is the
//! sender's. All before it may be invented. A proxy writes either `X-Forwarded-For` or `Forwarded`
//! (RFC 7239) and may let the other pass as its client wrote it; so where both are there, neither is
//! believed, and the request is the proxy's own.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, request::Parts};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::weaken;

const LIST: &str = "x-forwarded-for";
const STANDARD: &str = "forwarded";

/// Addresses that belong together, such as `10.0.0.0/8`; or one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let wrong =
            || format!("{text:?} is no network; write an address such as \"10.0.0.7\" or \"10.0.0.0/8\"");
        let network: IpNet = network.map_err(|_| wrong())?;
        if network.prefix_len() == 0 {
            return Err(format!("{text:?} is the whole world; write the addresses of your proxies"));
        }
        Ok(Self(network.trunc()))
    }
}

impl Network {
    pub fn has(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "An address, or a network such as 10.0.0.0/8." })
    }
}

/// Has a request say its sender's address where it said that of a proxy.
pub fn correct(request: &mut Parts, proxies: &[Network]) {
    if let Some(peer) = request.extensions.get_mut::<SocketAddr>() {
        peer.set_ip(sender(peer.ip(), &request.headers, proxies));
    }
}

/// From where a request comes that `peer` has sent.
fn sender(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> IpAddr {
    let peer = peer.to_canonical();
    if weaken::is("limit-believes-headers") {
        return addresses(headers).and_then(|all| all.first().copied().flatten()).unwrap_or(peer);
    }
    let ours = |address: IpAddr| proxies.iter().any(|network| network.has(address));
    if !ours(peer) || weaken::is("limit-believes-no-proxy") {
        return peer;
    }
    let mut sender = peer;
    for hop in addresses(headers).unwrap_or_default().into_iter().rev() {
        // Whoever hides, or cannot be read, is known by the proxy that took the request from him.
        let Some(address) = hop else { return sender };
        sender = address;
        if !ours(address) {
            break;
        }
    }
    sender
}

/// The addresses that the headers list, the sender's first. None for what is no address.
fn addresses(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let name = match (headers.contains_key(LIST), headers.contains_key(STANDARD)) {
        (true, false) => LIST,
        (false, true) => STANDARD,
        _ => return None,
    };
    let mut all = Vec::new();
    for line in headers.get_all(name) {
        let Ok(line) = line.to_str() else {
            all.push(None);
            continue;
        };
        match name {
            LIST => all.extend(line.split(',').map(|hop| address(hop.trim()))),
            _ => all.extend(outside_quotes(line, ',').into_iter().map(forwarded_for)),
        }
    }
    Some(all)
}

/// The `for` of one element of a `Forwarded` header.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut found = outside_quotes(element, ';').into_iter().filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
    });
    let (first, again) = (found.next()?, found.next());
    if again.is_some() {
        return None;
    }
    let quoted = first.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    address(quoted.unwrap_or(first))
}

/// The parts of a text between separators that are not in quotes.
fn outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if letter == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + letter.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// An address as proxies write it: with or without a port, of IPv6 with or without brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|socket: SocketAddr| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const PEER: &str = "10.0.0.1";

    fn network(text: &str) -> Result<Network, String> {
        Network::try_from(text.to_owned())
    }

    #[track_caller]
    fn check(peer: &str, headers: &[(&'static str, &str)], expected: &str) {
        let proxies = [network("10.0.0.0/8").unwrap(), network("fd00::/16").unwrap()];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let found = sender(peer.parse().unwrap(), &map, &proxies);
        assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {headers:?}");
    }

    #[test]
    fn the_last_hop_that_is_no_proxy_of_ours_is_the_sender() {
        check(PEER, &[], PEER);
        check(PEER, &[(LIST, "192.0.2.1")], "192.0.2.1");
        check(PEER, &[(LIST, "1.1.1.1, 192.0.2.1, 10.0.0.2")], "192.0.2.1");
        check(PEER, &[(LIST, "1.1.1.1"), (LIST, "192.0.2.1")], "192.0.2.1");
        check(PEER, &[(LIST, "10.0.0.3, 10.0.0.2")], "10.0.0.3");
        check(PEER, &[(LIST, "192.0.2.1:4711")], "192.0.2.1");
        check(PEER, &[(LIST, "[2001:db8::1]:4711")], "2001:db8::1");
        check(PEER, &[(LIST, "::ffff:192.0.2.1")], "192.0.2.1");
        check("::ffff:10.0.0.1", &[(LIST, "192.0.2.1")], "192.0.2.1");
        check("fd00::1", &[(LIST, "192.0.2.1")], "192.0.2.1");
        check(PEER, &[(STANDARD, "for=1.1.1.1, for=192.0.2.1;proto=https;by=10.0.0.2")], "192.0.2.1");
        check(PEER, &[(STANDARD, "proto=http; For=\"[2001:db8::1]:4711\"")], "2001:db8::1");
    }

    #[test]
    fn what_cannot_be_read_is_the_last_that_could() {
        check(PEER, &[(LIST, "192.0.2.1, unknown")], PEER);
        check(PEER, &[(LIST, "192.0.2.1, unknown, 10.0.0.2")], "10.0.0.2");
        check(PEER, &[(LIST, "192.0.2.1,")], PEER);
        check(PEER, &[(STANDARD, "for=_hidden")], PEER);
        check(PEER, &[(STANDARD, "for=192.0.2.1;for=192.0.2.2")], PEER);
        check(PEER, &[(STANDARD, "for=\"192.0.2.1, for=192.0.2.2")], PEER);
        check(PEER, &[(STANDARD, "for=\"a,for=192.0.2.1\"")], PEER);
        check(PEER, &[(LIST, "192.0.2.1"), (STANDARD, "for=192.0.2.2")], PEER);
    }

    #[test]
    fn networks_read_back_as_they_are_written() {
        for (text, shown) in
            [("10.0.0.0/8", "10.0.0.0/8"), ("10.0.0.7", "10.0.0.7/32"), ("10.1.2.3/8", "10.0.0.0/8")]
        {
            assert_eq!(network(text).unwrap().to_string(), shown);
        }
        for text in ["", "10.0.0.0/33", "localhost", "0.0.0.0/0", "::/0"] {
            assert!(network(text).unwrap_err().contains("; write"), "{text}");
        }
    }
}
