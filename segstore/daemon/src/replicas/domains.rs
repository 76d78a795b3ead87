//! What peers can come over.

use std::sync::{Arc, PoisonError, RwLock};

use segstore_transport::Domain;

use super::error::ReplicaError;

/// The provider whose peers outlive the daemon.
pub const SHM: &str = "shm";

/// The transport's devices of this daemon. Cheap to clone; clones share what is added.
#[derive(Clone, Debug, Default)]
pub struct Domains {
    domains: Arc<RwLock<Vec<(String, Domain)>>>,
    /// Shared memory, where it is not served any more, but was.
    former: Option<Domain>,
}

impl Domains {
    /// These, the best first.
    #[must_use]
    pub fn new(domains: Vec<(String, Domain)>) -> Self {
        Self { domains: Arc::new(RwLock::new(domains)), former: None }
    }

    /// And shared memory, over which nobody can come, but somebody may have come in a former life: that one is to be shut out.
    #[must_use]
    pub fn with_former(self, shm: Domain) -> Self {
        Self { former: Some(shm), ..self }
    }

    /// Adds one that came later, before the one of that name, or as the last.
    pub fn add_before(&self, other: &str, name: &str, domain: Domain) {
        let mut domains = self.domains.write().unwrap_or_else(PoisonError::into_inner);
        let at = domains.iter().position(|(name, _)| name == other).unwrap_or(domains.len());
        domains.insert(at, (name.to_owned(), domain));
    }

    /// Their names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.all().into_iter().map(|(name, _)| name).collect()
    }

    /// The one of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, provider: &str) -> Result<Domain, ReplicaError> {
        let found = self.all().into_iter().find(|(name, _)| name == provider).map(|(_, domain)| domain);
        found.ok_or_else(|| {
            let have = self.names().join(", ");
            ReplicaError::Invalid(format!("this node does not serve the provider {provider:?}, but {have}"))
        })
    }

    pub(super) fn shm(&self) -> Option<Domain> {
        let served = self.all().into_iter().find(|(name, _)| name == SHM).map(|(_, domain)| domain);
        served.or_else(|| self.former.clone())
    }

    fn all(&self) -> Vec<(String, Domain)> {
        self.domains.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
