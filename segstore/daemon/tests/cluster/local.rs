//! A copy beside the owner: it counts for nothing, and makes a restart there need nobody else's.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use segstore::{LoadOptions, OpenOptions, Session, Status};

use super::harness::{Client, Cluster, WATCHDOG, until};
use super::roles::check_state;

/// The copy on the first node, once it holds what is acknowledged.
fn until_local(session: &Session) -> Status {
    until("the copy beside the owner holds the newest checkpoint", || {
        let status = session.status("s").ok()?;
        let acknowledged = status.owner.as_ref()?.acknowledged;
        let local = status.replicas.iter().find(|replica| replica.node_name == "n0")?;
        (!local.in_sync && local.image >= Some(acknowledged)).then_some(status)
    })
}

fn slots_of(cluster: &Cluster, node: usize) -> PathBuf {
    let files = std::fs::read_dir(cluster.memory(node)).unwrap().map(|entry| entry.unwrap().path());
    let mut slots = files.filter(|path| path.extension().is_some_and(|kind| kind == "slots"));
    slots.next().unwrap()
}

/// Nothing of the data of the other replicas is good any more: heads and tables are, so only their blocks are missed.
fn spoil_blocks(file: &PathBuf) {
    let file = std::fs::File::options().write(true).open(file).unwrap();
    let length = file.metadata().unwrap().len();
    for slot in 0..2 {
        // The end of a slot is its data.
        let end = length / 2 * (slot + 1);
        file.write_all_at(&[0xee; 4096], end - (1 << 20)).unwrap();
    }
}

fn written(cluster: &Cluster) -> (Client, u64) {
    let mut owner = cluster.client(0, "collocated", &["s"]);
    owner.line("owner").expect("it becomes the owner");
    let first = owner.line("acknowledged").unwrap().parse().unwrap();
    let session = cluster.session(0);
    until_local(&session);
    owner.kill();
    let acknowledged = owner.last_number("acknowledged").unwrap_or(first);
    (owner, acknowledged)
}

#[test]
fn a_restart_on_the_same_node_needs_no_other_copy_of_the_data() {
    let cluster = Cluster::start(2, &[]);
    let (_owner, acknowledged) = written(&cluster);
    spoil_blocks(&slots_of(&cluster, 1));
    let elsewhere = cluster.session(1).open("s", &OpenOptions::new().stand_by(Some(WATCHDOG)));
    assert!(elsewhere.is_err(), "the test spoils what others would load");
    let segment = cluster.session(0).open("s", &OpenOptions::new().stand_by(Some(WATCHDOG))).unwrap();
    assert!(check_state(segment.bytes()) >= acknowledged);
}

/// Whoever reads what nobody owns takes it over for that moment, and leaves the copy what it is good for.
#[test]
fn a_restart_on_the_same_node_after_somebody_has_read_needs_no_other_copy_either() {
    let cluster = Cluster::start(2, &[]);
    let (_owner, acknowledged) = written(&cluster);
    let term = || cluster.session(1).lookup("s").unwrap().record.record.term;
    let before = term();
    assert!(check_state(cluster.session(1).load("s", &LoadOptions::new()).unwrap().bytes()) >= acknowledged);
    assert!(term() > before);
    spoil_blocks(&slots_of(&cluster, 1));
    let segment = cluster.session(0).open("s", &OpenOptions::new().stand_by(Some(WATCHDOG))).unwrap();
    assert!(check_state(segment.bytes()) >= acknowledged);
}

#[test]
fn a_local_copy_counts_for_nothing_and_comes_back() {
    let mut cluster = Cluster::start(2, &[]);
    let session = cluster.session(1);
    let mut owner = cluster.client(0, "collocated", &["s"]);
    owner.line("owner").unwrap();
    let status = until_local(&session);
    let owner_says = status.owner.unwrap();
    assert_eq!((owner_says.in_sync, owner_says.elsewhere), (1, 1), "{owner_says:?}");
    // Its daemon dies and comes back, its memory does not: another copy is made, and checkpoints go on all the while.
    cluster.kill(0);
    std::fs::remove_dir_all(cluster.memory(0)).unwrap();
    let before = owner.line("acknowledged").unwrap();
    cluster.restart(0);
    until_local(&session);
    assert_ne!(owner.line("acknowledged").unwrap(), before);
}
