//! A signing certificate that the user brings: `ca-cert.pem`, `ca-key.pem`,
//! `cert-chain.pem` and `root-cert.pem` in one directory (`cacerts`), or
//! `tls.crt`, `tls.key` and `ca.crt`, as a Secret of the type
//! `kubernetes.io/tls` has them.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::SystemTime;

use pki::issuer::{Issuer, Material, Pem};

use super::authority::Error;
use super::secret::GENERATED;

/// What logs say of it.
pub const ORIGIN: &str = "plug-in CA files";
/// The files of a CA of one's own.
pub const FILES: [&str; 4] = ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"];
/// The files of a Secret of the type `kubernetes.io/tls`; they are taken when the first is there.
const TLS_FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Place {
    /// Their directory.
    pub dir: PathBuf,
    /// Whether files that istiod itself has made are none (`USE_CACERTS_FOR_SELF_SIGNED_CA`):
    /// it reads their Secret.
    pub skips_generated: bool,
}

impl Place {
    /// All files that matter.
    pub fn files(&self) -> Vec<PathBuf> {
        let names = FILES.iter().chain(&TLS_FILES).copied().chain([GENERATED]);
        names.map(|name| self.dir.join(name)).collect()
    }

    /// Loads the files; `None` when none of them is there.
    ///
    /// # Errors
    /// When only some are there, or when they do not fit together.
    pub fn open(&self, now: SystemTime) -> Result<Option<Issuer>, Error> {
        if self.skips_generated && self.dir.join(GENERATED).exists() {
            return Ok(None);
        }
        if self.dir.join(TLS_FILES[0]).exists() {
            let [cert, key, root] = match self.read(TLS_FILES)? {
                Ok(texts) => texts,
                Err(missing) => return Err(Error::Incomplete { dir: self.dir.clone(), missing }),
            };
            // What stands behind the signing certificate leads to the root.
            let pem = |index: usize, text| Pem { file: TLS_FILES[index], text };
            return self.load(
                &Material {
                    cert: pem(0, &cert),
                    key: pem(1, &key),
                    chain: pem(0, if cert.trim() == root.trim() { "" } else { &cert }),
                    root: pem(2, &root),
                },
                now,
            );
        }
        let [cert, key, chain, root] = match self.read(FILES)? {
            Ok(texts) => texts,
            Err(missing) if missing.len() == FILES.len() => return Ok(None),
            Err(missing) => return Err(Error::Incomplete { dir: self.dir.clone(), missing }),
        };
        let pem = |index: usize, text| Pem { file: FILES[index], text };
        let (cert, key, chain, root) = (pem(0, &cert), pem(1, &key), pem(2, &chain), pem(3, &root));
        self.load(&Material { cert, key, chain, root }, now)
    }

    fn load(&self, material: &Material<'_>, now: SystemTime) -> Result<Option<Issuer>, Error> {
        Issuer::load(material, now).map(Some).map_err(|why| Error::Files { dir: self.dir.clone(), why })
    }

    /// The texts of these files, or the names of those that are not there.
    fn read<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> Result<Result<[String; N], Vec<&'static str>>, Error> {
        let mut texts = names.map(|_| String::new());
        let mut missing = Vec::new();
        for (name, text) in names.into_iter().zip(&mut texts) {
            let path = self.dir.join(name);
            match fs::read_to_string(&path) {
                Ok(read) => *text = read,
                Err(error) if error.kind() == ErrorKind::NotFound => missing.push(name),
                Err(why) => return Err(Error::Read { path, why }),
            }
        }
        Ok(if missing.is_empty() { Ok(texts) } else { Err(missing) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn write(place: &Place, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(place.dir.join(name), text).unwrap();
        }
    }

    #[test]
    fn files_of_a_tls_secret_are_a_ca_too() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { dir: dir.path().into(), skips_generated: false };
        assert!(place.open(SystemTime::now()).unwrap().is_none());
        let (issuer, key) = Issuer::self_signed("a", DAY, SystemTime::now()).unwrap();
        let root = issuer.root_pem();
        write(&place, &[("tls.crt", root)]);
        let error = place.open(SystemTime::now()).unwrap_err().to_string();
        assert!(error.contains("tls.key, ca.crt not there"), "{error}");
        write(&place, &[("tls.key", &key), ("ca.crt", root)]);
        let opened = place.open(SystemTime::now()).unwrap().unwrap();
        assert_eq!((opened.root_pem(), opened.chain().len()), (root, 0));
        let (_, other) = Issuer::self_signed("b", DAY, SystemTime::now()).unwrap();
        write(&place, &[("tls.key", &other)]);
        let error = place.open(SystemTime::now()).unwrap_err().to_string();
        assert!(error.contains("tls.key is not the key of tls.crt"), "{error}");
    }

    #[test]
    fn files_that_istiod_has_made_are_skipped_if_their_secret_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (issuer, key) = Issuer::self_signed("a", DAY, SystemTime::now()).unwrap();
        let root = issuer.root_pem();
        for skips_generated in [false, true] {
            let place = Place { dir: dir.path().into(), skips_generated };
            write(
                &place,
                &[(FILES[0], root), (FILES[1], &key), (FILES[2], ""), (FILES[3], root), (GENERATED, "")],
            );
            assert_eq!(place.open(SystemTime::now()).unwrap().is_none(), skips_generated);
        }
    }
}
