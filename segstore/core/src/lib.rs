//! The checkpoint protocol as pure code: bytes and decisions, no I/O, no clock, no threads.
//!
//! An application's state lives in a *segment*. Its *owner* pushes *checkpoints* to *replicas* by one-sided writes; when the
//! owner is gone, another process *takes over*: it raises the term, fences the replicas, loads the newest image and goes on.
//!
//! One rule carries nearly everything: **a slot at epoch `s` needs exactly the blocks whose modified-epoch is above `s`.**
//!
//! | module | subject |
//! |---|---|
//! | [`id`] | what things are called: segments, owners, replicas, terms, epochs, stamps |
//! | [`layout`] | every byte of a replica: its head, the slots' marks, headers, block tables |
//! | [`lineage`] | which images an image descends from |
//! | [`changes`] | which blocks changed in which epoch: the delta rule |
//! | [`push`] | one checkpoint into one slot, as an ordered list of one-sided writes |
//! | [`slot`] | what a reader finds in a slot, and whether it may be believed |
//! | [`record`] | the directory's record of a segment, and its compare-and-swap |
//! | [`replica`] | what a replica promises about terms and writers |
//! | [`owner`] | replication: attempts, acknowledgement, the in-sync set |
//! | [`takeover`] | claim, fence, choose, load, seal |
//! | [`reader`] | reading without ownership |
//! | [`repair`] | filling a fresh replica while the owner goes on |
//! | [`level`] | bringing a replica's stale slots to its newest image |
//! | [`forget`] | who may have a replica forgotten |
//! | [`rule`] | the protocol's rules by name, so that a test build can leave one out |
//!
//! State machines take events as method calls and hand out actions by `poll`: whoever drives them performs the actions and
//! reports what came of them. Nothing here waits, so everything here can be explored exhaustively.
#![forbid(unsafe_code)]

pub mod changes;
pub mod forget;
pub mod id;
pub mod layout;
pub mod level;
pub mod lineage;
pub mod owner;
pub mod push;
pub mod reader;
pub mod record;
pub mod repair;
pub mod replica;
pub mod rule;
pub mod slot;
pub mod takeover;
