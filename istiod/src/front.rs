//! The pages from the very start: until there is something to show, they say
//! what istiod waits for.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{Request, Response, StatusCode};
use runtime::http::{Body, text};
use runtime::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use crate::debug::Pages;

/// What answers at the ports of pages; clones are the same.
#[derive(Clone, Debug)]
pub struct Front {
    pages: Arc<OnceLock<Pages>>,
    awaited: watch::Sender<&'static str>,
}

impl Front {
    /// One without pages, while `awaited` is waited for.
    #[must_use]
    pub fn new(awaited: &'static str) -> Self {
        Self { pages: Arc::default(), awaited: watch::Sender::new(awaited) }
    }

    /// Serves a port.
    pub fn serve(&self, tasks: &Tasks, name: &'static str, listener: TcpListener) {
        let front = self.clone();
        runtime::http::serve(tasks, name, listener, move |request, peer| {
            let front = front.clone();
            async move { front.answer(&request, peer).await }
        });
    }

    /// What the start waits for from now on.
    pub fn waits_for(&self, what: &'static str) {
        info!("istiod waits for {what}");
        self.awaited.send_replace(what);
    }

    /// There is something to show.
    pub fn open(&self, pages: Pages) {
        // There is one start.
        self.pages.set(pages).ok();
    }

    async fn answer<B>(&self, request: &Request<B>, peer: SocketAddr) -> Response<Body> {
        let Some(pages) = self.pages.get() else {
            let words = format!("istiod is starting: it waits for {}\n", *self.awaited.borrow());
            return text(StatusCode::SERVICE_UNAVAILABLE, words);
        };
        match pages.guard.admit(request, peer).await {
            Ok(access) => pages.answer(request, &access),
            Err(refusal) => *refusal,
        }
    }
}
