//! What only the simulation can do exactly: faults at a chosen moment.

use segstore_transport::sim::wire::Frame;
use segstore_transport::sim::{Node, Sim, Weather};
use segstore_transport::{Domain, Endpoint, ErrorKind, Memory, Operation, Peer, Provider, Region, Rights, Wait};

use crate::fixture::{bytes, connect, fill};

struct World {
    sim: Sim,
    nodes: (Node, Node),
    target: Domain,
    region: Region,
    local: Region,
    endpoint: Endpoint,
    peer: Peer,
}

fn world(seed: u64, weather: Weather) -> World {
    let sim = Sim::new(seed, weather);
    let nodes = (sim.node(), sim.node());
    let (target, initiator) = (nodes.0.open().unwrap(), nodes.1.open().unwrap());
    let region = target.register(&Memory::anonymous(8192).unwrap(), Rights::ALL).unwrap();
    let local = initiator.register(&Memory::anonymous(8192).unwrap(), Rights::LOCAL).unwrap();
    let (endpoint, peer) = connect(&initiator, &target, &[(&region, Rights::ALL)]);
    World { sim, nodes, target, region, local, endpoint, peer }
}

impl World {
    fn post(&mut self, id: u64) {
        self.endpoint.post(&[Operation::write(self.local.all(), 0, 0)], id).unwrap();
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.sim.step();
            self.target.progress().unwrap();
        }
    }

    fn error(&mut self) -> ErrorKind {
        self.endpoint.poll().unwrap().result.unwrap_err().kind()
    }
}

#[test]
fn nothing_moves_by_itself() {
    let mut world = world(1, Weather::default());
    fill(&world.local, 1);
    world.post(1);
    assert_eq!(world.endpoint.poll(), None);
    assert_eq!(bytes(world.region.memory()), [0; 8192]);
    world.run(2);
    assert_eq!(bytes(world.region.memory()), bytes(world.local.memory()));
    world.endpoint.poll().unwrap().result.unwrap();
}

#[test]
fn a_late_write_does_not_land_after_revoke() {
    let mut world = world(2, Weather { patience: 10, ..Weather::default() });
    fill(&world.local, 1);
    world.sim.partition(&world.nodes.0, &world.nodes.1);
    world.post(1);
    world.run(20);
    assert_eq!(world.error(), ErrorKind::PeerGone);
    world.peer.revoke().unwrap();
    world.sim.heal();
    world.run(20);
    assert_eq!(bytes(world.region.memory()), [0; 8192]);
}

#[test]
fn without_a_revoke_the_late_write_lands() {
    let mut world = world(2, Weather { patience: 10, ..Weather::default() });
    fill(&world.local, 1);
    world.sim.partition(&world.nodes.0, &world.nodes.1);
    world.post(1);
    world.run(20);
    world.endpoint.abort();
    world.sim.heal();
    world.run(20);
    assert_eq!(bytes(world.region.memory()), bytes(world.local.memory()), "so the test above can fail");
}

#[test]
fn a_torn_write_leaves_exactly_its_first_bytes() {
    for at in [0, 1, 63, 4095] {
        let mut world = world(3, Weather { patience: 10, ..Weather::default() });
        let written = fill(&world.local, 1);
        world.sim.tear_next(at);
        world.post(1);
        world.run(20);
        let mut expected = written[..at].to_vec();
        expected.resize(8192, 0);
        assert_eq!(bytes(world.region.memory()), expected);
        assert_eq!(world.error(), ErrorKind::PeerGone);
    }
}

#[test]
fn a_lost_frame_loses_what_follows() {
    let mut world = world(4, Weather { patience: 10, ..Weather::default() });
    fill(&world.local, 1);
    world.sim.drop_next();
    world.post(1);
    world.run(20);
    assert_eq!(bytes(world.region.memory()), [0; 8192]);
    assert_eq!(world.error(), ErrorKind::PeerGone);
}

#[test]
fn deaths_are_noticed() {
    let mut one = world(5, Weather::default());
    one.post(1);
    one.sim.kill(&one.nodes.0);
    one.run(3);
    assert_eq!(one.error(), ErrorKind::PeerGone);
    let mut other = world(5, Weather::default());
    other.post(1);
    other.sim.kill(&other.nodes.1);
    other.run(3);
    assert!(!other.peer.is_alive());
    other.peer.revoke().unwrap();
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let outcome = |seed| {
        let mut world = world(seed, Weather { delay: 5, drops: 20, tears: 20, patience: 50 });
        for id in 0..100 {
            fill(&world.local, id);
            if world.endpoint.post(&[Operation::write(world.local.all(), 0, 0)], id).is_err() {
                break;
            }
            world.run(30);
            while world.endpoint.poll().is_some() {}
        }
        (bytes(world.region.memory()), world.peer.statistics())
    };
    assert_eq!(outcome(6), outcome(6));
    let different = (0..10).map(outcome).collect::<Vec<_>>();
    assert!(different.iter().any(|one| *one != different[0]), "seeds matter");
}

/// A read in flight whose every handle is dropped writes into memory that is still there.
#[test]
fn a_read_in_flight_keeps_its_memory() {
    let mut world = world(7, Weather::default());
    fill(&world.region, 1);
    world.endpoint.post(&[Operation::read(world.local.all(), 0, 0)], 1).unwrap();
    let kept = world.local.memory().clone();
    drop(world.local);
    for _ in 0..4 {
        world.sim.step();
        world.target.progress().unwrap();
    }
    world.endpoint.poll().unwrap().result.unwrap();
    assert_eq!(bytes(&kept), bytes(world.region.memory()));
}

/// Frames that no correct peer sends end the connection and change nothing.
#[test]
fn hostile_frames_change_nothing() {
    let write = |grant, offset| Frame::Write { grant, offset, bytes: b"evil" }.encode();
    let hostile = [
        write(1, 0),
        write(u16::MAX, 0),
        write(0, 8189),
        write(0, u64::MAX),
        Frame::CompareSwap { grant: 0, offset: 3, expected: 0, new: 1 }.encode(),
        Frame::CompareSwap { grant: 0, offset: u64::MAX - 7, expected: 0, new: 1 }.encode(),
        Frame::Read { grant: 0, offset: u64::MAX, len: 4096 }.encode(),
        Frame::Done.encode(),
        Frame::Refused { reason: 99 }.encode(),
        b"x".to_vec(),
        vec![0xff; 5000],
    ];
    for frame in hostile {
        let mut world = world(8, Weather::default());
        world.sim.forge_next(frame);
        world.post(1);
        world.run(5);
        assert_eq!(bytes(world.region.memory()), [0; 8192]);
        assert!(matches!(world.error(), ErrorKind::Denied | ErrorKind::Protocol));
    }
}

/// Answers that no correct target sends break the endpoint and write nothing.
#[test]
fn hostile_answers_write_nothing() {
    let hostile = [
        Frame::Data { bytes: &[1; 100] }.encode(),
        Frame::Word { was: 1 }.encode(),
        Frame::Done.encode(),
        Frame::End.encode(),
        b"".to_vec(),
        vec![0x5e; 31],
    ];
    for frame in hostile {
        let mut world = world(9, Weather { patience: 10, ..Weather::default() });
        fill(&world.region, 1);
        world.endpoint.post(&[Operation::read(world.local.slice(0, 64).unwrap(), 0, 0)], 1).unwrap();
        world.sim.step();
        world.sim.forge_next(frame);
        world.run(20);
        assert!(matches!(world.error(), ErrorKind::Protocol | ErrorKind::PeerGone));
        assert_eq!(bytes(world.local.memory()), [0; 8192]);
    }
}

/// An unknown reason is carried with its code.
#[test]
fn unknown_codes_are_carried() {
    let mut world = world(10, Weather::default());
    world.post(1);
    world.sim.step();
    world.sim.forge_next(Frame::Refused { reason: 4711 }.encode());
    world.run(3);
    assert_eq!(world.endpoint.wait(Wait::Busy, None).unwrap().result.unwrap_err().code(), 4711);
}
