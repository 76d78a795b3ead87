//! Who is who: a target's key pair, made when its domain opens, and an initiator that accepts one public key (RFC 7250).
//! There are no certificates.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{default_provider, sign::any_eddsa_type};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, PeerIncompatible, ServerConfig,
    ServerConnection, SignatureScheme,
};

use super::Tls;
use crate::tcp::wire::PublicKey;
use crate::{Error, ErrorKind, Result};

/// What stands before an Ed25519 key in its `SubjectPublicKeyInfo` (RFC 8410).
const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A target's key pair. It lives as long as the domain, and leaves this process in no form.
pub(in crate::tcp) struct Identity {
    config: Arc<ServerConfig>,
    pub(in crate::tcp) key: PublicKey,
}

impl Identity {
    /// A fresh one.
    pub(in crate::tcp) fn new() -> Result<Identity> {
        let making = |what: &dyn std::fmt::Display| {
            Error::operation(ErrorKind::System, format!("making the domain's key pair: {what}"))
        };
        let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|error| making(&error))?;
        let public = Ed25519KeyPair::from_pkcs8(pair.as_ref()).map_err(|error| making(&error))?;
        let key = public.public_key().as_ref().try_into().map_err(|error| making(&error))?;
        let signing = any_eddsa_type(&PrivatePkcs8KeyDer::from(pair.as_ref())).map_err(|error| making(&error))?;
        let config = server_config(&key, signing).map_err(|error| making(&error))?;
        Ok(Identity { config: Arc::new(config), key })
    }

    /// The target's end of a connection.
    pub(in crate::tcp) fn serve(&self) -> std::result::Result<Tls, rustls::Error> {
        ServerConnection::new(self.config.clone()).map(Tls::new)
    }
}

fn server_config(key: &PublicKey, signing: Arc<dyn SigningKey>) -> std::result::Result<ServerConfig, rustls::Error> {
    let certified = CertifiedKey::new(vec![CertificateDer::from(info(key))], signing);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    // Every connection has a token of its own: nothing is resumed.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// The initiator's end of a connection to who has the private key of `key`.
pub(in crate::tcp) fn client(key: PublicKey) -> std::result::Result<Tls, rustls::Error> {
    let provider = provider();
    let pinned = Pinned { info: info(&key), provider: provider.clone() };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pinned))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    // No name is sent, and none is compared.
    let unnamed = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into());
    ClientConnection::new(Arc::new(config), unnamed).map(Tls::new)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

/// The `SubjectPublicKeyInfo` of a key.
fn info(key: &PublicKey) -> Vec<u8> {
    [&ED25519[..], key].concat()
}

/// Accepts one key, by its `SubjectPublicKeyInfo`.
#[derive(Debug)]
struct Pinned {
    info: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        got: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        match got.as_ref() == self.info {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        got: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let (info, schemes) = (got.as_ref().into(), &self.provider.signature_verification_algorithms);
        verify_tls13_signature_with_raw_key(message, &info, signature, schemes)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
