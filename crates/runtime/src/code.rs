//! Gives back the program's own code that only the start has needed: reading
//! of settings, keys, certificates. What runs again is mapped again, from the
//! page cache; an idle program is then half as large.

use std::ffi::c_void;
use std::ops::Range;
use std::path::Path;
use std::ptr::NonNull;
use std::{fs, io};

use nix::sys::mman::{MmapAdvise, madvise};
use tracing::debug;

/// Gives the code back: to be called when the start is over.
pub fn give_back() {
    match unmap() {
        Ok(bytes) => debug!(bytes, "code of the start given back"),
        // It only stays as large as it is.
        Err(error) => debug!(%error, "code of the start stays mapped"),
    }
}

/// Unmaps all pages of the program's file that were only ever read; returns
/// the size of the mappings.
fn unmap() -> io::Result<usize> {
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut bytes = 0;
    for range in read_only(&maps, &program) {
        let Some(start) = NonNull::new(range.start as *mut c_void) else { continue };
        // SAFETY: the range is a whole mapping of this program's file that the
        // kernel calls private and not writable, and that never was: its pages
        // are those of the file. The next access brings the same bytes back.
        #[expect(unsafe_code, reason = "nix cannot know what is mapped there")]
        unsafe {
            madvise(start, range.len(), MmapAdvise::MADV_DONTNEED)?;
        }
        bytes += range.len();
    }
    Ok(bytes)
}

/// The program's code and constants among `ADDRESSES PERMISSIONS OFFSET DEVICE
/// INODE PATH` (proc(5)). A later mapping without the permission to write has
/// been written to by the loader before it lost it.
fn read_only(maps: &str, program: &Path) -> Vec<Range<usize>> {
    let mapping = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (addresses, permissions, offset) = (words.next()?, words.next()?, words.next()?);
        let path = words.nth(2)?;
        let is_code = permissions == "r-xp";
        let is_head = permissions == "r--p" && offset.bytes().all(|digit| digit == b'0');
        if Path::new(path) != program || !(is_code || is_head) {
            return None;
        }
        let (start, end) = addresses.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some(address(start)?..address(end)?)
    };
    maps.lines().filter_map(mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_constants_are_found_and_nothing_that_was_written() {
        let maps = "\
5500000000-5500100000 r--p 00000000 fe:00 12 /bin/agent
5500100000-5500500000 r-xp 000ff000 fe:00 12 /bin/agent
5500500000-5500540000 r--p 004fe000 fe:00 12 /bin/agent
5500540000-5500550000 rw-p 0053d000 fe:00 12 /bin/agent
5500550000-5500560000 rw-p 00000000 00:00 0 [heap]
7f00000000-7f00100000 r-xp 00028000 fe:00 34 /lib/libc.so.6
garbage
";
        let found = read_only(maps, Path::new("/bin/agent"));
        assert_eq!(found, [0x55_0000_0000..0x55_0010_0000, 0x55_0010_0000..0x55_0050_0000]);
    }

    #[test]
    fn the_program_goes_on_without_its_code() {
        assert!(unmap().unwrap() > 0);
        assert!(unmap().unwrap() > 0);
    }
}
