//! Ctrl-C and the like: whatever the harness is doing, it removes what it made
//! and ends.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::netns;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Handles signals on a thread of its own: lets nothing more be made, removes,
/// and ends the program with 128 and the signal's number.
pub fn handle(remove: impl FnOnce() + Send + 'static, exit: impl FnOnce(i32) + Send + 'static) {
    std::thread::spawn(move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let number = runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = kinds.map(signal) else {
                return std::future::pending().await;
            };
            tokio::select! {
                _ = interrupt.recv() => kinds[0].as_raw_value(),
                _ = terminate.recv() => kinds[1].as_raw_value(),
                _ = hangup.recv() => kinds[2].as_raw_value(),
            }
        });
        INTERRUPTED.store(true, Ordering::SeqCst);
        eprintln!("\ninterrupted: removing everything");
        netns::close();
        remove();
        exit(128 + number);
    });
}

/// Waits for the end of the program when a signal is ending it.
pub fn wait_if_interrupted() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        netns::pause();
    }
}
