//! RDMA, where it is built in (feature `verbs`): which device a node uses, for its daemon and its applications alike.

use std::net::IpAddr;

use segstore_transport::{Domain, Result};
use serde::{Deserialize, Serialize};

/// The node's RDMA device. What is not said is chosen: the first active one, and its best address.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RdmaDevice {
    /// Its name, such as `mlx5_0`.
    pub name: Option<String>,
    /// Its address that peers find it by.
    pub address: Option<IpAddr>,
}

impl RdmaDevice {
    /// Opens it.
    ///
    /// # Errors
    /// There is none, or it has no active port, or not that address; the program was built without the feature `verbs`.
    #[cfg(feature = "verbs")]
    pub fn open(&self) -> Result<Domain> {
        use segstore_transport::{Provider, verbs::Verbs};
        let named = self.name.iter().fold(Verbs::new(), |verbs, name| verbs.device(name));
        self.address.iter().fold(named, |verbs, address| verbs.address(*address)).open()
    }

    /// Opens it.
    ///
    /// # Errors
    /// Always: the program was built without the feature `verbs`.
    #[cfg(not(feature = "verbs"))]
    pub fn open(&self) -> Result<Domain> {
        use segstore_transport::{Error, ErrorKind};
        let text = "this program was built without RDMA: build it with `cargo build --release --features verbs`";
        Err(Error::operation(ErrorKind::Unsupported, text))
    }
}
