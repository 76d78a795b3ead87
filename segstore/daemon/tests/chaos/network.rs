//! Hosts that are network namespaces, joined by a bridge in a namespace of its own; cables that are pulled.

use std::path::Path;
use std::process::{Command, Stdio};

/// Every host has a number, and by it an address.
pub(crate) struct Network {
    name: String,
    hosts: usize,
}

impl Network {
    /// So many hosts, in namespaces whose names begin with `name`.
    pub(crate) fn new(name: &str, hosts: usize) -> Self {
        let network = Self { name: name.to_owned(), hosts };
        let switch = network.switch();
        ip(&["netns", "add", &switch]);
        ip(&["-n", &switch, "link", "add", "bridge", "type", "bridge", "stp_state", "0", "forward_delay", "0"]);
        ip(&["-n", &switch, "link", "set", "bridge", "up"]);
        ip(&["-n", &switch, "addr", "add", "10.77.0.254/24", "dev", "bridge"]);
        (0..hosts).for_each(|host| network.attach(host));
        network
    }

    fn attach(&self, host: usize) {
        let (switch, own, port) = (self.switch(), self.host(host), port(host));
        ip(&["netns", "add", &own]);
        ip(&["-n", &own, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch]);
        ip(&["-n", &own, "addr", "add", &format!("{}/24", address(host)), "dev", "eth0"]);
        ip(&["-n", &own, "link", "set", "lo", "up"]);
        ip(&["-n", &own, "link", "set", "eth0", "up"]);
        ip(&["-n", &switch, "link", "set", &port, "master", "bridge", "up"]);
        // Sockets hold little: what they hold when a process is killed arrives, and much is to be cut off in the middle.
        for limits in ["tcp_wmem", "tcp_rmem"] {
            let set = format!("echo 4096 16384 65536 > /proc/sys/net/ipv4/{limits}");
            ip(&["netns", "exec", &own, "sh", "-c", &set]);
        }
    }

    /// The namespace from which every host is reached.
    pub(crate) fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    pub(crate) fn host(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// Pulls a host's cable, or plugs it in again.
    pub(crate) fn cut(&self, host: usize, is_cut: bool) {
        let state = if is_cut { "down" } else { "up" };
        ip(&["-n", &self.switch(), "link", "set", &port(host), state]);
    }

    /// What a host sends is lost; it hears the others.
    pub(crate) fn mute(&self, host: usize, is_mute: bool) {
        let what = if is_mute { "add" } else { "del" };
        for half in ["10.77.0.0/25", "10.77.0.128/25"] {
            ip(&["-n", &self.host(host), "route", what, "blackhole", half]);
        }
    }

    /// Keeps a host from reaching others that are kept apart.
    pub(crate) fn part(&self, host: usize, is_apart: bool) {
        let state = if is_apart { "on" } else { "off" };
        ip(&["-n", &self.switch(), "link", "set", &port(host), "type", "bridge_slave", "isolated", state]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        (0..self.hosts).map(|host| self.host(host)).chain([self.switch()]).for_each(|namespace| remove(&namespace));
    }
}

fn port(host: usize) -> String {
    format!("port{host}")
}

pub(crate) fn address(host: usize) -> String {
    format!("10.77.0.{}", host + 1)
}

/// Every namespace that has a name.
pub(crate) fn namespaces() -> Vec<String> {
    let Ok(all) = Path::new("/run/netns").read_dir() else { return Vec::new() };
    all.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

pub(crate) fn remove(namespace: &str) {
    let _ = Command::new("ip").args(["netns", "del", namespace]).stderr(Stdio::null()).status();
}

fn ip(arguments: &[&str]) {
    let done = Command::new("ip").args(arguments).output().expect("no ip on this machine: apt-get install iproute2");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "ip {}: {said}; namespaces take root", arguments.join(" "));
}
