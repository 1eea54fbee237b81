//! The life of a program: one future, and an end that comes in time.

use std::time::Duration;

/// Runs `main`, which also says how long whatever it leaves behind may still
/// take. A task that never comes to an end does not keep the program alive.
///
/// # Errors
/// When the system gives no threads.
pub fn run<T>(main: impl Future<Output = (T, Duration)>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (result, patience) = runtime.block_on(main);
    runtime.shutdown_timeout(patience);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_although_a_blocking_task_does_not() {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let result = run(async {
                let (started, starts) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    started.send(()).unwrap();
                    loop {
                        std::thread::park();
                    }
                });
                starts.await.unwrap();
                (7, Duration::from_millis(10))
            });
            tell.send(result.unwrap()).unwrap();
        });
        assert_eq!(told.recv_timeout(Duration::from_secs(20)), Ok(7));
    }
}
