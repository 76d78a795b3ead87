//! The end of faults.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{Faults, due};
use crate::cluster::Cluster;
use crate::etcd_server::QUICK;
use crate::segments::NODES;
use crate::watch::dispense_with;

/// How long at most it is looked whether a node may lose its memory.
const JUDGEMENT: Duration = Duration::from_secs(3);
/// What was seen longer ago may have changed: owners give replicas up meanwhile.
const FRESH: Duration = Duration::from_millis(300);

/// A node, and why it may not lose its memory.
pub(super) type Judged = (usize, Result<(), String>);

/// What ends a fault.
pub(super) enum Undo {
    Start(usize),
    PowerOn(usize),
    SwitchOn(usize),
    Wish(usize),
    Plug(usize),
    Unmute(usize),
    Join(usize, usize),
    Continue(String),
    ContinueDaemon(usize),
    ContinueNode(usize),
    Boot(Vec<usize>),
    ContinueMember(usize),
    PlugMember(usize),
}

impl Faults {
    /// Undoes what ends by then; says what it did.
    pub(super) fn undo_until(&mut self, until: Instant, cluster: &mut Cluster) -> Vec<String> {
        let mut events: Vec<_> = due(&mut self.undo, until).map(|undo| self.undo(undo, cluster)).collect();
        while let Ok((node, verdict)) = self.judged.1.try_recv() {
            events.push(match verdict {
                Ok(()) => {
                    cluster.lose_memory(node);
                    format!("n{node} is back, without its memory")
                }
                Err(why) => {
                    self.spared += 1;
                    format!("n{node} is back, with its memory: {why}")
                }
            });
            cluster.power_on(node);
            self.troubled[node] = false;
        }
        events
    }

    fn undo(&mut self, undo: Undo, cluster: &mut Cluster) -> String {
        let (node, what) = match undo {
            Undo::PowerOn(node) => {
                self.judge(node, cluster);
                return format!("n{node} is to come back");
            }
            Undo::SwitchOn(node) => {
                cluster.power_on(node);
                self.refill(node, cluster);
                (node, "is switched on")
            }
            Undo::Wish(segment) => return format!("again {}", self.wish(segment, 0, cluster)),
            Undo::Continue(process) => {
                cluster.signal_application(&process, Signal::SIGCONT);
                return format!("{process} goes on");
            }
            Undo::Boot(members) => {
                members.iter().for_each(|member| cluster.etcd.boot(*member, &QUICK));
                return self.etcd_is_whole();
            }
            Undo::ContinueMember(member) => {
                cluster.etcd.signal(member, Signal::SIGCONT);
                return self.etcd_is_whole();
            }
            Undo::PlugMember(member) => {
                cluster.cut_member(member, false);
                return self.etcd_is_whole();
            }
            Undo::Start(node) => {
                cluster.start_daemon(node);
                (node, "has its daemon back")
            }
            Undo::Plug(node) => {
                cluster.network.cut(node, false);
                (node, "is plugged in")
            }
            Undo::Unmute(node) => {
                cluster.network.mute(node, false);
                (node, "is heard again")
            }
            Undo::Join(node, other) => {
                [node, other].into_iter().for_each(|node| cluster.network.part(node, false));
                self.is_parted = false;
                (node, "is parted from nobody")
            }
            Undo::ContinueDaemon(node) => {
                cluster.signal_daemon(node, Signal::SIGCONT);
                (node, "has its daemon awake")
            }
            Undo::ContinueNode(node) => {
                cluster.signal_applications_on(node, Signal::SIGCONT);
                cluster.signal_daemon(node, Signal::SIGCONT);
                (node, "is awake")
            }
        };
        self.troubled[node] = false;
        format!("n{node} {what}")
    }

    fn etcd_is_whole(&mut self) -> String {
        self.etcd_is_whole_since = Some(Instant::now());
        "etcd has its members back".to_owned()
    }

    /// Finds out, beside the run, whether a node may come back without its memory.
    fn judge(&self, node: usize, cluster: &Cluster) {
        let judged = self.judged.0.clone();
        let others: Vec<_> = (0..NODES).filter(|other| *other != node).map(|other| cluster.socket(other)).collect();
        std::thread::spawn(move || {
            let until = Instant::now() + JUDGEMENT;
            let mut asked = others.iter().cycle();
            let verdict = loop {
                let began = Instant::now();
                let verdict = asked.next().map_or(Ok(()), |socket| dispense_with(node, socket));
                let verdict = verdict.and_then(|()| match began.elapsed() {
                    took if took < FRESH => Ok(()),
                    took => Err(format!("that others had it is {took:?} old")),
                });
                if verdict.is_ok() || Instant::now() >= until {
                    break verdict;
                }
                std::thread::sleep(Duration::from_millis(100));
            };
            let _ = judged.send((node, verdict));
        });
    }
}
