//! What the state machines make of answers that come twice, late, or never.

use segstore_core::id::{Epoch, Incarnation, Member, NodeId, OwnerId, SegmentId, Stamp, Term};
use segstore_core::layout::{Entry, Geometry, Ownership, SlotHeader};
use segstore_core::lineage::{CAPACITY, Lineage};
use segstore_core::owner::{Action, BeginError, BelowMinimum, Blocked, End, Outcome, Owner, Policy, Start};
use segstore_core::record::{Record, RecordVersion, Swap, Versioned};
use segstore_core::repair::{Repair, Step};
use segstore_core::slot::SlotView;
use segstore_core::takeover::{Action as TakeoverAction, Failure, Takeover};

const SEGMENT: SegmentId = SegmentId(77);
const A: Ownership = Ownership { term: Term(1), owner: OwnerId(1) };

fn member(n: u128) -> Member {
    Member { node: NodeId(n), incarnation: Incarnation(n) }
}

fn record(replicas: u128) -> Versioned {
    let in_sync = (0..replicas).map(member).collect();
    let record = Record { segment: SEGMENT, term: A.term, owner: A.owner, in_sync };
    Versioned { version: RecordVersion(1), record }
}

/// An owner of a new segment, of which the first `connected` replicas are connected.
fn owner(replicas: u128, connected: u128) -> Owner {
    #[cfg(feature = "sabotage")]
    super::leave_out_what_the_environment_says();
    let policy = Policy { minimum: 1, below: BelowMinimum::Continue };
    let mut owner = Owner::new(Start::of_new_segment(record(replicas), 2), policy);
    (0..connected).for_each(|n| owner.connected(member(n)));
    owner
}

fn drain(owner: &mut Owner) -> Vec<Action> {
    std::iter::from_fn(|| owner.poll()).collect()
}

fn swap_in(actions: &[Action]) -> Option<Swap> {
    actions.iter().find_map(|action| match action {
        Action::Swap(swap) => Some(swap.clone()),
        _ => None,
    })
}

fn has_committed(actions: &[Action]) -> bool {
    actions.iter().any(|action| matches!(action, Action::Committed { .. }))
}

/// A stale record must not make the owner forget that an add is under way.
#[test]
fn a_record_that_is_read_twice_changes_nothing() {
    let mut owner = owner(1, 1);
    let mut directory = record(1);
    owner.repaired(A, member(1), 2, Stamp::EMPTY, Some(0));
    owner.connected(member(1));
    assert!(swap_in(&drain(&mut owner)).is_some());
    owner.swap_unknown();
    assert!(drain(&mut owner).contains(&Action::ReadRecord));
    owner.record_read(directory.clone());
    let add = swap_in(&drain(&mut owner)).unwrap();
    owner.begin().unwrap();
    owner.failed(member(1));
    owner.record_read(directory.clone());
    owner.completed(member(0), Epoch(1));
    assert!(!has_committed(&drain(&mut owner)), "the add may still land");
    directory.apply(add).unwrap();
}

#[test]
fn a_completion_of_an_earlier_push_counts_for_nothing() {
    let mut owner = owner(1, 1);
    owner.begin().unwrap();
    owner.failed(member(0));
    assert_eq!(owner.give_up(), Ok(Some(Epoch(1))));
    owner.connected(member(0));
    owner.begin().unwrap();
    drain(&mut owner);
    owner.completed(member(0), Epoch(1));
    assert!(!has_committed(&drain(&mut owner)));
    owner.completed(member(0), Epoch(2));
    assert!(has_committed(&drain(&mut owner)));
}

#[test]
fn no_push_is_handed_out_for_an_attempt_that_is_over() {
    let mut owner = owner(1, 1);
    owner.begin().unwrap();
    owner.failed(member(0));
    owner.give_up().unwrap();
    owner.connected(member(0));
    owner.begin().unwrap();
    let pushes = drain(&mut owner).into_iter().filter_map(|action| match action {
        Action::Push { epoch, .. } => Some(epoch),
        _ => None,
    });
    assert_eq!(pushes.collect::<Vec<_>>(), [Epoch(2)]);
}

#[test]
fn an_attempt_is_not_given_up_while_memory_is_read() {
    let mut owner = owner(2, 2);
    owner.begin().unwrap();
    owner.completed(member(0), Epoch(1));
    assert_eq!(owner.give_up(), Err(vec![member(1)]));
    owner.failed(member(1));
    assert_eq!(owner.give_up(), Ok(Some(Epoch(1))));
}

/// After a takeover the replicas are connected one after the other: whoever is still being connected has not failed.
#[test]
fn a_replica_that_is_being_connected_stays() {
    let mut owner = owner(3, 1);
    owner.begin().unwrap();
    assert_eq!(swap_in(&drain(&mut owner)), None);
    owner.completed(member(0), Epoch(1));
    assert_eq!(owner.blocked(), Some(Blocked::Connecting(vec![member(1), member(2)])));
    owner.connected(member(1));
    owner.failed(member(2));
    let swap = swap_in(&drain(&mut owner)).unwrap();
    assert_eq!(swap.new.in_sync, [member(0), member(1)]);
}

/// A link that is lost stops nothing but the push over it: what no longer reads memory is not waited for.
#[test]
fn a_lost_link_ends_the_push() {
    let mut owner = owner(1, 1);
    owner.add_local(member(1), vec![None; 2], None);
    owner.connected(member(1));
    owner.begin().unwrap();
    owner.completed(member(0), Epoch(1));
    assert_eq!(owner.blocked(), Some(Blocked::Replicas(vec![member(1)])));
    owner.lost(member(1));
    assert!(has_committed(&drain(&mut owner)), "a replica that counts for nothing reads memory no more");
    assert_eq!(owner.connecting().collect::<Vec<_>>(), [member(1)], "it stays, and may come back");
    owner.completed(member(1), Epoch(1));
    owner.connected(member(1));
    owner.begin().unwrap();
    owner.lost(member(0));
    assert!(
        !drain(&mut owner).iter().any(|action| matches!(action, Action::Push { member: to, .. } if *to == member(0)))
    );
    owner.connected(member(0));
    assert!(
        drain(&mut owner).iter().any(|action| matches!(action, Action::Push { member: to, .. } if *to == member(0)))
    );
}

#[test]
fn a_replica_that_is_let_go_is_not_waited_for() {
    let mut owner = owner(1, 1);
    let mut directory = record(1);
    owner.repaired(A, member(1), 2, Stamp::EMPTY, Some(0));
    owner.connected(member(1));
    drain(&mut owner);
    owner.swap_unknown();
    owner.remove(member(1));
    owner.record_read(directory.clone());
    let swap = swap_in(&drain(&mut owner)).unwrap();
    directory.apply(swap).unwrap();
    owner.swapped(directory.version);
    owner.failed(member(1));
    owner.begin().unwrap();
    owner.completed(member(0), Epoch(1));
    assert!(has_committed(&drain(&mut owner)), "{:?}", owner.blocked());
}

#[test]
fn a_second_repair_replaces_the_first() {
    let mut owner = owner(1, 1);
    owner.repaired(A, member(1), 2, Stamp::EMPTY, None);
    owner.connected(member(1));
    owner.repaired(A, member(2), 2, Stamp::EMPTY, Some(0));
    owner.connected(member(2));
    assert!(swap_in(&drain(&mut owner)).is_some(), "the directory is busy");
    owner.begin().unwrap();
    (0..3).for_each(|n| owner.completed(member(n), Epoch(1)));
    assert!(has_committed(&drain(&mut owner)));
    owner.failed(member(1));
    owner.repaired(A, member(1), 2, Stamp::new(1, 1), None);
    owner.connected(member(1));
    owner.swapped(RecordVersion(2));
    let added = swap_in(&drain(&mut owner)).is_some_and(|swap| swap.new.in_sync.contains(&member(1)));
    assert!(!added, "it holds no image");
}

#[test]
fn a_repair_for_another_ownership_counts_for_nothing() {
    let mut owner = owner(1, 1);
    let earlier = Ownership { term: Term(0), owner: OwnerId(9) };
    assert!(!owner.repaired(earlier, member(1), 2, Stamp::EMPTY, Some(0)));
    assert!(!owner.repaired(A, member(1), 2, Stamp::new(2, 5), None), "copied from what a later owner has written");
    assert!(owner.repaired(A, member(1), 2, Stamp::EMPTY, Some(0)));
}

#[test]
fn a_release_that_comes_twice_counts_once() {
    let mut owner = owner(1, 1);
    owner.begin().unwrap();
    owner.completed(member(0), Epoch(1));
    let (first, _second) = (owner.hold(member(0)).unwrap(), owner.hold(member(0)).unwrap());
    owner.release(first.number);
    owner.release(first.number);
    owner.begin().unwrap();
    owner.completed(member(0), Epoch(2));
    drain(&mut owner);
    owner.begin().unwrap();
    let written = drain(&mut owner).into_iter().any(|action| match action {
        Action::Push { target, .. } => target.slot == first.slot,
        _ => false,
    });
    assert!(!written, "the other reader still holds it");
}

/// A replica that left and came back has other readers: a hold from before is over.
#[test]
fn a_hold_goes_with_its_replica() {
    let mut owner = owner(1, 1);
    let commit = |owner: &mut Owner, n| {
        let epoch = owner.begin().unwrap();
        (0..n).for_each(|n| owner.completed(member(n), epoch));
        assert!(has_committed(&drain(owner)));
    };
    owner.add_local(member(1), vec![None; 2], None);
    owner.connected(member(1));
    commit(&mut owner, 2);
    let before = owner.hold(member(1)).unwrap();
    owner.failed(member(1));
    assert_eq!(owner.followers().collect::<Vec<_>>(), [member(0)], "nothing waits for a local replica to come back");
    owner.add_local(member(1), vec![Some(owner.acknowledged()); 2], Some(before.slot));
    let after = owner.hold(member(1)).unwrap();
    owner.release(before.number);
    owner.connected(member(1));
    commit(&mut owner, 2);
    owner.begin().unwrap();
    let writes_it = |action| matches!(action, Action::Push { member: to, target, .. } if to == member(1) && target.slot == after.slot);
    assert!(!drain(&mut owner).into_iter().any(writes_it), "a reader holds it");
}

/// What is not in the directory any more is acknowledged to nobody, whatever completes later.
#[test]
fn an_unlinked_segment_ends_its_ownership_once() {
    let mut owner = owner(1, 1);
    let epoch = owner.begin().unwrap();
    owner.unlinked();
    owner.unlinked();
    owner.completed(member(0), epoch);
    let actions = drain(&mut owner);
    assert_eq!(actions.iter().filter(|action| **action == Action::Ended(End::Unlinked)).count(), 1);
    assert!(!has_committed(&actions));
    assert_eq!(owner.begin(), Err(BeginError::Ended(End::Unlinked)));
    assert_eq!(owner.outcome(epoch), Outcome::Pending);
}

#[test]
fn a_local_replica_is_not_taken_in_twice() {
    let mut owner = owner(1, 1);
    owner.add_local(member(0), vec![None; 2], None);
    assert_eq!(owner.followers().count(), 1);
}

#[test]
fn a_fence_that_is_answered_twice_counts_once() {
    let geometry = Geometry::new(4096, 1024, 2).unwrap();
    let mut takeover = Takeover::new(OwnerId(9));
    takeover.record_read(record(2));
    takeover.swapped(RecordVersion(2));
    let empty = || vec![SlotView::Closed(SlotHeader::of_empty_segment(SEGMENT, &geometry)); 2];
    takeover.fenced(member(0), empty());
    takeover.fenced(member(0), empty());
    takeover.fenced(member(7), empty());
    assert!(!std::iter::from_fn(|| takeover.poll()).any(|action| matches!(action, TakeoverAction::Load { .. })));
    takeover.fenced(member(1), empty());
    assert!(std::iter::from_fn(|| takeover.poll()).any(|action| matches!(action, TakeoverAction::Load { .. })));
}

/// After a directory was restored, versions come again: the version alone would let A undo B's claim.
#[test]
fn a_swap_compares_the_whole_record() {
    let mut directory = record(2);
    let mut known_to_a = record(2);
    known_to_a.version = RecordVersion(2);
    known_to_a.record.in_sync = vec![member(0)];
    let claim = Swap { expected: directory.clone(), new: directory.record.claimed_by(OwnerId(2)) };
    directory.apply(claim).unwrap();
    let by_a = Swap { new: known_to_a.record.with_in_sync(vec![member(0), member(1)]), expected: known_to_a };
    assert!(directory.apply(by_a).is_err());
}

/// Numbers that replica memory or a directory make up must not wrap around to small ones.
#[test]
fn numbers_do_not_wrap() {
    let start = Start { loaded: Stamp::new(1, u64::MAX - 2), ..Start::of_new_segment(record(1), 2) };
    let mut owner = Owner::new(start, Policy { minimum: 1, below: BelowMinimum::Continue });
    owner.connected(member(0));
    let last = Epoch(u64::MAX - 1);
    assert_eq!(owner.begin(), Ok(last));
    owner.completed(member(0), last);
    assert!(has_committed(&drain(&mut owner)));
    assert_eq!(owner.begin(), Err(BeginError::NumbersUsedUp(Epoch(u64::MAX))));
    let mut takeover = Takeover::new(OwnerId(9));
    let mut damaged = record(1);
    damaged.record.term = Term(u64::MAX);
    takeover.record_read(damaged);
    let actions: Vec<_> = std::iter::from_fn(|| takeover.poll()).collect();
    assert_eq!(actions[1..], [TakeoverAction::Failed(Failure::TermsUsedUp(Term(u64::MAX)))]);
}

/// The answer is lost, the change was made: the next reading of the record says so, and nothing is sent again.
#[test]
fn a_change_that_was_made_is_not_made_again() {
    let mut owner = owner(1, 1);
    let mut directory = record(1);
    owner.repaired(A, member(1), 2, Stamp::EMPTY, Some(0));
    owner.connected(member(1));
    directory.apply(swap_in(&drain(&mut owner)).unwrap()).unwrap();
    owner.swap_unknown();
    drain(&mut owner);
    owner.record_read(directory);
    assert_eq!(drain(&mut owner), [Action::Added(member(1))]);
}

/// What is older than the image that the owner named lacks blocks that nobody will push.
#[test]
fn a_source_that_does_not_hold_the_image_is_none() {
    let geometry = Geometry::new(4096, 1024, 2).unwrap();
    let older = SlotHeader { image: Stamp::new(1, 6), ..SlotHeader::of_empty_segment(SEGMENT, &geometry) };
    for found in [SlotView::Closed(older), SlotView::Blank] {
        let mut repair = Repair::new(geometry, Stamp::new(1, 7), 1);
        repair.source_head(found);
        assert_eq!(repair.step(), Step::SourceChanged);
    }
}

/// With a checkpoint every few microseconds the source never holds just what the owner named.
#[test]
fn a_busy_segment_can_be_repaired() {
    let geometry = Geometry::new(4096, 1024, 2).unwrap();
    let newer =
        SlotHeader { image: Stamp::new(1, 9), length: 4096, ..SlotHeader::of_empty_segment(SEGMENT, &geometry) };
    let mut repair = Repair::new(geometry, Stamp::new(1, 7), 0);
    repair.source_head(SlotView::Closed(newer));
    assert_eq!(repair.base(), Stamp::new(1, 9));
    assert_eq!(repair.step(), Step::ReadEntries { first: 0, count: 1 }, "a piece has at least one block");
}

/// What the source does not descend from is not kept, nor what is newer than the source, though its table says the same of it.
#[test]
fn a_former_replica_keeps_what_the_source_descends_from() {
    let geometry = Geometry::new(4096, 1024, 2).unwrap();
    let header = |image, lineage: &[Stamp]| {
        let lineage = Lineage::from_entries(lineage.to_vec()).unwrap();
        let empty = SlotHeader::of_empty_segment(SEGMENT, &geometry);
        SlotView::Closed(SlotHeader { image, lineage, length: 4096, ..empty })
    };
    let ancestry = [Stamp::new(1, 4)];
    let begun = |slots: [SlotView; 2]| {
        #[cfg(feature = "sabotage")]
        super::leave_out_what_the_environment_says();
        let mut repair = Repair::new(geometry, Stamp::new(2, 7), 2);
        repair.source_head(header(Stamp::new(2, 7), &ancestry));
        repair.onto(&repair.usable(slots.to_vec()));
        repair
    };
    let everything = Step::ReadEntries { first: 0, count: 2 };
    let ancestor = || header(Stamp::new(1, 3), &[]);
    let empty = header(Stamp::EMPTY, &[]);
    for other in [header(Stamp::new(1, 5), &[]), header(Stamp::new(2, 8), &ancestry), SlotView::Blank, empty] {
        assert_eq!(begun([ancestor(), other]).step(), everything);
    }
    let mut repair = begun([ancestor(), header(Stamp::new(2, 6), &ancestry)]);
    assert_eq!(repair.step(), Step::Compare { first: 0, count: 4 });
    let entry = |modified, checksum| Entry::new(Epoch(modified), checksum);
    assert!(repair.keeps(&entry(3, 1), &entry(3, 1)));
    assert!(!repair.keeps(&entry(3, 1), &entry(2, 1)) && !repair.keeps(&entry(3, 1), &entry(3, 2)), "another one");
    assert!(!repair.keeps(&entry(4, 1), &entry(4, 1)), "newer than what one of the slots has whole");
    repair.compared(&[false, true, true, true]);
    assert_eq!(repair.step(), Step::ReadEntries { first: 1, count: 2 });
    (0..3).for_each(|_| repair.advance());
    assert_eq!(repair.step(), Step::ReadEntries { first: 3, count: 1 });
    (0..3).for_each(|_| repair.advance());
    assert_eq!(repair.step(), Step::ReadHead, "all of it has been looked at");
    // A source that is not what was said stays so.
    let mut repair = Repair::new(geometry, Stamp::new(2, 7), 2);
    repair.source_head(SlotView::Blank);
    repair.onto(&repair.usable(vec![ancestor(), ancestor()]));
    assert_eq!(repair.step(), Step::SourceChanged);
}

/// A later owner's slot says of a block that it has not changed since the first copy, which may have taken it from an attempt of the earlier
/// one.
#[test]
fn a_repair_follows_no_later_owner() {
    let geometry = Geometry::new(4096, 1024, 2).unwrap();
    let closed = |image| {
        SlotView::Closed(SlotHeader { image, length: 1024, ..SlotHeader::of_empty_segment(SEGMENT, &geometry) })
    };
    let copied = |later: Stamp| {
        let mut repair = Repair::new(geometry, Stamp::new(1, 5), 1);
        repair.source_head(closed(Stamp::new(1, 5)));
        (0..3).for_each(|_| repair.advance());
        repair.source_head(closed(later));
        repair.again(Term(2));
        repair.source_head(closed(later));
        (repair.base(), repair.step())
    };
    let survey = Step::Survey { first: 0, count: 1 };
    assert_eq!(copied(Stamp::new(1, 7)), (Stamp::new(1, 7), survey.clone()));
    assert_eq!(copied(Stamp::new(2, 7)), (Stamp::new(2, 7), survey), "the owner's own, since it took over");
    assert_eq!(copied(Stamp::new(3, 7)), (Stamp::new(1, 5), Step::Finished));
}

/// Many small reads would take longer than one.
#[test]
fn what_lies_between_two_changes_is_copied_with_them() {
    let geometry = Geometry::new(512 << 10, 1024, 2).unwrap();
    let header =
        SlotHeader { image: Stamp::new(1, 7), length: 512 << 10, ..SlotHeader::of_empty_segment(SEGMENT, &geometry) };
    let mut repair = Repair::new(geometry, header.image, 128);
    repair.source_head(SlotView::Closed(header.clone()));
    repair.onto(&repair.usable(vec![SlotView::Closed(header.clone()), SlotView::Closed(header)]));
    assert_eq!(repair.step(), Step::Compare { first: 0, count: 512 });
    let lacking = [0, 3, 7].into_iter().chain(30..160).chain([511]).collect::<Vec<u32>>();
    repair.compared(&(0..512).map(|block| lacking.contains(&block)).collect::<Vec<_>>());
    let mut pieces = Vec::new();
    while let Step::ReadEntries { first, count } = repair.step() {
        pieces.push((first, count));
        (0..3).for_each(|_| repair.advance());
    }
    assert_eq!(pieces, [(0, 4), (7, 1), (30, 128), (158, 2), (511, 1)]);
}

#[test]
fn what_a_lineage_has_forgotten_is_not_said_to_be_gone() {
    let mut ancestry = Lineage::root();
    for n in 1..=CAPACITY as u64 + 2 {
        ancestry = ancestry.extended_by(Stamp::new(n, n));
    }
    let start = Start { ancestry, loaded: Stamp::new(60, 60), ..Start::of_new_segment(record(1), 2) };
    let owner = Owner::new(start, Policy { minimum: 1, below: BelowMinimum::Stop });
    assert_eq!(owner.was_taken_over(Stamp::new(2, 2)), None);
    assert_eq!(owner.was_taken_over(Stamp::new(50, 50)), Some(true));
    assert_eq!(owner.was_taken_over(Stamp::new(50, 51)), Some(false));
}
