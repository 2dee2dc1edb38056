//! Is there room for one more connection, and for one more from this address?

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::limits::Settings;
use crate::{listener::sender::Network, weaken};

/// How many there may be from one address over a network, where nothing is said.
const PER_ADDRESS: usize = 100;

/// All connections there are.
#[derive(Debug)]
pub struct Seats {
    limit: usize,
    per_address: Option<usize>,
    proxies: Vec<Network>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    All,
    Address,
}

impl Full {
    /// The key that says how many there may be.
    pub fn key(self) -> &'static str {
        match self {
            Self::All => "listen.limits.connections",
            Self::Address => "listen.limits.connections_per_address",
        }
    }
}

/// The place of one connection, until this is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    /// Where it counts.
    address: Option<IpAddr>,
}

impl Seats {
    /// `files`: how many files the process may have open.
    pub fn new(settings: &Settings, proxies: &[Network], files: Option<u64>) -> Arc<Self> {
        let half = files.map_or(usize::MAX, |files| usize::try_from(files / 2).unwrap_or(usize::MAX));
        Arc::new(Self {
            limit: settings.connections.min(half),
            per_address: settings.connections_per_address,
            proxies: proxies.to_vec(),
            taken: Mutex::default(),
        })
    }

    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Result<Seat, Full> {
        let counted = self.counted(peer);
        let mut taken = self.taken();
        if taken.all >= self.limit && !weaken::is("listen-connections") {
            return Err(Full::All);
        }
        if let Some((address, limit)) = counted {
            let here = taken.by_address.entry(address).or_default();
            if *here >= limit && !weaken::is("listen-per-address") {
                return Err(Full::Address);
            }
            *here += 1;
        }
        taken.all += 1;
        Ok(Seat { seats: Arc::clone(self), address: counted.map(|(address, _)| address) })
    }

    /// As what an address counts, and how many there may be from it.
    fn counted(&self, peer: IpAddr) -> Option<(IpAddr, usize)> {
        let peer = peer.to_canonical();
        if self.proxies.iter().any(|proxies| proxies.has(peer)) {
            return None;
        }
        let unsaid = || (!peer.is_loopback()).then_some(PER_ADDRESS);
        let limit = self.per_address.or_else(unsaid)?;
        let address = match peer {
            IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & (u128::MAX << 64)).into(),
            v4 @ IpAddr::V4(_) => v4,
        };
        Some((address, limit))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        taken.all -= 1;
        let Some(address) = self.address else { return };
        if let Some(here) = taken.by_address.get_mut(&address) {
            *here -= 1;
            if *here == 0 {
                taken.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(settings: &Settings, peers: &[&str], expected: Result<(), Full>) {
        let proxies = [Network::try_from("10.0.0.0/8".to_owned()).unwrap()];
        let seats = Seats::new(settings, &proxies, Some(400));
        let (last, before) = peers.split_last().unwrap();
        let held: Vec<_> = before.iter().map(|peer| seats.take(peer.parse().unwrap()).unwrap()).collect();
        assert_eq!(seats.take(last.parse().unwrap()).map(drop), expected, "{peers:?}");
        drop(held);
        let left = seats.taken();
        assert_eq!((left.all, left.by_address.len()), (0, 0));
    }

    #[test]
    fn addresses_have_as_many_as_is_said() {
        let usual = Settings::default();
        check(&usual, &["192.0.2.1"; 100], Ok(()));
        check(&usual, &["192.0.2.1"; 101], Err(Full::Address));
        check(&usual, &["::ffff:192.0.2.1"; 101], Err(Full::Address));
        check(&usual, &[["2001:db8::1", "2001:db8::2"]; 51].concat()[..101], Err(Full::Address));
        check(&usual, &["127.0.0.1"; 200], Ok(()));
        check(&usual, &["10.1.2.3"; 200], Ok(()));
        // Half of the files that may be open.
        check(&usual, &["10.1.2.3"; 201], Err(Full::All));
        let two = Settings { connections_per_address: Some(2), ..Settings::default() };
        check(&two, &["127.0.0.1"; 3], Err(Full::Address));
        check(&two, &["127.0.0.1", "127.0.0.2", "127.0.0.1"], Ok(()));
        check(&Settings { connections: 1, ..two }, &["127.0.0.1", "127.0.0.2"], Err(Full::All));
    }
}
