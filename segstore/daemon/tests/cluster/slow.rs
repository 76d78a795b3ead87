//! Checkpoints that take longer than a call of them may.

use std::time::Duration;

use segstore::{CreateOptions, Error, OpenOptions, Segment};

use super::harness::{Cluster, until};
use super::roles::OVER_TCP;

const STATE: usize = 512 << 20;
/// In which a tenth of it gets through, or a third.
const CALL: Duration = Duration::from_millis(60);
const WORD: usize = size_of::<u64>();

/// Says in each page which one it is.
fn fill(segment: &mut Segment) {
    segment.set_len(STATE).unwrap();
    for (page, bytes) in segment.bytes_mut(0..STATE).unwrap().chunks_exact_mut(4096).enumerate() {
        bytes[WORD..2 * WORD].copy_from_slice(&page.to_le_bytes());
    }
}

/// Makes checkpoints, each of another state, until one is acknowledged. Which one it is, and how many came to nothing, of which some say how far
/// they came.
fn until_acknowledged(segment: &mut Segment, first: u64) -> (u64, u64) {
    let (mut number, mut is_told) = (first, false);
    until("a checkpoint is acknowledged", || {
        number += 1;
        // In every part of the state: what was pushed already changes as well.
        for at in (0..STATE).step_by(STATE / 64) {
            segment.bytes_mut(at..at + WORD).unwrap().copy_from_slice(&number.to_le_bytes());
        }
        match segment.checkpoint() {
            Ok(_) => Some(()),
            Err(Error::Pending { waiting_for, .. }) => {
                is_told |= waiting_for.contains(" MiB are sent so far");
                None
            }
            Err(error) => panic!("{error}"),
        }
    });
    assert!(is_told || number == first + 1);
    (number, number - first - 1)
}

fn check(bytes: &[u8], number: u64) {
    assert_eq!(bytes.len(), STATE);
    for (page, bytes) in bytes.chunks_exact(4096).enumerate() {
        assert_eq!(bytes[WORD..2 * WORD], page.to_le_bytes(), "page {page}");
    }
    for at in (0..STATE).step_by(STATE / 64) {
        assert_eq!(bytes[at..at + WORD], number.to_le_bytes(), "at {at}");
    }
}

/// What one call had sent counts for the next, and a fresh replica that is being filled from the owner's memory is not given up for another.
#[test]
fn a_checkpoint_goes_on_where_the_last_call_ended() {
    let mut cluster = Cluster::start(3, &[OVER_TCP, &["--memory", "3GiB"]].concat());
    let session = cluster.session(0);
    let make = CreateOptions::new(STATE as u64).replicas(1);
    let mut segment = session.open_or_create("s", &make, &OpenOptions::new().timeout(CALL)).unwrap();
    fill(&mut segment);
    let (number, pending) = until_acknowledged(&mut segment, 0);
    assert!(pending > 2, "it takes no longer than {pending} calls: nothing is shown");
    println!("acknowledged after {pending} calls that came to nothing");
    let victim: usize = session.lookup("s").unwrap().places[0].node_name[1..].parse().unwrap();
    cluster.kill(victim);
    std::fs::remove_dir_all(cluster.memory(victim)).unwrap();
    let (number, pending) = until_acknowledged(&mut segment, number);
    println!("acknowledged by a fresh replica after {pending} calls that came to nothing");
    let places = session.lookup("s").unwrap().places;
    assert!(places.len() == 1 && places[0].node_name == format!("n{}", 3 - victim), "{places:?}");
    let made = std::fs::read_to_string(cluster.log(3 - victim)).unwrap().matches("a replica was made here").count();
    assert_eq!(made, 1, "one was made, and given up for another");
    drop(segment);
    let loaded = session.open("s", &OpenOptions::new().stand_by(Some(Duration::from_secs(10)))).unwrap();
    check(loaded.bytes(), number);
}
