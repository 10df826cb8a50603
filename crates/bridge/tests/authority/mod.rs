//! Certificates for tests of TLS, and options of Zenoh's that use them.

#![allow(clippy::allow_attributes, dead_code, reason = "each test uses a part of it")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use serde_json::{Value, json};

/// An authority, its certificate's file, and the certificates that it has signed.
pub(crate) struct Authority {
    dir: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        fs::write(dir.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { dir, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The certificate and the key of `name`.
    pub(crate) fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        self.sign_until(name, 4096)
    }

    /// The same, as it was for some years.
    pub(crate) fn sign_expired(&self, name: &str) -> (PathBuf, PathBuf) {
        self.sign_until(name, 2000)
    }

    fn sign_until(&self, name: &str, year: i32) -> (PathBuf, PathBuf) {
        let files = ["cert", "key"].map(|kind| self.dir.path().join(format!("{name}.{kind}.pem")));
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        fs::write(&files[0], params.signed_by(&key, &self.issuer).unwrap().pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        files.into()
    }
}

pub(crate) fn listening(root: &Path, (cert, key): &(PathBuf, PathBuf)) -> Value {
    json!({ "root_ca_certificate": root, "listen_certificate": cert, "listen_private_key": key, "enable_mtls": true })
}

pub(crate) fn connecting(root: &Path, (cert, key): &(PathBuf, PathBuf)) -> Value {
    json!({ "root_ca_certificate": root, "connect_certificate": cert, "connect_private_key": key, "enable_mtls": true })
}
