//! Modules inside archives.

use std::fs::File;
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::Error;

const WASM: &[u8] = b"\0asm";
const GZIP: &[u8] = &[0x1f, 0x8b];
/// Name of the module in an image.
const PLUGIN: &str = "plugin.wasm";
/// Where a tar archive says that it is one.
const TAR: std::ops::Range<usize> = 257..262;
/// Archives in archives are opened so deep.
const DEPTH: u32 = 4;

/// How a download holds its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Form {
    /// As it likes: bare, or the first file of archives, compressed or not.
    Any,
    /// As `plugin.wasm` of a compressed archive.
    Layer,
    /// Bare.
    Bare,
}

/// Whether the file is the module already.
pub(super) fn is_module(file: &File, form: Form) -> io::Result<bool> {
    let mut head = [0; 8];
    let is_wasm = file.read_at(&mut head, 0)? == head.len() && head.starts_with(WASM);
    Ok(is_wasm && form != Form::Layer)
}

/// Writes the module in `input` to `out`, at most `max` bytes.
pub(super) fn unpack(input: impl Read, form: Form, out: &mut dyn Write, max: u64) -> Result<(), Error> {
    let mut input = input;
    match form {
        Form::Any => any(&mut input, out, max, DEPTH),
        Form::Layer => layer(&mut input, out, max),
        Form::Bare => Err(Error::NotWasm),
    }
}

fn any(input: &mut dyn Read, out: &mut dyn Write, max: u64, depth: u32) -> Result<(), Error> {
    let mut head = Vec::with_capacity(512);
    input.take(512).read_to_end(&mut head).map_err(|error| unreadable(&error))?;
    let (is_gzip, is_tar) = (head.starts_with(GZIP), head.get(TAR) == Some(b"ustar"));
    let is_wasm = head.len() >= 8 && head.starts_with(WASM);
    let mut whole = Cursor::new(head).chain(input);
    if is_wasm {
        copy(&mut whole, out, max)
    } else if depth == 0 {
        Err(Error::NotWasm)
    } else if is_gzip {
        any(&mut Bounded::new(MultiGzDecoder::new(whole), max), out, max, depth - 1)
    } else if is_tar {
        let mut archive = Archive::new(whole);
        for entry in archive.entries().map_err(|error| unreadable(&error))? {
            let mut entry = entry.map_err(|error| unreadable(&error))?;
            if entry.header().entry_type() == EntryType::Regular {
                return any(&mut entry, out, max, depth - 1);
            }
        }
        Err(Error::NotWasm)
    } else {
        Err(Error::NotWasm)
    }
}

fn layer(input: &mut dyn Read, out: &mut dyn Write, max: u64) -> Result<(), Error> {
    let mut archive = Archive::new(Bounded::new(MultiGzDecoder::new(input), max));
    for entry in archive.entries().map_err(|error| unreadable(&error))? {
        let mut entry = entry.map_err(|error| unreadable(&error))?;
        let is_plugin =
            entry.path().is_ok_and(|path| path.file_name() == Some(Path::new(PLUGIN).as_os_str()));
        if is_plugin && entry.header().entry_type() == EntryType::Regular {
            return any(&mut entry, out, max, 0);
        }
    }
    Err(Error::Unpack(format!("no {PLUGIN} in the layer")))
}

fn copy(input: &mut dyn Read, out: &mut dyn Write, max: u64) -> Result<(), Error> {
    let copied = io::copy(&mut input.take(max.saturating_add(1)), out).map_err(|error| unreadable(&error))?;
    if copied > max { Err(Error::TooLarge(max)) } else { Ok(()) }
}

fn unreadable(error: &io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<TooLarge>()) {
        Some(TooLarge(max)) => Error::TooLarge(*max),
        None => Error::Unpack(error.to_string()),
    }
}

/// A reader that fails beyond a limit: what is decompressed may be without end.
struct Bounded<R> {
    inner: R,
    left: u64,
    max: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("more than {0} bytes")]
struct TooLarge(u64);

impl<R> Bounded<R> {
    fn new(inner: R, max: u64) -> Self {
        Self { inner, left: max, max }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left =
            self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(TooLarge(self.max)))?;
        Ok(count)
    }
}
