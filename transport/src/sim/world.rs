//! The state of the simulated network, under one lock: determinism is worth more here than speed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use super::Weather;
use super::wire::{Frame, reason};
use crate::memory::Memory;
use crate::{Error, ErrorKind, Rights};

pub(super) struct World {
    state: Mutex<State>,
}

pub(super) struct State {
    /// Tells worlds apart: the seed is part of every hello.
    pub(super) seed: u64,
    random: u64,
    now: u64,
    weather: Weather,
    next: Option<Fault>,
    nodes: u64,
    dead: BTreeSet<u64>,
    partitions: BTreeSet<(u64, u64)>,
    links: BTreeMap<u64, Link>,
}

/// What becomes of the next frame.
pub(super) enum Fault {
    Drop,
    Tear(usize),
    Forge(Vec<u8>),
}

/// One connection.
pub(super) struct Link {
    pub(super) initiator: u64,
    pub(super) target: u64,
    pub(super) grants: Vec<(Memory, Rights)>,
    pub(super) connected: bool,
    pub(super) revoked: bool,
    pub(super) closed: bool,
    pub(super) notifications: VecDeque<u64>,
    pub(super) taken: u64,
    pub(super) operations: u64,
    pub(super) bytes: u64,
    /// The target has answered `Refused` and hears nothing more.
    refused: bool,
    requests: Lane,
    answers: Lane,
    /// When the initiator heard, or sent, last.
    heard: u64,
}

/// One direction of a connection.
#[derive(Default)]
struct Lane {
    travelling: VecDeque<(u64, Vec<u8>)>,
    arrived: VecDeque<Vec<u8>>,
    /// Everything sent from here on is lost.
    cut: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ToTarget,
    ToInitiator,
}

impl World {
    pub(super) fn new(seed: u64, weather: Weather) -> World {
        let state = State {
            seed,
            random: seed,
            now: 0,
            weather,
            next: None,
            nodes: 0,
            dead: BTreeSet::new(),
            partitions: BTreeSet::new(),
            links: BTreeMap::new(),
        };
        World { state: Mutex::new(state) }
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    pub(super) fn add_node(&mut self) -> u64 {
        self.nodes += 1;
        self.nodes
    }

    pub(super) fn partition(&mut self, one: u64, other: u64) {
        self.partitions.insert((one.min(other), one.max(other)));
    }

    pub(super) fn heal(&mut self) {
        self.partitions.clear();
    }

    pub(super) fn fault_next(&mut self, fault: Fault) {
        self.next = Some(fault);
    }

    pub(super) fn is_dead(&self, node: u64) -> bool {
        self.dead.contains(&node)
    }

    pub(super) fn kill(&mut self, node: u64) {
        self.dead.insert(node);
        let mut random = self.random;
        for link in self.links.values_mut() {
            for (sender, lane) in [(link.initiator, &mut link.requests), (link.target, &mut link.answers)] {
                if sender == node {
                    let left = chance(&mut random) % (lane.travelling.len() as u64 + 1);
                    lane.travelling.truncate(usize::try_from(left).unwrap_or(0));
                    lane.cut = true;
                }
            }
        }
        self.random = random;
    }

    pub(super) fn add_link(&mut self, initiator: u64, target: u64, grants: Vec<(Memory, Rights)>) -> u64 {
        let number = self.links.last_key_value().map_or(1, |(last, _)| last + 1);
        let link = Link {
            initiator,
            target,
            grants,
            connected: false,
            revoked: false,
            closed: false,
            notifications: VecDeque::new(),
            taken: 0,
            operations: 0,
            bytes: 0,
            refused: false,
            requests: Lane::default(),
            answers: Lane::default(),
            heard: self.now,
        };
        self.links.insert(number, link);
        number
    }

    pub(super) fn link(&mut self, number: u64) -> Option<&mut Link> {
        self.links.get_mut(&number)
    }

    /// Sends a frame, through the weather.
    pub(super) fn send(&mut self, number: u64, way: Way, frame: &Frame<'_>) {
        let mut bytes = frame.encode();
        let mut cut = false;
        let payload = if let Frame::Write { bytes, .. } = frame { bytes.len() } else { 0 };
        let fault = match self.next.take() {
            // A tear waits for a write.
            Some(Fault::Tear(at)) if payload == 0 => {
                self.next = Some(Fault::Tear(at));
                None
            }
            None => self.weather_fault(payload),
            planned => planned,
        };
        match (fault, frame) {
            (Some(Fault::Drop), _) => (cut, bytes) = (true, Vec::new()),
            (Some(Fault::Tear(at)), Frame::Write { grant, offset, bytes: whole }) => {
                let torn = Frame::Write { grant: *grant, offset: *offset, bytes: &whole[..at.min(whole.len())] };
                (cut, bytes) = (true, torn.encode());
            }
            (Some(Fault::Forge(forged)), _) => bytes = forged,
            _ => {}
        }
        let due = self.now + 1 + chance(&mut self.random) % self.weather.delay.max(1);
        let now = self.now;
        let Some(link) = self.links.get_mut(&number) else { return };
        if way == Way::ToTarget && link.answers.travelling.is_empty() && link.requests.travelling.is_empty() {
            link.heard = now;
        }
        let lane = if way == Way::ToTarget { &mut link.requests } else { &mut link.answers };
        // In order: no frame overtakes the one before it.
        let due = lane.travelling.back().map_or(due, |(before, _)| due.max(*before));
        if !lane.cut && !bytes.is_empty() {
            lane.travelling.push_back((due, bytes));
        }
        lane.cut |= cut;
    }

    fn weather_fault(&mut self, payload: usize) -> Option<Fault> {
        if chance(&mut self.random) % 1000 < self.weather.drops {
            return Some(Fault::Drop);
        }
        if payload > 0 && chance(&mut self.random) % 1000 < self.weather.tears {
            let at = chance(&mut self.random) % payload as u64;
            return Some(Fault::Tear(usize::try_from(at).unwrap_or(0)));
        }
        None
    }

    pub(super) fn step(&mut self) -> usize {
        self.now += 1;
        let mut arrived = 0;
        for link in self.links.values_mut() {
            let pair = (link.initiator.min(link.target), link.initiator.max(link.target));
            if self.partitions.contains(&pair) {
                continue;
            }
            arrived += link.requests.arrive(self.now);
            let answers = link.answers.arrive(self.now);
            if answers > 0 {
                link.heard = self.now;
            }
            arrived += answers;
        }
        arrived
    }

    /// Applies the requests that arrived at a node's domains.
    pub(super) fn serve(&mut self, node: u64) -> usize {
        if self.is_dead(node) {
            return 0;
        }
        let mine: Vec<u64> = self.links.iter().filter(|(_, link)| link.target == node).map(|(n, _)| *n).collect();
        let mut done = 0;
        for number in mine {
            while let Some(request) = self.links.get_mut(&number).and_then(|link| link.requests.arrived.pop_front()) {
                self.answer(number, &request);
                done += 1;
            }
        }
        done
    }

    fn answer(&mut self, number: u64, request: &[u8]) {
        let Some(link) = self.links.get_mut(&number) else { return };
        if link.refused {
            return;
        }
        let mut data = Vec::new();
        let answer = link.apply(request, &mut data);
        link.refused = matches!(answer, Some(Frame::Refused { .. }));
        if let Some(answer) = answer {
            self.send(number, Way::ToInitiator, &answer);
        }
    }

    /// The next answer for an initiator, or why there will be none. `waiting`: an answer is outstanding.
    pub(super) fn hear(&mut self, number: u64, waiting: bool) -> Result<Option<Vec<u8>>, Error> {
        let (now, patience) = (self.now, self.weather.patience);
        let gone = |why: &str| Err(Error::endpoint(ErrorKind::PeerGone, why));
        let Some(link) = self.links.get_mut(&number) else { return gone("the connection is no more") };
        if let Some(answer) = link.answers.arrived.pop_front() {
            return Ok(Some(answer));
        }
        let target = link.target;
        let silent = waiting && now.saturating_sub(link.heard) > patience;
        if self.is_dead(target) && self.links.get(&number).is_none_or(|link| link.answers.travelling.is_empty()) {
            return gone("the target is dead");
        }
        if silent { gone("the target has been silent for longer than the patience") } else { Ok(None) }
    }
}

impl Lane {
    fn arrive(&mut self, now: u64) -> usize {
        let due = self.travelling.iter().take_while(|(due, _)| *due <= now).count();
        self.arrived.extend(self.travelling.drain(..due).map(|(_, bytes)| bytes));
        due
    }
}

impl Link {
    /// One request at the target: checks it as hostile, and does it.
    fn apply<'d>(&mut self, request: &[u8], data: &'d mut Vec<u8>) -> Option<Frame<'d>> {
        if self.revoked {
            return Some(Frame::Refused { reason: reason::REVOKED });
        }
        let Ok(frame) = Frame::parse(request) else { return Some(Frame::Refused { reason: reason::MALFORMED }) };
        let moved = match frame {
            Frame::Write { grant, offset, bytes } => self
                .place(grant, offset, Rights::WRITE)
                .and_then(|(memory, at)| memory.write_at(at, bytes).ok())
                .map(|()| (bytes.len(), None)),
            Frame::Read { grant, offset, len } => self.place(grant, offset, Rights::READ).and_then(|(memory, at)| {
                data.resize(usize::try_from(len).ok()?, 0);
                memory.read_at(at, data).ok()?;
                Some((data.len(), Some(Frame::Data { bytes: data })))
            }),
            Frame::CompareSwap { grant, offset, expected, new } => self
                .place(grant, offset, Rights::ATOMIC)
                .and_then(|(memory, at)| memory.compare_swap_u64(at, expected, new).ok())
                .map(|was| (8, Some(Frame::Word { was }))),
            Frame::Notify { value } => {
                self.notifications.push_back(value);
                Some((0, None))
            }
            Frame::End => return Some(Frame::Done),
            Frame::Data { .. } | Frame::Word { .. } | Frame::Done | Frame::Refused { .. } => {
                return Some(Frame::Refused { reason: reason::MALFORMED });
            }
        };
        let Some((bytes, answer)) = moved else { return Some(Frame::Refused { reason: reason::DENIED }) };
        self.operations += 1;
        self.bytes += bytes as u64;
        answer
    }

    fn place(&self, grant: u16, offset: u64, needed: Rights) -> Option<(Memory, usize)> {
        let (memory, rights) = self.grants.get(usize::from(grant))?;
        rights.has(needed).then_some((memory.clone(), usize::try_from(offset).ok()?))
    }
}

/// The next number of the sequence (splitmix64).
fn chance(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
