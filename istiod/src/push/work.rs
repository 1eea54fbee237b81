//! Work that takes its time: it holds up no other task.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Does work on this thread, of which the runtime moves its other tasks away.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    let has_others =
        Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if has_others { tokio::task::block_in_place(work) } else { work() }
}
