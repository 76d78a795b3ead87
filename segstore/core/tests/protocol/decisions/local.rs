//! A replica beside the claimant that is not in the in-sync set: a source like any other, and nothing more.

use segstore_core::id::{Epoch, OwnerId, Stamp};
use segstore_core::layout::SlotHeader;
use segstore_core::owner::{BelowMinimum, Owner, Policy, Start};
use segstore_core::push::Target;
use segstore_core::record::RecordVersion;
use segstore_core::slot::{Damage, SlotView};
use segstore_core::takeover::{Action, Failure, Takeover, Unusable};

use super::{header, member, prepare, pushes, reading};

const IMAGE: Stamp = Stamp::new(1, 4);

fn closed(image: Stamp) -> SlotView {
    SlotView::Closed(header(image))
}

/// A takeover that has fenced members 0 and 1, of which each has `slot`, and was told to load.
fn loading(slot: &SlotView) -> Takeover {
    prepare();
    let mut takeover = Takeover::new(OwnerId(2));
    takeover.record_read(reading(&[0, 1]));
    takeover.swapped(RecordVersion(2));
    (0..2).for_each(|n| takeover.fenced(member(n), vec![slot.clone()]));
    assert!(actions(&mut takeover).iter().any(|action| matches!(action, Action::Load { .. })));
    takeover
}

fn actions(takeover: &mut Takeover) -> Vec<Action> {
    std::iter::from_fn(|| takeover.poll()).collect()
}

/// The record that the takeover has claimed, as a directory answers.
fn confirm(takeover: &mut Takeover) -> Vec<Action> {
    let claimed = takeover.claimed().unwrap().clone();
    takeover.record_read(claimed);
    actions(takeover)
}

#[test]
fn a_local_replica_is_one_more_source() {
    let mut takeover = loading(&closed(IMAGE));
    assert_eq!(takeover.local_source(&[closed(Stamp::new(1, 3)), closed(IMAGE)]), Some(1));
    let other = SlotView::Closed(SlotHeader { table_sum: 9, ..header(IMAGE) });
    assert_eq!(takeover.local_source(&[SlotView::Blank, other]), None, "the same number, and other bytes");
    takeover.damaged(member(7), 0, &Unusable::Damaged(IMAGE, Damage::Table));
    takeover.loaded();
    assert_eq!(actions(&mut takeover), [Action::ReadRecord], "nobody leaves the set");
    let done = confirm(&mut takeover);
    let [Action::Done(start)] = &done[..] else { panic!("{done:?}") };
    assert_eq!(start.record.record.in_sync, [member(0), member(1)]);
    assert_eq!(takeover.local_source(&[closed(IMAGE)]), None, "nothing is loaded any more");
}

/// Working memory would be right, but the directory would name nobody who has it.
#[test]
fn a_local_replica_does_not_stand_for_the_in_sync_set() {
    let mut takeover = loading(&closed(IMAGE));
    let why = Unusable::Damaged(IMAGE, Damage::Table);
    (0..2).for_each(|n| takeover.damaged(member(n), 0, &why));
    takeover.loaded();
    assert_eq!(actions(&mut takeover), [Action::ReadRecord]);
    let replicas = (0..2).map(|n| (member(n), why.clone())).collect();
    assert_eq!(confirm(&mut takeover), [Action::Failed(Failure::NoGoodCopy { image: IMAGE, replicas })]);
}

/// One bit of one slot: the slot beside it holds the same image, whole.
#[test]
fn a_damaged_slot_leaves_the_others_of_its_replica() {
    prepare();
    let mut takeover = Takeover::new(OwnerId(2));
    takeover.record_read(reading(&[0]));
    takeover.swapped(RecordVersion(2));
    takeover.fenced(member(0), vec![closed(IMAGE), closed(IMAGE)]);
    actions(&mut takeover);
    takeover.damaged(member(0), 0, &Unusable::Damaged(IMAGE, Damage::Table));
    takeover.loaded();
    assert_eq!(actions(&mut takeover), [Action::ReadRecord], "it stays in the set");
    let done = confirm(&mut takeover);
    let [Action::Done(start)] = &done[..] else { panic!("{done:?}") };
    assert_eq!(start.followers, [(member(0), vec![None, Some(IMAGE)], 1)]);
}

/// Whether a slot under a damaged mark is whole is known only once it was read itself.
#[test]
fn a_slot_without_a_mark_is_read_itself() {
    let unmarked = SlotView::Damaged { mark: None, header: Some(header(IMAGE)) };
    assert_eq!(loading(&unmarked).local_source(&[closed(IMAGE)]), None);
}

#[test]
fn a_local_replica_is_brought_up_to_date_by_difference() {
    prepare();
    let record = reading(&[0]);
    let start = Start { loaded: IMAGE, followers: Vec::new(), ..Start::of_new_segment(record, 2) };
    let found = |slots: &[SlotView]| {
        let mut owner = Owner::new(start.clone(), Policy { minimum: 1, below: BelowMinimum::Continue });
        owner.add_local_as_found(member(7), slots);
        owner.connected(member(7));
        assert_eq!(owner.begin(), Ok(Epoch(5)));
        pushes(&mut owner)
    };
    let older = Stamp::new(1, 3);
    assert_eq!(
        found(&[closed(IMAGE), closed(older)]),
        [(member(7), Target { slot: 1, base: Some(older), begun: None })]
    );
    assert_eq!(found(&[closed(IMAGE), SlotView::Blank]), [(member(7), Target { slot: 1, base: None, begun: None })]);
    let off_lineage = closed(Stamp::new(1, 5));
    assert_eq!(found(&[off_lineage, closed(older)]), [(member(7), Target { slot: 1, base: Some(older), begun: None })]);
}
