//! Which addresses a source may lie at, checked each time one is about to be called.
//!
//! Whoever writes a guard or answers a request chooses names, and a name may mean another address the
//! next time it is looked up. So names are looked up here and nowhere else: what the HTTP client is given
//! has been checked, and it is what the client then calls. An address in a URL is never looked up, and is
//! checked by [`check_host`].
//!
//! Private ranges are allowed, since Services of a cluster lie in them. Refused is what only this machine
//! or this link should reach, also where it hides in another notation.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Addresses at which clouds serve the credentials of a machine and that no range below holds.
const METADATA: [IpAddr; 5] = [
    // AWS and Google over IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Azure, Alibaba Cloud, Oracle Cloud.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// A range of addresses in CIDR notation, such as `127.0.0.0/8`; an address alone is a range of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u32,
}

/// Why a text is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("want a range of addresses such as 10.96.0.0/12 or fd00::/8, or one address")]
pub struct NotANetwork;

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(one, two)| (one, Some(two)));
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| NotANetwork))?;
        if prefix > longest {
            return Err(NotANetwork);
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let same = |one: u128, other: u128, length: u32| {
            let shift = length - self.prefix;
            self.prefix == 0 || one >> shift == other >> shift
        };
        match (self.address, address) {
            (IpAddr::V4(one), IpAddr::V4(other)) => same(one.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(one), IpAddr::V6(other)) => same(one.to_bits(), other.to_bits(), 128),
            _ => false,
        }
    }
}

/// An address that may not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} {what}, which no source may have; --allow-source-address allows it")]
pub struct Refused {
    address: IpAddr,
    what: &'static str,
}

impl Refused {
    /// What is wrong with it, such as `is a loopback address`.
    pub(super) fn what(&self) -> &'static str {
        self.what
    }
}

/// Addresses that may be called beyond the rule; empty: none.
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

    fn allows(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(address))
    }
}

/// Checks one address in all its meanings.
///
/// # Errors
/// [`Refused`] when it may not be called.
pub fn is_allowed(address: IpAddr, policy: &AddressPolicy) -> Result<(), Refused> {
    if policy.allows(address) {
        return Ok(());
    }
    let hidden = if let IpAddr::V6(v6) = address { hidden(v6) } else { Vec::new() };
    for meant in std::iter::once(address).chain(hidden.into_iter().map(IpAddr::V4)) {
        if let Some(what) = objection(meant)
            && !policy.allows(meant)
        {
            return Err(Refused { address, what });
        }
    }
    Ok(())
}

/// Checks the host of a URL where that is an address. A name passes: it is looked up when it is called.
///
/// # Errors
/// As [`is_allowed`].
pub fn check_host(host: &str, policy: &AddressPolicy) -> Result<(), Refused> {
    match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(address) => is_allowed(address, policy),
        Err(_) => Ok(()),
    }
}

/// What is wrong with calling an address, taken for what it is written as.
fn objection(address: IpAddr) -> Option<&'static str> {
    if METADATA.contains(&address) {
        return Some("serves the credentials of a machine");
    }
    let (loopback, link_local, unspecified, multicast, broadcast) = match address {
        IpAddr::V4(v4) => {
            (v4.is_loopback(), v4.is_link_local(), v4.octets()[0] == 0, v4.is_multicast(), v4.is_broadcast())
        }
        IpAddr::V6(v6) => {
            (v6.is_loopback(), v6.is_unicast_link_local(), v6.is_unspecified(), v6.is_multicast(), false)
        }
    };
    [
        (loopback, "is a loopback address"),
        (link_local, "is a link-local address"),
        (unspecified, "is an unspecified address"),
        (multicast, "is a multicast address"),
        (broadcast, "is the broadcast address"),
    ]
    .into_iter()
    .find_map(|(is, what)| is.then_some(what))
}

/// The IPv4 addresses that an IPv6 address may lead to.
fn hidden(v6: Ipv6Addr) -> Vec<Ipv4Addr> {
    let bits = v6.to_bits();
    let segments = v6.segments();
    let octets = v6.octets();
    let at = |shift: u32| Ipv4Addr::from_bits(u32::try_from(bits >> shift & 0xffff_ffff).unwrap_or_default());
    let mut found = Vec::new();
    match segments {
        // Mapped, and the older compatible form; `::` and `::1` are told above, and are in 0.0.0.0/8 here.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] => found.push(at(0)),
        // Translated (RFC 2765).
        [0, 0, 0, 0, 0xffff, 0, ..] => found.push(at(0)),
        // 6to4.
        [0x2002, ..] => found.push(at(80)),
        // Teredo: the server, and the client with its bits turned around.
        [0x2001, 0, ..] => found.extend([at(64), Ipv4Addr::from_bits(!at(0).to_bits())]),
        // NAT64: the well-known prefix, and the local one, which may hold the address at either place.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => found.push(at(0)),
        [0x64, 0xff9b, 1, ..] => {
            found.push(at(0));
            found.push(Ipv4Addr::new(octets[6], octets[7], octets[9], octets[10]));
        }
        _ => {}
    }
    // ISATAP, under any prefix.
    if let [.., 0 | 0x200, 0x5efe, _, _] = segments {
        found.push(at(0));
    }
    found
}

/// Looks names up.
pub trait Lookup: Send + Sync {
    /// The addresses of a name.
    fn addresses(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// As the operating system does.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn addresses(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) }
            .boxed()
    }
}

/// Why a host has no address to call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoAddress {
    /// It is not known, or could not be asked for.
    #[error("the name {0} has no address")]
    Unknown(String),
    /// It has none that a source may have.
    #[error("{0}: {1}")]
    Refused(String, Refused),
}

/// The addresses of a host, a name or an address without brackets, that may be called; at least one.
///
/// # Errors
/// [`NoAddress`] when there are none.
pub async fn resolve(host: &str, port: u16, policy: &AddressPolicy) -> Result<Vec<SocketAddr>, NoAddress> {
    let found = match host.parse() {
        Ok(address) => checked(host, vec![address], policy)?,
        Err(_) => looked_up(&SystemLookup, host, policy).await?,
    };
    Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

async fn looked_up(
    lookup: &dyn Lookup,
    name: &str,
    policy: &AddressPolicy,
) -> Result<Vec<IpAddr>, NoAddress> {
    let found = lookup.addresses(name.to_owned()).await;
    checked(name, found.map_err(|_| NoAddress::Unknown(name.to_owned()))?, policy)
}

/// Those of the addresses that may be called.
fn checked(host: &str, found: Vec<IpAddr>, policy: &AddressPolicy) -> Result<Vec<IpAddr>, NoAddress> {
    let (mut allowed, mut refused) = (Vec::with_capacity(found.len()), None);
    for address in found {
        match is_allowed(address, policy) {
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

/// Looks names up for the HTTP client, and gives it no address that may not be called.
#[derive(Clone)]
pub(super) struct CheckedResolver {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) policy: Arc<AddressPolicy>,
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { lookup, policy } = self.clone();
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let found = looked_up(lookup.as_ref(), &name, &policy).await?;
            let addresses: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn policy(allowed: &[&str]) -> AddressPolicy {
        AddressPolicy::new(allowed.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn refused(policy: &AddressPolicy, address: &str) -> bool {
        is_allowed(address.parse().unwrap(), policy).is_err()
    }

    #[test]
    fn what_only_this_machine_or_link_should_reach_is_refused_in_every_notation() {
        for address in [
            "127.0.0.1",
            "127.8.9.1",
            "169.254.169.254",
            "169.254.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.255.255.250",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            // IPv4 in other clothes.
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "2001:0:a9fe:a9fe::",
            "2001:0:808:808:0:0:5601:5601",
            "fd12::5efe:127.0.0.1",
            "fd12::200:5efe:a9fe:a9fe",
            // Credentials of machines beside link-local.
            "fd00:ec2::254",
            "fd20:ce::254",
            "168.63.129.16",
            "100.100.100.200",
            "::ffff:100.100.100.200",
        ] {
            assert!(refused(&policy(&[]), address), "{address}");
        }
    }

    #[test]
    fn clusters_and_the_world_may_be_called() {
        for address in [
            "10.96.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "240.0.0.1",
            "8.8.8.8",
            "fd00::1",
            "2001:4860:4860::8888",
            "::ffff:10.0.0.1",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
        ] {
            assert!(!refused(&policy(&[]), address), "{address}");
        }
    }

    #[test]
    fn what_is_allowed_by_name_is_allowed_in_every_notation_and_nothing_beside_it() {
        let policy = policy(&["127.0.0.1/32", "fe80::/10"]);
        for address in ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fe80::1"] {
            assert!(!refused(&policy, address), "{address}");
        }
        for address in ["127.0.0.2", "::1", "::ffff:127.0.0.2", "169.254.169.254", "ff02::1"] {
            assert!(refused(&policy, address), "{address}");
        }
    }

    #[test]
    fn ranges_are_read_as_written() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        assert_eq!(network("10.0.0.0/8").to_string(), "10.0.0.0/8");
        assert_eq!(network("::1").to_string(), "::1/128");
        assert!(network("0.0.0.0/0").contains("127.0.0.1".parse().unwrap()));
        assert!(!network("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(network("::/0").contains("::1".parse().unwrap()));
        assert!(network("10.96.0.0/12").contains("10.111.255.255".parse().unwrap()));
        assert!(!network("10.96.0.0/12").contains("10.112.0.0".parse().unwrap()));
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/x", "host"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_in_urls_are_checked_and_names_are_left_to_the_resolver() {
        let policy = policy(&[]);
        let check = |host| check_host(host, &policy);
        assert!(check("127.0.0.1").is_err() && check("[::1]").is_err());
        assert!(check("localhost").is_ok() && check("10.0.0.1").is_ok());
        let said = check("169.254.169.254").unwrap_err().to_string();
        assert!(said.starts_with("169.254.169.254 is a link-local address"), "{said}");
    }
    #[tokio::test]
    async fn of_a_name_only_what_may_be_called_is_called() {
        let refused = resolve("localhost", 443, &policy(&[])).await.unwrap_err();
        assert!(matches!(refused, NoAddress::Refused(..)), "{refused}");
        let found = resolve("localhost", 443, &policy(&["127.0.0.0/8"])).await.unwrap();
        assert_eq!(found, ["127.0.0.1:443".parse().unwrap()]);
        assert!(resolve("169.254.169.254", 80, &policy(&[])).await.is_err());
        assert!(resolve("10.0.0.1", 80, &policy(&[])).await.is_ok());
    }
}
