//! A way to the API server that breaks: connections go through it until they
//! are cut.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use runtime::tasks::Tasks;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Passes connections on and cuts each after a while.
#[derive(Debug)]
pub struct Cut {
    /// Where it listens.
    pub address: SocketAddr,
    tasks: Tasks,
    runtime: Option<Runtime>,
}

impl Cut {
    /// Listens on the loopback, for `to`; no connection lives longer than `life`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(to: SocketAddr, life: Duration) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let tasks = Tasks::new();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let of_connections = tasks.clone();
        let accept = async move {
            while let Ok((mut from, _)) = listener.accept().await {
                of_connections.spawn("connection", async move {
                    if let Ok(mut to) = TcpStream::connect(to).await {
                        tokio::time::timeout(life, copy_bidirectional(&mut from, &mut to)).await.ok();
                    }
                });
            }
        };
        let guard = runtime.enter();
        tasks.spawn("cut", accept);
        drop(guard);
        Ok(Self { address, tasks, runtime: Some(runtime) })
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.block_on(self.tasks.stop(Duration::from_secs(1)));
        }
    }
}
