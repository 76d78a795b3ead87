//! Which of a port's addresses is used: by kind and address, not by its place in the table.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::{Error, ErrorKind, Result};

/// What an address of the table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    InfiniBand,
    RoceV1,
    RoceV2,
}

/// One entry of a port's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) index: u8,
    pub(super) kind: Kind,
    pub(super) gid: [u8; 16],
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Best,
    Index(u8),
    Address(IpAddr),
}

/// The entry to use.
///
/// # Errors
/// `InvalidInput`, with what there is, when nothing of the table is as wanted.
pub(super) fn choose(table: &[Entry], wanted: Wanted) -> Result<Entry> {
    let found = match wanted {
        // The first of equal ones, so that the choice is the same every time.
        Wanted::Best => table.iter().rev().filter(|entry| rank(entry) > 0).max_by_key(|entry| rank(entry)),
        Wanted::Index(index) => table.iter().find(|entry| entry.index == index),
        Wanted::Address(address) => {
            let gid = mapped(address).octets();
            table.iter().find(|entry| entry.gid == gid && entry.kind != Kind::RoceV1)
        }
    };
    found.copied().ok_or_else(|| none(table, wanted))
}

/// How good an entry is; 0: only if it is asked for. What routers forward and a neighbour answers comes first.
fn rank(entry: &Entry) -> u8 {
    let address = Ipv6Addr::from(entry.gid);
    match entry.kind {
        Kind::InfiniBand => 3,
        Kind::RoceV2 if address.to_ipv4_mapped().is_some() => 3,
        Kind::RoceV2 if !address.is_unicast_link_local() => 2,
        Kind::RoceV2 => 1,
        Kind::RoceV1 => 0,
    }
}

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn none(table: &[Entry], wanted: Wanted) -> Error {
    let there: Vec<String> = table.iter().map(Entry::to_string).collect();
    let there = if there.is_empty() { "it has none: give its interface an address".into() } else { there.join(", ") };
    let asked = match wanted {
        Wanted::Best => "no address of RoCE v2 or InfiniBand".into(),
        Wanted::Index(index) => format!("no address with the index {index}"),
        Wanted::Address(address) => format!("no address {address} of RoCE v2 or InfiniBand"),
    };
    Error::operation(ErrorKind::InvalidInput, format!("the device's port has {asked}; what it has: {there}"))
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = Ipv6Addr::from(self.gid);
        let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4);
        write!(f, "{} {address} ({:?})", self.index, self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u8, kind: Kind, address: &str) -> Entry {
        Entry { index, kind, gid: mapped(address.parse().unwrap()).octets() }
    }

    /// As a driver makes it: each address once for RoCE v1 and once for v2, the link-local one first.
    fn table() -> Vec<Entry> {
        let addresses = ["fe80::1", "192.0.2.1", "2001:db8::1", "192.0.2.2"];
        let both = |(number, address): (usize, &&str)| {
            let index = u8::try_from(2 * number).unwrap();
            [entry(index, Kind::RoceV1, address), entry(index + 1, Kind::RoceV2, address)]
        };
        addresses.iter().enumerate().flat_map(both).collect()
    }

    #[test]
    fn the_best_is_a_routable_address_of_roce_v2() {
        let mut table = table();
        for best in [3, 7, 5, 1] {
            assert_eq!(choose(&table, Wanted::Best).unwrap().index, best);
            table.retain(|entry| entry.index != best);
        }
        let error = choose(&table, Wanted::Best).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("2 192.0.2.1 (RoceV1)"), "{error}");
    }

    #[test]
    fn an_override_is_taken_at_its_word() {
        assert_eq!(choose(&table(), Wanted::Index(0)).unwrap().kind, Kind::RoceV1);
        assert_eq!(choose(&table(), Wanted::Address("192.0.2.2".parse().unwrap())).unwrap().index, 7);
        assert_eq!(choose(&table(), Wanted::Address("2001:db8::1".parse().unwrap())).unwrap().index, 5);
        assert!(choose(&table(), Wanted::Index(8)).is_err());
        assert!(choose(&table(), Wanted::Address("192.0.2.3".parse().unwrap())).is_err());
        assert!(choose(&[], Wanted::Best).unwrap_err().to_string().contains("give its interface an address"));
    }

    #[test]
    fn infiniband_has_one_that_is_its_own() {
        let table = [entry(0, Kind::InfiniBand, "fe80::2:c903:0:1"), entry(1, Kind::InfiniBand, "fec0::1")];
        assert_eq!(choose(&table, Wanted::Best).unwrap().index, 0);
    }
}
