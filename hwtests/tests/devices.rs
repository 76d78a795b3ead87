//! The devices by themselves, without any of this project's code: if these fail, the lab is broken, or the hardware.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

use std::time::{Duration, Instant};

use ibverbs::ibv_qp_type::IBV_QPT_RC;
use ibverbs::{CompletionQueue, Context, GidEntry, devices, ibv_gid_type, ibv_wc};

/// The device that a variable names.
fn open(variable: &str, default: &str) -> Context {
    let wanted = std::env::var(variable).unwrap_or_else(|_| default.into());
    let list = devices().unwrap();
    let names: Vec<_> = list.iter().filter_map(|device| Some(device.name()?.to_string_lossy().into_owned())).collect();
    let index = names.iter().position(|name| *name == wanted);
    let index = index.unwrap_or_else(|| panic!("no RDMA device {wanted} ({variable}); there are {names:?}"));
    list.get(index).unwrap().open().unwrap()
}

/// Version 2 of RoCE, in the verbs' enumeration.
const ROCE_V2: ibv_gid_type = 2;

/// The first RoCE v2 address that is an IPv4 one, or else the first.
fn address(context: &Context) -> u32 {
    let is_ipv4 = |entry: &&GidEntry| entry.gid.subnet_prefix() == 0 && entry.gid.interface_id() >> 32 == 0xffff;
    let mut routable = context.gid_table().iter().filter(|entry| entry.gid_type == ROCE_V2);
    routable.find(is_ipv4).map_or(0, |entry| entry.gid_index)
}

/// The number of what ended next, which must have ended well.
fn completion(queue: &CompletionQueue<'_>) -> u64 {
    let until = Instant::now() + Duration::from_secs(10);
    let mut room = [ibv_wc::default()];
    while Instant::now() < until {
        if let [done] = queue.poll(&mut room).unwrap() {
            assert!(done.is_valid(), "{:?}", done.error());
            return done.wr_id();
        }
        // A soft device needs the processor.
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no completion in ten seconds");
}

#[test]
fn two_devices_exchange_messages() {
    let (one, other) = (open("SEGSTORE_DEVICE", "rxa"), open("SEGSTORE_PEER", "rxb"));
    let (one_queue, other_queue) = (one.create_cq(16, 0).unwrap(), other.create_cq(16, 0).unwrap());
    let (one_domain, other_domain) = (one.alloc_pd().unwrap(), other.alloc_pd().unwrap());
    let one_pair =
        one_domain.create_qp(&one_queue, &one_queue, IBV_QPT_RC).set_gid_index(address(&one)).build().unwrap();
    let other_pair =
        other_domain.create_qp(&other_queue, &other_queue, IBV_QPT_RC).set_gid_index(address(&other)).build().unwrap();
    let (one_end, other_end) = (one_pair.endpoint(), other_pair.endpoint());
    let (mut one_pair, mut other_pair) =
        (one_pair.handshake(other_end).unwrap(), other_pair.handshake(one_end).unwrap());

    let mut one_memory = one_domain.allocate::<u64>(2).unwrap();
    let mut other_memory = other_domain.allocate::<u64>(2).unwrap();
    for round in 0..100 {
        one_memory[0] = round;
        // SAFETY: the memory is not touched until the completion came.
        unsafe { other_pair.post_receive(&mut other_memory, ..1, 1) }.unwrap();
        // SAFETY: as above.
        unsafe { one_pair.post_send(&mut one_memory, ..1, 2) }.unwrap();
        assert_eq!(completion(&one_queue), 2);
        assert_eq!(completion(&other_queue), 1);
        assert_eq!(other_memory[0], round);

        other_memory[1] = round + 1;
        // SAFETY: as above.
        unsafe { one_pair.post_receive(&mut one_memory, 1.., 3) }.unwrap();
        // SAFETY: as above.
        unsafe { other_pair.post_send(&mut other_memory, 1.., 4) }.unwrap();
        assert_eq!(completion(&other_queue), 4);
        assert_eq!(completion(&one_queue), 3);
        assert_eq!(one_memory[1], round + 1);
    }
}
