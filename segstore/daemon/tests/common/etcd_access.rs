//! An etcd that lets in whom it knows: by certificates, which both sides show, and as users.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::etcd_server::{EtcdServer, QUICK};

/// An authority that signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut about = CertificateParams::new(Vec::new()).unwrap();
        about.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(about, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key of somebody, in PEM. He goes by this name, a host's address or a user of etcd's.
    pub(crate) fn sign(&self, name: &str) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let mut about = CertificateParams::new([name.to_owned()]).unwrap();
        about.distinguished_name.push(DnType::CommonName, name);
        let certificate = about.signed_by(&key, &self.0).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        self.0.as_ref().pem().into_bytes()
    }
}

impl EtcdServer {
    /// One member that is known by this authority's certificates, wants one of them from whoever asks, and has its files there.
    pub(crate) fn start_secure(files: &Path, authority: &Authority) -> Self {
        let file = |name: &str, bytes: &[u8]| {
            let path = files.join(name);
            std::fs::write(&path, bytes).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (certificate, key) = authority.sign("127.0.0.1");
        let (ca, cert, key) = (file("ca", &authority.pem()), file("cert", &certificate), file("key", &key));
        let secure = ["--cert-file", &cert, "--key-file", &key, "--client-cert-auth", "--trusted-ca-file", &ca];
        let mut server = Self::start(1, &[&QUICK[..], &secure].concat());
        server.asker = ["--cacert", &ca, "--cert", &cert, "--key", &key].map(str::to_owned).to_vec();
        server
    }

    /// Nobody is let in from here on but a user who may touch these keys and no others, and the root who this asks as.
    pub(crate) fn admit_only(&mut self, user: &str, password: &str, prefix: &str) {
        for order in [
            "user add root:secret",
            "user grant-role root root",
            "role add one",
            &format!("role grant-permission one --prefix=true readwrite {prefix}"),
            &format!("user add {user}:{password}"),
            &format!("user grant-role {user} one"),
            "auth enable",
        ] {
            self.control(&order.split(' ').collect::<Vec<_>>());
        }
        self.asker.extend(["--user", "root:secret"].map(str::to_owned));
    }
}
