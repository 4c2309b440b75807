//! Address prefixes: what limits count by, and the lists of networks in the configuration.
//!
//! One client rarely owns less than an IPv4 address or an IPv6 /64; its neighbourhood is a /24 or a /48.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: an address with its host bits cleared, and the number of bits that count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// A text that is no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address or prefix such as 127.0.0.0/8")]
pub struct InvalidPrefix;

impl Prefix {
    /// The network of that many bits around an address; more bits than the address has are cut.
    pub fn new(address: IpAddr, bits: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let bits = bits.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                Self { address: Ipv4Addr::from(u32::from(v4) & mask).into(), bits }
            }
            IpAddr::V6(v6) => {
                let bits = bits.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Self { address: Ipv6Addr::from(u128::from(v6) & mask).into(), bits }
            }
        }
    }

    /// One client: an IPv4 address or an IPv6 /64. An IPv4-mapped address counts as IPv4.
    pub fn client(address: IpAddr) -> Self {
        let bits = if address.to_canonical().is_ipv4() { 32 } else { 64 };
        Self::new(address, bits)
    }

    /// The client's neighbourhood: an IPv4 /24 or an IPv6 /48.
    pub fn neighbourhood(address: IpAddr) -> Self {
        let bits = if address.to_canonical().is_ipv4() { 24 } else { 48 };
        Self::new(address, bits)
    }

    /// The neighbourhood that this prefix lies in.
    pub fn wider(&self) -> Self {
        let bits = if self.address.is_ipv4() { 24 } else { 48 };
        Self::new(self.address, bits.min(self.bits))
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self::new(address, self.bits).address == self.address
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;
    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| InvalidPrefix)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse::<u8>().ok().filter(|bits| *bits <= bits_max).ok_or(InvalidPrefix)?,
            None => bits_max,
        };
        Ok(Self::new(address, bits))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A list of networks, such as `limits.exempt`.
#[derive(Debug, Clone, Default)]
pub struct PrefixSet(Vec<Prefix>);

impl PrefixSet {
    /// Reads a list; `conf` has refused texts that are no prefix already, here they would match nothing.
    pub fn parse(texts: &[String]) -> Self {
        Self(texts.iter().filter_map(|text| text.parse().ok()).collect())
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|prefix| prefix.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_client_is_one_v4_address_or_one_v6_64() {
        assert_eq!(Prefix::client(ip("192.0.2.9")).to_string(), "192.0.2.9/32");
        assert_eq!(Prefix::client(ip("2001:db8:1:2:3::4")).to_string(), "2001:db8:1:2::/64");
        assert_eq!(Prefix::client(ip("::ffff:192.0.2.9")).to_string(), "192.0.2.9/32");
        assert_eq!(Prefix::neighbourhood(ip("192.0.2.9")).to_string(), "192.0.2.0/24");
        assert_eq!(Prefix::client(ip("2001:db8:1:2:3::4")).wider().to_string(), "2001:db8:1::/48");
    }

    #[test]
    fn prefixes_match_by_their_bits() {
        fn check(prefix: &str, address: &str, inside: bool) {
            let prefix: Prefix = prefix.parse().expect("a prefix");
            assert_eq!(prefix.contains(ip(address)), inside, "{prefix} {address}");
        }
        check("127.0.0.0/8", "127.255.0.1", true);
        check("127.0.0.0/8", "128.0.0.1", false);
        check("127.0.0.1", "127.0.0.1", true);
        check("127.0.0.1", "127.0.0.2", false);
        check("0.0.0.0/0", "203.0.113.7", true);
        check("0.0.0.0/0", "::1", false);
        check("::/0", "2001:db8::1", true);
        check("10.0.0.0/8", "::ffff:10.1.2.3", true);
        check("2001:db8::/33", "2001:db8:8000::1", false);
    }

    #[test]
    fn texts_that_are_no_prefix_are_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "a/8", "10.0.0.0/-1"] {
            assert_eq!(text.parse::<Prefix>(), Err(InvalidPrefix), "{text:?}");
        }
    }
}
