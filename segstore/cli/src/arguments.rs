//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Look after segments of memory that survive their node
#[derive(Parser, Debug)]
#[command(name = "segctl", version, after_help = crate::exit::HELP, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Socket of the node's daemon
    #[arg(long, global = true, env = "SEGSTORE_SOCKET", value_name = "PATH", default_value = segstore::DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// Say it as JSON, for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List segments: who owns them, how they are kept
    Ls,
    /// List the nodes of the cluster
    Nodes {
        /// First name a node no longer that is down for good, and keeps no replica in sync
        #[arg(long, value_name = "NAME")]
        forget: Option<String>,
    },
    /// Say how the cluster is, or a segment: what is safe, and where
    Status {
        /// The segment; without it, the cluster
        name: Option<String>,
    },
    /// Say what happened: takeovers, removals, repairs, and why
    Events {
        /// The segment; without it, all of them
        name: Option<String>,
    },
    /// Make a checkpoint of a file; again, of what changed in it
    Put(Put),
    /// Load the newest acknowledged checkpoint into a file, without disturbing its owner
    Get(Get),
    /// Hold a segment and run a program under it; stand by while another holds it
    Run(Run),
    /// Remove a segment and every copy of it
    Rm {
        /// The segment
        name: String,
        /// Even if somebody owns it: that owner is fenced
        #[arg(long)]
        force: bool,
    },
    /// Measure: each row beside the plainest form of the same movement, in turn
    Perf(Perf),
    /// Find out what this machine lacks, and how to put it right
    Doctor,
    /// A cluster on this machine, to try things out
    #[command(subcommand)]
    Dev(Dev),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages into a directory
    Man {
        /// The directory
        directory: PathBuf,
    },
    /// What `run` becomes in its child
    #[command(hide = true)]
    ExecChild {
        #[arg(long)]
        parent: i32,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Put {
    /// The segment; made if it is not there
    pub(crate) name: String,
    /// The file; `-` for standard input
    pub(crate) file: PathBuf,
    /// Nodes that keep a replica, besides this one, when it is made
    #[arg(long, default_value_t = 1)]
    pub(crate) replicas: u32,
    /// Bytes of a block when it is made: a power of two, such as 4096 or 64K
    #[arg(long, default_value = "4K", value_parser = crate::output::units::parse_size)]
    pub(crate) block_size: u64,
    /// Bytes that it may grow to when it is made, such as 1G [default: twice the file, at least 1 MiB]
    #[arg(long, value_parser = crate::output::units::parse_size)]
    pub(crate) capacity: Option<u64>,
    /// Take it from an owner that is not known to be gone
    #[arg(long)]
    pub(crate) takeover: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// The segment
    pub(crate) name: String,
    /// The file; `-` for standard output
    pub(crate) file: PathBuf,
    /// Take the segment from an owner that does not answer; it is fenced
    #[arg(long, conflicts_with = "pending")]
    pub(crate) takeover: bool,
    /// If the owner does not answer, take the newest checkpoint that verifies: it may be one that was never acknowledged
    #[arg(long)]
    pub(crate) pending: bool,
    /// This checkpoint, while it stands in a replica
    #[arg(long)]
    pub(crate) epoch: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    /// The segment; it need not exist yet
    pub(crate) name: String,
    /// How long the program may take to end when it is asked to
    #[arg(long, default_value = "10s", value_parser = parse_time)]
    pub(crate) grace: Duration,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct Perf {
    /// What to measure [default: checkpoints and loads; with --dev everything]
    #[arg(value_enum)]
    pub(crate) what: Vec<Measure>,
    /// With daemons of its own on this machine, over shared memory and then over TCP, which go again; not the node's cluster
    #[arg(long)]
    pub(crate) dev: bool,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Measure {
    /// Write, read, write with a notification: on this machine, without a daemon
    Move,
    /// Checkpoints of one changed block in 64 MiB, to one and to two replicas
    Checkpoint,
    /// The same in 64 KiB and in 8 GiB: with --dev, and 25 GiB of disk for a moment
    Size,
    /// Loads of 1 GiB
    Load,
    /// What a segment takes, at its owner and at a replica
    Memory,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Dev {
    /// Start a cluster; node 1 has DIR/n1/segstored.sock and so on, and stays up until `down`
    Up(Up),
    /// Stop it, and remove its memory
    Down {
        /// Where it was started
        #[arg(long)]
        dir: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Up {
    /// How many nodes
    #[arg(long, default_value_t = 3)]
    pub(crate) nodes: usize,
    /// Where its files go
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Memory for replicas on each node
    #[arg(long, default_value = "1GiB")]
    pub(crate) memory: String,
    /// What replicas are reached over: auto, shm or tcp
    #[arg(long, default_value = "auto")]
    pub(crate) transport: String,
    /// After how long a silent node counts as dead
    #[arg(long, default_value = "3s")]
    pub(crate) node_lease: String,
    /// Replicas in files beside the daemon's, not in `/dev/shm`
    #[arg(skip)]
    pub(crate) on_disk: bool,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| format!("{text:?}: write it as 10s or 500ms"))
}
