//! May this address be dialled? Pure: the same question always has the same answer, and nothing is asked of the network.
//!
//! Built on the IANA special-purpose registries. IPv4 is closed by a list; IPv6 is closed except for the one block that
//! is handed out to the public (2000::/3), less what is special inside it, so that whatever is assigned next is closed too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(first: u16, second: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0), prefix)
}

/// IPv4 blocks that are not the public internet.
const CLOSED_V4: [Ipv4Net; 15] = [
    v4(0, 0, 0, 0, 8),       // this network
    v4(10, 0, 0, 0, 8),      // private
    v4(100, 64, 0, 0, 10),   // carrier-grade NAT
    v4(127, 0, 0, 0, 8),     // loopback
    v4(169, 254, 0, 0, 16),  // link local, cloud metadata
    v4(172, 16, 0, 0, 12),   // private
    v4(192, 0, 0, 0, 24),    // protocol assignments
    v4(192, 0, 2, 0, 24),    // documentation
    v4(192, 88, 99, 0, 24),  // 6to4 relays
    v4(192, 168, 0, 0, 16),  // private
    v4(198, 18, 0, 0, 15),   // benchmarks
    v4(198, 51, 100, 0, 24), // documentation
    v4(203, 0, 113, 0, 24),  // documentation
    v4(224, 0, 0, 0, 4),     // multicast
    v4(240, 0, 0, 0, 4),     // reserved, broadcast
];

/// The IPv6 block that is handed out to the public.
const OPEN_V6: Ipv6Net = v6(0x2000, 0, 3);

/// What is special inside of [`OPEN_V6`].
const CLOSED_V6: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),     // protocol assignments: Teredo, ORCHID, benchmarks
    v6(0x2001, 0xdb8, 32), // documentation
    v6(0x2002, 0, 16),     // 6to4, which carries an IPv4 address
    v6(0x3fff, 0, 20),     // documentation
];

/// Where clouds hand out credentials to whoever asks from inside. Closed even when the operator opens their network.
const METADATA: [IpAddr; 10] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), // AWS, GCP, Azure and most others
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),   // AWS ECS
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),  // AWS EKS
    IpAddr::V4(Ipv4Addr::new(169, 254, 0, 23)),    // Tencent
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), // Alibaba
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),     // Oracle
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),   // Azure's wire server, in the midst of public addresses
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), // AWS
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)), // AWS EKS
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), // GCP
];

/// Why an address may not be dialled. For the operator's log, not for whoever gave the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not an address of the public internet.
    #[error("not a public address; to allow it add its network to outbound.allow")]
    NotPublic,
    /// In `outbound.deny`.
    #[error("listed in outbound.deny")]
    Denied,
    /// A cloud's metadata service. There is no setting that opens it.
    #[error("a cloud metadata address, which no setting opens")]
    Metadata,
    /// A listener of this very process. There is no setting that opens it.
    #[error("a listener of this process, which no setting opens")]
    OwnListener,
    /// Not in `outbound.ports`.
    #[error("a port that is not in outbound.ports")]
    Port,
}

/// The rules, from the operator's settings. Cheap to check, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    ports: Vec<u16>,
    own_listeners: Vec<SocketAddr>,
}

impl AddressPolicy {
    /// `allow` opens networks that are not public, `deny` closes some on top of the built-in list and wins over `allow`,
    /// `ports` are the only ones that may be dialled (none: any but 0), `own_listeners` are never dialled.
    pub fn new(allow: Vec<IpNet>, deny: Vec<IpNet>, ports: Vec<u16>, own_listeners: Vec<SocketAddr>) -> Self {
        let own_listeners = own_listeners.into_iter().map(|own| SocketAddr::new(own.ip().to_canonical(), own.port())).collect();
        AddressPolicy { allow, deny, ports, own_listeners }
    }

    /// The address to dial, which is the canonical form of the one asked for, or why not.
    pub fn check(&self, address: IpAddr, port: u16) -> Result<SocketAddr, Refusal> {
        self.check_port(port)?;
        let address = address.to_canonical();
        if METADATA.contains(&address) || carried_v4(address).is_some_and(|inner| METADATA.contains(&IpAddr::V4(inner))) {
            return Err(Refusal::Metadata);
        }
        if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(Refusal::NotPublic);
        }
        let public = is_public(address);
        if self
            .own_listeners
            .iter()
            .any(|own| own.port() == port && (own.ip() == address || own.ip().is_unspecified() && !public))
        {
            return Err(Refusal::OwnListener);
        }
        if self.deny.iter().any(|net| net.contains(&address)) {
            return Err(Refusal::Denied);
        }
        if public || self.allows(address) { Ok(SocketAddr::new(address, port)) } else { Err(Refusal::NotPublic) }
    }

    /// Whether this port may be dialled at all.
    pub fn check_port(&self, port: u16) -> Result<(), Refusal> {
        if port == 0 || !self.ports.is_empty() && !self.ports.contains(&port) { Err(Refusal::Port) } else { Ok(()) }
    }

    /// Whether the operator opened the network that this address is in.
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow.iter().any(|net| net.contains(&address))
    }

    /// Whether the operator opened any network at all.
    pub fn allows_something(&self) -> bool {
        !self.allow.is_empty()
    }

    /// Whether a listener of this process accepts this port on every address of this machine.
    pub fn listens_everywhere(&self, port: u16) -> bool {
        self.own_listeners.iter().any(|own| own.port() == port && own.ip().is_unspecified())
    }
}

/// Whether the address belongs to the public internet. IPv4-mapped addresses are judged as IPv4.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !CLOSED_V4.iter().any(|net| net.contains(&address)) && !METADATA.contains(&IpAddr::V4(address)),
        IpAddr::V6(address) => OPEN_V6.contains(&address) && !CLOSED_V6.iter().any(|net| net.contains(&address)),
    }
}

/// The IPv4 address that a transition mechanism would send a packet for this IPv6 address to.
fn carried_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let segments = address.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        // IPv4-compatible, IPv4-translated, both blocks of NAT64, and 6to4
        [0, 0, 0, 0, 0 | 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => Some(join(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    fn open() -> AddressPolicy {
        AddressPolicy::new(Vec::new(), Vec::new(), Vec::new(), Vec::new())
    }

    /// One less than the first, the first, the last and one more than the last address of a network.
    fn edges(net: IpNet) -> (Option<IpAddr>, IpAddr, IpAddr, Option<IpAddr>) {
        match net {
            IpNet::V4(net) => {
                let (first, last) = (u32::from(net.network()), u32::from(net.broadcast()));
                let at = |number: u32| IpAddr::V4(number.into());
                (first.checked_sub(1).map(at), at(first), at(last), last.checked_add(1).map(at))
            }
            IpNet::V6(net) => {
                let (first, last) = (u128::from(net.network()), u128::from(net.broadcast()));
                let at = |number: u128| IpAddr::V6(number.into());
                (first.checked_sub(1).map(at), at(first), at(last), last.checked_add(1).map(at))
            }
        }
    }

    #[test]
    fn the_first_and_last_address_of_every_closed_block_are_refused_and_their_neighbours_are_not() {
        // block, whether the address below it is public, whether the one above it is
        let table = [
            ("0.0.0.0/8", false, true),
            ("10.0.0.0/8", true, true),
            ("100.64.0.0/10", true, true),
            ("127.0.0.0/8", true, true),
            ("169.254.0.0/16", true, true),
            ("172.16.0.0/12", true, true),
            ("192.0.0.0/24", true, true),
            ("192.0.2.0/24", true, true),
            ("192.88.99.0/24", true, true),
            ("192.168.0.0/16", true, true),
            ("198.18.0.0/15", true, true),
            ("198.51.100.0/24", true, true),
            ("203.0.113.0/24", true, true),
            ("224.0.0.0/4", true, false),
            ("240.0.0.0/4", false, false),
            ("255.255.255.255/32", false, false),
            ("::/3", false, true),
            ("2001::/23", true, true),
            ("2001:db8::/32", true, true),
            ("2002::/16", true, true),
            ("3fff::/20", true, true),
            ("4000::/2", true, false),
            ("8000::/1", false, false),
            ("::/128", false, false),
            ("::1/128", false, false),
            ("::/96", false, false),
            ("64:ff9b::/96", false, false),
            ("64:ff9b:1::/48", false, false),
            ("100::/64", false, false),
            ("5f00::/16", false, false),
            ("fc00::/7", false, false),
            ("fe80::/10", false, false),
            ("fec0::/10", false, false),
            ("ff00::/8", false, false),
        ];
        for (block, below_is_public, above_is_public) in table {
            let (below, first, last, above) = edges(net(block));
            assert_eq!(open().check(first, 443), Err(Refusal::NotPublic), "{first} of {block}");
            assert_eq!(open().check(last, 443), Err(Refusal::NotPublic), "{last} of {block}");
            if let Some(below) = below {
                assert_eq!(open().check(below, 443).is_ok(), below_is_public, "{below} below {block}");
            }
            if let Some(above) = above {
                assert_eq!(open().check(above, 443).is_ok(), above_is_public, "{above} above {block}");
            }
        }
    }

    #[test]
    fn public_addresses_are_open() {
        for address in
            ["1.1.1.1", "8.8.8.8", "100.63.255.254", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::1", "2001:200::1"]
        {
            assert_eq!(open().check(ip(address), 443), Ok(SocketAddr::new(ip(address), 443)), "{address}");
        }
    }

    #[test]
    fn an_ipv4_mapped_address_is_judged_and_dialled_as_ipv4() {
        assert_eq!(open().check(ip("::ffff:127.0.0.1"), 80), Err(Refusal::NotPublic));
        assert_eq!(open().check(ip("::ffff:169.254.169.254"), 80), Err(Refusal::Metadata));
        assert_eq!(open().check(ip("::ffff:8.8.8.8"), 80), Ok(SocketAddr::new(ip("8.8.8.8"), 80)));
    }

    #[test]
    fn metadata_services_stay_closed_whatever_is_allowed() {
        let everything = AddressPolicy::new(vec![net("0.0.0.0/0"), net("::/0")], Vec::new(), Vec::new(), Vec::new());
        for address in [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "192.0.0.192",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "::169.254.169.254",
            "2002:a9fe:a9fe::",
        ] {
            assert_eq!(everything.check(ip(address), 80), Err(Refusal::Metadata), "{address}");
        }
        assert!(everything.check(ip("169.254.169.253"), 80).is_ok());
    }

    #[test]
    fn our_own_listeners_stay_closed_although_loopback_is_allowed() {
        let listeners = vec!["127.0.0.1:8080".parse().expect("an address"), "[::]:9090".parse().expect("an address")];
        let policy = AddressPolicy::new(vec![net("127.0.0.0/8"), net("::1/128")], Vec::new(), Vec::new(), listeners);
        assert_eq!(policy.check(ip("127.0.0.1"), 8080), Err(Refusal::OwnListener));
        assert_eq!(policy.check(ip("::ffff:127.0.0.1"), 8080), Err(Refusal::OwnListener));
        assert_eq!(policy.check(ip("127.0.0.9"), 9090), Err(Refusal::OwnListener));
        assert_eq!(policy.check(ip("::1"), 9090), Err(Refusal::OwnListener));
        assert!(policy.check(ip("127.0.0.1"), 8081).is_ok());
    }

    #[test]
    fn deny_wins_over_allow_and_closes_public_addresses() {
        let policy =
            AddressPolicy::new(vec![net("10.0.0.0/8")], vec![net("10.1.0.0/16"), net("8.8.8.0/24")], Vec::new(), Vec::new());
        assert!(policy.check(ip("10.2.0.1"), 80).is_ok());
        assert_eq!(policy.check(ip("10.1.0.1"), 80), Err(Refusal::Denied));
        assert_eq!(policy.check(ip("8.8.8.8"), 80), Err(Refusal::Denied));
    }

    #[test]
    fn only_listed_ports_are_open_and_zero_never_is() {
        let policy = AddressPolicy::new(Vec::new(), Vec::new(), vec![443], Vec::new());
        assert_eq!(policy.check(ip("8.8.8.8"), 22), Err(Refusal::Port));
        assert!(policy.check(ip("8.8.8.8"), 443).is_ok());
        assert_eq!(open().check(ip("8.8.8.8"), 0), Err(Refusal::Port));
    }

    #[test]
    fn nothing_opens_the_unspecified_address() {
        let everything = AddressPolicy::new(vec![net("0.0.0.0/0"), net("::/0")], Vec::new(), Vec::new(), Vec::new());
        for address in ["0.0.0.0", "::", "255.255.255.255", "224.0.0.1", "ff02::1", "::ffff:0.0.0.0"] {
            assert_eq!(everything.check(ip(address), 80), Err(Refusal::NotPublic), "{address}");
        }
    }
}
