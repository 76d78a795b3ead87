//! The wrappers that ship with the product, over a real provider.

use std::sync::{Arc, Mutex};

use segstore_transport::wrap::count::Counters;
use segstore_transport::wrap::fault::{Fault, Faults};
use segstore_transport::wrap::trace::{self, What};
use segstore_transport::{Domain, Endpoint, Memory, Operation, Peer, Provider, Region, Rights, shm::Shm};

use crate::fixture::{bytes, connect, fill, run, wait};

struct Setting {
    local: Region,
    region: Region,
    endpoint: Endpoint,
    _peer: Peer,
}

fn setting(wrap: impl FnOnce(&Domain) -> Domain) -> Setting {
    let target = Shm::new().open().unwrap();
    let initiator = wrap(&Shm::new().open().unwrap());
    let region = target.register(&Memory::anonymous(256).unwrap(), Rights::ALL).unwrap();
    let local = initiator.register(&Memory::anonymous(256).unwrap(), Rights::LOCAL).unwrap();
    let (endpoint, peer) = connect(&initiator, &target, &[(&region, Rights::ALL)]);
    Setting { local, region, endpoint, _peer: peer }
}

#[test]
fn counters_count() {
    let counters = Counters::new();
    let mut at = setting(|domain| counters.around(domain));
    let slice = at.local.slice(0, 100).unwrap();
    run(&mut at.endpoint, &[Operation::write(slice, 0, 0), Operation::read(slice, 0, 0), Operation::Flush])
        .result
        .unwrap();
    while at.endpoint.post(&[Operation::Flush], 0).is_ok() {}
    at._peer.revoke().unwrap();
    while wait(&mut at.endpoint).is_some() {}
    let _ = at.endpoint.post(&[Operation::Flush], 0);
    let counted = counters.read();
    assert_eq!((counted.bytes_written, counted.bytes_read), (100, 100));
    assert_eq!(counted.batches, counted.completed);
    assert_eq!(counted.operations, counted.batches + 2);
    assert_eq!(counted.errors, 1);
}

#[test]
fn a_trace_tells_everything() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let mut at = setting(|domain| {
        trace::around(domain, move |event| {
            let what = match &event.what {
                What::Posted { batch, result } => {
                    format!("{} posted {} {}", event.endpoint, batch.len(), result.is_ok())
                }
                What::Completed(result) => format!("{} completed {}", event.endpoint, result.is_ok()),
                What::Aborted => format!("{} aborted", event.endpoint),
            };
            sink.lock().unwrap().push(what);
        })
    });
    run(&mut at.endpoint, &[Operation::Flush, Operation::Flush]).result.unwrap();
    at.endpoint.abort();
    assert_eq!(*seen.lock().unwrap(), ["0 posted 2 true", "0 completed true", "0 aborted"]);
}

/// Every crash point of a batch: each operation failed before, in the middle, and after.
#[test]
fn every_crash_point_leaves_a_prefix() {
    const PART: usize = 8;
    const PARTS: usize = 5;
    for nth in 0..PARTS {
        for (fault, landed) in [
            (Fault::Before, nth * PART),
            (Fault::CutAt(0), nth * PART),
            (Fault::CutAt(3), nth * PART + 3),
            (Fault::CutAt(99), nth * PART + PART),
            (Fault::After, nth * PART + PART),
        ] {
            let faults = Faults::new();
            let mut at = setting(|domain| faults.around(domain));
            let written = fill(&at.local, 1);
            let batch: Vec<_> = (0..PARTS)
                .map(|part| Operation::write(at.local.slice(part * PART, PART).unwrap(), 0, (part * PART) as u64))
                .collect();
            faults.inject(nth as u64, fault);
            assert!(run(&mut at.endpoint, &batch).result.is_err());
            assert!(at.endpoint.post(&batch, 1).is_err(), "the endpoint is broken");
            let mut expected = written[..landed].to_vec();
            expected.resize(256, 0);
            assert_eq!(bytes(at.region.memory()), expected, "operation {nth}, {fault:?}");
            assert_eq!(faults.operations(), PARTS as u64);
        }
    }
}

#[test]
fn a_delay_only_delays() {
    let faults = Faults::new();
    let mut at = setting(|domain| faults.around(domain));
    faults.inject(0, Fault::Delay(3));
    at.endpoint.post(&[Operation::Flush], 5).unwrap();
    for _ in 0..3 {
        assert_eq!(at.endpoint.poll(), None);
    }
    assert_eq!(at.endpoint.poll().unwrap().result, Ok(()));
}

/// Earlier batches of a faulty endpoint complete well.
#[test]
fn a_fault_in_a_later_batch_spares_the_earlier() {
    let faults = Faults::new();
    let mut at = setting(|domain| faults.around(domain));
    faults.inject(2, Fault::Before);
    for id in 0..3 {
        at.endpoint.post(&[Operation::Flush], id).unwrap();
    }
    let ends: Vec<_> =
        std::iter::from_fn(|| wait(&mut at.endpoint)).map(|done| (done.id, done.result.is_ok())).collect();
    assert_eq!(ends, [(0, true), (1, true), (2, false)]);
}
