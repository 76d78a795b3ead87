//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use segstore::CreateOptions;
use segstore::control::message::{self, Condition};

/// Look after segments of memory that survive their node
#[derive(Parser, Debug)]
#[command(name = "segctl", version, after_help = crate::exit::HELP, arg_required_else_help = true)]
pub(crate) struct Arguments {
    /// Socket of the node's daemon [default: what SEGSTORE_SOCKET says, or /run/segstore/segstored.sock]
    // The variable is read elsewhere: clap would show the option as one that must be given wherever the variable is set.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// Say it as JSON, for programs, with the units in the fields' names; errors too, as one object on standard error
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// List segments: who owns them, how they are kept
    ///
    /// With --json `owner` is null where nobody holds a segment; a name that is held and has no segment so far has no `id`.
    Ls,
    /// List the nodes of the cluster
    Nodes {
        /// First name a node no longer that is down for good, and keeps no replica in sync
        #[arg(long, value_name = "NAME")]
        forget: Option<String>,
    },
    /// Say how the cluster is, or a segment: what is safe, and where
    ///
    /// With --json `owner` is null where nobody holds the segment. What only its owner knows, such as `length_bytes` and
    /// `epoch_acknowledged`, is told while that answers; these have the names that they have for Prometheus.
    Status {
        /// The segment; without it, the cluster
        name: Option<String>,
    },
    /// Say what happened: takeovers, removals, repairs, and why
    ///
    /// A segment keeps its last 64 claims, and 64 events of every other kind together; of claims by one node in a row that differ in their
    /// numbers only, as those of a `put` now and then, the last four. A name that is held and has no segment so far has no events.
    Events {
        /// The segment; without it, all of them
        name: Option<String>,
    },
    /// Make a checkpoint of a file; again, of what changed in it
    ///
    /// It is done as well when fewer nodes have it than were asked for: that is said on standard error, and with --json
    /// `replicas_in_sync` is below `replicas_wanted`. It ends with 13 when it was not acknowledged in time: there are too few replicas for
    /// what the segment's maker has said, or one is lost while the directory is away. A segment that is not there is made only if another
    /// node takes a replica, where there are others; otherwise it ends with 16.
    Put(Put),
    /// Load the newest acknowledged checkpoint into a file, without disturbing its owner
    Get(Get),
    /// Hold a segment and run a program under it; stand by while another holds it
    ///
    /// The program is in the session that holds the name: it may open the segment, and in a script so may `segctl put` and `get`.
    ///
    /// TERM, INT, HUP, QUIT, USR1, USR2 and WINCH are passed on to its whole process group; after TERM and INT it has its time to
    /// end, then it is killed. With a terminal as standard input it stays in the terminal's process group, and signals that come by
    /// `kill` are passed on to it alone. Whatever it leaves behind when it ends is killed.
    ///
    /// When the node's lease was not confirmed for two thirds of its time, because the node's daemon is silent, or the directory to it, another
    /// node may run the program soon: it gets TERM, and is killed before the lease is over, whatever its time to end. When another session
    /// takes the name by force, it is killed at once. When `segctl move` asks for the name, the program gets TERM and its time to end, unless
    /// it hears of moves itself.
    Run(Run),
    /// Show which nodes get a segment's next replicas, and why
    ///
    /// Of a segment that is there: those that keep one, those that would get what is missing, and the others in the order in which they would
    /// come. With --capacity, of one that would be made so.
    Plan(Plan),
    /// Keep a segment in another number of replicas from here on
    ///
    /// Its owner makes what is missing, and lets go of what is too much as soon as it has seen that the others are well; this is waited for.
    /// Where nobody has the segment open, a node makes what is missing, within some minutes; what is too much, its next owner lets go.
    Replicas {
        /// The segment
        name: String,
        /// How many, on other nodes than its owner's
        number: u32,
        /// How long to wait until it is so
        #[arg(long, default_value = "1m", value_name = "TIME", value_parser = parse_time)]
        wait: Duration,
    },
    /// Have an application hand its segment over to one that stands by on another node
    ///
    /// The application is told, makes its last checkpoint, and lets the segment go when it is ready to: then it goes to whoever stands by on
    /// that node, who starts from exactly that checkpoint; to somebody else only if that one has gone by then. What `segctl run` runs gets TERM and its time to end. Where
    /// nobody stands by, or the application cannot be told, nothing changes, and it says so. What it lets go when the time is over is for
    /// whoever stands by then.
    Move {
        /// The segment
        name: String,
        /// The node; without it, any where somebody stands by and that is not being drained
        node: Option<String>,
        /// How long the application may take
        #[arg(long, default_value = "1m", value_name = "TIME", value_parser = parse_time)]
        wait: Duration,
    },
    /// Move everything off a node, and say when its machine may be switched off
    ///
    /// It gets no further replica from then on, also after it was started again, until `--undo`. Owners make another replica of what it
    /// has, and then let that one go; of segments that nobody has open, another node does it. Applications that own segments there
    /// are asked to hand them over where somebody stands by on another node, as by `segctl move`; the others are named, and waited for.
    ///
    /// It ends with 0 when nothing is left there. A node that keeps the directory ends it with 17 when all else has been moved: move the
    /// directory first. Only root, and the daemon's own user, may ask for it. When the time is over before that, it says what is left and
    /// why, and the node goes on being drained: ask again.
    Drain {
        /// The node
        node: String,
        /// End that: it may get replicas again
        #[arg(long)]
        undo: bool,
        /// How long to wait until nothing is left
        #[arg(long, default_value = "10m", value_name = "TIME", value_parser = parse_time)]
        wait: Duration,
    },
    /// Remove a segment and every copy of it
    Rm {
        /// The segment
        name: String,
        /// Even if somebody owns it: there is nothing left for its checkpoints, and it holds the name until it lets that go
        #[arg(long)]
        force: bool,
    },
    /// Move the cluster's directory: out of what keeps it, into a file, and out of that into another
    #[command(subcommand)]
    Directory(Directory),
    /// Measure the cluster; with --dev this machine, each row beside the plainest form of the same movement, in turn
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
}

/// `segstored` does it, with the configuration of this node's daemon
#[derive(Subcommand, Debug)]
pub(crate) enum Directory {
    /// Write the directory that is configured into a file, as JSON
    ///
    /// Of a directory in a file of the daemon's: while that daemon is stopped, so that nothing changes any more.
    Export(Transfer),
    /// Make the directory that is configured, where there is none so far, of such a file
    ///
    /// An import that broke off is done again. Node's leases, and which session holds a segment, are written anew by who is there.
    Import(Transfer),
}

#[derive(Args, Debug)]
pub(crate) struct Transfer {
    /// The file; `-` for standard output or input
    pub(crate) file: PathBuf,
    /// The daemon's configuration
    #[arg(long, default_value = "/etc/segstore/segstored.toml", value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct Put {
    /// The segment; made if it is not there
    pub(crate) name: String,
    /// The file; `-` for standard input
    pub(crate) file: PathBuf,
    /// Nodes that keep a replica, besides this one: said when it is made [default: 1]
    #[arg(long)]
    pub(crate) replicas: Option<u32>,
    /// Bytes of a block: a power of two, such as 4096 or 64K; said when it is made [default: 4K]
    #[arg(long, value_parser = crate::output::units::parse_size)]
    pub(crate) block_size: Option<u64>,
    /// Bytes that it may grow to, such as 1G; said when it is made [default: twice the file, at least 1 MiB]
    #[arg(long, value_parser = crate::output::units::parse_size)]
    pub(crate) capacity: Option<u64>,
    #[command(flatten)]
    pub(crate) placing: Placing,
    /// How long to wait for another owner to let it go: another put, or a reader's takeover
    #[arg(long, default_value = "5s", value_name = "TIME", value_parser = parse_time)]
    pub(crate) wait: Duration,
    /// How long to wait for replicas that are missing, while a node could take one
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_time)]
    pub(crate) wait_replicas: Duration,
    /// Take it from an owner that is not known to be gone
    #[arg(long)]
    pub(crate) takeover: bool,
}

/// Where replicas are to be: said when a segment is made.
#[derive(Args, Debug, Default)]
pub(crate) struct Placing {
    /// What a node must be to keep a replica, such as zone=a, zone!=a, ssd or !ssd; several times: all of it
    ///
    /// These are labels of nodes: `labels` in their configuration; and `node`, the name, and `storage`.
    #[arg(long, value_name = "CONDITION")]
    pub(crate) require: Vec<Condition>,
    /// What it had better be: nodes of which more is true come first
    #[arg(long, value_name = "CONDITION")]
    pub(crate) prefer: Vec<Condition>,
    /// A label of which replicas, and the owner's node, are to have different values if that can be; several times: the widest first
    /// [default: zone, then rack]
    #[arg(long, value_name = "LABEL")]
    pub(crate) spread: Vec<String>,
}

impl Placing {
    /// Says it of what is to be made.
    pub(crate) fn of(&self, make: CreateOptions) -> CreateOptions {
        let make = self.require.iter().cloned().fold(make, CreateOptions::require);
        let make = self.prefer.iter().cloned().fold(make, CreateOptions::prefer);
        self.spread.iter().fold(make, CreateOptions::spread)
    }

    /// What is said.
    pub(crate) fn said(&self) -> message::Placing {
        message::Placing { require: self.require.clone(), prefer: self.prefer.clone(), spread: self.spread.clone() }
    }

    /// Whether anything is.
    pub(crate) fn is_said(&self) -> bool {
        self.said() != message::Placing::default()
    }
}

#[derive(Args, Debug)]
pub(crate) struct Plan {
    /// The segment
    pub(crate) name: String,
    /// Bytes that one may grow to that is not there, such as 1G
    #[arg(long, value_parser = crate::output::units::parse_size)]
    pub(crate) capacity: Option<u64>,
    /// How many replicas it would have [default: 1]
    #[arg(long, requires = "capacity")]
    pub(crate) replicas: Option<u32>,
    #[command(flatten)]
    pub(crate) placing: Placing,
}

#[derive(Args, Debug)]
pub(crate) struct Get {
    /// The segment
    pub(crate) name: String,
    /// The file; `-` for standard output (with --json the facts are on standard error then)
    pub(crate) file: PathBuf,
    /// Take the segment from an owner that does not answer, which is fenced, or from who holds the name and has not opened it: what
    /// `segctl run` runs is killed then
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
    /// What becomes of the program when the node's lease is not confirmed in time
    #[arg(long, value_enum, default_value_t)]
    pub(crate) when_cut_off: WhenCutOff,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct Perf {
    /// What to measure [default: all that can be in this cluster, with --dev also size and cpu; failover, many and repair only when asked for]
    #[arg(value_enum)]
    pub(crate) what: Vec<Measure>,
    /// With daemons of its own on this machine, which go again, not the node's cluster: over shared memory, over TCP, and over RDMA
    /// where there is a device
    #[arg(long)]
    pub(crate) dev: bool,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum WhenCutOff {
    /// It is ended before another node may run it; so it is when the directory is down for longer than the lease
    #[default]
    End,
    /// It goes on until somebody else is known to have the name: both may run for a while, of which the segment keeps the later one's work
    GoOn,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Measure {
    /// Writes and reads between this node and another, with nothing of the protocol between; with --dev on this machine, beside
    /// plain copies and sockets
    Move,
    /// Checkpoints of one changed block in 64 MiB, to one and to two replicas
    Checkpoint,
    /// The same in 64 KiB and in 8 GiB, which must cost the same: with --dev, and 25 GiB of disk for a moment; over shared memory
    /// alone, where a difference would show most
    Size,
    /// Loads of 1 GiB
    Load,
    /// What a segment takes, at its owner and at a replica
    Memory,
    /// What a replica's daemon takes of the processor while 100,000 checkpoints come in: with --dev
    Cpu,
    /// From the death of an owner's process, or of its node, to the first checkpoint of another one, in parts: with --dev; three
    /// minutes, and only when it is asked for
    Failover,
    /// A thousand segments on ten nodes: how long until all of a dead node's are open elsewhere, what they take of memory, how often idle
    /// nodes wake: with --dev, and only when it is asked for
    Many,
    /// How fast a further replica of 1 GiB is filled, and what that costs its owner's checkpoints: only when it is asked for
    Repair,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Dev {
    /// Start a cluster; node 1 has DIR/n1/segstored.sock and so on, and stays up until `down`
    Up(Up),
    /// Stop it, and remove its segments; logs stay
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
    /// Memory for replicas on each node [default: 1GiB]
    #[arg(long)]
    pub(crate) memory: Option<String>,
    /// What replicas are reached over: auto, verbs, tcp or shm [default: auto]
    #[arg(long)]
    pub(crate) transport: Option<String>,
    /// After how long a silent node counts as dead [default: 3s]
    #[arg(long)]
    pub(crate) node_lease: Option<String>,
    /// Replicas in files beside the daemon's, not in `/dev/shm`
    #[arg(skip)]
    pub(crate) on_disk: bool,
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|_| format!("{text:?}: write it as 10s or 500ms"))?;
    if time <= LONGEST_TIME { Ok(time) } else { Err(format!("{text:?}: at most ten years")) }
}

/// What can be added to every point of time.
const LONGEST_TIME: Duration = Duration::from_secs(3650 * 24 * 3600);
