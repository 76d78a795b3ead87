//! Nothing on the post and poll path allocates in steady state.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use segstore_transport::shm::Shm;
use segstore_transport::wrap::count::Counters;
use segstore_transport::{Grant, Memory, Operation, Provider, Rights, Wait};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of the heap.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn posting_and_polling_allocate_nothing() {
    let (target, initiator) = (Shm::new().open().unwrap(), Shm::new().open().unwrap());
    let initiator = Counters::new().around(&initiator);
    let region = target.register(&Memory::anonymous(1 << 20).unwrap(), Rights::ALL).unwrap();
    let local = initiator.register(&Memory::anonymous(1 << 20).unwrap(), Rights::LOCAL).unwrap();
    let other = initiator.register(&Memory::anonymous(64).unwrap(), Rights::LOCAL).unwrap();
    let dialing = initiator.dial().unwrap();
    let (peer, reply) = target.admit(dialing.hello(), &[Grant { region: &region, rights: Rights::ALL }]).unwrap();
    let mut endpoint = dialing.complete(&reply).unwrap();
    let batch = [
        Operation::write(local.all(), 0, 0),
        Operation::write_notify(other.all(), 0, 64, 5),
        Operation::compare_swap(other.slice(8, 8).unwrap(), 0, 0, 1, 2),
        Operation::read(local.slice(0, 100).unwrap(), 0, 0),
        Operation::Flush,
    ];
    let mut round = |count: usize| {
        for id in 0..count as u64 {
            endpoint.post(&batch, id).unwrap();
            endpoint.post(&batch[..1], id).unwrap();
            for _ in 0..2 {
                endpoint.wait(Wait::default(), None).unwrap().result.unwrap();
            }
            assert_eq!(peer.poll_notification(), Some(5));
        }
    };
    round(10);
    let before = ALLOCATIONS.get();
    assert!(before > 0, "allocations are counted");
    round(100);
    assert_eq!(ALLOCATIONS.get(), before);
}
