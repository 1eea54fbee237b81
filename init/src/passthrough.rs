//! The address that Envoy calls the application from: its traffic passes the
//! rules by. IPv4 has `127.0.0.6` for nothing; for IPv6 it must be added.

use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The IPv6 address on `lo`.
pub const ADDRESS: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);

nix::ioctl_write_ptr_bad!(
    /// `SIOCSIFADDR` of an IPv6 socket (netdevice(7), ipv6(7)).
    add_address,
    libc::SIOCSIFADDR,
    libc::in6_ifreq
);
nix::ioctl_write_ptr_bad!(
    /// `SIOCDIFADDR` of an IPv6 socket.
    remove_address,
    libc::SIOCDIFADDR,
    libc::in6_ifreq
);

fn control() -> io::Result<(OwnedFd, libc::in6_ifreq)> {
    let index = nix::net::if_::if_nametoindex("lo")?;
    let socket = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let request = libc::in6_ifreq {
        ifr6_addr: libc::in6_addr { s6_addr: ADDRESS.octets() },
        ifr6_prefixlen: 128,
        ifr6_ifindex: libc::c_int::try_from(index).map_err(io::Error::other)?,
    };
    Ok((socket, request))
}

/// Adds it to `lo`; it may be there already.
///
/// # Errors
/// What the kernel says.
#[expect(unsafe_code, reason = "an ioctl")]
pub fn add() -> io::Result<()> {
    let (socket, request) = control()?;
    // SAFETY: the socket is open and the kernel only reads the request, which outlives the call.
    match unsafe { add_address(socket.as_raw_fd(), &raw const request) } {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes it from `lo`; it may be gone already.
///
/// # Errors
/// What the kernel says.
#[expect(unsafe_code, reason = "an ioctl")]
pub fn remove() -> io::Result<()> {
    let (socket, request) = control()?;
    // SAFETY: as above.
    match unsafe { remove_address(socket.as_raw_fd(), &raw const request) } {
        Ok(_) | Err(Errno::EADDRNOTAVAIL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
