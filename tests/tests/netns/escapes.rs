//! No connection passes by while rules change: senders open connections all
//! the time, and each has to arrive at Envoy's port.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use istio_tests::netns::probe::{PATIENCE, Place, Probe, Verdict};
use istio_tests::netns::rig::{APP, Families, Rig};
use istio_tests::netns::within;
use tokio::task::JoinSet;

use super::Case;
use super::packets::{BACK_ENDS, apply};

pub(crate) const CASES: &[Case] = &[
    ("nothing_escapes_when_a_run_is_repeated", repeated),
    ("nothing_escapes_when_flags_change", reconfigured),
    ("nothing_escapes_between_redirect_and_tproxy", between_modes),
    ("nothing_escapes_between_modes_with_drop_invalid", between_modes_with_drop_invalid),
    ("nothing_escapes_between_back_ends", between_back_ends),
    ("nothing_escapes_between_back_ends_with_tproxy", between_back_ends_with_tproxy),
];

/// Times that each list of changes is gone through.
const ROUNDS: usize = 5;
/// Connections of each sender that must be made between changes.
const BETWEEN: usize = 5;
/// Connections that each sender has open at once.
const AT_ONCE: usize = 4;
/// How long the senders may take for them on the slowest machine.
const STANDSTILL: Duration = Duration::from_secs(60);

const ALL: &[&str] = &["-i", "*", "-b", "*", "--dual-stack"];
const OTHER_PORTS: &[&str] = &["-i", "*", "-b", "*", "--dual-stack", "-p", "16001", "-z", "16006"];
const LISTS: &[&str] = &[
    "-i",
    "10.0.0.0/8,fd00::/8",
    "-x",
    "10.2.0.0/16",
    "-b",
    "22,80,443",
    "-q",
    "9999",
    "-o",
    "3306",
    "--dual-stack",
];
const WITH_DNS: &[&str] =
    &["-i", "*", "-b", "*", "--dual-stack", "--redirect-dns", "--capture-all-dns", "--drop-invalid"];
const OTHER_MARK: &[&str] = &["-i", "*", "-b", "*", "--dual-stack", "-t", "1400", "-r", "140"];
const TPROXY: &[&str] = &["-m", "TPROXY"];

fn repeated() -> anyhow::Result<()> {
    for (name, back_end) in BACK_ENDS {
        for mode in [&[][..], TPROXY] {
            let base = [ALL, back_end, mode].concat();
            let runs: Vec<_> =
                [&[][..], &["--reconcile"], &["--force-apply"], &["--force-apply", "--reconcile"]]
                    .map(|extra| [&base, extra].concat())
                    .into();
            keep_sending(&runs).with_context(|| format!("{name} {mode:?}"))?;
        }
    }
    Ok(())
}

fn reconfigured() -> anyhow::Result<()> {
    for (name, back_end) in BACK_ENDS {
        let runs = [ALL, OTHER_PORTS, LISTS, WITH_DNS].map(|flags| [flags, back_end].concat());
        keep_sending(&runs).context(name)?;
        let runs = [ALL, OTHER_PORTS, LISTS, WITH_DNS, OTHER_MARK];
        let runs = runs.map(|flags| [flags, back_end, TPROXY].concat());
        keep_sending(&runs).with_context(|| format!("{name}, TPROXY"))?;
    }
    Ok(())
}

fn between_modes() -> anyhow::Result<()> {
    for (name, back_end) in BACK_ENDS {
        let runs = [[ALL, back_end].concat(), [ALL, back_end, TPROXY].concat()];
        keep_sending(&runs).context(name)?;
    }
    Ok(())
}

/// The table of TPROXY has rules in both modes.
fn between_modes_with_drop_invalid() -> anyhow::Result<()> {
    let results = BACK_ENDS.map(|(name, back_end)| {
        let runs = [[WITH_DNS, back_end].concat(), [WITH_DNS, back_end, TPROXY].concat()];
        keep_sending(&runs).map_err(|error| format!("{name}: {error:#}"))
    });
    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

fn between_back_ends() -> anyhow::Result<()> {
    for (first, second) in [(0, 2), (0, 1), (1, 2)] {
        let [first, second] = [BACK_ENDS[first], BACK_ENDS[second]];
        let runs = [first, second].map(|(_, back_end)| [ALL, back_end].concat());
        keep_sending(&runs).with_context(|| format!("{}, {}", first.0, second.0))?;
    }
    Ok(())
}

/// A connection that begins while the rules of both back ends are in force may
/// be lost: each set sees the other's mark and takes the answers for those of
/// the application. None may escape.
fn between_back_ends_with_tproxy() -> anyhow::Result<()> {
    for (first, second) in [(0, 2), (0, 1), (1, 2)] {
        let [first, second] = [BACK_ENDS[first], BACK_ENDS[second]];
        let runs = [first, second].map(|(_, back_end)| [ALL, back_end, TPROXY].concat());
        let seen = Plan { rounds: 2, patience: Duration::from_secs(1) }.run(&runs)?;
        ensure!(seen.escaped.is_empty(), "{}, {}: {seen}", first.0, second.0);
        ensure!(seen.lost.len() < seen.arrived, "{}, {}: {seen}", first.0, second.0);
    }
    Ok(())
}

/// What the senders of one direction saw.
#[derive(Debug, Default)]
struct Tally {
    arrived: usize,
    escaped: Vec<String>,
    lost: Vec<String>,
}

impl Tally {
    fn made(&self) -> usize {
        self.arrived + self.escaped.len() + self.lost.len()
    }

    fn add(&mut self, probe: &Probe, verdict: &anyhow::Result<Verdict>) {
        let inbound = probe.place == Place::Peer;
        match verdict {
            Ok(Verdict::Redirected(15001 | 16001)) if !inbound => self.arrived += 1,
            Ok(Verdict::Redirected(15006 | 16006) | Verdict::Tproxied(15006 | 16006)) if inbound => {
                self.arrived += 1;
            }
            Ok(verdict) => self.escaped.push(format!("{probe}: {verdict:?}")),
            Err(error) => self.lost.push(format!("{probe}: {error:#}")),
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (made, escaped, lost) = (self.made(), self.escaped.len(), self.lost.len());
        write!(f, "{escaped} of {made} escaped, {lost} were lost")?;
        let some = self.escaped.iter().take(5).chain(self.lost.iter().take(5));
        some.into_iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

/// How to send.
struct Plan {
    /// Times that the list of runs is gone through.
    rounds: usize,
    /// How long a connection may take.
    patience: Duration,
}

/// Goes through the runs again and again, while connections are made: none may
/// be lost either.
fn keep_sending(runs: &[Vec<&str>]) -> anyhow::Result<()> {
    let seen = Plan { rounds: ROUNDS, patience: PATIENCE }.run(runs)?;
    ensure!(seen.escaped.is_empty() && seen.lost.is_empty(), "{runs:?}: {seen}");
    Ok(())
}

impl Plan {
    fn run(&self, runs: &[Vec<&str>]) -> anyhow::Result<Tally> {
        let rig = Rig::create(Families::Dual, &[])?;
        let (first, rest) = runs.split_first().context("a run")?;
        apply(&rig, first, &[])?;
        let stop = AtomicBool::new(false);
        let tallies = [Mutex::new(Tally::default()), Mutex::new(Tally::default())];
        std::thread::scope(|scope| {
            let senders = [(Place::Pod, APP), (Place::Peer, 0)].into_iter().zip(&tallies);
            let senders: Vec<_> = senders
                .map(|((place, id), tally)| {
                    let (rig, stop) = (&rig, &stop);
                    let sending = move || self.send(place, id, stop, tally);
                    scope.spawn(move || within(rig.at(place).name(), sending))
                })
                .collect();
            let runs = rest.iter().chain([first]).cycle().take(self.rounds * runs.len());
            let changing = change(&rig, runs, &tallies);
            stop.store(true, Ordering::Relaxed);
            for sender in senders {
                sender.join().map_err(|_| anyhow::anyhow!("a sender panicked"))??;
            }
            changing
        })?;
        let mut seen = Tally::default();
        for tally in &tallies {
            let Tally { arrived, escaped, lost } = std::mem::take(&mut *lock(tally));
            seen.arrived += arrived;
            seen.escaped.extend(escaped);
            seen.lost.extend(lost);
        }
        Ok(seen)
    }

    /// Opens connections of both families to many addresses and ports.
    async fn send(
        &self,
        place: Place,
        id: u32,
        stop: &AtomicBool,
        tally: &Mutex<Tally>,
    ) -> anyhow::Result<()> {
        let patience = self.patience;
        let mut tasks = JoinSet::new();
        let mut serial: u32 = 0;
        while !stop.load(Ordering::Relaxed) || !tasks.is_empty() {
            while tasks.len() < AT_ONCE && !stop.load(Ordering::Relaxed) {
                serial += 1;
                let port = [80, 443, 22][serial as usize % 3];
                let address = match place {
                    Place::Pod => format!("10.1.0.{}:{port}", serial % 200 + 1),
                    _ => format!("10.9.0.5:{port}"),
                };
                let probe = Probe::new(place, id, address.parse()?);
                let probe = if serial.is_multiple_of(2) { probe } else { probe.twin() };
                tasks.spawn(async move {
                    let verdict = probe.send_within(patience).await;
                    (probe, verdict)
                });
            }
            if let Some(done) = tasks.join_next().await {
                let (probe, verdict) = done?;
                lock(tally).add(&probe, &verdict);
            }
        }
        Ok(())
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One change after another; connections are made between them too.
fn change<'a>(
    rig: &Rig,
    runs: impl Iterator<Item = &'a Vec<&'a str>>,
    tallies: &[Mutex<Tally>],
) -> anyhow::Result<()> {
    let made = || tallies.iter().map(|tally| lock(tally).made()).min().unwrap_or_default();
    for flags in runs {
        apply(rig, flags, &[])?;
        let (wanted, began) = (made() + BETWEEN, Instant::now());
        while made() < wanted {
            ensure!(began.elapsed() < STANDSTILL, "the senders stand still");
            std::thread::yield_now();
        }
    }
    Ok(())
}
