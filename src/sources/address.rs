//! Which addresses a source may have.
//!
//! Who writes a guard chooses where we connect to from inside the cluster, so an address is checked after
//! the name was resolved, and what was checked is what is connected to: a name that answers
//! differently the second time gains nothing. Private addresses are allowed, since sources are mostly
//! Services of the cluster.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Addresses at which clouds answer instances with credentials, outside the link-local ranges.
const METADATA: [IpAddr; 5] = [
    // Alibaba Cloud.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    // Azure's wire server.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Oracle Cloud, and the address that RFC 7723 keeps for port control.
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    // AWS.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    // Google Cloud.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Addresses allowed beyond the rule; empty: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    allowed: Vec<Network>,
}

impl AddressPolicy {
    /// The rule, and whatever else `allowed` holds.
    #[must_use]
    pub fn new(allowed: Vec<Network>) -> Self {
        Self { allowed }
    }
}

/// A range of addresses, such as `127.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether an address is in it. An IPv4 address is in no range of IPv6 ones.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (first, address, width) = match (self.first, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                (u128::from(first.to_bits()), u128::from(address.to_bits()), 32)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => (first.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        let shift = width - u32::from(self.prefix);
        first.checked_shr(shift).unwrap_or(0) == address.checked_shr(shift).unwrap_or(0)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("want an address or a range such as 127.0.0.0/8, not {text:?}");
        let (first, prefix) = match text.split_once('/') {
            Some((first, prefix)) => (first, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = first.parse().map_err(|_| wrong())?;
        let width = if first.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|prefix| *prefix <= width).ok_or_else(wrong)?,
            None => width,
        };
        Ok(Self { first, prefix })
    }
}

/// An address that is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind}, which sources may not have")]
pub struct Refused {
    address: IpAddr,
    kind: Kind,
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unspecified,
    Loopback,
    LinkLocal,
    Multicast,
    Broadcast,
    Reserved,
    Metadata,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Unspecified => "an unspecified address",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "a broadcast address",
            Self::Reserved => "a reserved address",
            Self::Metadata => "the metadata service of a cloud",
        })
    }
}

/// Whether a source may have this address.
///
/// An IPv4 address within an IPv6 one (mapped, compatible, NAT64, 6to4) counts as the IPv4 address that
/// packets would reach.
///
/// # Errors
/// [`Refused`] says which rule refuses it.
pub fn is_allowed(address: IpAddr, policy: &AddressPolicy) -> Result<(), Refused> {
    let reached = match address {
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    let Some(kind) = refusal(reached) else { return Ok(()) };
    if policy.allowed.iter().any(|network| network.contains(address) || network.contains(reached)) {
        return Ok(());
    }
    Err(Refused { address, kind })
}

fn refusal(address: IpAddr) -> Option<Kind> {
    if METADATA.contains(&address) {
        return Some(Kind::Metadata);
    }
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            // The whole of "this network" (RFC 1122, 3.2.1.3): Linux connects 0.0.0.0 to itself.
            [0, ..] => Some(Kind::Unspecified),
            [127, ..] => Some(Kind::Loopback),
            [169, 254, ..] => Some(Kind::LinkLocal),
            [224..=239, ..] => Some(Kind::Multicast),
            [255, 255, 255, 255] => Some(Kind::Broadcast),
            [240..=255, ..] => Some(Kind::Reserved),
            _ => None,
        },
        IpAddr::V6(v6) => {
            if v6.is_unspecified() {
                Some(Kind::Unspecified)
            } else if v6.is_loopback() {
                Some(Kind::Loopback)
            } else if v6.is_unicast_link_local() {
                Some(Kind::LinkLocal)
            } else if v6.is_multicast() {
                Some(Kind::Multicast)
            } else {
                None
            }
        }
    }
}

/// The IPv4 address that an IPv6 one stands for, if it does.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // Mapped (RFC 4291, 2.5.5.2), compatible (2.5.5.1), translated (RFC 2765) and NAT64 (RFC 6052, RFC 8215).
        [0, 0, 0, 0, 0, 0xffff | 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0 | 1, _, _, _, high, low] => Some(v4(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// Why a name has no address to connect to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// It is not known, or could not be asked for.
    #[error("the name {0} has no address")]
    Unknown(String),
    /// It has none that a source may have.
    #[error("{0}: {1}")]
    Refused(String, Refused),
}

/// The addresses of a host that may be connected to, checked. The host is a name or an address, without
/// brackets.
///
/// # Errors
/// [`NoAddress`] when there are none.
pub async fn resolve(host: &str, port: u16, policy: &AddressPolicy) -> Result<Vec<SocketAddr>, NoAddress> {
    let found: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => tokio::net::lookup_host((host, port))
            .await
            .map_err(|_| NoAddress::Unknown(host.to_owned()))?
            .collect(),
    };
    let mut refused = None;
    let mut allowed = Vec::with_capacity(found.len());
    for address in found {
        match is_allowed(address.ip(), policy) {
            Ok(()) => allowed.push(address),
            Err(why) => refused = Some(why),
        }
    }
    match refused {
        _ if !allowed.is_empty() => Ok(allowed),
        Some(why) => Err(NoAddress::Refused(host.to_owned(), why)),
        None => Err(NoAddress::Unknown(host.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn allowed(address: &str) -> bool {
        is_allowed(address.parse().unwrap(), &AddressPolicy::default()).is_ok()
    }

    #[test]
    fn addresses_of_this_host_of_links_and_of_clouds_are_refused() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.1.1",
            "169.254.169.254",
            "169.254.170.2",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
        ] {
            assert!(!allowed(address), "{address} is allowed");
        }
    }

    #[test]
    fn an_ipv4_address_within_an_ipv6_one_counts_as_itself() {
        for address in [
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::ffff:0:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::127.0.0.1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(!allowed(address), "{address} is allowed");
        }
        assert!(allowed("::ffff:10.0.0.1"));
        assert!(allowed("64:ff9b::8.8.8.8"));
    }

    #[test]
    fn private_and_public_addresses_are_allowed() {
        for address in
            ["10.96.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "1.1.1.1", "fd12::1", "2606:4700::1"]
        {
            assert!(allowed(address), "{address} is refused");
        }
    }

    #[test]
    fn a_policy_allows_exactly_its_ranges() {
        let policy = AddressPolicy::new(vec!["127.0.0.0/30".parse().unwrap(), "::1".parse().unwrap()]);
        let allowed = |address: &str| is_allowed(address.parse().unwrap(), &policy).is_ok();
        assert!(allowed("127.0.0.1"));
        assert!(allowed("::ffff:127.0.0.3"));
        assert!(allowed("::1"));
        assert!(!allowed("127.0.0.4"));
        assert!(!allowed("169.254.169.254"));
        assert!(!allowed("fe80::1"));
    }

    #[test]
    fn ranges_are_read_as_people_write_them() {
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!("::/0".parse::<Network>().unwrap().contains("fe80::1".parse().unwrap()));
        for wrong in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/x", "1.2.3.4/-1"] {
            assert!(wrong.parse::<Network>().unwrap_err().contains("127.0.0.0/8"), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_name_of_which_every_address_is_refused_has_none() {
        let why = resolve("localhost", 443, &AddressPolicy::default()).await.unwrap_err();
        assert!(matches!(why, NoAddress::Refused(..)), "{why}");
        let policy = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]);
        let found = resolve("localhost", 443, &policy).await.unwrap();
        assert!(found.iter().all(|address| address.port() == 443 && address.ip().is_loopback()));
    }
}
