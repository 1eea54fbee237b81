//! Runs all probes at once and waits for what becomes of them: no probe waits
//! for another, and nothing is asked again while the kernel still works on it.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::dial::{Dial, Seen};
use super::listen::{Arrival, Listener};
use super::{Finding, Outcome, Path, message};
use crate::family::Family;

/// Rules may still be on their way: a dial that failed is repeated after this
/// long, which doubles up to the other.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// A dial that was answered has arrived by then, if it does here.
const ARRIVAL: Duration = Duration::from_millis(100);
/// Without an answer for that long a new dial is worth more than the old one,
/// whose fate connection tracking decided when it was sent.
const ANSWER: Duration = Duration::from_secs(1);

/// One dial and what it should come to.
#[derive(Debug)]
pub(super) struct Probe {
    family: Family,
    path: Path,
    matters: bool,
    from: Option<SocketAddr>,
    to: SocketAddr,
    expected: u16,
    dial: Option<Dial>,
    next: Instant,
    pause: Duration,
    seen: Option<Seen>,
    outcome: Option<Outcome>,
}

impl Probe {
    pub(super) fn new(
        family: Family,
        path: Path,
        from: Option<SocketAddr>,
        to: SocketAddr,
        expected: u16,
    ) -> Self {
        let (next, pause) = (Instant::now(), PAUSE);
        let (dial, seen, outcome, matters) = (None, None, None, true);
        Self { family, path, matters, from, to, expected, dial, next, pause, seen, outcome }
    }

    /// The same, where a failure may be none of the whole.
    pub(super) fn mattering(self, matters: bool) -> Self {
        Self { matters, ..self }
    }

    /// Notes a failed dial; the next one is due after a pause.
    fn note(&mut self, seen: Seen) {
        self.dial = None;
        self.seen = Some(seen);
        self.next = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// When something is to be done even if nothing happens.
    fn due(&self) -> Option<Instant> {
        if self.outcome.is_some() {
            return None;
        }
        Some(match &self.dial {
            None => self.next,
            Some(dial) => dial.since + if dial.is_answered { ARRIVAL } else { ANSWER },
        })
    }

    /// Does what is due.
    fn go_on(&mut self, now: Instant) {
        if self.due().is_none_or(|due| due > now) {
            return;
        }
        match &self.dial {
            Some(dial) if dial.is_answered => self.note(Seen::TakenElsewhere),
            Some(dial) => {
                let waited = dial.since.elapsed();
                self.note(Seen::Unanswered(waited));
                // It was paused for long enough.
                self.next = now;
            }
            None => match Dial::start(self.from, self.to) {
                Ok(dial) => self.dial = Some(dial),
                // It never was sent.
                Err(Seen::NoRoute(error) | Seen::Error(error)) if self.path == Path::Outbound => {
                    let why = format!("there is no way to {}: {}", self.to, error.desc());
                    self.outcome = Some(Outcome::Unknown(why));
                }
                Err(seen) => self.note(seen),
            },
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        let is_right = arrival.port == self.expected
            && arrival.meant.is_some_and(|meant| meant.port() == self.to.port());
        if is_right {
            self.dial = None;
            self.outcome = Some(Outcome::Proven { dialled: self.to, port: arrival.port });
        } else {
            self.note(Seen::Strayed { port: arrival.port, meant: arrival.meant });
        }
    }

    fn fail(&mut self) {
        let seen = message::seen(self.to, self.expected, self.seen.as_ref());
        self.outcome = Some(Outcome::Failed(seen));
    }

    fn has_failed(&self) -> bool {
        self.matters && matches!(self.outcome, Some(Outcome::Failed(_)))
    }
}

/// All probes and listeners.
#[derive(Debug)]
pub(super) struct Wait {
    probes: Vec<Probe>,
    listeners: Vec<Listener>,
    /// Whether all is lost already: then nothing is repeated.
    is_lost: bool,
}

impl Wait {
    /// Opens the listeners.
    pub(super) fn new(mut probes: Vec<Probe>, ports: [u16; 2], is_lost: bool) -> Self {
        let mut listeners: Vec<Listener> = Vec::new();
        for family in Family::ALL.into_iter().filter(|family| probes.iter().any(|it| it.family == *family)) {
            for port in ports {
                let is_new = |it: &Listener| {
                    Family::of(&it.address.ip().into()) != family || it.address.port() != port
                };
                if listeners.iter().all(is_new) {
                    listeners.push(Listener::open(family, port));
                }
            }
        }
        for probe in &mut probes {
            let there = |it: &&Listener| {
                it.address.port() == probe.expected && it.address.is_ipv4() == probe.to.is_ipv4()
            };
            if let Some(Listener { address, socket: Err(error) }) = listeners.iter().find(there) {
                probe.outcome = Some(Outcome::Failed(message::no_listener(*address, error)));
            }
        }
        let is_lost = is_lost || probes.iter().any(Probe::has_failed);
        Self { probes, listeners, is_lost }
    }

    /// Probes until everything is known, or until then.
    pub(super) fn run(&mut self, deadline: Instant) {
        loop {
            let now = Instant::now();
            for probe in &mut self.probes {
                probe.go_on(now);
            }
            self.settle();
            let Some(due) = self.probes.iter().filter_map(Probe::due).min() else { return };
            let now = Instant::now();
            if now >= deadline {
                break;
            }
            self.wait(due.min(deadline).saturating_duration_since(now));
            self.settle();
        }
        for probe in self.probes.iter_mut().filter(|probe| probe.outcome.is_none()) {
            if let (None, Some(dial)) = (&probe.seen, &probe.dial) {
                probe.seen = Some(Seen::Unanswered(dial.since.elapsed()));
            }
            probe.fail();
        }
    }

    /// Ends probes that are not worth another dial.
    fn settle(&mut self) {
        for probe in &mut self.probes {
            let is_hopeless = self.is_lost || !probe.matters;
            if is_hopeless && probe.outcome.is_none() && probe.seen.is_some() {
                probe.fail();
            }
        }
    }

    /// Waits for an event and takes in what happened.
    fn wait(&mut self, timeout: Duration) {
        let sockets = self.listeners.iter().filter_map(|it| it.socket.as_ref().ok());
        let mut fds: Vec<PollFd<'_>> = sockets.map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)).collect();
        // One that is answered has nothing more to tell.
        let dials = self.probes.iter().filter_map(|it| it.dial.as_ref()).filter(|it| !it.is_answered);
        fds.extend(dials.map(|it| PollFd::new(it.socket.as_fd(), PollFlags::POLLOUT)));
        // Rounded up: a shorter one would be a busy loop.
        let millis = u16::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        if let Err(error) = poll(&mut fds, PollTimeout::from(millis)) {
            // An interruption: what is due is done, and it is asked again.
            tracing::debug!("poll: {error}");
            return;
        }
        let fired = fds.iter().filter(|it| it.any().unwrap_or(true));
        let fired: Vec<RawFd> = fired.map(|it| it.as_fd().as_raw_fd()).collect();
        drop(fds);
        let happened = |fd: RawFd| fired.contains(&fd);

        for probe in &mut self.probes {
            let Some(dial) = &mut probe.dial else { continue };
            if happened(dial.socket.as_raw_fd())
                && let Err(seen) = dial.look()
            {
                probe.note(seen);
            }
        }
        // Also when nothing was reported: one that was answered may have arrived since.
        for arrival in self.listeners.iter().flat_map(Listener::accept) {
            let is_it = |it: &&mut Probe| it.dial.as_ref().is_some_and(|dial| dial.from == arrival.from);
            // Anybody may dial; only our own dials are counted.
            if let Some(probe) = self.probes.iter_mut().find(is_it) {
                probe.arrive(arrival);
            }
        }
    }

    /// What was found out.
    pub(super) fn findings(self) -> impl Iterator<Item = Finding> {
        self.probes.into_iter().map(|Probe { family, path, matters, outcome, .. }| {
            let outcome = outcome.unwrap_or(Outcome::Failed("nothing was seen".to_owned()));
            Finding { family, path, outcome, matters }
        })
    }
}
