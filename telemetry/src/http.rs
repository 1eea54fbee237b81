//! What the HTTP filter does with one request.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use crate::attributes::{Attribute, Attributes, Body, Headers, Metadata, Stream};
use crate::config::{Config, Custom, Standard};
use crate::exchange::{Call, Known};
use crate::grpc::{self, Frames};
use crate::labels::{self, Labels, Parties};
use crate::peer::Workload;
use crate::registry::{self, Series};
use crate::settings::Direction;
use crate::{fault, flags};

/// Where requests of one set of labels are counted.
#[derive(Debug)]
pub struct Set {
    requests: Option<Arc<Series>>,
    duration: Option<Arc<Series>>,
    request_bytes: Option<Arc<Series>>,
    response_bytes: Option<Arc<Series>>,
    custom: Vec<Custom>,
}

/// Where messages of one set of labels are counted.
#[derive(Debug)]
pub struct MessageSet {
    request: Option<Arc<Series>>,
    response: Option<Arc<Series>>,
}

/// Messages of one gRPC stream.
#[derive(Debug, Default)]
struct Messages {
    request: Frames,
    response: Frames,
    /// Counted, but not yet where: the peer is not known before the response.
    waiting: (u64, u64),
    set: Option<Arc<MessageSet>>,
    /// The registry's when `set` was found.
    generation: u64,
}

/// One request.
#[derive(Debug)]
pub struct Filter {
    config: Arc<Config>,
    start: Instant,
    call: Call,
    peer: Option<Arc<Known>>,
    is_grpc: bool,
    messages: Option<Box<Messages>>,
    is_done: bool,
}

impl Filter {
    /// At the beginning of a request.
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        let start = Instant::now();
        Self {
            config,
            start,
            call: Call::default(),
            peer: None,
            is_grpc: false,
            messages: None,
            is_done: false,
        }
    }

    /// The configuration it was made from.
    #[must_use]
    pub const fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// Before the request's headers go on.
    pub fn request_headers(&mut self, stream: &mut impl Stream) {
        fault::test("request_headers");
        if let Some(exchange) = &self.config.exchange {
            let begun = exchange.request(stream);
            (self.peer, self.call, self.is_grpc) = (begun.peer, begun.call, begun.is_grpc);
        } else {
            self.is_grpc = stream.header(Headers::Request, grpc::HEADER).is_some_and(grpc::is);
        }
        let dropped = [Standard::RequestMessages, Standard::ResponseMessages];
        if self.is_grpc && !dropped.into_iter().all(|metric| self.config.is_dropped(metric)) {
            self.messages = Some(Box::default());
        }
    }

    /// Before a piece of the request's body goes on.
    pub fn request_body(&mut self, stream: &impl Stream) {
        self.body(stream, Body::Request);
    }

    /// Before the response's headers go on.
    pub fn response_headers(&mut self, stream: &mut impl Stream) {
        fault::test("response_headers");
        if let Some(exchange) = &self.config.exchange
            && let Some(peer) = exchange.response(stream, self.call)
        {
            self.peer = Some(peer);
        }
        self.count_messages(stream);
    }

    /// Before a piece of the response's body goes on.
    pub fn response_body(&mut self, stream: &impl Stream) {
        self.body(stream, Body::Response);
    }

    fn body(&mut self, stream: &impl Stream, from: Body) {
        let Some(messages) = self.messages.as_deref_mut() else { return };
        let frames = if from == Body::Request { &mut messages.request } else { &mut messages.response };
        let mut begun = 0;
        stream.body(from, &mut |data| begun += frames.read(data));
        if begun == 0 {
            return;
        }
        if from == Body::Request {
            messages.waiting.0 += begun;
        } else {
            messages.waiting.1 += begun;
        }
        // At the destination the peer is known from the start, else from the response.
        if messages.set.is_some() || self.config.settings.direction == Direction::Inbound {
            self.count_messages(stream);
        }
    }

    /// Counts the messages that wait for it.
    fn count_messages(&mut self, stream: &impl Attributes) {
        let Some(mut messages) = self.messages.take() else { return };
        let generation = self.config.registry.generation();
        if messages.generation != generation {
            // What was idle has been forgotten, and could be among it.
            messages.set = None;
            messages.generation = generation;
        }
        let set = messages.set.get_or_insert_with(|| self.message_set(stream));
        let now = registry::seconds(Instant::now());
        for (series, count) in
            [(&set.request, &mut messages.waiting.0), (&set.response, &mut messages.waiting.1)]
        {
            if let Some(series) = series {
                series.add(*count, now);
            }
            *count = 0;
        }
        self.messages = Some(messages);
    }

    /// Messages are labelled with the parties only, as with the original.
    fn message_set(&self, stream: &impl Attributes) -> Arc<MessageSet> {
        let seen = Seen::of(self, stream);
        let values = self.config.evaluate(stream, || seen.peer(&self.peer));
        let key = seen.key([0; 4], &values);
        self.config.messages.get(&key, self.config.registry.generation(), || {
            let labels = seen.labels(self);
            let of = |metric| self.config.standard(metric, &labels, &values);
            MessageSet { request: of(Standard::RequestMessages), response: of(Standard::ResponseMessages) }
        })
    }

    /// When all is over.
    pub fn complete(&mut self, stream: &impl Attributes) {
        fault::test("complete");
        if std::mem::replace(&mut self.is_done, true) {
            return;
        }
        self.count_messages(stream);
        if !self.config.counts_requests() {
            return;
        }
        let end = Instant::now();
        let millis = u64::try_from(end.duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        let code = stream.number(Attribute::ResponseCode).unwrap_or(0);
        let flags = stream.number(Attribute::ResponseFlags).unwrap_or(0);
        let status = if self.is_grpc { stream.number(Attribute::ResponseGrpcStatus) } else { None };
        let seen = Seen::of(self, stream);
        let values = self.config.evaluate(stream, || seen.peer(&self.peer));
        let result = [code, flags, u64::from(self.is_grpc), status.map_or(0, |status| status + 1)];
        let key = seen.key(result, &values);
        let set = self.config.http.get(&key, self.config.registry.generation(), || {
            let mut labels = seen.labels(self);
            let protocol = if self.is_grpc { "grpc" } else { "http" };
            labels.push(("request_protocol", protocol.into()));
            labels.push(("response_code", code.to_string().into()));
            labels.push((
                "grpc_response_status",
                status.map_or_else(String::new, |code| code.to_string()).into(),
            ));
            labels.push(("response_flags", flags::text(flags).into()));
            labels.push((
                "connection_security_policy",
                seen.parties(self, labels::NO_SERVICE).security().into(),
            ));
            self.set(&labels, &values)
        });
        let now = registry::seconds(end);
        let bytes = |id| stream.number(id).unwrap_or(0);
        let counted = [
            (&set.requests, 1),
            (&set.duration, millis),
            (&set.request_bytes, bytes(Attribute::RequestTotalSize)),
            (&set.response_bytes, bytes(Attribute::ResponseTotalSize)),
        ];
        for (series, value) in counted {
            if let Some(series) = series {
                series.add(value, now);
            }
        }
        for Custom { series, amount } in &set.custom {
            series.add(values.get(*amount).and_then(|value| value.parse().ok()).unwrap_or(0), now);
        }
    }

    fn set(&self, labels: &Labels<'_>, values: &[String]) -> Set {
        let of = |metric| self.config.standard(metric, labels, values);
        Set {
            requests: of(Standard::Requests),
            duration: of(Standard::RequestDuration),
            request_bytes: of(Standard::RequestBytes),
            response_bytes: of(Standard::ResponseBytes),
            custom: self.config.custom(values),
        }
    }
}

/// What decides a request's labels, as Envoy has it.
struct Seen<'a> {
    peer_number: u64,
    /// Where the peer has not told: what istiod wrote at the endpoint.
    endpoint: &'a str,
    endpoint_workload: OnceCell<Option<Workload>>,
    peer_principal: &'a str,
    own_principal: &'a str,
    route: &'a str,
    cluster: &'a str,
    client: &'a str,
}

impl<'a> Seen<'a> {
    fn of(filter: &Filter, stream: &'a impl Attributes) -> Self {
        let text = |id| stream.text(id).unwrap_or_default();
        let settings = &filter.config.settings;
        let (peer, own) = match settings.direction {
            Direction::Inbound => {
                (Attribute::ConnectionUriSanPeerCertificate, Attribute::ConnectionUriSanLocalCertificate)
            }
            _ => (Attribute::UpstreamUriSanPeerCertificate, Attribute::UpstreamUriSanLocalCertificate),
        };
        let is_inbound = settings.direction == Direction::Inbound;
        let endpoint = if is_inbound || filter.peer.is_some() {
            ""
        } else {
            stream.metadata(Metadata::Host, "istio", "workload").unwrap_or_default()
        };
        // Before an application, no route has a name that means something, nor has the cluster
        // where istiod has said which service it is.
        let route = if is_inbound { "" } else { text(Attribute::XdsRouteName) };
        let is_said = is_inbound && settings.service.is_some();
        let cluster = if is_said { "" } else { text(Attribute::XdsClusterName) };
        // Where nothing but the client tells the service: what it says may be anything,
        // and each would be a key of its own.
        let needs_client = !settings.disable_host_header_fallback
            && labels::is_of_client(route, cluster, settings.service.as_ref());
        Self {
            peer_number: filter.peer.as_ref().map_or(0, |peer| peer.number),
            endpoint,
            endpoint_workload: OnceCell::new(),
            peer_principal: text(peer),
            own_principal: text(own),
            route,
            cluster,
            client: if needs_client { text(Attribute::RequestHost) } else { "" },
        }
    }

    fn peer<'b>(&'b self, told: &'b Option<Arc<Known>>) -> Option<&'b Workload> {
        let told = told.as_ref().map(|known| &known.workload);
        told.or_else(|| self.endpoint_workload.get_or_init(|| Workload::of_endpoint(self.endpoint)).as_ref())
    }

    /// Bytes that differ whenever the labels differ: numbers and lengths, then the texts. `result`
    /// is what came of the request.
    fn key(&self, result: [u64; 4], values: &[String]) -> SmallVec<[u8; 1024]> {
        let texts =
            [self.endpoint, self.peer_principal, self.own_principal, self.route, self.cluster, self.client];
        let [endpoint, peer, own, route, cluster, client] = texts.map(|text| text.len() as u64);
        let [code, flags, is_grpc, status] = result;
        let numbers =
            [self.peer_number, code, flags, is_grpc, status, endpoint, peer, own, route, cluster, client];
        let mut key = SmallVec::new();
        key.extend_from_slice(numbers.map(u64::to_ne_bytes).as_flattened());
        for text in texts {
            key.extend_from_slice(text.as_bytes());
        }
        for value in values {
            key.extend_from_slice(&value.len().to_ne_bytes());
            key.extend_from_slice(value.as_bytes());
        }
        key
    }

    fn parties<'b>(&'b self, filter: &'b Filter, service: &'b crate::settings::Service) -> Parties<'b> {
        Parties {
            direction: filter.config.settings.direction,
            own: &filter.config.own,
            peer: self.peer(&filter.peer),
            peer_principal: self.peer_principal,
            own_principal: self.own_principal,
            service,
        }
    }

    fn labels(&self, filter: &Filter) -> Labels<'static> {
        let configured = filter.config.settings.service.as_ref();
        let service = labels::service(self.route, self.cluster, configured, self.client);
        let labels = self.parties(filter, &service).labels();
        labels.into_iter().map(|(name, value)| (name_of(name), value.into_owned().into())).collect()
    }
}

/// The name itself, which lives as long as the program.
fn name_of(name: &str) -> &'static str {
    labels::TAGS.into_iter().find(|tag| *tag == name).unwrap_or("unknown")
}

#[cfg(test)]
mod tests;
