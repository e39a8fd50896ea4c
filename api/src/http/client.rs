//! The address of the client: the peer, or the address that a trusted proxy forwards.
//!
//! Must stay true: a client cannot choose its own address. `X-Forwarded-For` counts only from a peer in TRUSTED_PROXIES,
//! and only the entries that such proxies wrote. Proxies append, so the header is read from the right, up to the first
//! address that is not a trusted proxy.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use ipnet::IpNet;
use warp::http::HeaderMap;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The networks of the proxies in front of this api.
#[derive(Debug, Clone, Default)]
pub struct Proxies(Vec<IpNet>);

/// Networks or single addresses, separated by commas. May be empty.
impl FromStr for Proxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let entries = text.split(',').map(str::trim);
        let networks = entries.filter(|entry| !entry.is_empty()).map(network);
        networks.collect::<Result<_, _>>().map(Self)
    }
}

fn network(entry: &str) -> Result<IpNet, String> {
    let address = |_| entry.parse::<IpAddr>().map(IpNet::from);
    let network = entry.parse::<IpNet>().or_else(address);
    let network = network.map_err(|_| format!("{entry:?} is no network and no address"))?;
    // IPv4 peers are compared as IPv4: an IPv4 network written as IPv6 would contain none of them.
    match network.addr().to_canonical() {
        IpAddr::V4(_) if network.max_prefix_len() == 128 => {
            Err(format!("{entry}: write an IPv4 network as such"))
        }
        _ => Ok(network),
    }
}

/// The client of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    /// The request came through a trusted proxy, which may name its id and its trace.
    pub(super) is_behind_proxy: bool,
}

impl Proxies {
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let peer = peer.to_canonical();
        let is_behind_proxy = self.trusts(peer);
        let address = if is_behind_proxy {
            self.forwarded(peer, headers)
        } else {
            peer
        };
        Client {
            address,
            is_behind_proxy,
        }
    }

    /// The client behind a trusted `peer`. If an entry is not an address, it is `peer`, which let it pass.
    fn forwarded(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut named = peer;
        for line in headers.get_all(FORWARDED_FOR).iter().rev() {
            for entry in line.as_bytes().rsplit(|&byte| byte == b',') {
                let Some(address) = address(entry) else {
                    return peer;
                };
                if !self.trusts(address) {
                    return address;
                }
                named = address;
            }
        }
        named
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Warns of proxies that are missing in TRUSTED_PROXIES: all clients behind one share one rate.
#[derive(Debug)]
pub(super) struct ForwardedWarning(DefaultDirectRateLimiter);

impl Default for ForwardedWarning {
    /// One line a minute: any client can send the header.
    fn default() -> Self {
        let quota = Quota::with_period(Duration::from_secs(60)).expect("not 0");
        Self(RateLimiter::direct(quota))
    }
}

impl ForwardedWarning {
    pub(super) fn check(&self, client: Client, headers: &HeaderMap) {
        let ignored = !client.is_behind_proxy && headers.contains_key(FORWARDED_FOR);
        if ignored && self.0.check().is_ok() {
            tracing::warn!(
                peer.address = %client.address,
                "X-Forwarded-For is ignored, because its sender is not in TRUSTED_PROXIES; if it is your proxy, all its \
                 clients share one rate limit"
            );
        }
    }
}

/// An address, with or without a port, and IPv6 with or without brackets: all are in use.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry).ok()?.trim();
    let in_brackets = || entry.strip_prefix('[')?.strip_suffix(']');
    let address = entry.parse::<IpAddr>().ok();
    let address = address.or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()));
    let address = address.or_else(|| Some(in_brackets()?.parse::<Ipv6Addr>().ok()?.into()));
    address.map(|address| address.to_canonical())
}

/// The address or network that counts as one client. For IPv6 a /64: the smallest network that a site gets, and it can
/// change between 2^64 addresses in it.
pub(super) fn site(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use warp::http::HeaderValue;

    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(line).expect("visible"));
        }
        let peer = peer.parse().expect("an address");
        let proxies: Proxies = "10.0.0.0/8,fd00::/8".parse().expect("networks");
        proxies.client(peer, &headers).address.to_string()
    }

    #[test]
    fn networks_and_addresses_are_parsed() {
        let read = |text: &str| text.parse::<Proxies>().map(|proxies| proxies.0.len());
        for (text, count) in [
            ("", 0),
            (" , ", 0),
            ("10.0.0.5", 1),
            ("10.0.0.0/8, fd00::/8,", 2),
        ] {
            assert_eq!(read(text), Ok(count), "{text}");
        }
        for bad in [
            "proxy.example",
            "10.0.0.0/33",
            "::ffff:10.0.0.0/104",
            "10.0.0.0/8;fd00::/8",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_may_forward_an_address() {
        for (peer, lines, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.0.0.1", &["192.0.2.1:80"], "192.0.2.1"),
            ("fd00::1", &["2001:db8::7"], "2001:db8::7"),
            ("fd00::1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("fd00::1", &["[2001:db8::7]"], "2001:db8::7"),
            ("fd00::1", &["198.51.100.7, [fd00::2]"], "198.51.100.7"),
            ("10.0.0.1", &["[198.51.100.7]"], "10.0.0.1"),
            ("10.0.0.1", &["[2001:db8::7"], "10.0.0.1"),
            // The entries that the client wrote itself are on the left.
            (
                "10.0.0.1",
                &["8.8.8.8, 198.51.100.7, 10.0.0.2"],
                "198.51.100.7",
            ),
            (
                "10.0.0.1",
                &["8.8.8.8", "198.51.100.7", "10.0.0.2"],
                "198.51.100.7",
            ),
            ("10.0.0.1", &["nonsense, 198.51.100.7"], "198.51.100.7"),
            ("10.0.0.1", &["198.51.100.7, nonsense"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.7, "], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            assert_eq!(client(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn an_ipv6_site_is_one_client() {
        let site = |text: &str| site(text.parse().expect("an address")).to_string();
        assert_eq!(site("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(site("198.51.100.7"), "198.51.100.7");
    }
}
