//! Addresses and blocks of them, as Kubernetes' libraries `IP` and `CIDR` have them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::functions::{Maybe, other};
use super::value::Value;

pub const IP: &str = "net.IP";
pub const CIDR: &str = "net.CIDR";

/// An address and how many of its bits name the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    ip: IpAddr,
    bits: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.bits)
    }
}

/// `None` for what Kubernetes refuses as well: zones, and IPv4 in the clothes of IPv6.
fn ip(text: &str) -> Option<IpAddr> {
    match text.parse().ok()? {
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => None,
        address => Some(address),
    }
}

impl Cidr {
    fn parse(text: &str) -> Option<Cidr> {
        let (address, bits) = text.split_once('/')?;
        let written_once = bits.bytes().all(|byte| byte.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
        let (ip, bits) = (ip(address)?, bits.parse().ok().filter(|_| written_once)?);
        (bits <= width(ip)).then_some(Cidr { ip, bits })
    }

    fn masked(self) -> Cidr {
        Cidr { ip: masked(self.ip, self.bits), bits: self.bits }
    }

    fn contains(self, ip: IpAddr) -> bool {
        self.ip.is_ipv4() == ip.is_ipv4() && masked(self.ip, self.bits) == masked(ip, self.bits)
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// What is made of a text.
pub fn made<'a>(function: &str, text: &str) -> Maybe<'a> {
    let no_ip = || other("the text is no IP address");
    Ok(match function {
        "ip" => Some(Value::Ip(ip(text).ok_or_else(no_ip)?)),
        "isIP" => Some(Value::Bool(ip(text).is_some())),
        "ip.isCanonical" => Some(Value::Bool(ip(text).ok_or_else(no_ip)?.to_string() == text)),
        "cidr" => Some(Value::Cidr(Cidr::parse(text).ok_or_else(|| other("the text is no CIDR"))?)),
        "isCIDR" => Some(Value::Bool(Cidr::parse(text).is_some())),
        _ => None,
    })
}

pub fn on_ip<'a>(function: &str, ip: IpAddr) -> Option<Value<'a>> {
    let link_local_unicast = || match ip {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    Some(match function {
        "family" => Value::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(ip.is_unspecified()),
        "isLoopback" => Value::Bool(ip.is_loopback()),
        "isLinkLocalUnicast" => Value::Bool(link_local_unicast()),
        "isLinkLocalMulticast" => Value::Bool(match ip {
            IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
            IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
        }),
        // private addresses are, as in Go
        "isGlobalUnicast" => Value::Bool(
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local_unicast())
                && ip != IpAddr::V4(Ipv4Addr::BROADCAST),
        ),
        _ => return None,
    })
}

pub fn on_cidr<'a>(function: &str, cidr: &Cidr, arguments: &[Value<'a>]) -> Maybe<'a> {
    Ok(match (function, arguments) {
        ("ip", []) => Some(Value::Ip(cidr.ip)),
        ("masked", []) => Some(Value::Cidr(cidr.masked())),
        ("prefixLength", []) => Some(Value::Int(i64::from(cidr.bits))),
        ("containsIP", [within]) => {
            let within = match within {
                Value::Ip(ip) => *ip,
                Value::Text(text) => ip(text.as_str()).ok_or_else(|| other("the text is no IP address"))?,
                _ => return Ok(None),
            };
            Some(Value::Bool(cidr.contains(within)))
        }
        ("containsCIDR", [within]) => {
            let within = match within {
                Value::Cidr(within) => *within,
                Value::Text(text) => Cidr::parse(text.as_str()).ok_or_else(|| other("the text is no CIDR"))?,
                _ => return Ok(None),
            };
            Some(Value::Bool(cidr.bits <= within.bits && cidr.contains(within.ip)))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_hold_what_begins_as_they_do() {
        for (block, within, expected) in [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("1.2.3.4/32", "1.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("2001:db8::/32", "2001:db8::1", true),
            ("::/0", "ffff::", true),
        ] {
            let block = Cidr::parse(block).expect("a block");
            assert_eq!(block.contains(ip(within).expect("an address")), expected, "{block} {within}");
        }
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/08", "10.0.0.0/+8", "::ffff:1.2.3.4/100", "10.0.0/8", "/8"] {
            assert_eq!(Cidr::parse(text), None, "{text}");
        }
        for text in ["1.2.3", "01.2.3.4", "fe80::1%eth0", "::ffff:1.2.3.4", ""] {
            assert_eq!(ip(text), None, "{text}");
        }
    }
}
