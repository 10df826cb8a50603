//! A small network for tests: hosts of their own on one machine, and links that can be slowed, made lossy and cut.
//!
//! - [`Hosts`] is a switch in a network namespace. [`Hosts::near`] connects a host to it directly; [`Hosts::far`] connects a
//!   host through a [`Link`], whose [`Quality`] the test sets. It needs no root, but `unshare`, `nsenter` and `ip`, and a kernel
//!   that lets this user make user namespaces; otherwise [`Hosts::new_or_skip`] says so and the test returns.
//! - [`TcpRelay`] needs none of this: it stands between two ends of TCP connections on loopback.
//!
//! ```ignore
//! mod hosts;
//!
//! let Some(mut hosts) = hosts::Hosts::new_or_skip() else { return };
//! let publisher = hosts.near();
//! let (subscriber, link) = hosts.far();
//! let _running = hosts::Running::start(publisher.command("sealane-bridge").arg("serve"));
//! link.cut();
//! ```
//!
//! Namespaces of the network separate abstract socket names too, but not paths, shared memory or processes.
#![allow(
    clippy::allow_attributes,
    dead_code,
    unused_imports,
    reason = "each test binary uses its part of this"
)]

pub(crate) mod gate;
pub(crate) mod link;
pub(crate) mod namespace;
pub(crate) mod relay;
pub(crate) mod running;
pub(crate) mod shaping;
pub(crate) mod tcp_relay;

use std::{ffi::OsStr, io::Write, net::Ipv4Addr, process::Command, sync::OnceLock};

pub(crate) use link::{Counts, Link, Quality};
use namespace::Namespace;
pub(crate) use running::Running;
pub(crate) use tcp_relay::TcpRelay;

/// How a port of the switch must look in `ip -o -d link` before frames pass.
const FORWARDING: &str = "state forwarding";

/// How any other interface must look.
const UP: &str = "state UP";

/// A switch with hosts. All of them share one user namespace, and the subnet 10.77.0.0/24; each `Hosts` is a network apart.
///
/// Hosts and links may be dropped before or after it.
#[derive(Debug)]
pub(crate) struct Hosts {
    switch: Namespace,
    made: u8,
}

impl Hosts {
    /// A switch without hosts, or why there can be none on this machine.
    pub(crate) fn new() -> Result<Self, String> {
        available()?;
        Self::make()
    }

    /// As [`Hosts::new`]. Where there can be none, a line that begins with `SKIPPED` goes to standard error, past libtest's
    /// capture.
    pub(crate) fn new_or_skip() -> Option<Self> {
        match Self::new() {
            Ok(hosts) => Some(hosts),
            Err(why) => {
                // libtest may have left its line open. One write, so that no other thread comes between.
                let _ = std::io::stderr().write_all(format!("\nSKIPPED: {why}\n").as_bytes());
                None
            }
        }
    }

    fn make() -> Result<Self, String> {
        let switch = Namespace::first()?;
        switch.ip("link set dev lo up\n\
             link add name switch type bridge mcast_snooping 0\n\
             link set dev switch addrgenmode none\n\
             link set dev switch up\n")?;
        Ok(Self { switch, made: 0 })
    }

    /// A host that is connected to the switch directly.
    pub(crate) fn near(&mut self) -> Host {
        self.try_near().unwrap_or_else(|why| panic!("{why}"))
    }

    /// A host that is connected to the switch through a link with a relay in it. The link is perfect at first.
    pub(crate) fn far(&mut self) -> (Host, Link) {
        self.try_far().unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_near(&mut self) -> Result<Host, String> {
        let (host, port) = self.unconnected()?;
        self.switch.cable(&port, &host.namespace, "eth0")?;
        self.connect(&host, &port)?;
        Ok(host)
    }

    fn try_far(&mut self) -> Result<(Host, Link), String> {
        let (host, port) = self.unconnected()?;
        let middle = Namespace::beside(&self.switch)?;
        self.switch.cable(&port, &middle, relay::INSIDE)?;
        middle.cable(relay::OUTSIDE, &host.namespace, "eth0")?;
        // The relay opens its sockets while the interfaces are down, so it sees every frame.
        let link = Link::start(middle)?;
        link.namespace().ip(&format!(
            "link set dev {} up\nlink set dev {} up\n",
            relay::INSIDE,
            relay::OUTSIDE
        ))?;
        self.connect(&host, &port)?;
        link.namespace().wait_for(relay::OUTSIDE, UP)?;
        link.namespace().wait_for(relay::INSIDE, UP)?;
        Ok((host, link))
    }

    /// A host with a number, and the name of its port.
    fn unconnected(&mut self) -> Result<(Host, String), String> {
        self.made = self.made.checked_add(1).filter(|made| *made < 255).ok_or("the subnet is full")?;
        let namespace = Namespace::beside(&self.switch)?;
        Ok((Host { namespace, address: Ipv4Addr::new(10, 77, 0, self.made) }, format!("port{}", self.made)))
    }

    /// Brings up both ends of the way from `host` to `port`, and waits until frames pass.
    fn connect(&self, host: &Host, port: &str) -> Result<(), String> {
        host.namespace.ip(&format!(
            "link set dev lo up\n\
             address add {}/24 dev eth0\n\
             link set dev eth0 up\n\
             route add default dev eth0\n",
            host.address
        ))?;
        self.switch.ip(&format!("link set dev {port} master switch\nlink set dev {port} up\n"))?;
        host.namespace.wait_for("eth0", UP)?;
        self.switch.wait_for(port, FORWARDING)
    }
}

/// A machine on the network. When it is dropped, its programs are killed.
#[derive(Debug)]
pub(crate) struct Host {
    namespace: Namespace,
    address: Ipv4Addr,
}

impl Host {
    /// The address of its interface `eth0`.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs `program` on this host, with this process's directory and environment, as root of the user namespace.
    ///
    /// The child that it starts *is* the program: its process id and its exit status are the program's.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.namespace.command(program)
    }

    /// A command that runs the ignored test `test` of this test program, and nothing else, on this host. Its standard output begins
    /// with lines of libtest's.
    pub(crate) fn role<Test: Fn()>(&self, test: Test) -> Command {
        self.namespace.role(test)
    }

    /// Kills all programs on this host, as a power cut does, and waits for their end. The host stays connected.
    ///
    /// Programs in network namespaces that they made themselves are not found.
    pub(crate) fn kill_all(&self) {
        self.namespace.kill_all();
    }

    /// The namespace that it is.
    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }
}

/// Whether this machine lets this user make [`Hosts`], and if not, why. It is tried once, with a host at each kind of link.
pub(crate) fn available() -> Result<(), String> {
    static ANSWER: OnceLock<Result<(), String>> = OnceLock::new();
    ANSWER
        .get_or_init(|| {
            let mut hosts = Hosts::make()?;
            hosts.try_near()?;
            hosts.try_far().map(drop)
        })
        .clone()
}
