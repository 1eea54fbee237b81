//! What the network filter does with one connection.

use std::sync::Arc;
use std::time::Instant;

use crate::attributes::{Attribute, Attributes, Metadata};
use crate::config::{Config, Custom, Standard};
use crate::labels::{self, Labels, Parties};
use crate::peer::Workload;
use crate::registry::{self, Series};
use crate::settings::Direction;
use crate::{fault, flags};

/// Where connections of one set of labels are counted.
#[derive(Debug)]
pub struct Set {
    opened: Option<Arc<Series>>,
    closed: Option<Arc<Series>>,
    sent: Option<Arc<Series>>,
    received: Option<Arc<Series>>,
    custom: Vec<Custom>,
}

/// One connection.
#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
    set: Option<Arc<Set>>,
    /// The registry's when `set` was found.
    generation: u64,
    /// Response flags when it was opened; they stay its label.
    flags: u64,
    values: Vec<String>,
    /// Bytes that came before it was known where to count them.
    waiting: (u64, u64),
    is_closed: bool,
}

impl Filter {
    /// At the beginning of a connection.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            set: None,
            generation: 0,
            flags: 0,
            values: Vec::new(),
            waiting: (0, 0),
            is_closed: false,
        }
    }

    /// The configuration it was made from.
    #[must_use]
    pub const fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Bytes went: `sent` to the client, `received` from it.
    pub fn data(&mut self, connection: &impl Attributes, sent: u64, received: u64) {
        fault::test("data");
        self.waiting.0 += sent;
        self.waiting.1 += received;
        if self.set.is_some() {
            self.refresh(connection);
        } else if self.is_ready(connection) {
            self.open(connection);
        }
        self.flush();
    }

    /// The connection is over.
    pub fn closed(&mut self, connection: &impl Attributes) {
        fault::test("closed");
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        if self.set.is_some() {
            self.refresh(connection);
        } else {
            self.open(connection);
        }
        self.flush();
        let Some(set) = &self.set else { return };
        let now = registry::seconds(Instant::now());
        if let Some(closed) = &set.closed {
            closed.add(1, now);
        }
        for Custom { series, amount } in &set.custom {
            series.add(self.values.get(*amount).and_then(|value| value.parse().ok()).unwrap_or(0), now);
        }
    }

    /// Whether the labels are known: the source needs to know the destination.
    fn is_ready(&self, connection: &impl Attributes) -> bool {
        self.config.settings.direction == Direction::Inbound
            || connection.text(Attribute::UpstreamAddress).is_some()
    }

    /// Counts what waits.
    fn flush(&mut self) {
        let Some(set) = &self.set else { return };
        let now = registry::seconds(Instant::now());
        for (series, bytes) in [(&set.sent, &mut self.waiting.0), (&set.received, &mut self.waiting.1)] {
            if let (Some(series), 1..) = (series, *bytes) {
                series.add(*bytes, now);
            }
            *bytes = 0;
        }
    }

    fn open(&mut self, connection: &impl Attributes) {
        self.flags = connection.number(Attribute::ResponseFlags).unwrap_or(0);
        let peer = Workload::of_endpoint(self.endpoint(connection));
        self.values = self.config.evaluate(connection, || peer.as_ref());
        let set = self.find(connection);
        if let Some(opened) = &set.opened {
            opened.add(1, registry::seconds(Instant::now()));
        }
        self.set = Some(set);
    }

    /// What istiod wrote at the endpoint that was chosen; the destination knows nothing of
    /// who calls.
    fn endpoint<'a>(&self, connection: &'a impl Attributes) -> &'a str {
        if self.config.settings.direction == Direction::Inbound {
            return "";
        }
        connection.metadata(Metadata::Host, "istio", "workload").unwrap_or_default()
    }

    /// Finds the series anew when those that were idle have been forgotten: they could be
    /// among them.
    fn refresh(&mut self, connection: &impl Attributes) {
        if self.generation != self.config.registry.generation() {
            self.set = Some(self.find(connection));
        }
    }

    fn find(&mut self, connection: &impl Attributes) -> Arc<Set> {
        self.generation = self.config.registry.generation();
        let text = |id| connection.text(id).unwrap_or_default();
        let settings = &self.config.settings;
        let (peer, own) = match settings.direction {
            Direction::Inbound => {
                (Attribute::ConnectionUriSanPeerCertificate, Attribute::ConnectionUriSanLocalCertificate)
            }
            _ => (Attribute::UpstreamUriSanPeerCertificate, Attribute::UpstreamUriSanLocalCertificate),
        };
        let (peer, own, cluster) = (text(peer), text(own), text(Attribute::XdsClusterName));
        let endpoint = self.endpoint(connection);
        let mut key = Vec::with_capacity(256);
        key.extend(self.flags.to_ne_bytes());
        for part in [peer, own, cluster, endpoint].into_iter().chain(self.values.iter().map(String::as_str)) {
            key.extend(part.len().to_ne_bytes());
            key.extend(part.as_bytes());
        }
        self.config.tcp.get(&key, self.generation, || {
            let service = labels::service("", cluster, settings.service.as_ref(), "");
            let workload = Workload::of_endpoint(endpoint);
            let parties = Parties {
                direction: settings.direction,
                own: &self.config.own,
                peer: workload.as_ref(),
                peer_principal: peer,
                own_principal: own,
                service: &service,
            };
            let mut labels = parties.labels();
            labels.push(("request_protocol", "tcp".into()));
            labels.push(("response_flags", flags::text(self.flags).into()));
            labels.push(("connection_security_policy", parties.security().into()));
            self.make(&labels)
        })
    }

    fn make(&self, labels: &Labels<'_>) -> Set {
        let of = |metric| self.config.standard(metric, labels, &self.values);
        Set {
            opened: of(Standard::TcpOpened),
            closed: of(Standard::TcpClosed),
            sent: of(Standard::TcpSent),
            received: of(Standard::TcpReceived),
            custom: self.config.custom(&self.values),
        }
    }
}

#[cfg(test)]
mod tests;
