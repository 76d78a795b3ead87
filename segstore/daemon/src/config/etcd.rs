//! Where an etcd is that keeps the directory, as it is configured.

use std::path::{Path, PathBuf};

use super::Settings;

/// The default of `etcd_prefix`.
const PREFIX: &str = "segstore/";

/// An etcd, and this cluster's part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EtcdAt {
    /// Its members.
    pub endpoints: Vec<String>,
    /// What the names of this cluster's keys begin with.
    pub prefix: String,
    /// The authority that its members' certificates are of.
    pub authority: Option<PathBuf>,
    /// This node's certificate and key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// A user of its, and the file with the password.
    pub user: Option<(String, PathBuf)>,
}

impl EtcdAt {
    pub(super) fn check(settings: &Settings) -> Result<Self, String> {
        let endpoints = settings.etcd_endpoints.clone().unwrap_or_default();
        if endpoints.is_empty() {
            return Err("name etcd's members: etcd_endpoints = [\"https://192.0.2.1:2379\"]".into());
        }
        let together = |keys: &str| format!("{keys} go together: say both or none");
        let identity = match (&settings.etcd_cert_file, &settings.etcd_key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            _ => return Err(together("etcd_cert_file and etcd_key_file")),
        };
        let user = match (&settings.etcd_user, &settings.etcd_password_file) {
            (Some(user), Some(file)) => Some((user.clone(), file.clone())),
            (None, None) => None,
            _ => return Err(together("etcd_user and etcd_password_file")),
        };
        let prefix = settings.etcd_prefix.clone().unwrap_or_else(|| PREFIX.into());
        if !prefix.ends_with('/') {
            let text = "end it with a slash; without one, another cluster's keys may begin with it as well";
            return Err(format!("etcd_prefix = {prefix:?}: {text}"));
        }
        Ok(Self { endpoints, prefix, authority: settings.etcd_ca_file.clone(), identity, user })
    }

    /// The keys that say it.
    pub(super) fn to_toml(&self) -> Vec<(&'static str, toml::Value)> {
        let text = |value: &str| toml::Value::String(value.to_owned());
        let path = |path: &Path| toml::Value::String(path.display().to_string());
        let endpoints = self.endpoints.iter().map(|endpoint| text(endpoint)).collect();
        let mut keys = vec![("etcd_endpoints", toml::Value::Array(endpoints)), ("etcd_prefix", text(&self.prefix))];
        keys.extend(self.authority.as_deref().map(|file| ("etcd_ca_file", path(file))));
        if let Some((certificate, key)) = &self.identity {
            keys.extend([("etcd_cert_file", path(certificate)), ("etcd_key_file", path(key))]);
        }
        if let Some((user, file)) = &self.user {
            keys.extend([("etcd_user", text(user)), ("etcd_password_file", path(file))]);
        }
        keys
    }
}
