//! As whom an etcd is asked, and where it is.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::{EtcdAt, read_secret};

/// Where an etcd is, and as whom it is asked.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Its members, such as `https://192.0.2.1:2379`.
    pub endpoints: Vec<String>,
    /// The authority that its members' certificates are of, in PEM.
    pub authority: Option<Vec<u8>>,
    /// This node's own certificate and key, in PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// A user of its, with the password.
    pub user: Option<(String, String)>,
}

impl Access {
    /// What the files hold that the configuration names.
    ///
    /// # Errors
    /// One of them cannot be read, is not what it is to be, or is a secret that others may read. The text names the key and the file.
    pub fn read(at: &EtcdAt) -> Result<Self, String> {
        let identity =
            |(own, its): &(PathBuf, PathBuf)| Ok::<_, String>((certificate("etcd_cert_file", own)?, key(its)?));
        let user = |(name, file): &(String, PathBuf)| Ok::<_, String>((name.clone(), password(file)?));
        Ok(Self {
            endpoints: at.endpoints.clone(),
            authority: at.authority.as_deref().map(|file| certificate("etcd_ca_file", file)).transpose()?,
            identity: at.identity.as_ref().map(identity).transpose()?,
            user: at.user.as_ref().map(user).transpose()?,
        })
    }
}

fn certificate(setting: &str, file: &Path) -> Result<Vec<u8>, String> {
    let saying = |why: String| format!("{setting}: {}: {why}", file.display());
    let text = std::fs::read(file).map_err(|error| saying(error.to_string()))?;
    CertificateDer::from_pem_slice(&text).map_err(|error| saying(format!("no certificate in PEM: {error}")))?;
    Ok(text)
}

fn key(file: &Path) -> Result<Vec<u8>, String> {
    let saying = |why: String| format!("etcd_key_file: {}: {why}", file.display());
    let text = read_secret(file).map_err(saying)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| saying(format!("no key in PEM: {error}")))?;
    Ok(text)
}

fn password(file: &Path) -> Result<String, String> {
    let saying = |why: &str| format!("etcd_password_file: {}: {why}", file.display());
    let text =
        String::from_utf8(read_secret(file).map_err(|why| saying(&why))?).map_err(|_| saying("it is no text"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(saying("it is empty")),
        password => Ok(password.to_owned()),
    }
}
