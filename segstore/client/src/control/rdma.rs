//! RDMA, where it is built in (feature `verbs`): which device a node uses, for its daemon and its applications alike.

use std::net::IpAddr;
use std::time::Duration;

use segstore_transport::{Domain, Result};
use serde::{Deserialize, Serialize};

/// The node's RDMA device. What is not said is chosen: the first active one, and its best address.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RdmaDevice {
    /// Whether other nodes are to be reached by it.
    pub wanted: bool,
    /// Its name, such as `mlx5_0`.
    pub name: Option<String>,
    /// Its address that peers find it by.
    pub address: Option<IpAddr>,
    /// After how long without an answer a peer counts as gone, if not as the transport has it.
    pub patience: Option<Duration>,
    /// Of what is sent, 0 to 255: switches choose by it what is lossless.
    pub traffic_class: u8,
    /// Of what is sent, 0 to 15.
    pub service_level: u8,
}

#[cfg(feature = "verbs")]
impl RdmaDevice {
    /// Opens it.
    ///
    /// # Errors
    /// There is none, or it has no active port, or not that address; the program was built without the feature `verbs`.
    pub fn open(&self) -> Result<Domain> {
        use segstore_transport::Provider;
        self.provider().open()
    }

    /// What is opened, in words.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn describe(&self) -> Result<String> {
        self.provider().describe()
    }

    fn provider(&self) -> segstore_transport::verbs::Verbs {
        let named = self.name.iter().fold(Default::default(), segstore_transport::verbs::Verbs::device);
        let found = self.address.iter().fold(named, |verbs, address| verbs.address(*address));
        let patient = self.patience.iter().fold(found, |verbs, patience| verbs.patience(*patience));
        patient.traffic_class(self.traffic_class).service_level(self.service_level)
    }
}

#[cfg(not(feature = "verbs"))]
impl RdmaDevice {
    /// Opens it.
    ///
    /// # Errors
    /// Always: the program was built without the feature `verbs`.
    pub fn open(&self) -> Result<Domain> {
        Err(not_built_in())
    }

    /// What is opened, in words.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn describe(&self) -> Result<String> {
        Err(not_built_in())
    }
}

#[cfg(not(feature = "verbs"))]
fn not_built_in() -> segstore_transport::Error {
    let text = "this program was built without RDMA";
    segstore_transport::Error::operation(segstore_transport::ErrorKind::Unsupported, text)
}
