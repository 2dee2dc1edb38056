//! With which certificate do clients see that they have reached the gateway?

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

/// `[listen.tls]`: clients reach the gateway over https. HTTP/2 is offered. When the files change, new
/// connections get the new certificate.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The file with the certificate, and with those that lead from it to a known one, in PEM.
    pub certificate: PathBuf,
    /// The file with the certificate's private key, in PEM.
    pub key: PathBuf,
}

/// What is wrong with a file, and by which key it is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    pub key: &'static str,
    pub what: String,
}

/// The certificate in use, which may be replaced.
pub struct Certificate(ArcSwap<ServerConfig>);

impl Certificate {
    pub fn read(settings: &Settings) -> Result<Self, Wrong> {
        Ok(Self(ArcSwap::from(config(settings)?)))
    }

    /// Used from the next connection on.
    pub fn replace(&self, new: Self) {
        self.0.store(new.0.into_inner());
    }

    /// Takes one connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

fn config(settings: &Settings) -> Result<Arc<ServerConfig>, Wrong> {
    let Settings { certificate, key } = settings;
    let chain = chain(certificate).map_err(|what| Wrong { key: "certificate", what })?;
    let secret = PrivateKeyDer::from_pem_file(key);
    // Nothing of the file is quoted.
    let secret = secret.map_err(|_| Wrong { key: "key", what: unreadable(key, "no private key in PEM") })?;
    let made = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(chain, secret));
    let mut config = made.map_err(|why| Wrong {
        key: "key",
        what: format!("{} does not go with the certificate: {why}", key.display()),
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) | Err(_) => Err(unreadable(file, "no certificate in PEM")),
    }
}

/// Why nothing can be had from a file.
fn unreadable(file: &Path, lacks: &str) -> String {
    match std::fs::File::open(file) {
        Ok(_) => format!("there is {lacks} in {}", file.display()),
        Err(why) => format!("{} cannot be read: {why}", file.display()),
    }
}
