//! Cluster addresses and node ports of Services.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

/// The Services' network, `10.96.0.0/16`: kubeadm's default, cut down.
const NETWORK: u32 = 0x0a60_0000;
const HOSTS: u32 = 0xffff;
/// The range of node ports that the API server has by default.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

#[derive(Debug, Default)]
struct Taken {
    hosts: BTreeSet<u32>,
    ports: BTreeSet<u16>,
    next_host: u32,
}

/// Which addresses are taken. Written when a Service is prepared and when one is gone; an address that was taken for
/// a Service that was then not stored is given back.
#[derive(Debug)]
pub struct Addresses {
    taken: Mutex<Taken>,
}

impl Addresses {
    pub fn new() -> Self {
        Self { taken: Mutex::new(Taken { next_host: 10, ..Taken::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of the `kubernetes` Service.
    pub fn first() -> String {
        Ipv4Addr::from(NETWORK + 1).to_string()
    }

    /// Any free address; `None` if all are taken.
    pub fn any(&self) -> Option<String> {
        let mut taken = self.lock();
        for _ in 0..HOSTS {
            let host = taken.next_host;
            taken.next_host = if host + 1 >= HOSTS { 2 } else { host + 1 };
            if taken.hosts.insert(host) {
                return Some(Ipv4Addr::from(NETWORK + host).to_string());
            }
        }
        None
    }

    /// Takes the address that a Service asks for.
    pub fn take(&self, address: &str) -> Result<(), &'static str> {
        let Ok(ip) = address.parse::<Ipv4Addr>() else {
            return Err("must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        };
        let host = u32::from(ip).wrapping_sub(NETWORK);
        if host == 0 || host >= HOSTS {
            return Err("failed to allocate IP: the provided IP is not in the valid range");
        }
        if self.lock().hosts.insert(host) {
            Ok(())
        } else {
            Err("failed to allocate IP: provided IP is already allocated")
        }
    }

    pub fn any_port(&self) -> Option<u16> {
        let mut taken = self.lock();
        let free = NODE_PORTS.into_iter().find(|port| !taken.ports.contains(port))?;
        taken.ports.insert(free);
        Some(free)
    }

    /// Takes the node port that a Service asks for.
    pub fn take_port(&self, port: u64) -> Result<(), &'static str> {
        let Some(port) = u16::try_from(port).ok().filter(|p| NODE_PORTS.contains(p)) else {
            return Err("provided port is not in the valid range. The range of valid ports is 30000-32767");
        };
        if self.lock().ports.insert(port) { Ok(()) } else { Err("provided port is already allocated") }
    }

    /// Gives back what a Service had.
    pub fn release(&self, service: &Value) {
        let mut taken = self.lock();
        if let Some(ip) =
            service.pointer("/spec/clusterIP").and_then(Value::as_str).and_then(|ip| ip.parse::<Ipv4Addr>().ok())
        {
            taken.hosts.remove(&u32::from(ip).wrapping_sub(NETWORK));
        }
        for port in service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten() {
            if let Some(port) = port["nodePort"].as_u64().and_then(|p| u16::try_from(p).ok()) {
                taken.ports.remove(&port);
            }
        }
    }
}
