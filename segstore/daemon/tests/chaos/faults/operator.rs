//! What operators do meanwhile. Each asks beside the run, since answers take their time.

use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use segstore::{Error, Result, Session};

use super::Faults;
use super::undo::Undo;
use crate::cluster::Cluster;
use crate::ledger::Ledger;
use crate::plan::Whom;
use crate::processes::Told;
use crate::report::{Report, failed};
use crate::segments::{NODES, SEGMENTS};

/// How long an owner has to hand its segment over when it is asked to.
const MOVE: Duration = Duration::from_secs(2);
/// How long a node that was drained stays without power.
const OFF: Duration = Duration::from_millis(1500);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// Has a segment handed over to whoever stands by elsewhere. Its owner may have gone.
fn hand_over(session: &Session, segment: &str) -> Result<()> {
    match session.move_to(segment, None, MOVE) {
        Ok(_) | Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What somebody was refused is judged as if an application had been.
fn tell(told: &Sender<Told>, who: String, segment: &str, error: &Error) {
    let _ = told.send((who, Ok(Report { segment: segment.to_owned(), news: failed(error) })));
}

/// What became of a node that was to be drained.
pub(super) enum Drained {
    /// It may be switched off.
    Empty(usize),
    /// It was not told so in time.
    NotYet(usize),
    /// It takes replicas again.
    Over(usize),
}

impl Faults {
    /// Has a segment handed over, asked for on a node other than its owner's.
    pub(super) fn move_segment(&mut self, segment: usize, cluster: &Cluster, ledger: &Ledger) -> Option<String> {
        let spec = &SEGMENTS[segment];
        let owner = ledger.owner(spec.name)?;
        let asking = self.healthy_beside(cluster.node_of(owner)?);
        let (told, socket) = (cluster.told(), cluster.socket(asking));
        std::thread::spawn(move || {
            let moved = Session::connect_to(socket).and_then(|session| hand_over(&session, spec.name));
            if let Err(error) = moved {
                tell(&told, format!("an operator on n{asking}"), spec.name, &error);
            }
        });
        Some(format!("from {owner}, asked for on n{asking}"))
    }

    /// Wishes for so many more replicas of a segment than it is made with, until somebody hears of it.
    pub(super) fn wish(&self, segment: usize, more: u32, cluster: &Cluster) -> String {
        let spec = &SEGMENTS[segment];
        let (told, replicas) = (cluster.told(), spec.replicas + more);
        let sockets: Vec<_> = (0..NODES).map(|node| cluster.socket(node)).collect();
        std::thread::spawn(move || {
            for socket in sockets.iter().cycle() {
                let wished = Session::connect_to(socket).and_then(|session| session.set_replicas(spec.name, replicas));
                let Err(error) = wished else { return };
                tell(&told, "an operator".to_owned(), spec.name, &error);
                std::thread::sleep(PAUSE);
            }
        });
        format!("{replicas} of {}", spec.name)
    }

    /// Whether a node can be drained now: no other one is without its memory, or may be.
    pub(super) fn may_drain(&self, whom: Whom, cluster: &Cluster, ledger: &Ledger) -> bool {
        let is_well = self.node(whom, cluster, ledger).is_some_and(|node| !self.troubled[node]);
        is_well && self.draining.is_none() && cluster.all_are_on()
    }

    /// Drains a node.
    pub(super) fn drain(&mut self, node: usize, limit: Duration, cluster: &Cluster) -> String {
        self.draining = Some(node);
        let (drained, socket) = (self.drained.0.clone(), cluster.socket(self.healthy_beside(node)));
        let until = Instant::now() + limit;
        std::thread::spawn(move || {
            let (name, mut is_asked) = (format!("n{node}"), false);
            let mut is_empty = || -> Result<bool> {
                let session = Session::connect_to(&socket)?;
                if !is_asked {
                    session.drain(&name, true)?;
                    is_asked = true;
                }
                let left = session.left(&name)?;
                let held =
                    left.iter().filter(|left| left.holder.as_ref().is_some_and(|holder| holder.node_name == name));
                held.for_each(|left| drop(hand_over(&session, &left.segment)));
                Ok(left.is_empty())
            };
            let told = loop {
                if is_empty().unwrap_or(false) {
                    break Drained::Empty(node);
                }
                if Instant::now() >= until {
                    break Drained::NotYet(node);
                }
                std::thread::sleep(PAUSE);
            };
            let _ = drained.send(told);
        });
        format!("n{node} within {limit:?}")
    }

    /// Switches off what may be; says what it did.
    pub(super) fn hear_of_drained(&mut self, cluster: &mut Cluster) -> Vec<String> {
        let mut events = Vec::new();
        while let Ok(drained) = self.drained.1.try_recv() {
            events.push(match drained {
                Drained::Empty(node) if self.may_trouble(node) => {
                    cluster.power_off(node);
                    cluster.lose_memory(node);
                    self.troubled[node] = true;
                    self.switched_off += 1;
                    self.undo.push((Instant::now() + OFF, Undo::SwitchOn(node)));
                    format!("n{node} is drained, and switched off")
                }
                Drained::Empty(node) | Drained::NotYet(node) => {
                    self.refill(node, cluster);
                    format!("n{node} is to be drained no longer")
                }
                Drained::Over(node) => {
                    self.draining = None;
                    format!("n{node} takes replicas again")
                }
            });
        }
        events
    }

    /// Has a node take replicas again.
    pub(super) fn refill(&self, node: usize, cluster: &Cluster) {
        let (drained, socket) = (self.drained.0.clone(), cluster.socket(node));
        std::thread::spawn(move || {
            let refill = || Session::connect_to(&socket)?.drain(&format!("n{node}"), false);
            while refill().is_err() {
                std::thread::sleep(PAUSE);
            }
            let _ = drained.send(Drained::Over(node));
        });
    }
}
