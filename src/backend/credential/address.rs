//! Is an address one that anybody on the internet may name?
//!
//! What a server says leads the gateway to other servers. Addresses of this machine, of the local
//! network and of the cloud's own services are reached by the gateway and not by who named them, so
//! they are refused, in whatever form: an IPv4 address can stand inside of an IPv6 one.
//! (IANA Special-Purpose Address Registries; RFC 6052, 3056, 4380, 5214.)

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), length)
}

const fn v6(first: u16, second: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), length)
}

/// None of these is a server's on the internet.
const NOT_PUBLIC: [Ipv4Net; 15] = [
    v4(0, 0, 0, 8),       // this network
    v4(10, 0, 0, 8),      // private
    v4(100, 64, 0, 10),   // behind a carrier's translation
    v4(127, 0, 0, 8),     // this machine
    v4(169, 254, 0, 16),  // the link, with the metadata of clouds
    v4(172, 16, 0, 12),   // private
    v4(192, 0, 0, 24),    // protocols' own
    v4(192, 0, 2, 24),    // documentation
    v4(192, 88, 99, 24),  // 6to4 relays
    v4(192, 168, 0, 16),  // private
    v4(198, 18, 0, 15),   // benchmarks
    v4(198, 51, 100, 24), // documentation
    v4(203, 0, 113, 24),  // documentation
    v4(224, 0, 0, 4),     // many at once
    v4(240, 0, 0, 4),     // reserved, and everybody
];

/// All that is given out of IPv6.
const GLOBAL: Ipv6Net = v6(0x2000, 0, 3);
/// What of that is no server's: protocols' own with Teredo, documentation, 6to4.
const NOT_GLOBAL: [Ipv6Net; 4] =
    [v6(0x2001, 0, 23), v6(0x2001, 0xdb8, 32), v6(0x2002, 0, 16), v6(0x3fff, 0, 20)];
/// Where a network without IPv4 has all of IPv4 (NAT64).
const TRANSLATED: Ipv6Net = v6(0x64, 0xff9b, 96);

/// May the gateway be led there?
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    !NOT_PUBLIC.iter().any(|net| net.contains(&address))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    let [.., c, d] = address.segments();
    if TRANSLATED.contains(&address) {
        return is_public_v4(Ipv4Addr::from((u32::from(c) << 16) | u32::from(d)));
    }
    GLOBAL.contains(&address) && !NOT_GLOBAL.iter().any(|net| net.contains(&address)) && !is_isatap(address)
}

/// Does the lower half lead to an IPv4 address, under any network's prefix?
fn is_isatap(address: Ipv6Addr) -> bool {
    let [_, _, _, _, a, b, ..] = address.segments();
    matches!(a, 0 | 0x200) && b == 0x5efe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_the_internet_are_public() {
        for address in [
            "93.184.216.34",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_ends_of_private_ranges_are_private() {
        for address in [
            "10.255.255.255",
            "172.31.255.255",
            "100.127.255.255",
            "198.19.255.255",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fdff::1",
            "ff02::1",
            "64:ff9b::a00:1",
            "64:ff9b:1::808:808",
            "2002:808:808::1",
            "2001:0:4136:e378::1",
            "2606:4700::5efe:a00:1",
            "2606:4700::200:5efe:808:808",
            "100::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
}
