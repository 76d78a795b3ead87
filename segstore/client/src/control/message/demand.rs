//! Daemon to client, of its own accord, and what the client answers.

use segstore_core::id::Member;
use serde::{Deserialize, Serialize};

use super::{Held, OwnerState};

/// What a daemon asks of a client that owns a segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demand {
    /// Hold the newest acknowledged checkpoint. Answer: [`Report::Held`].
    Hold {
        /// The segment.
        name: String,
        /// For how long, in milliseconds.
        time: u64,
        /// Not in these replicas.
        #[serde(default)]
        without: Vec<Member>,
    },
    /// End a hold. Answer: [`Report::Done`].
    EndHold {
        /// The segment.
        name: String,
        /// Its number.
        number: u64,
    },
    /// How the segment is to be kept has changed, or where: look it up. Answer: [`Report::Done`]; it is looked up after that.
    Changed {
        /// The segment.
        name: String,
    },
    /// Hand the segment over. Answer: [`Report::Done`], from whom hears of such things; the segment is let go after that, or not.
    Move {
        /// The segment.
        name: String,
        /// The name of the node that is to have it.
        to: String,
        /// For how long that is asked for, in milliseconds.
        left_ms: u64,
        /// Whether it is asked of who only holds the name, too.
        of_holder: bool,
    },
    /// Say how the segment is. Answer: [`Report::State`].
    State {
        /// The segment.
        name: String,
    },
}

impl Demand {
    /// The segment that it is about.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Hold { name, .. }
            | Self::EndHold { name, .. }
            | Self::Changed { name }
            | Self::Move { name, .. }
            | Self::State { name } => name,
        }
    }
}

/// What the client answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It is done.
    Done,
    /// A slot is held.
    Held(Held),
    /// How the segment is.
    State(Box<OwnerState>),
}
