//! Certificates that are made for one test, each its own issuer.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A folder with `certificate.pem` and `key.pem`.
pub struct Certified {
    folder: TempDir,
    name: String,
}

impl Certified {
    pub fn new(name: &str) -> Self {
        let certified = Self { folder: tempfile::tempdir().unwrap(), name: name.to_owned() };
        certified.renew();
        certified
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn certificate(&self) -> PathBuf {
        self.path().join("certificate.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.path().join("key.pem")
    }

    /// Puts another certificate into its place.
    pub fn renew(&self) {
        let made = rcgen::generate_simple_self_signed([self.name.clone()]).unwrap();
        fs::write(self.certificate(), made.cert.pem()).unwrap();
        fs::write(self.key(), made.signing_key.serialize_pem()).unwrap();
    }

    /// The lines of `routes.toml` for it.
    pub fn table(&self) -> String {
        format!("[listen.tls]\ncertificate = {:?}\nkey = {:?}\n", self.certificate(), self.key())
    }

    /// A client that trusts what is there now, and nothing else.
    pub fn client(&self) -> reqwest::ClientBuilder {
        let trusted = reqwest::Certificate::from_pem(&fs::read(self.certificate()).unwrap()).unwrap();
        reqwest::Client::builder().no_proxy().tls_certs_only([trusted])
    }
}
