//! A server beside a test, in a namespace of its mesh.

use std::net::Ipv4Addr;
use std::thread::JoinHandle;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::netns::within;

/// One that runs; it ends when dropped.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Server {
    /// Starts one at a port of the namespace.
    pub(super) fn start<F>(
        name: &'static str,
        namespace: &str,
        port: u16,
        serve: impl FnOnce(TcpListener) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        let (stop, stopped) = oneshot::channel();
        let namespace = namespace.to_owned();
        let thread = std::thread::spawn(move || {
            within(&namespace, || async {
                let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await.context("port")?;
                tokio::select! {
                    result = serve(listener) => result,
                    _ = stopped => Ok(()),
                }
            })
        });
        Self { name, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}
