//! The socket to the kernel: questions and their answers, batches and what the
//! kernel says to each message.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR};
use netlink_sys::constants::NETLINK_NETFILTER;
use netlink_sys::{Socket as Raw, SocketAddr};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use super::wire::{Attributes, Message, Request, Writer, messages};

/// The kernel writes no larger piece of an answer.
const PIECE: usize = 64 * 1024;
/// What a socket can send without asking for more.
const DEFAULT_BUFFER: usize = 100 * 1024;
/// The kernel answers at once; longer is a fault.
const PATIENCE: TimeVal = TimeVal::new(10, 0);

/// What went wrong with the packet filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The kernel cannot be spoken to.
    #[error("speaking to the kernel's nf_tables: {0}")]
    Talk(String),
    /// The capability is missing.
    #[error(
        "the kernel's nf_tables: permission denied: the container needs the capability NET_ADMIN \
         (securityContext.capabilities.add)"
    )]
    Forbidden,
    /// There is no nf_tables.
    #[error(
        "the kernel has no nf_tables, which --native-nftables needs; on the node: modprobe nf_tables, or leave \
         out --native-nftables"
    )]
    Absent,
    /// A part of a change was refused; nothing was changed.
    #[error("the kernel refused {what}: {}{}; nothing was changed", errno.desc(), hint(*errno))]
    Refused {
        /// Which part.
        what: String,
        /// Why.
        errno: Errno,
    },
    /// Somebody else changed the rules again and again while we looked.
    #[error(
        "the rules kept changing while they were read; another program is writing nf_tables rules; try again"
    )]
    Races,
}

fn hint(errno: Errno) -> &'static str {
    match errno {
        Errno::ENOENT | Errno::EOPNOTSUPP => {
            " (a module of the kernel is missing; on the node: modprobe nf_tables nft_chain_nat nft_redir nft_ct \
             nft_tproxy)"
        }
        Errno::EPERM => " (the capability NET_ADMIN is needed, or another program owns the table)",
        _ => "",
    }
}

impl Error {
    /// Whether the rules have changed under our feet, so that another look helps.
    pub(super) fn is_race(&self) -> bool {
        match self {
            Self::Races => true,
            Self::Refused { errno, .. } => matches!(errno, Errno::ERESTART | Errno::EBUSY | Errno::EINTR),
            _ => false,
        }
    }
}

fn talk(error: &io::Error) -> Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => Error::Forbidden,
        Some(Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => Error::Absent,
        Some(Errno::EAGAIN) => Error::Talk("no answer within 10 seconds".to_owned()),
        _ => Error::Talk(error.to_string()),
    }
}

/// What an error number means in answer to a question.
pub(super) fn answer(errno: Errno) -> Error {
    match errno {
        Errno::EPERM => Error::Forbidden,
        // The subsystem is not there, nor its module.
        Errno::EINVAL | Errno::EOPNOTSUPP => Error::Absent,
        Errno::EINTR => Error::Races,
        errno => Error::Talk(errno.desc().to_owned()),
    }
}

/// The socket.
pub(super) struct Socket {
    raw: Raw,
    sequence: u32,
    piece: Vec<u8>,
}

impl Socket {
    /// Opens it.
    pub(super) fn open() -> Result<Self, Error> {
        let raw = Raw::new(NETLINK_NETFILTER).map_err(|error| talk(&error))?;
        raw.connect(&SocketAddr::new(0, 0)).map_err(|error| talk(&error))?;
        // An answer to each refused message would be long if it repeated the message.
        raw.set_cap_ack(true).map_err(|error| talk(&error))?;
        setsockopt(&raw, sockopt::ReceiveTimeout, &PATIENCE)
            .map_err(|errno| Error::Talk(errno.desc().to_owned()))?;
        Ok(Self { raw, sequence: 0, piece: Vec::with_capacity(PIECE) })
    }

    /// The next piece of what the kernel says.
    fn receive(&mut self, flags: libc::c_int) -> io::Result<()> {
        self.piece.clear();
        loop {
            match self.raw.recv(&mut self.piece, flags) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() > DEFAULT_BUFFER {
            // The kernel counts more than the bytes. Without the right to force
            // it, the limit of the system has to do.
            let size = bytes.len() * 2;
            let forced = setsockopt(&self.raw, sockopt::SndBufForce, &size);
            if let Err(errno) = forced.or_else(|_| setsockopt(&self.raw, sockopt::SndBuf, &size)) {
                tracing::debug!("no longer send buffer: {errno}");
            }
        }
        match self.raw.send(bytes, 0) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => Err(Error::Talk(format!(
                "a change of {} bytes is too long for a socket; give the container the capability NET_ADMIN, or \
                 write fewer ports and ranges",
                bytes.len()
            ))),
            Err(error) => Err(talk(&error)),
        }
    }

    /// Asks for everything of a kind, and hands over each answer.
    pub(super) fn dump(
        &mut self,
        kind: u8,
        family: u8,
        question: impl FnOnce(&mut Writer),
        mut each: impl FnMut(u8, Attributes<'_>),
    ) -> Result<(), Error> {
        self.sequence += 1;
        let sequence = self.sequence;
        let mut writer = Writer::default();
        writer.message(Request::new(kind, NLM_F_DUMP, family), sequence, question);
        self.send(writer.bytes())?;
        let mut is_torn = false;
        loop {
            self.receive(0).map_err(|error| talk(&error))?;
            for message in messages(&self.piece).filter(|message| message.sequence == sequence) {
                is_torn |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    // Also the end of a dump may tell of an error.
                    NLMSG_DONE | NLMSG_ERROR if message.error() != 0 => {
                        return Err(answer(Errno::from_raw(message.error())));
                    }
                    NLMSG_DONE | NLMSG_ERROR if is_torn => return Err(Error::Races),
                    NLMSG_DONE | NLMSG_ERROR => return Ok(()),
                    _ => each(message.family(), message.attributes()),
                }
            }
        }
    }

    /// Asks one question that has one answer.
    pub(super) fn ask<T>(
        &mut self,
        request: Request,
        question: impl FnOnce(&mut Writer),
        read: impl Fn(&Message<'_>) -> T,
    ) -> Result<T, Errno> {
        self.sequence += 1;
        let sequence = self.sequence;
        let mut writer = Writer::default();
        writer.message(request, sequence, question);
        let errno = |error: &io::Error| Errno::from_raw(error.raw_os_error().unwrap_or_default());
        self.raw.send(writer.bytes(), 0).map_err(|error| errno(&error))?;
        loop {
            self.receive(0).map_err(|error| errno(&error))?;
            match messages(&self.piece).find(|message| message.sequence == sequence) {
                Some(message) if message.kind == NLMSG_ERROR && message.error() != 0 => {
                    return Err(Errno::from_raw(message.error()));
                }
                Some(message) => return Ok(read(&message)),
                None => {}
            }
        }
    }

    /// Sends a batch, which the kernel takes or refuses as a whole. Returns
    /// which messages it refused, by their numbers.
    pub(super) fn send_batch(&mut self, batch: &Batch) -> Result<Vec<(usize, Errno)>, Error> {
        self.send(batch.writer.bytes())?;
        let mut refused = Vec::new();
        let mut is_overrun = false;
        // The kernel has done everything when the call returns, and its answers lie ready.
        loop {
            match self.receive(libc::MSG_DONTWAIT) {
                Ok(()) => {}
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && is_overrun && refused.is_empty() =>
                {
                    return Err(Error::Talk("the answers to a change were lost".to_owned()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(refused),
                // More answers than fit: the first ones are there.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    is_overrun = true;
                    continue;
                }
                Err(error) => return Err(talk(&error)),
            }
            for message in messages(&self.piece) {
                if message.kind == NLMSG_ERROR && message.error() != 0 {
                    let number = usize::try_from(message.sequence).unwrap_or_default();
                    refused.push((number, Errno::from_raw(message.error())));
                }
            }
        }
    }
}

// Types of the marks around a batch, and the attribute with the generation.
const BATCH_BEGIN: u8 = 16;
const BATCH_END: u8 = 17;
const GENERATION: u16 = 1;

/// Messages that the kernel takes or refuses as a whole.
pub(super) struct Batch {
    writer: Writer,
    /// Number of messages, the mark at the beginning included.
    length: u32,
}

impl Batch {
    /// A batch that holds only as long as the rules are of this generation.
    pub(super) fn new(generation: Option<u32>) -> Self {
        let mut writer = Writer::default();
        writer.message(Request::mark(BATCH_BEGIN), 0, |message| {
            if let Some(generation) = generation {
                message.number(GENERATION, generation);
            }
        });
        Self { writer, length: 1 }
    }

    /// Adds a message and tells its number.
    pub(super) fn add(&mut self, request: Request, body: impl FnOnce(&mut Writer)) -> usize {
        let number = self.length;
        self.writer.message(request, number, body);
        self.length += 1;
        usize::try_from(number).unwrap_or_default()
    }

    /// Whether there is no message in it.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 1
    }

    /// Ends it. A batch without an end is tried and taken back.
    pub(super) fn end(&mut self) {
        self.writer.message(Request::mark(BATCH_END), self.length, |_| {});
    }
}
