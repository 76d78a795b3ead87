//! Faults as they are done to a cluster.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Faults;
use super::hunt::Hunted;
use super::undo::Undo;
use crate::cluster::{Cluster, MEMBERS};
use crate::ledger::Ledger;
use crate::plan::{Fault, Step, Whom};
use crate::segments::{NODES, SEGMENTS, Spec};

/// How many nodes are in trouble at most.
const TROUBLED: usize = 2;
/// How long etcd is left alone after it has had its members back.
const ETCD_RESTS: Duration = Duration::from_secs(3);

impl Faults {
    /// Does it, unless whom it should meet is in trouble or not there; says what it did.
    pub(super) fn inject(&mut self, step: Step, cluster: &mut Cluster, ledger: &Ledger) -> Option<String> {
        let Step { fault, whom, lasts, .. } = step;
        match fault {
            Fault::Application | Fault::PauseApplication | Fault::Force => {
                self.meet_owner(fault, whom, lasts, cluster, ledger)
            }
            Fault::Leader | Fault::Majority | Fault::PauseMember | Fault::CutMember => {
                self.meet_etcd(fault, lasts, cluster)
            }
            Fault::Move => {
                let Whom::Owner(segment) = whom else { return None };
                self.move_segment(segment, cluster, ledger)
            }
            Fault::Replicas => {
                let Whom::Owner(segment) = whom else { return None };
                self.undo.push((Instant::now() + lasts, Undo::Wish(segment)));
                Some(format!("{} for {lasts:?}", self.wish(segment, 1, cluster)))
            }
            Fault::Drain => {
                let node = self.node(whom, cluster, ledger)?;
                Some(self.drain(node, lasts, cluster))
            }
            _ => {
                let node = self.node(whom, cluster, ledger)?;
                let loses_memory = fault == Fault::Node;
                if loses_memory && self.draining.is_some() || !self.may_trouble(node) {
                    return None;
                }
                self.meet_node(fault, node, whom, lasts, cluster)
            }
        }
    }

    /// Whether this node, beside those that are, may be in trouble.
    pub(super) fn may_trouble(&self, node: usize) -> bool {
        !self.troubled[node] && self.troubled.iter().filter(|troubled| **troubled).count() < TROUBLED
    }

    /// A node that is not in trouble, and is not this one.
    pub(super) fn healthy_beside(&mut self, node: usize) -> usize {
        let others: Vec<_> = (0..NODES).filter(|other| *other != node && !self.troubled[*other]).collect();
        others[self.random.index(others.len())]
    }

    pub(super) fn node(&self, whom: Whom, cluster: &Cluster, ledger: &Ledger) -> Option<usize> {
        match whom {
            Whom::Node(node) => Some(node),
            Whom::Owner(segment) => cluster.node_of(ledger.owner(SEGMENTS[segment].name)?),
            // The story has begun before anything was known of replicas.
            Whom::Replica(..) | Whom::Etcd => None,
        }
    }

    fn meet_owner(
        &mut self,
        fault: Fault,
        whom: Whom,
        lasts: Duration,
        cluster: &mut Cluster,
        ledger: &Ledger,
    ) -> Option<String> {
        let Whom::Owner(segment) = whom else { return None };
        let spec: &'static Spec = &SEGMENTS[segment];
        let owner = ledger.owner(spec.name)?.to_owned();
        let node = cluster.node_of(&owner)?;
        match fault {
            Fault::Application => {
                cluster.kill_application(&owner);
                self.hunted.push(Hunted::new(segment, lasts));
            }
            Fault::PauseApplication => {
                cluster.signal_application(&owner, Signal::SIGSTOP);
                self.undo.push((Instant::now() + lasts, Undo::Continue(owner.clone())));
            }
            _ => {
                let other = self.healthy_beside(node);
                cluster.force(spec.name, other);
                return Some(format!("on n{other}, from {owner}"));
            }
        }
        Some(owner)
    }

    fn meet_node(
        &mut self,
        fault: Fault,
        node: usize,
        whom: Whom,
        lasts: Duration,
        cluster: &mut Cluster,
    ) -> Option<String> {
        let undo = match fault {
            Fault::Daemon => {
                cluster.kill_daemon(node);
                Undo::Start(node)
            }
            Fault::Node => {
                cluster.power_off(node);
                Undo::PowerOn(node)
            }
            Fault::Cut => {
                cluster.network.cut(node, true);
                Undo::Plug(node)
            }
            Fault::Mute => {
                cluster.network.mute(node, true);
                Undo::Unmute(node)
            }
            Fault::Part => {
                let Whom::Owner(segment) = whom else { return None };
                let other = self.watch.replicas(segment).into_iter().find(|other| *other != node)?;
                if std::mem::replace(&mut self.is_parted, true) {
                    return None;
                }
                [node, other].into_iter().for_each(|node| cluster.network.part(node, true));
                Undo::Join(node, other)
            }
            Fault::PauseDaemon => {
                cluster.signal_daemon(node, Signal::SIGSTOP);
                Undo::ContinueDaemon(node)
            }
            _ => {
                cluster.signal_applications_on(node, Signal::SIGSTOP);
                cluster.signal_daemon(node, Signal::SIGSTOP);
                Undo::ContinueNode(node)
            }
        };
        self.troubled[node] = true;
        self.undo.push((Instant::now() + lasts, undo));
        Some(format!("n{node} ({whom}) for {lasts:?}"))
    }

    fn meet_etcd(&mut self, fault: Fault, lasts: Duration, cluster: &mut Cluster) -> Option<String> {
        if self.etcd_is_whole_since?.elapsed() < ETCD_RESTS {
            return None;
        }
        let leader = cluster.etcd.leads()?;
        let any = if self.random.below(2) == 0 { leader } else { self.random.index(MEMBERS) };
        let one = format!("m{any}{}", if any == leader { ", which leads," } else { "" });
        let (what, undo) = match fault {
            Fault::Leader | Fault::Majority => {
                let count = if fault == Fault::Leader { 1 } else { 2 };
                let members: Vec<_> = (leader..leader + count).map(|member| member % MEMBERS).collect();
                members.iter().for_each(|member| cluster.etcd.signal(*member, Signal::SIGKILL));
                (format!("m{members:?}"), Undo::Boot(members))
            }
            Fault::PauseMember => {
                cluster.etcd.signal(any, Signal::SIGSTOP);
                (one, Undo::ContinueMember(any))
            }
            _ => {
                cluster.cut_member(any, true);
                (one, Undo::PlugMember(any))
            }
        };
        self.undo.push((Instant::now() + lasts, undo));
        self.etcd_is_whole_since = None;
        Some(format!("{what} for {lasts:?}"))
    }
}
