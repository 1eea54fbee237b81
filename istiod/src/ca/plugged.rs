//! A signing certificate that the user brings: `ca-cert.pem`, `ca-key.pem`,
//! `cert-chain.pem` and `root-cert.pem` in one directory (`cacerts`).

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use pki::issuer::{Issuer, Material, Pem};

use super::authority::Error;

/// What logs say of it.
pub const ORIGIN: &str = "plug-in CA files";
/// The files of a CA of one's own.
pub const FILES: [&str; 4] = ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"];

/// Loads the files; `None` when none of them is there.
///
/// # Errors
/// When only some are there, or when they do not fit together.
pub fn open(dir: &Path, now: SystemTime) -> Result<Option<Issuer>, Error> {
    let mut texts = Vec::new();
    let mut missing = Vec::new();
    for name in FILES {
        match fs::read_to_string(dir.join(name)) {
            Ok(text) => texts.push(text),
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push(name),
            Err(why) => return Err(Error::Read { path: dir.join(name), why }),
        }
    }
    let [cert, key, chain, root] = texts.as_slice() else {
        if missing.len() == FILES.len() {
            return Ok(None);
        }
        return Err(Error::Incomplete { dir: dir.into(), missing });
    };
    let [cert, key, chain, root] = [(FILES[0], cert), (FILES[1], key), (FILES[2], chain), (FILES[3], root)]
        .map(|(file, text)| Pem { file, text });
    let material = Material { cert, key, chain, root };
    Issuer::load(&material, now).map(Some).map_err(|why| Error::Files { dir: dir.into(), why })
}
