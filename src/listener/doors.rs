//! May a request come in, by the host it was sent to and the page it was sent from?
//!
//! A web page can make a browser send requests to a loopback address under a name of its own
//! (DNS rebinding), and then the only sign of it is that name. So requests are taken for names
//! that are known to be ours, and from pages of these names or of configured origins; a request
//! without an origin comes from no page. (Every revision, "Security Warning": Origin must be
//! validated.)

use std::{collections::HashSet, net::SocketAddr};

use http::{HeaderMap, HeaderValue, Uri, header, uri::Authority};

use crate::weaken;

/// The names that are ours, and the origins that are welcome.
#[derive(Debug)]
pub struct Doors {
    /// A few, so a look through them is the fastest.
    hosts: Vec<String>,
    /// Our own names with our port, as most requests have them.
    usual: Vec<String>,
    origins: HashSet<String>,
}

/// Why a request may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It does not say for which host it is, or not so that everybody reads the same.
    Unclear,
    Host,
    Origin,
}

impl Doors {
    pub fn new(address: SocketAddr, hosts: &[String], origins: &[String]) -> Self {
        let mut names = vec![bare(&address.ip().to_string()).to_owned()];
        names.extend_from_slice(hosts);
        if address.ip().is_loopback() || address.ip().is_unspecified() {
            names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
        }
        let with_port = |name: &String| match name.contains(':') {
            true => format!("[{name}]:{}", address.port()),
            false => format!("{name}:{}", address.port()),
        };
        let usual = names.iter().map(with_port).collect();
        let origins = origins.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase());
        Self { hosts: names, usual, origins: origins.collect() }
    }

    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        if weaken::is("defaults-open") {
            return Ok(());
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let authority = uri.authority().map(Authority::as_str);
        let is_ours = match (hosts.next(), hosts.next()) {
            (Some(host), None) => {
                let usual = self.usual.iter().any(|own| own.as_bytes() == host.as_bytes());
                if !usual || authority.is_some() {
                    clear(host, authority)?;
                }
                usual || host.to_str().is_ok_and(|host| self.is_ours(host))
            }
            (None, _) if authority.is_some() => authority.is_some_and(|authority| self.is_ours(authority)),
            _ if weaken::is("doors-unclear") => true,
            _ => return Err(Refusal::Unclear),
        };
        if (!is_ours && !weaken::is("doors-host")) || weaken::is("doors-shut") {
            return Err(Refusal::Host);
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(()),
            (Some(origin), None) if origin.to_str().is_ok_and(|origin| self.is_welcome(origin)) => Ok(()),
            _ if weaken::is("doors-origin") => Ok(()),
            _ => Err(Refusal::Origin),
        }
    }

    /// The port is not looked at: a forwarded port changes it, and a rebound name cannot hide
    /// behind it.
    fn is_ours(&self, authority: &str) -> bool {
        let name = without_port(authority);
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    fn is_welcome(&self, origin: &str) -> bool {
        let origin = origin.to_ascii_lowercase();
        let page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        self.origins.contains(&origin) || page.is_some_and(|authority| self.is_ours(authority))
    }
}

/// May nobody take a header for another host than we do, or the request's target for another?
fn clear(host: &HeaderValue, authority: Option<&str>) -> Result<(), Refusal> {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(byte);
    let written = !host.is_empty() && host.as_bytes().iter().all(letter);
    let alike = authority.is_none_or(|authority| authority.as_bytes().eq_ignore_ascii_case(host.as_bytes()));
    if (written && alike) || weaken::is("doors-unclear") { Ok(()) } else { Err(Refusal::Unclear) }
}

fn without_port(authority: &str) -> &str {
    let digits = authority.bytes().rev().take_while(u8::is_ascii_digit).count();
    match authority[..authority.len() - digits].strip_suffix(':') {
        Some(name) if !name.ends_with(':') => {
            // An IPv6 address in brackets, or a name; a bare IPv6 address has more colons.
            let colons = name.bytes().any(|b| b == b':');
            if colons && !name.ends_with(']') { authority } else { bare(name) }
        }
        _ => bare(authority),
    }
}

fn bare(name: &str) -> &str {
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(host: &str, origin: Option<&str>, expected: Result<(), Refusal>) {
        let origins = ["https://app.example.com/".to_owned()];
        let doors = Doors::new("127.0.0.1:8080".parse().unwrap(), &["mcp.example.com".to_owned()], &origins);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        origin.map(|origin| headers.insert(header::ORIGIN, origin.parse().unwrap()));
        assert_eq!(doors.check(&Uri::from_static("/mcp"), &headers), expected, "{host} {origin:?}");
    }

    #[test]
    fn requests_for_our_names_come_in() {
        for host in
            ["127.0.0.1:8080", "localhost:8080", "LocalHost", "[::1]:8080", "mcp.example.com", "127.0.0.1:1"]
        {
            check(host, None, Ok(()));
        }
        for host in [
            "evil.example:8080",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[::2]",
            "[::1",
            "[[::1]]",
        ] {
            check(host, None, Err(Refusal::Host));
        }
    }

    #[test]
    fn a_host_that_is_not_clear_is_none() {
        for host in ["", "localhost/?x=", "localhost:8080@evil", "localhost evil", "localhost,evil"] {
            check(host, None, Err(Refusal::Unclear));
        }
        let doors = Doors::new("127.0.0.1:8080".parse().unwrap(), &[], &[]);
        let of = |target: &'static str, hosts: &[&str]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, host.parse().unwrap());
            }
            doors.check(&Uri::from_static(target), &headers)
        };
        assert_eq!(of("/mcp", &[]), Err(Refusal::Unclear));
        assert_eq!(of("/mcp", &["localhost", "localhost"]), Err(Refusal::Unclear));
        assert_eq!(of("http://localhost/mcp", &["127.0.0.1"]), Err(Refusal::Unclear));
        assert_eq!(of("http://localhost/mcp", &["LOCALHOST"]), Ok(()));
        assert_eq!(of("http://localhost/mcp", &[]), Ok(()));
        assert_eq!(of("http://evil.example/mcp", &[]), Err(Refusal::Host));
    }

    #[test]
    fn pages_of_our_names_and_welcome_origins_come_in() {
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "https://app.example.com",
            "https://mcp.example.com",
        ] {
            check("localhost", Some(origin), Ok(()));
        }
        for origin in [
            "https://evil.example",
            "null",
            "http://localhost.evil.example",
            "file://",
            "https://app.example.com:8",
        ] {
            check("localhost", Some(origin), Err(Refusal::Origin));
        }
    }
}
