//! One thing that happens.

/// One thing that happens. Processes and replicas are named by their numbers, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// A process begins a takeover.
    TakeOver(usize),
    /// The directory serves a process's request, and the process hears of it.
    Directory(usize),
    /// The directory serves a process's request, and the answer is under way.
    Serve(usize),
    /// A watch of an owner sees the record.
    Watch(usize),
    /// An owner hears what its watch saw.
    Hear(usize),
    /// The directory makes a process's change, but the answer is lost.
    ReplyLost(usize),
    /// A process stops waiting for its change, which is still on its way.
    ReplyLate(usize),
    /// The directory does not take an owner's change, and the owner hears of that.
    NotTaken(usize),
    /// A change that its sender no longer waits for reaches the directory.
    LateSwap(usize),
    /// A replica is fenced.
    Fence(usize, usize),
    /// A replica cannot be reached by a fence.
    FenceLost(usize, usize),
    /// The chosen image is loaded.
    Load(usize),
    /// An owner opens an endpoint to a replica.
    Connect(usize, usize),
    /// An owner learns that a replica that it wants to connect to has lost its memory.
    OutOfReach(usize, usize),
    /// The application changes a block and begins a checkpoint.
    Commit(usize, u32),
    /// The application changes the segment's length and begins a checkpoint.
    Resize(usize),
    /// A reader begins: it reads the record.
    Read,
    /// A reader (the first number) asks a process to hold its newest image at a replica.
    Ask(usize, usize, usize),
    /// A reader whose owner does not answer looks at what a replica has.
    LookAt(usize, usize),
    /// A reader takes the next look, or copies the next piece.
    ReaderGoesOn(usize),
    /// A reader's time is up, and it does not know it yet.
    HoldExpires(usize),
    /// The next write of an open endpoint lands.
    Deliver(usize, usize),
    /// The next write of an endpoint that its owner has given up, or died with, lands.
    DeliverLate(usize, usize),
    /// An owner hears that all its writes have landed, or that its endpoint was revoked.
    Complete(usize, usize),
    /// An owner's endpoint breaks. What is in flight may still land.
    Cut(usize, usize),
    /// An owner's endpoint breaks, and it tries to get it back. What is in flight may still land.
    Lose(usize, usize),
    /// An owner that tries to connect to a replica gives it up.
    StopTrying(usize, usize),
    /// An owner gives its attempt up.
    GiveUp(usize),
    /// A process is killed. What is in flight may still land.
    Kill(usize),
    /// An owner is to let go of a replica.
    Dismiss(usize, usize),
    /// An owner is to keep a replica after all.
    Recall(usize, usize),
    /// An owner sees what a replica holds.
    Look(usize, usize),
    /// An owner does not see what a replica holds.
    LookLost(usize, usize),
    /// A replica's daemon restarts, with its memory.
    Restart(usize),
    /// A replica's node restarts, without its memory.
    LoseMemory(usize),
    /// An owner asks for a replica to be made and filled on a node, in place of what it keeps.
    Repair(usize, usize),
    /// Such a request arrives.
    RepairArrives(usize),
    /// An owner stops waiting for the answer to its request.
    RepairUnanswered(usize),
    /// The daemon of a replica does the next step of its work (the second number).
    WorkGoesOn(usize, usize),
    /// Such a work is a copy that was made, and copies what was modified meanwhile as well.
    CopiesAgain(usize, usize),
    /// An owner hears that a repair has ended.
    Repaired(usize),
    /// An owner lets go of the segment.
    Release(usize),
    /// A request to level a replica's slots arrives.
    LevelArrives(usize),
    /// A daemon sees that nobody needs its replica.
    LookForOrphan(usize),
    /// A daemon forgets what nobody needed when it looked.
    ForgetOrphan(usize),
}

impl Step {
    /// Whether `process` does this, or it is done to it.
    pub fn is_of(self, process: usize) -> bool {
        match self {
            Self::NotTaken(p) | Self::TakeOver(p) | Self::ReplyLost(p) | Self::ReplyLate(p) | Self::Commit(p, _) => {
                p == process
            }
            Self::FenceLost(p, _) | Self::Cut(p, _) | Self::GiveUp(p) | Self::Kill(p) | Self::Repair(p, _) => {
                p == process
            }
            Self::DeliverLate(p, _)
            | Self::Resize(p)
            | Self::Serve(p)
            | Self::Watch(p)
            | Self::Ask(_, p, _)
            | Self::Lose(p, _)
            | Self::RepairUnanswered(p)
            | Self::Release(p)
            | Self::Dismiss(p, _)
            | Self::Recall(p, _)
            | Self::LookLost(p, _)
            | Self::StopTrying(p, _) => p == process,
            Self::RepairArrives(_) | Self::WorkGoesOn(..) | Self::LateSwap(_) | Self::LevelArrives(_) => false,
            Self::CopiesAgain(..) => false,
            Self::Restart(_) | Self::LoseMemory(_) | Self::LookForOrphan(_) | Self::ForgetOrphan(_) => false,
            progress => progress.is_progress_of(process),
        }
    }

    /// Whether this is what happens if nothing goes wrong and nothing new begins, and concerns `process`.
    pub fn is_progress_of(self, process: usize) -> bool {
        match self {
            Self::Directory(p) | Self::Hear(p) | Self::Load(p) | Self::Repaired(p) => p == process,
            Self::OutOfReach(p, _) | Self::Look(p, _) => p == process,
            Self::Fence(p, _) | Self::Connect(p, _) | Self::Deliver(p, _) | Self::Complete(p, _) => p == process,
            Self::RepairArrives(_) | Self::WorkGoesOn(..) => true,
            _ => false,
        }
    }
}
