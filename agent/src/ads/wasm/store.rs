//! Downloads on disk: received by a thread of their own, unpacked there, and
//! moved to their place at once or not at all. Modules are large; none of them
//! is ever in memory as a whole.

mod unpack;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

pub(super) use unpack::Form;

/// Pieces on their way to the disk: enough to keep it busy, and little memory.
const PIECES: usize = 16;
/// Files that are not complete; the name ends so.
const PART: &str = ".part";

/// Why there is no module on disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The disk refuses.
    #[error("{}: {source}; Wasm modules need a directory here that the agent can write to", path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is too much.
    #[error("more than {0} bytes, which ISTIO_WASM_MAX_BINARY_SIZE_BYTES allows")]
    TooLarge(u64),
    /// It cannot be unpacked.
    #[error("unpack: {0}")]
    Unpack(String),
    /// It is something else.
    #[error("it is no Wasm module")]
    NotWasm,
    /// The download broke off.
    #[error("the download broke off")]
    Incomplete,
}

/// A file that is removed unless it is kept.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    is_kept: bool,
}

impl Part {
    fn create(dir: &Path) -> Result<(Self, File), Error> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("{}-{number}{PART}", std::process::id()));
        let failed = |source| Error::Io { path: path.clone(), source };
        let mut options = OpenOptions::new();
        // One of the same name is of a process that is gone.
        let file = options.write(true).create(true).truncate(true).mode(0o644).open(&path).map_err(failed)?;
        // Envoy may be of another user, whatever the mask is.
        file.set_permissions(Permissions::from_mode(0o644)).map_err(failed)?;
        Ok((Self { path, is_kept: false }, file))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_kept {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// A module that is on disk and not yet in its place.
#[derive(Debug)]
pub(super) struct Module {
    part: Part,
    /// SHA-256 of what was downloaded, in hex.
    pub(super) raw: String,
    /// SHA-256 of the module, in hex.
    pub(super) sha256: String,
}

impl Module {
    /// Moves it to its place.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn keep(mut self, path: &Path) -> Result<(), Error> {
        fs::rename(&self.part.path, path).map_err(|source| Error::Io { path: path.into(), source })?;
        self.part.is_kept = true;
        Ok(())
    }
}

/// A download under way.
#[derive(Debug)]
pub(super) struct Download {
    pieces: mpsc::Sender<Piece>,
    result: oneshot::Receiver<Result<Module, Error>>,
}

#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    End,
}

impl Download {
    /// Begins one of that form into `dir`, which is made if it is not there.
    ///
    /// Its thread is none of the runtime's: these are few, and names could not
    /// be looked up while downloads have them.
    pub(super) fn begin(dir: PathBuf, form: Form, max_bytes: u64) -> Self {
        let (pieces, receiver) = mpsc::channel(PIECES);
        let (tell, result) = oneshot::channel();
        // Nobody wants the result any more when the download was given up.
        let work = move || drop(tell.send(receive(receiver, &dir, form, max_bytes)));
        // Without a thread there is no result, which is an error then.
        drop(std::thread::Builder::new().name("wasm".into()).spawn(work));
        Self { pieces, result }
    }

    /// Adds bytes; `false` when no more are of use, and [`finish`](Self::finish) says why.
    pub(super) async fn add(&self, bytes: Bytes) -> bool {
        self.pieces.send(Piece::Bytes(bytes)).await.is_ok()
    }

    /// Ends the download.
    ///
    /// # Errors
    /// Why it is no module.
    pub(super) async fn finish(self) -> Result<Module, Error> {
        self.pieces.send(Piece::End).await.ok();
        drop(self.pieces);
        self.result.await.unwrap_or(Err(Error::Incomplete))
    }
}

fn receive(
    mut pieces: mpsc::Receiver<Piece>,
    dir: &Path,
    form: Form,
    max_bytes: u64,
) -> Result<Module, Error> {
    make_dir(dir)?;
    let (part, file) = Part::create(dir)?;
    let failed = |source| Error::Io { path: part.path.clone(), source };
    let mut out = Hashed::new(file);
    let mut left = max_bytes;
    loop {
        match pieces.blocking_recv() {
            Some(Piece::Bytes(bytes)) => {
                left = left.checked_sub(bytes.len() as u64).ok_or(Error::TooLarge(max_bytes))?;
                out.write_all(&bytes).map_err(failed)?;
            }
            Some(Piece::End) => break,
            // Whoever sent is gone, as after a timeout.
            None => return Err(Error::Incomplete),
        }
    }
    let raw = out.finish();
    let input = File::open(&part.path).map_err(failed)?;
    if unpack::is_module(&input, form).map_err(failed)? {
        return Ok(Module { part, sha256: raw.clone(), raw });
    }
    let (module, file) = Part::create(dir)?;
    let mut out = Hashed::new(file);
    unpack::unpack(BufReader::new(input), form, &mut out, max_bytes)?;
    let sha256 = out.finish();
    Ok(Module { part: module, raw, sha256 })
}

fn make_dir(dir: &Path) -> Result<(), Error> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
    made.map_err(|source| Error::Io { path: dir.into(), source })
}

/// A file and the hash of what is written to it.
struct Hashed {
    file: File,
    hash: Sha256,
}

impl Hashed {
    fn new(file: File) -> Self {
        Self { file, hash: Sha256::new() }
    }

    fn finish(self) -> String {
        hex(&self.hash.finalize())
    }
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Lower-case hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing into a string cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// SHA-256 in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Where a module is kept. `checksum` is in hex.
pub(super) fn place(dir: &Path, name: &str, checksum: &str) -> PathBuf {
    dir.join(sha256(name.as_bytes())).join(format!("{checksum}.wasm"))
}

/// Files in the layout of this cache that were last written before `oldest`:
/// what agents before this one have left.
pub(super) fn leftovers(dir: &Path, oldest: std::time::SystemTime) -> Vec<PathBuf> {
    let is_hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let entries = |dir: &Path| fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let dirs = entries(dir).filter(|entry| entry.file_name().to_str().is_some_and(is_hex));
    let files = dirs.flat_map(|dir| entries(&dir.path()));
    let is_ours = |name: &str| name.ends_with(PART) || name.strip_suffix(".wasm").is_some_and(is_hex);
    let is_old = |file: &fs::DirEntry| {
        file.metadata().and_then(|data| data.modified()).is_ok_and(|time| time < oldest)
    };
    files
        .filter(|file| file.file_name().to_str().is_some_and(is_ours) && is_old(file))
        .map(|file| file.path())
        .collect()
}

#[cfg(test)]
mod tests;
