//! Who may stay connected, and how much all of them together may send at once. Pure.
//!
//! Nobody is turned away at the door: who comes new is let in, and the oldest connection of whoever holds most of them
//! goes. An honest delivery needs a few milliseconds; one who keeps connections open, or opens thousands, ends their own.
//! The same with bodies: when there is no room, the largest unfinished one goes.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};

use tokio_util::sync::CancellationToken;

/// Connections at a time. Forges deliver one by one; each costs some tens of kilobytes at worst.
pub const CONNECTIONS_MAX: usize = 512;
/// Bytes of unfinished bodies, of all connections together.
pub const BODIES_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Owned by the listener's thread.
#[derive(Default)]
pub struct Connections {
    /// By age: numbers grow.
    open: BTreeMap<u64, Open>,
    by_peer: HashMap<IpAddr, usize>,
    next: u64,
    body_bytes: usize,
}

struct Open {
    peer: IpAddr,
    end: CancellationToken,
    body_bytes: usize,
}

/// There is no room for this body: it is the largest itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded;

impl Connections {
    /// Lets somebody in, for whom another may have to go. `end` is cancelled when it is this one's turn.
    pub fn enter(&mut self, peer: IpAddr, end: CancellationToken) -> u64 {
        let peer = network(peer);
        if self.open.len() >= CONNECTIONS_MAX {
            let busiest = self.by_peer.iter().max_by_key(|(_, count)| **count).map(|(peer, _)| *peer);
            let oldest = self.open.iter().find(|(_, open)| Some(open.peer) == busiest).map(|(id, _)| *id);
            if let Some(oldest) = oldest {
                self.end(oldest);
            }
        }
        let id = self.next;
        self.next += 1;
        *self.by_peer.entry(peer).or_default() += 1;
        self.open.insert(id, Open { peer, end, body_bytes: 0 });
        id
    }

    /// A connection is over.
    pub fn leave(&mut self, id: u64) {
        self.release(id);
        let Some(open) = self.open.remove(&id) else { return };
        if let Some(count) = self.by_peer.get_mut(&open.peer) {
            *count -= 1;
            if *count == 0 {
                self.by_peer.remove(&open.peer);
            }
        }
    }

    /// More of a body has come in.
    pub fn hold(&mut self, id: u64, bytes: usize) -> Result<(), Crowded> {
        let Some(open) = self.open.get_mut(&id) else { return Err(Crowded) };
        open.body_bytes += bytes;
        self.body_bytes += bytes;
        while self.body_bytes > BODIES_BYTES_MAX {
            let largest = self.open.iter().max_by_key(|(_, open)| open.body_bytes).map(|(id, _)| *id);
            match largest {
                Some(largest) if largest != id => self.end(largest),
                _ => {
                    self.release(id);
                    return Err(Crowded);
                }
            }
        }
        Ok(())
    }

    /// A body is dealt with.
    pub fn release(&mut self, id: u64) {
        if let Some(open) = self.open.get_mut(&id) {
            self.body_bytes -= std::mem::take(&mut open.body_bytes);
        }
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    fn end(&mut self, id: u64) {
        if let Some(open) = self.open.get(&id) {
            open.end.cancel();
        }
        self.leave(id);
    }
}

/// Whoever has one IPv6 address has 2⁶⁴ of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn ten_thousand_connections_of_one_sender_leave_everybody_elses_open() {
        let mut connections = Connections::default();
        let honest = CancellationToken::new();
        connections.enter(peer(1), honest.clone());
        let mut last = Vec::new();
        for _ in 0..10_000 {
            let end = CancellationToken::new();
            connections.enter(peer(2), end.clone());
            last.push(end);
            assert!(connections.len() <= CONNECTIONS_MAX);
        }
        assert!(!honest.is_cancelled());
        let open = last.iter().filter(|end| !end.is_cancelled()).count();
        assert_eq!(open, CONNECTIONS_MAX - 1);
        assert!(last[0].is_cancelled(), "the oldest goes first");
        let late = CancellationToken::new();
        connections.enter(peer(1), late.clone());
        assert!(!late.is_cancelled(), "who comes new is let in");
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let v6 = |last: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, last));
        assert_eq!(network(v6(1)), network(v6(2)));
        let mapped = IpAddr::from(std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped());
        assert_eq!(network(mapped), peer(1));
        assert_ne!(network(peer(1)), network(peer(2)));
    }

    #[test]
    fn the_largest_unfinished_body_makes_room() {
        let mut connections = Connections::default();
        let (large, small) = (CancellationToken::new(), CancellationToken::new());
        let greedy = connections.enter(peer(1), large.clone());
        let honest = connections.enter(peer(2), small.clone());
        assert_eq!(connections.hold(greedy, BODIES_BYTES_MAX - 10), Ok(()));
        assert_eq!(connections.hold(honest, 20), Ok(()));
        assert!(large.is_cancelled() && !small.is_cancelled());
        assert_eq!(connections.hold(honest, BODIES_BYTES_MAX), Err(Crowded), "it is the largest itself");
        assert_eq!(connections.hold(honest, 20), Ok(()));
        connections.leave(honest);
        assert_eq!((connections.len(), connections.body_bytes), (0, 0));
    }
}
