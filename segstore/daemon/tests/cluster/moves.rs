//! Replicas that move to other memory because somebody may still write the present one.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use segstore::{CreateOptions, LoadOptions, OpenOptions};
use segstore_core::id::{Epoch, Stamp, Term};
use segstore_core::layout::{Geometry, Key, Mark};

use super::harness::{Cluster, WATCHDOG};

const BLOCK: usize = 4096;
const CAPACITY: u64 = 32 << 20;

/// An owner that was stopped between its first look at the fence and its first store wakes while the slots are moved. Some of what it
/// stores is copied, and some is not.
#[test]
fn a_slot_that_was_written_while_it_moved_is_filled_in_full() {
    let cluster = Cluster::start(2, &["--transport", "shm"]);
    let make = CreateOptions::new(CAPACITY).replicas(1);
    let timeout = Duration::from_secs(30);
    let mut old = cluster.session(0).open_or_create("s", &make, &OpenOptions::new().timeout(timeout)).unwrap();
    old.set_len(usize::try_from(CAPACITY).unwrap()).unwrap();
    old.bytes_mut(..).unwrap().fill(1);
    old.checkpoint().unwrap();
    old.checkpoint().unwrap();
    old.write(5 * BLOCK, &[3; BLOCK]).unwrap();
    let newest = old.checkpoint().unwrap().epoch;
    let segment = cluster.session(0).lookup("s").unwrap().record.record.segment;
    let geometry = Geometry::new(CAPACITY, 4096, 2).unwrap();
    let slots = cluster.slots(1);
    let file = File::options().read(true).write(true).open(&slots).unwrap();
    let place = |slot: u32, at: u64| geometry.slot(slot) - geometry.slot(0) + at;
    let epoch_in = |slot: u32| {
        let mut epoch = [0; 8];
        file.read_exact_at(&mut epoch, place(slot, 16)).unwrap();
        Epoch(u64::from_le_bytes(epoch))
    };
    let stale = u32::from(epoch_in(0) == newest);
    let former = Stamp { term: Term(1), epoch: epoch_in(stale) };
    assert!(former.epoch < newest);
    // The stores of its next push, which changes the last block: made when the head of the slot has been copied.
    let next = Mark { image: Stamp { term: Term(1), epoch: newest.next() }, former: Some(former), is_closed: false };
    let last = geometry.blocks() - 1;
    let (mark, row) = (place(stale, 0), place(stale, geometry.entry_in_slot(last)));
    let data = place(stale, geometry.block_in_slot(last));
    let moving = slots.with_added_extension("moving-1");
    let late = std::thread::spawn(move || {
        let began = Instant::now();
        while began.elapsed() < WATCHDOG {
            let mut head = [0; 8];
            let copy = File::open(&moving);
            if copy.is_ok_and(|copy| copy.read_exact_at(&mut head, row).is_ok()) && head != [0; 8] {
                file.write_all_at(&next.encode(Key::of(segment)), mark).unwrap();
                file.write_all_at(&[9; 16], row).unwrap();
                file.write_all_at(&[9; BLOCK], data).unwrap();
                return true;
            }
        }
        false
    });
    let mut new = cluster.session(1).open("s", &OpenOptions::new().take_over(true).timeout(timeout)).unwrap();
    assert!(late.join().unwrap(), "the move was seen");
    new.write(5 * BLOCK, &[4; BLOCK]).unwrap();
    let acknowledged = new.checkpoint().unwrap();
    new.release().unwrap();
    let image = cluster.session(0).load("s", &LoadOptions::new()).unwrap();
    assert_eq!(image.epoch(), acknowledged.epoch);
    assert!(image.bytes().iter().enumerate().all(|(at, byte)| *byte == if at / BLOCK == 5 { 4 } else { 1 }));
}

/// What is left of the file system would hold what stands in the slots now, and not what they may hold: nothing is moved there.
#[test]
fn a_replica_that_has_no_room_to_move_is_left_out() {
    let mut cluster = Cluster::start(3, &["--transport", "shm"]);
    cluster.kill(1);
    let memory = cluster.memory(1);
    std::fs::remove_dir_all(&memory).unwrap();
    std::fs::create_dir(&memory).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&memory).status().unwrap();
    assert!(mounted.success(), "this test needs root");
    cluster.restart(1);
    cluster.until_up(3);
    let make = CreateOptions::new(8 << 20).replicas(2);
    let mut old = cluster.session(0).open_or_create("s", &make, &OpenOptions::new()).unwrap();
    old.set_len(1 << 20).unwrap();
    old.checkpoint().unwrap();
    let mut new = cluster.session(0).open("s", &OpenOptions::new().take_over(true)).unwrap();
    let in_sync = cluster.session(0).lookup("s").unwrap().places;
    new.checkpoint().unwrap();
    drop(cluster);
    assert!(Command::new("umount").arg("-l").arg(&memory).status().unwrap().success());
    assert_eq!(in_sync.into_iter().map(|place| place.node_name).collect::<Vec<_>>(), ["n2"]);
}
