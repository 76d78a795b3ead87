//! What the set-up messages of every provider share: how one that is not what it should be is refused.

use std::time::Duration;

use crate::{Error, ErrorKind, Result};

/// How long a peer may take to connect, from when it was let in: as long as a caller may take to bring it the reply. Who never comes
/// does not count as alive for ever.
pub(crate) const ADMITTED: Duration = Duration::from_secs(10);

/// The messages of one provider, in one version.
pub(crate) struct Messages {
    pub(crate) provider: &'static str,
    pub(crate) version: u16,
}

impl Messages {
    /// Whether a message starts as it should (`magic`: what it starts with, and what it should), in this version.
    pub(crate) fn check(&self, what: &str, magic: ([u8; 4], [u8; 4]), version: u16) -> Result<()> {
        let Messages { provider, version: ours } = self;
        if magic.0 != magic.1 {
            let text = format!(
                "a {provider} {what} starts with {:?}, not {:?}: is this another provider's?",
                magic.0, magic.1
            );
            return Err(Error::operation(ErrorKind::Protocol, text));
        }
        if version != *ours {
            let text =
                format!("a {provider} {what} of version {version}; this side speaks version {ours}: upgrade the older");
            return Err(Error::operation(ErrorKind::Incompatible, text));
        }
        Ok(())
    }

    /// What a message of the wrong length is told.
    pub(crate) fn length(&self, what: &str, bytes: &[u8]) -> Error {
        let text = format!("a {} {what} of {} bytes has the wrong length", self.provider, bytes.len());
        Error::operation(ErrorKind::Protocol, text)
    }
}
