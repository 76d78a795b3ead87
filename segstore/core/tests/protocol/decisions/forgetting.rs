//! Who may have a replica forgotten.

use segstore_core::forget::{Forgettable, Local};
use segstore_core::id::{Incarnation, OwnerId, Term};
use segstore_core::layout::Ownership;
use segstore_core::replica::{Refused, Replica};

use super::{member, prepare, reading};

const fn ownership(term: u64) -> Ownership {
    Ownership { term: Term(term), owner: OwnerId(term as u128) }
}

fn replica(remembered: Ownership) -> Replica {
    Replica::new(reading(&[]).record.segment, Incarnation(0), remembered)
}

#[test]
fn who_is_listed_or_takes_part_is_not_named() {
    prepare();
    let record = reading(&[0, 1]);
    let kept = [member(1), member(2), member(3)];
    let named = Forgettable::of_owner(record.ownership(), &[member(0), member(2)], &kept, &record.record);
    assert_eq!(named, Ok(Forgettable { by: record.ownership(), members: vec![member(3)] }));
    let remembered = record.ownership();
    let former = Ownership { term: Term(0), owner: OwnerId(77) };
    let refused = Forgettable::of_owner(former, &[], &kept, &record.record);
    assert_eq!(refused, Err(Refused::TermOver { asked: former, remembered }));
    let second = Ownership { owner: OwnerId(77), ..remembered };
    let refused = Forgettable::of_owner(second, &[], &kept, &record.record);
    assert_eq!(refused, Err(Refused::TermTaken { asked: second, remembered }));
}

#[test]
fn what_has_seen_a_later_owner_is_not_forgotten() {
    prepare();
    let forgettable = Forgettable { by: ownership(4), members: vec![member(1)] };
    assert_eq!(forgettable.covers(member(1), &replica(ownership(3))), Ok(true));
    assert_eq!(forgettable.covers(member(1), &replica(ownership(4))), Ok(true));
    let refused = forgettable.covers(member(1), &replica(ownership(5)));
    assert_eq!(refused, Err(Refused::TermOver { asked: ownership(4), remembered: ownership(5) }));
    assert_eq!(forgettable.covers(member(2), &replica(ownership(3))), Ok(false), "it is not named");
}

#[test]
fn an_orphan_is_what_nobody_names() {
    prepare();
    let record = reading(&[0, 1]);
    let by = record.ownership();
    let earlier = Ownership { term: Term(0), ..by };
    let orphan = |n, remembered, local| Forgettable::orphan(member(n), remembered, &record.record, local);
    let kept = |is_held| Local::Kept { is_held };
    let forgotten = Some(Forgettable { by, members: vec![member(2)] });
    assert_eq!(orphan(1, by, Local::None), None, "it is in sync");
    assert_eq!(orphan(1, earlier, kept(true)), None, "in sync, whatever it has seen");
    assert_eq!(orphan(2, by, Local::None), forgotten);
    assert_eq!(orphan(2, by, kept(true)), None, "the copy beside the owner");
    assert_eq!(orphan(2, by, kept(false)), None, "the owner may start here again");
    assert_eq!(orphan(2, earlier, kept(false)), None, "somebody has read what nobody owns");
    assert_eq!(orphan(2, earlier, kept(true)), forgotten, "another one owns it");
}
