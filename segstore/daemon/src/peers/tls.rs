//! Who belongs to the cluster: whoever knows its secret.
//!
//! There are no certificates to set up. An Ed25519 key is derived from the secret (HKDF-SHA256, RFC 5869; the key as in RFC 8410),
//! and every daemon presents a certificate of that key, signed by itself. Both sides of a connection (TLS 1.3, RFC 8446) accept
//! exactly a certificate of their own key, and TLS makes the other side prove that it has it. So the secret authenticates and
//! encrypts, and never travels.

use std::path::Path;
use std::sync::Arc;

use hkdf::Hkdf;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme, version};
use sha2::Sha256;

use crate::config::read_secret;

/// The fewest bytes of a secret.
const SECRET: usize = 16;
/// What the key is derived for. Another derivation gets another number.
const PURPOSE: &[u8] = b"segstore cluster key 1";
/// What precedes the seed of an Ed25519 key (RFC 8410, section 7).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// Every node goes by this name: the key says enough.
pub const SERVER_NAME: &str = "node.segstore";

/// The cluster's identity, for both sides of a connection.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For who is connected to.
    pub server: Arc<ServerConfig>,
    /// For who connects.
    pub client: Arc<ClientConfig>,
}

impl Identity {
    /// From the file that holds the cluster's secret.
    ///
    /// # Errors
    /// The file cannot be read, is open to others, or the secret is too short.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        let saying = |error| format!("the cluster's secret in {}: {error}", path.display());
        let secret = read_secret(path).map_err(saying)?;
        Self::from_secret(secret.trim_ascii()).map_err(saying)
    }

    /// From the secret itself.
    ///
    /// # Errors
    /// It is too short.
    pub fn from_secret(secret: &[u8]) -> Result<Self, String> {
        if secret.len() < SECRET {
            let have = secret.len();
            return Err(format!(
                "it has {have} bytes, at least {SECRET} are needed; make one with: openssl rand -hex 32"
            ));
        }
        let mut seed = [0; 32];
        Hkdf::<Sha256>::new(None, secret).expand(PURPOSE, &mut seed).map_err(|error| error.to_string())?;
        let pkcs8 = PrivatePkcs8KeyDer::from([PKCS8.as_slice(), &seed].concat());
        build(&pkcs8).map_err(|error| format!("making the node's certificate: {error}"))
    }
}

fn build(pkcs8: &PrivatePkcs8KeyDer<'static>) -> Result<Identity, Box<dyn std::error::Error>> {
    let key = KeyPair::try_from(pkcs8)?;
    let certificate = CertificateParams::new(vec![SERVER_NAME.to_owned()])?.self_signed(&key)?;
    let chain = vec![certificate.der().clone()];
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Same::new(&chain[0], provider.clone())?);
    let private = || PrivateKeyDer::from(pkcs8.clone_key());
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(verifier.clone())
        .with_single_cert(chain.clone(), private())?;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, private())?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    client.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Identity { server: Arc::new(server), client: Arc::new(client) })
}

/// Accepts a certificate of one key, whoever presents it.
#[derive(Debug)]
struct Same {
    public: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl Same {
    fn new(own: &CertificateDer<'_>, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        Ok(Self { public: public_key(own)?, provider })
    }

    fn check(&self, presented: &CertificateDer<'_>) -> Result<(), Error> {
        if public_key(presented)? == self.public {
            return Ok(());
        }
        Err(Error::General("the other side has another cluster secret".into()))
    }

    fn signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }
}

fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Error> {
    Ok(ParsedCertificate::try_from(certificate)?.subject_public_key_info().as_ref().to_vec())
}

fn never_12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken here".into()))
}

impl ServerCertVerifier for Same {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(certificate).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        never_12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Same {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(certificate).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        never_12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
