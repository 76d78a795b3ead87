//! A batch as the device gets it: one linked list of work requests, of which only the last is signalled.

use std::ptr;

use ibverbs_sys as ib;

use super::window::Window;
use super::wire::{MESSAGE, Message};
use crate::contract::driver::Local;

/// A place at the other side, as the device knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct There {
    pub(super) address: u64,
    pub(super) key: u32,
}

/// The place of a message that travels in its request, until the list is linked.
const IN_REQUEST: u64 = u64::MAX;

/// One list, and the memory for it, kept from batch to batch. The pieces and messages of a request stand at its own index.
pub(super) struct Requests {
    requests: Vec<ib::ibv_send_wr>,
    pieces: Vec<ib::ibv_sge>,
    messages: Vec<Message>,
    /// A read is under way, or may be: what changes memory has to wait for it.
    reading: bool,
}

// SAFETY: the pointers in it are to its own vectors, and are made anew before each use.
unsafe impl Send for Requests {}

impl Requests {
    /// Room for so many.
    pub(super) fn new(room: usize) -> Requests {
        let (requests, pieces, messages) =
            (Vec::with_capacity(room), Vec::with_capacity(room), Vec::with_capacity(room));
        Requests { requests, pieces, messages, reading: false }
    }

    pub(super) fn clear(&mut self) {
        self.requests.clear();
        self.pieces.clear();
        self.messages.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Writes local bytes there; from the request itself if they are no more than `inline`.
    pub(super) fn write(&mut self, local: Local, there: There, inline: usize) {
        let flags = if local.len <= inline { ib::ibv_send_flags::IBV_SEND_INLINE.0 } else { 0 };
        self.change(ib::ibv_wr_opcode::IBV_WR_RDMA_WRITE, flags, piece(local), there);
    }

    /// Writes nothing: it shows whether the other side is there.
    pub(super) fn probe(&mut self) {
        let opcode = ib::ibv_wr_opcode::IBV_WR_RDMA_WRITE;
        let nowhere = There { address: 0, key: 0 };
        let request = one_sided(ib::ibv_send_wr { opcode, ..Default::default() }, nowhere);
        self.push(request, ib::ibv_sge::default());
    }

    pub(super) fn read(&mut self, local: Local, there: There) {
        let opcode = ib::ibv_wr_opcode::IBV_WR_RDMA_READ;
        let request = ib::ibv_send_wr { opcode, num_sge: 1, ..Default::default() };
        self.push(one_sided(request, there), piece(local));
        self.reading = true;
    }

    pub(super) fn compare_swap(&mut self, local: Local, there: There, expected: u64, new: u64) {
        let mut request = self.fenced(ib::ibv_wr_opcode::IBV_WR_ATOMIC_CMP_AND_SWP, 0);
        request.wr.atomic = ib::ibv_send_wr__bindgen_ty_2__bindgen_ty_2 {
            remote_addr: there.address,
            compare_add: expected,
            swap: new,
            rkey: there.key,
        };
        self.push(request, piece(local));
        self.reading = true;
    }

    /// Sends a message in the request itself.
    pub(super) fn message(&mut self, message: Message) {
        let request = self.fenced(ib::ibv_wr_opcode::IBV_WR_SEND, ib::ibv_send_flags::IBV_SEND_INLINE.0);
        self.push(request, ib::ibv_sge { addr: IN_REQUEST, length: MESSAGE, ..Default::default() });
        if let Some(last) = self.messages.last_mut() {
            *last = message;
        }
    }

    /// Sends bytes that start with a message.
    pub(super) fn long_message(&mut self, local: Local) {
        let request = self.fenced(ib::ibv_wr_opcode::IBV_WR_SEND, 0);
        self.push(request, piece(local));
    }

    /// Binds a window to its region.
    pub(super) fn bind(&mut self, window: &Window) {
        let mut request = ib::ibv_send_wr { opcode: ib::ibv_wr_opcode::IBV_WR_BIND_MW, ..Default::default() };
        request.__bindgen_anon_2.bind_mw = window.binding();
        self.push(request, ib::ibv_sge::default());
    }

    fn change(&mut self, opcode: ib::ibv_wr_opcode::Type, flags: u32, piece: ib::ibv_sge, there: There) {
        let request = self.fenced(opcode, flags);
        self.push(one_sided(request, there), piece);
    }

    /// A request that takes effect after every read before it: a device may do it earlier unless it is told.
    fn fenced(&mut self, opcode: ib::ibv_wr_opcode::Type, flags: u32) -> ib::ibv_send_wr {
        let fence = if std::mem::take(&mut self.reading) { ib::ibv_send_flags::IBV_SEND_FENCE.0 } else { 0 };
        ib::ibv_send_wr { opcode, num_sge: 1, send_flags: flags | fence, ..Default::default() }
    }

    fn push(&mut self, request: ib::ibv_send_wr, piece: ib::ibv_sge) {
        self.requests.push(request);
        self.pieces.push(piece);
        self.messages.push(Message::new(0, 0));
    }

    /// Makes one list of them; gives the first.
    pub(super) fn link(&mut self, id: u64) -> *mut ib::ibv_send_wr {
        let (first, pieces, messages) = (self.requests.as_mut_ptr(), self.pieces.as_mut_ptr(), self.messages.as_ptr());
        for (index, (request, piece)) in self.requests.iter_mut().zip(&mut self.pieces).enumerate() {
            if piece.addr == IN_REQUEST {
                piece.addr = messages.wrapping_add(index).addr() as u64;
            }
            request.wr_id = id;
            request.sg_list = pieces.wrapping_add(index);
            request.next = first.wrapping_add(index + 1);
        }
        if let Some(last) = self.requests.last_mut() {
            last.next = ptr::null_mut();
            last.send_flags |= ib::ibv_send_flags::IBV_SEND_SIGNALED.0;
        }
        self.requests.as_mut_ptr()
    }
}

fn one_sided(mut request: ib::ibv_send_wr, there: There) -> ib::ibv_send_wr {
    request.wr.rdma = ib::ibv_send_wr__bindgen_ty_2__bindgen_ty_1 { remote_addr: there.address, rkey: there.key };
    request
}

fn piece(local: Local) -> ib::ibv_sge {
    // The contract splits what is longer than the device's longest message, which is below 2^32.
    let length = u32::try_from(local.len).unwrap_or(u32::MAX);
    #[expect(clippy::cast_possible_truncation, reason = "the device's keys have 32 bits")]
    ib::ibv_sge { addr: local.address.addr() as u64, length, lkey: local.key as u32 }
}

#[cfg(test)]
mod tests {
    use super::super::wire::kind;
    use super::*;

    const THERE: There = There { address: 0x1000, key: 7 };

    fn local() -> Local {
        Local { address: ptr::null_mut(), len: 8, key: 3 }
    }

    /// Which requests of the next list carry a flag.
    fn flagged(requests: &mut Requests, flag: ib::ibv_send_flags) -> Vec<bool> {
        requests.link(1);
        requests.requests.iter().map(|request| request.send_flags & flag.0 != 0).collect()
    }

    /// A device may not show the difference, so the flags are looked at.
    #[test]
    fn what_changes_memory_waits_for_the_reads_before_it() {
        let mut requests = Requests::new(8);
        requests.write(local(), THERE, 0);
        requests.read(local(), THERE);
        requests.read(local(), THERE);
        requests.write(local(), THERE, 0);
        requests.message(Message::new(kind::NOTIFY, 1));
        requests.compare_swap(local(), THERE, 0, 1);
        let fence = ib::ibv_send_flags::IBV_SEND_FENCE;
        assert_eq!(flagged(&mut requests, fence), [false, false, false, true, false, false]);
        requests.clear();
        requests.compare_swap(local(), THERE, 0, 1);
        requests.message(Message::new(kind::NOTIFY, 2));
        assert_eq!(flagged(&mut requests, fence), [true, true], "a swap of the batch before is a read too");
    }

    #[test]
    fn a_batch_is_one_list_whose_last_is_signalled() {
        let mut requests = Requests::new(3);
        requests.write(local(), THERE, 7);
        requests.write(local(), THERE, 8);
        requests.message(Message::new(kind::NOTIFY, 5));
        assert_eq!(flagged(&mut requests, ib::ibv_send_flags::IBV_SEND_SIGNALED), [false, false, true]);
        assert_eq!(flagged(&mut requests, ib::ibv_send_flags::IBV_SEND_INLINE), [false, true, true]);
        let places: Vec<*mut ib::ibv_send_wr> = requests.requests.iter_mut().map(ptr::from_mut).collect();
        let next: Vec<*mut ib::ibv_send_wr> = requests.requests.iter().map(|request| request.next).collect();
        assert_eq!(next, [places[1], places[2], ptr::null_mut()]);
        assert_eq!(requests.pieces[2].addr, ptr::from_ref(&requests.messages[2]).addr() as u64);
    }
}
