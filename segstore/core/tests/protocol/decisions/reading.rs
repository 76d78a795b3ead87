//! Reading without ownership.

use segstore_core::id::{OwnerId, Stamp, Term};
use segstore_core::layout::{Ownership, SlotHeader};
use segstore_core::owner::Hold;
use segstore_core::reader::{Reader, Unread, Verdict};
use segstore_core::record::{RecordVersion, Versioned};
use segstore_core::slot::{Damage, SlotView};
use segstore_core::takeover::Unusable;

use super::{header, member, prepare, reading};

#[test]
fn a_reader_asks_the_owner_and_believes_the_directory() {
    prepare();
    let record = reading(&[0, 1]);
    let image = Stamp::new(1, 4);
    let hold = Hold { number: 1, member: member(0), slot: 1, image };
    let held = |answered, head| Reader::of_hold(record.clone(), answered, hold, head);
    let closed = SlotView::Closed(header(image));
    let other = Ownership { term: Term(1), owner: OwnerId(2) };
    assert!(matches!(held(other, closed.clone()), Err(Unread::NotTheOwner { .. })));
    let owner = record.ownership();
    assert_eq!(held(owner, SlotView::Closed(header(Stamp::new(1, 5)))), Err(Unread::HoldOver(hold)));
    assert_eq!(held(owner, SlotView::Blank), Err(Unread::HoldOver(hold)));
    let damaged = SlotView::Damaged { mark: None, header: None };
    assert_eq!(held(owner, damaged), Err(Unread::Unreadable(vec![(member(0), Unusable::HeadDamaged(1))])));
    let mut reader = held(owner, closed.clone()).unwrap();
    assert_eq!(reader.copied(Ok(()), &closed, &record), Ok(Verdict::Accepted));
    let another = Versioned { version: RecordVersion(2), ..reading(&[0]) };
    let changed = reader.copied(Ok(()), &closed, &another).unwrap_err();
    assert!(matches!(changed, Unread::RecordChanged(_)) && changed.is_passing(), "only the in-sync set has changed");
    let written = Unread::SlotWritten { member: member(0), slot: 1 };
    let again = SlotView::Closed(SlotHeader { table_sum: 9, ..header(image) });
    for now in [SlotView::Blank, again] {
        assert_eq!(reader.copied(Err(Damage::Table), &now, &record), Err(written.clone()));
    }
    let unreadable = Unread::Unreadable(vec![(member(0), Unusable::Damaged(image, Damage::Table))]);
    assert!(!unreadable.is_passing());
    assert_eq!(reader.copied(Err(Damage::Table), &closed, &record), Err(unreadable));
}

/// With nobody to ask: an image that a member lacks may never be loaded again, and one that a member has instead may be acknowledged.
#[test]
fn a_reader_that_has_nobody_to_ask_takes_what_all_have() {
    prepare();
    let record = reading(&[0, 1]);
    let (old, new) = (Stamp::new(1, 4), Stamp::new(1, 5));
    let closed = |image| SlotView::Closed(header(image));
    let slots = |images: [Stamp; 2]| Ok(images.map(closed).to_vec());
    let read = |first, second| Reader::of_all(record.clone(), vec![(member(0), first), (member(1), second)]);
    let mut reader = read(slots([new, old]), slots([old, new])).unwrap();
    assert_eq!(reader.image(), new);
    let head = closed(new);
    assert_eq!(reader.clone().copied(Ok(()), &head, &record), Ok(Verdict::Accepted));
    assert_eq!(reader.copied(Err(Damage::Table), &head, &record), Ok(Verdict::Elsewhere), "the other one's");
    assert_eq!(reader.image(), new);
    assert!(matches!(reader.copied(Err(Damage::Table), &head, &record), Err(Unread::Unreadable(_))), "nothing older");
    let half_open = Ok(vec![SlotView::Blank, closed(new)]);
    assert_eq!(read(half_open.clone(), half_open.clone()).unwrap().image(), new);
    let unknown = Ok(vec![SlotView::Damaged { mark: None, header: Some(header(new)) }, closed(old)]);
    let went_back = slots([old, Stamp::new(2, 1)]);
    for (first, second) in [
        (slots([new, old]), slots([old, old])),
        (slots([new, old]), Err(Unusable::OutOfReach)),
        (unknown.clone(), unknown),
        (went_back.clone(), went_back),
    ] {
        assert_eq!(read(first, second), Err(Unread::NotInAll));
    }
    assert_eq!(Reader::of_all(record.clone(), vec![(member(0), slots([new, old]))]), Err(Unread::NotInAll));
}

#[test]
fn a_reader_without_the_owner_takes_the_newest_that_is_whole() {
    prepare();
    let record = reading(&[0, 1, 2]);
    let (old, new) = (Stamp::new(1, 4), Stamp::new(1, 5));
    let slots = |images: [Stamp; 2]| Ok(images.map(|image| SlotView::Closed(header(image))).to_vec());
    let answers = vec![
        (member(0), Ok(vec![SlotView::Damaged { mark: None, header: None }, SlotView::Closed(header(old))])),
        (member(1), slots([new, old])),
        (member(2), Err(Unusable::OutOfReach)),
        (member(7), slots([old, Stamp::new(1, 6)])),
    ];
    let mut reader = Reader::of_heads(record.clone(), answers).unwrap();
    let damaged = |n, image| (member(n), Unusable::Damaged(image, Damage::Table));
    let mut wrong = vec![(member(0), Unusable::HeadDamaged(0)), (member(2), Unusable::OutOfReach)];
    assert_eq!(reader.passed_over(), wrong);
    for (n, slot, image) in [(1, 0, new), (0, 1, old), (1, 1, old)] {
        assert_eq!((reader.place().member, reader.place().slot, reader.image()), (member(n), slot, image));
        let head = SlotView::Closed(header(image));
        assert_eq!(reader.clone().copied(Ok(()), &head, &record), Ok(Verdict::Accepted));
        wrong.push(damaged(n, image));
        match reader.copied(Err(Damage::Table), &head, &record) {
            Ok(verdict) => assert_eq!(verdict, Verdict::Elsewhere),
            Err(why) => assert_eq!(why, Unread::Unreadable(wrong.clone())),
        }
    }
    assert_eq!(wrong.len(), 5, "every copy was tried");
    let nobody = Reader::of_heads(record, vec![(member(1), Ok(vec![SlotView::Blank]))]);
    assert_eq!(nobody, Err(Unread::Unreadable(vec![(member(1), Unusable::NoImage)])));
}
