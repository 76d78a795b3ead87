//! How a batch ends, and how posting one can be refused.

use super::Error;

/// The end of one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The number given to `post`.
    pub id: u64,
    /// `Ok`: every operation of the batch has taken effect at the target. `Err`: the endpoint is broken, and any
    /// prefix of the batch, torn at any byte, may have taken effect.
    pub result: Result<(), Error>,
}

/// Why a batch was not posted. In every case nothing of it happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Post {
    /// No room now: poll for completions and post again. This is back-pressure, not failure.
    #[error("the endpoint has no room now: poll for completions and post again")]
    WouldBlock,
    /// A wrong value (scope operation), or the endpoint is broken (any other scope).
    #[error(transparent)]
    Failed(#[from] Error),
}
