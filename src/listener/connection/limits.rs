//! How much may one client's connection take: of time, of memory, of connections?

use std::time;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::settings::{Duration, Size};

/// `[listen.limits]`: when a connection is cut, and what is not taken from one.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How many connections there may be; never more than half of the files that the system allows
    /// the process. One more is closed at once.
    pub connections: usize,
    /// How many of them from one address (of IPv6, from one /64). Where nothing is said it is 100, and
    /// any number from this machine; from `listen.trusted_proxies` it always is any number.
    pub connections_per_address: Option<usize>,
    /// How long TLS and the head of a request may take, from the first byte of it on; and how long a
    /// new connection may send nothing.
    pub head: Duration,
    /// How many headers a request may have.
    pub headers: usize,
    /// How long a header may be, with its name; and the first line.
    pub header_size: Size,
    /// How long all of them may be together.
    pub head_size: Size,
    /// How long the body of a request may take.
    pub body: Duration,
    /// How much of a body must come in a second, on average after the first sixth of that time. "0 B" for
    /// any.
    pub body_rate: Size,
    /// How long a client may take nothing of what is sent to it.
    pub write: Duration,
    /// How long a connection may be at rest between two requests.
    pub idle: Duration,
    /// How many requests may be under way at once on one connection of HTTP/2.
    pub streams: u32,
    /// How long requests under way may take when the gateway stops.
    pub drain: Duration,
}

impl Default for Settings {
    /// As proxies at the edge of a network have them.
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: None,
            head: Duration::seconds(10),
            headers: 64,
            header_size: Size(8 << 10),
            head_size: Size(32 << 10),
            body: Duration::seconds(30),
            body_rate: Size(1 << 10),
            write: Duration::seconds(30),
            idle: Duration::seconds(75),
            streams: 100,
            drain: Duration::seconds(30),
        }
    }
}

/// How fast a body must come.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    whole: time::Duration,
    bytes_per_second: usize,
}

impl Pace {
    /// A body may begin slowly, as connections do: for this part of its time.
    const GRACE: u32 = 6;

    pub fn of(settings: &Settings) -> Self {
        Self { whole: settings.body.0, bytes_per_second: settings.body_rate.0 }
    }

    /// How long after its beginning a body is too slow, of which so much has come.
    pub fn patience(self, come: usize) -> time::Duration {
        let seconds = come.checked_div(self.bytes_per_second).unwrap_or(usize::MAX);
        let grace = self.whole / Self::GRACE;
        let earned = grace.saturating_add(time::Duration::from_secs(seconds as u64));
        earned.min(self.whole)
    }

    /// The key that says so.
    pub fn key(self, come: usize) -> &'static str {
        if self.patience(come) < self.whole { "listen.limits.body_rate" } else { "listen.limits.body" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_earns_its_time_by_coming() {
        let pace = Pace::of(&Settings::default());
        for (come, seconds, key) in
            [(0, 5, "body_rate"), (1023, 5, "body_rate"), (10 << 10, 15, "body_rate"), (1 << 20, 30, "body")]
        {
            assert_eq!(pace.patience(come).as_secs(), seconds, "{come}");
            assert_eq!(pace.key(come), format!("listen.limits.{key}"), "{come}");
        }
        let any = Pace::of(&Settings { body_rate: Size(0), ..Settings::default() });
        assert_eq!(any.patience(0).as_secs(), 30);
    }
}
