//! The one-sided operations.

use super::Slice;

/// A place in a granted region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Which of the granted regions, in the order granted.
    pub grant: usize,
    /// The offset in it, in bytes.
    pub offset: u64,
}

/// One operation of a batch. Operations of an endpoint take effect at the target in the order posted.
#[derive(Clone, Copy)]
pub enum Operation<'r> {
    /// Local bytes to the target.
    Write {
        /// Where the bytes are. They are read at any time until the batch completes.
        local: Slice<'r>,
        /// Where they go.
        remote: Remote,
    },
    /// Bytes of the target to this side.
    Read {
        /// Where the bytes go. They are written at any time until the batch completes.
        local: Slice<'r>,
        /// Where they are.
        remote: Remote,
    },
    /// A write (of any length, also 0), then `value` is delivered to the target's `poll_notification`. Who has the
    /// value may read the bytes of this and every earlier write of the endpoint.
    WriteNotify {
        /// Where the bytes are.
        local: Slice<'r>,
        /// Where they go.
        remote: Remote,
        /// What the target is told.
        value: u64,
    },
    /// Replaces the target's native-endian `u64` by `new` if it is `expected`; what it was comes to `local`.
    CompareSwap {
        /// Eight bytes, aligned to eight, for what the target held.
        local: Slice<'r>,
        /// Aligned to eight.
        remote: Remote,
        /// What the target must hold.
        expected: u64,
        /// What it shall hold.
        new: u64,
    },
    /// When it completes, every earlier operation of this endpoint is visible to the target's processor.
    Flush,
}

impl<'r> Operation<'r> {
    /// A write.
    pub fn write(local: Slice<'r>, grant: usize, offset: u64) -> Self {
        Operation::Write { local, remote: Remote { grant, offset } }
    }

    /// A read.
    pub fn read(local: Slice<'r>, grant: usize, offset: u64) -> Self {
        Operation::Read { local, remote: Remote { grant, offset } }
    }

    /// A write with a notification.
    pub fn write_notify(local: Slice<'r>, grant: usize, offset: u64, value: u64) -> Self {
        Operation::WriteNotify { local, remote: Remote { grant, offset }, value }
    }

    /// A compare and swap.
    pub fn compare_swap(local: Slice<'r>, grant: usize, offset: u64, expected: u64, new: u64) -> Self {
        Operation::CompareSwap { local, remote: Remote { grant, offset }, expected, new }
    }
}
