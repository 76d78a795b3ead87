//! A process: idle, taking over, owning, or gone.

use segstore_core::changes::Changes;
use segstore_core::id::{Epoch, Member, Stamp};
use segstore_core::layout::{Geometry, Ownership, SlotHeader};
use segstore_core::owner::{Owner, Policy, Start};
use segstore_core::push::Checkpoint;
use segstore_core::record::{Swap, Versioned};
use segstore_core::replica::Request as ReplicaRequest;
use segstore_core::takeover::Takeover;

use super::journal::Index;
use super::{BLOCK, BLOCKS, caretaker_id, key, node_id, owner_id};

/// What a process asked the directory and has no answer to.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum DirectoryRequest {
    Read,
    Swap(Swap),
    /// It was served, and the answer is under way: whether the change was made, if it was one, and the record as it was then.
    Served(Option<bool>, Versioned),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    Idle,
    TakingOver(Box<Takeover>),
    Owning(Box<Owning>),
    /// The takeover failed; another may follow.
    Failed(String),
    Killed,
}

/// An owner with its application's memory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Owning {
    pub owner: Owner,
    pub changes: Changes,
    pub memory: Vec<u8>,
    /// What memory held when the attempt before began, or was loaded as.
    pub built_on: Option<Index>,
    /// The attempt under way.
    pub attempt: Option<Index>,
    /// Prepared once, pushed to every replica.
    pub header: Option<SlotHeader>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Process {
    pub index: usize,
    /// It restores replicas of what nobody holds, as long as nobody does.
    pub is_caretaker: bool,
    pub stage: Stage,
    /// Checkpoints that it may still begin.
    pub commits: u8,
    pub directory: Option<DirectoryRequest>,
    /// What a watch is about to tell it: the record as it was.
    pub rumour: Option<Versioned>,
    pub fences: Vec<(Member, ReplicaRequest)>,
    pub load: Option<(SlotHeader, Vec<(Member, u32)>)>,
    /// What a takeover has loaded: the changes and the bytes.
    pub loaded: Option<(Changes, Vec<u8>)>,
    /// Looks at replicas that it waits for.
    pub looks: Vec<(Member, u64)>,
    /// Repairs that ended, with their owner, replica, base and closed slot. Without a base: it was made, and nothing stands in it.
    pub repaired: Vec<(Ownership, Member, Option<Stamp>, Option<u32>)>,
}

impl Process {
    pub fn new(index: usize, commits: u8) -> Self {
        Self {
            index,
            is_caretaker: false,
            stage: Stage::Idle,
            commits,
            directory: None,
            rumour: None,
            fences: Vec::new(),
            load: None,
            loaded: None,
            looks: Vec::new(),
            repaired: Vec::new(),
        }
    }

    /// The process that created the segment.
    pub fn creator(commits: u8, record: &Versioned, geometry: &Geometry, policy: (Policy, bool)) -> Self {
        let owner = owner(0, Start::of_new_segment(record.clone(), geometry.slots()), policy);
        let mut changes = Changes::empty(key(), *geometry);
        changes.set_length(geometry.capacity());
        let memory = vec![0; BLOCKS as usize * BLOCK];
        let owning = Owning { owner, changes, memory, built_on: None, attempt: None, header: None };
        Self { stage: Stage::Owning(Box::new(owning)), ..Self::new(0, commits) }
    }

    pub fn owning(&self) -> Option<&Owning> {
        match &self.stage {
            Stage::Owning(owning) => Some(owning),
            _ => None,
        }
    }

    pub fn owning_mut(&mut self) -> Option<&mut Owning> {
        match &mut self.stage {
            Stage::Owning(owning) => Some(owning),
            _ => None,
        }
    }

    /// Everything that the process was about to do is gone with it.
    pub fn kill(&mut self) {
        *self = Self { stage: Stage::Killed, is_caretaker: self.is_caretaker, ..Self::new(self.index, 0) };
    }

    pub fn begin_takeover(&mut self) {
        let owner = if self.is_caretaker { caretaker_id(self.index) } else { owner_id(self.index) };
        self.stage = Stage::TakingOver(Box::new(Takeover::new(owner)));
    }
}

/// The owner that process `index` becomes; a collocated one runs on the node of the replica of that number.
pub fn owner(index: usize, start: Start, (policy, collocated): (Policy, bool)) -> Owner {
    let owner = Owner::new(start, policy);
    if collocated { owner.on_node(node_id(index)) } else { owner }
}

impl Owning {
    pub fn new(owner: Owner, changes: Changes, mut memory: Vec<u8>, built_on: Option<Index>) -> Self {
        memory.resize(BLOCKS as usize * BLOCK, 0);
        Self { owner, changes, memory, built_on, attempt: None, header: None }
    }

    /// The application changes one block to a value of its own and begins a checkpoint. Returns the attempt.
    pub fn commit(&mut self, block: u32, value: u8) -> Option<Epoch> {
        let at = block as usize * BLOCK;
        self.memory[at..at + BLOCK].fill(value);
        self.changes.mark(block);
        self.begin()
    }

    /// The application makes the segment one block long, or as long as it can be, and begins a checkpoint.
    pub fn resize(&mut self) -> Option<Epoch> {
        let whole = self.changes.geometry().capacity();
        let length = if self.changes.length() == whole { BLOCK as u64 } else { whole };
        self.memory[BLOCK..].fill(0);
        self.changes.set_length(length);
        self.begin()
    }

    /// The bytes of the application's state.
    pub fn content(&self) -> &[u8] {
        &self.memory[..self.changes.length() as usize]
    }

    fn begin(&mut self) -> Option<Epoch> {
        let epoch = self.owner.begin().ok()?;
        let memory = &self.memory;
        self.changes.seal(epoch, |i| &memory[i as usize * BLOCK..(i as usize + 1) * BLOCK]);
        self.header = Some(self.owner.header(epoch, &self.changes));
        Some(epoch)
    }

    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::new(self.header.as_ref().expect("a checkpoint was begun"))
    }
}
