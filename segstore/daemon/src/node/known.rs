//! Segments that the directory has known.
//!
//! That there is no record of a segment proves that it was removed only where it was once: in a new directory, or in a copy from
//! before the segment was made, there is none either, and its replicas are all that there is.

use std::sync::Arc;

use segstore::control::message::Fault;
use segstore_core::id::SegmentId;

use super::{Node, SHORT, directory_fault, encode};
use crate::cluster::known_key;
use crate::directory::{DirectoryError, Value};
use crate::peers::message::Call;

impl Node {
    /// Has it written down that there is to be a segment, before the first of its replicas is made.
    pub(crate) async fn make_known(&self, segment: SegmentId, name: &str) -> Result<(), Fault> {
        let value = Value { bytes: encode(&name)?, lease: None };
        let swapped = self.directory.compare_swap(&known_key(segment), None, Some(value)).await;
        swapped.map(drop).map_err(|error| directory_fault(&error))
    }

    /// Whether this directory has known the segment.
    pub(crate) async fn is_known(&self, segment: SegmentId) -> Result<bool, Fault> {
        let found = self.directory.read(&known_key(segment)).await;
        found.map(|found| found.is_some()).map_err(|error| directory_fault(&error))
    }

    /// Every node forgets what it has of a segment of which there is no record, and with the last of them the directory does. A node
    /// that does not answer forgets it later, by itself.
    pub(crate) async fn forget(self: &Arc<Self>, segment: SegmentId) {
        let nodes = self.view.all().len();
        if self.call_all(&Call::Forget { segment }, SHORT).await.len() == nodes
            && let Err(error) = self.forget_known(segment).await
        {
            tracing::debug!(%segment, "what the directory knows of it stays: {error}");
        }
    }

    async fn forget_known(&self, segment: SegmentId) -> Result<(), DirectoryError> {
        let key = known_key(segment);
        if let Some(found) = self.directory.read(&key).await? {
            self.directory.compare_swap(&key, Some(found.revision), None).await?;
        }
        Ok(())
    }
}
