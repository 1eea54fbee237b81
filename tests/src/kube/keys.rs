//! The keys and certificates of a cluster.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use serde_json::{Value, json};

/// Files of a cluster's keys, and who signs for it.
pub(super) struct Keys {
    dir: PathBuf,
    ca: Issuer<'static, KeyPair>,
    /// Certificate of the CA, PEM.
    pub(super) root: String,
}

impl Keys {
    /// Makes all keys of a cluster whose API server has that address.
    pub(super) fn create(dir: &Path, address: IpAddr) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let key = KeyPair::generate()?;
        let root = params.self_signed(&key)?.pem();
        let keys = Self { dir: dir.to_owned(), ca: Issuer::new(params, key), root };
        fs::write(keys.file("ca.crt"), &keys.root)?;
        // What tokens of service accounts are signed and checked with.
        let accounts = KeyPair::generate()?;
        fs::write(keys.file("accounts.key"), accounts.serialize_pem())?;
        fs::write(keys.file("accounts.pub"), accounts.public_key_pem())?;
        let (certificate, key) = keys.serving(address)?;
        fs::write(keys.file("serving.crt"), certificate)?;
        fs::write(keys.file("serving.key"), key)?;
        // What kubelets know the API server by.
        let mut client = CertificateParams::new(Vec::<String>::new())?;
        client.distinguished_name.push(DnType::CommonName, "kube-apiserver-kubelet-client");
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = keys.sign(&client)?;
        fs::write(keys.file("kubelet-client.crt"), certificate)?;
        fs::write(keys.file("kubelet-client.key"), key)?;
        Ok(keys)
    }

    /// Certificate and key of a server at an address, PEM.
    pub(super) fn serving(&self, address: IpAddr) -> anyhow::Result<(String, String)> {
        let mut params =
            CertificateParams::new(["localhost", "kubernetes.default.svc"].map(str::to_owned).to_vec())?;
        params.subject_alt_names.push(SanType::IpAddress(address));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// The file of that name.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A kubeconfig of a user who is in those groups.
    pub(super) fn kubeconfig(&self, server: &str, user: &str, groups: &[&str]) -> anyhow::Result<Value> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, user);
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let (certificate, key) = self.sign(&params)?;
        let user = json!({
            "client-certificate-data": STANDARD.encode(certificate),
            "client-key-data": STANDARD.encode(key),
        });
        Ok(self.with_user(server, &user))
    }

    /// A kubeconfig of whom a token stands for.
    pub(super) fn kubeconfig_of_token(&self, server: &str, token: &str) -> Value {
        self.with_user(server, &json!({"token": token}))
    }

    fn with_user(&self, server: &str, user: &Value) -> Value {
        let ca = STANDARD.encode(&self.root);
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": ca}}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        })
    }

    fn sign(&self, params: &CertificateParams) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.ca)?.pem(), key.serialize_pem()))
    }
}
