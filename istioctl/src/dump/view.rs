//! The fields of resources that people ask for, borrowed from the dump.
//!
//! Who needs more reads the resource as a type of its own, or goes down through
//! [`serde_json::value::RawValue`].

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json::{Text, Value};

/// Says `struct`s whose fields are all optional and have both of their names.
macro_rules! views {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(default)]
        pub struct $name<'a> {
            $($(#[$field_doc])* pub $field: $type,)*
            #[serde(skip)]
            marker: std::marker::PhantomData<&'a ()>,
        }
    )*};
}

views! {
    /// `envoy.admin.v3.BootstrapConfigDump`.
    BootstrapDump {
        /// What the proxy was started with.
        #[serde(borrow)]
        bootstrap: Bootstrap<'a>,
        /// When, in RFC 3339.
        #[serde(borrow, alias = "lastUpdated")]
        last_updated: Text<'a>,
    }
    /// `envoy.config.bootstrap.v3.Bootstrap`.
    Bootstrap {
        /// Who the proxy is.
        #[serde(borrow)]
        node: Node<'a>,
    }
    /// `envoy.config.core.v3.Node`.
    Node {
        /// `TYPE~IP~POD.NAMESPACE~DOMAIN`.
        #[serde(borrow)]
        id: Text<'a>,
        /// The service that it belongs to.
        #[serde(borrow)]
        cluster: Text<'a>,
        /// What istiod needs to know of it.
        #[serde(borrow)]
        metadata: BTreeMap<Text<'a>, Value<'a>>,
        /// Version of the proxy.
        #[serde(borrow, alias = "userAgentBuildVersion")]
        user_agent_build_version: BuildVersion<'a>,
    }
    /// `envoy.config.core.v3.BuildVersion`.
    BuildVersion {
        /// The number.
        #[serde(borrow)]
        version: SemanticVersion<'a>,
        /// How it was built.
        #[serde(borrow)]
        metadata: BTreeMap<Text<'a>, Value<'a>>,
    }
    /// `envoy.type.v3.SemanticVersion`.
    SemanticVersion {
        /// First number.
        #[serde(alias = "majorNumber")]
        major_number: u32,
        /// Second number.
        #[serde(alias = "minorNumber")]
        minor_number: u32,
        /// Third number.
        patch: u32,
    }
    /// `envoy.config.core.v3.Metadata`.
    Metadata {
        /// By the name of whom it is for.
        #[serde(borrow, alias = "filterMetadata")]
        filter_metadata: BTreeMap<Text<'a>, &'a RawValue>,
    }
    /// `envoy.config.cluster.v3.Cluster`.
    Cluster {
        /// `DIRECTION|PORT|SUBSET|HOST`, or any name.
        #[serde(borrow)]
        name: Text<'a>,
        /// How its endpoints are found; see [`Cluster::kind`].
        #[serde(borrow, rename = "type")]
        discovery: Text<'a>,
        /// Settings of discovered endpoints.
        #[serde(borrow, alias = "edsClusterConfig")]
        eds_cluster_config: Option<&'a RawValue>,
        /// Endpoints that stand in it.
        #[serde(borrow, alias = "loadAssignment")]
        load_assignment: Option<LoadAssignment<'a>>,
        /// How its connections are secured.
        #[serde(borrow, alias = "transportSocket")]
        transport_socket: Option<&'a RawValue>,
        /// The same by properties of an endpoint.
        #[serde(borrow, alias = "transportSocketMatches")]
        transport_socket_matches: Vec<&'a RawValue>,
        /// What it was made of.
        #[serde(borrow)]
        metadata: Option<Metadata<'a>>,
    }
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    LoadAssignment {
        /// Name of the cluster.
        #[serde(borrow, alias = "clusterName")]
        cluster_name: Text<'a>,
        /// Endpoints by locality.
        #[serde(borrow)]
        endpoints: Vec<LocalityEndpoints<'a>>,
    }
    /// `envoy.config.endpoint.v3.LocalityLbEndpoints`.
    LocalityEndpoints {
        /// Where they are.
        #[serde(borrow)]
        locality: Option<Locality<'a>>,
        /// Each of them.
        #[serde(borrow, alias = "lbEndpoints")]
        lb_endpoints: Vec<LbEndpoint<'a>>,
        /// 0 is used first.
        priority: u32,
    }
    /// `envoy.config.core.v3.Locality`.
    Locality {
        /// The widest.
        #[serde(borrow)]
        region: Text<'a>,
        /// Inside of it.
        #[serde(borrow)]
        zone: Text<'a>,
        /// The smallest.
        #[serde(borrow, alias = "subZone")]
        sub_zone: Text<'a>,
    }
    /// `envoy.config.endpoint.v3.LbEndpoint`.
    LbEndpoint {
        /// Its address.
        #[serde(borrow)]
        endpoint: Endpoint<'a>,
        /// What istiod says of its health; see [`LbEndpoint::health`].
        #[serde(borrow, alias = "healthStatus")]
        health_status: Text<'a>,
        /// Whether it speaks mutual TLS, and what it is.
        #[serde(borrow)]
        metadata: Option<Metadata<'a>>,
    }
    /// `envoy.config.endpoint.v3.Endpoint`.
    Endpoint {
        /// Its first address.
        #[serde(borrow)]
        address: Address<'a>,
        /// Those of other families.
        #[serde(borrow, alias = "additionalAddresses")]
        additional_addresses: Vec<AdditionalAddress<'a>>,
    }
    /// An address beside the first, of an endpoint or a listener.
    AdditionalAddress {
        /// It.
        #[serde(borrow)]
        address: Address<'a>,
    }
    /// `envoy.config.core.v3.Address`.
    Address {
        /// Of IP.
        #[serde(borrow, alias = "socketAddress")]
        socket_address: Option<SocketAddress<'a>>,
        /// A Unix socket.
        #[serde(borrow)]
        pipe: Option<Pipe<'a>>,
        /// A listener of the same proxy.
        #[serde(borrow, alias = "envoyInternalAddress")]
        envoy_internal_address: Option<InternalAddress<'a>>,
    }
    /// `envoy.config.core.v3.SocketAddress`.
    SocketAddress {
        /// IP address or, in clusters that resolve it, host name.
        #[serde(borrow)]
        address: Text<'a>,
        /// Its port.
        #[serde(alias = "portValue")]
        port_value: u32,
    }
    /// `envoy.config.core.v3.Pipe`.
    Pipe {
        /// Path of the socket.
        #[serde(borrow)]
        path: Text<'a>,
    }
    /// `envoy.config.core.v3.EnvoyInternalAddress`.
    InternalAddress {
        /// Name of the listener.
        #[serde(borrow, alias = "serverListenerName")]
        server_listener_name: Option<Text<'a>>,
        /// The endpoint behind it.
        #[serde(borrow, alias = "endpointId")]
        endpoint_id: Text<'a>,
    }
    /// `envoy.config.listener.v3.Listener`.
    Listener {
        /// Its name.
        #[serde(borrow)]
        name: Text<'a>,
        /// Where it listens.
        #[serde(borrow)]
        address: Address<'a>,
        /// Where it listens, too.
        #[serde(borrow, alias = "additionalAddresses")]
        additional_addresses: Vec<AdditionalAddress<'a>>,
        /// Each with what connections it is for.
        #[serde(borrow, alias = "filterChains")]
        filter_chains: Vec<FilterChain<'a>>,
        /// For all other connections.
        #[serde(borrow, alias = "defaultFilterChain")]
        default_filter_chain: Option<FilterChain<'a>>,
        /// What looks at a connection before a chain is chosen.
        #[serde(borrow, alias = "listenerFilters")]
        listener_filters: Vec<Filter<'a>>,
        /// `INBOUND`, `OUTBOUND` or nothing.
        #[serde(borrow, alias = "trafficDirection")]
        traffic_direction: Text<'a>,
        /// Whether another listener takes connections by their original destination.
        #[serde(alias = "useOriginalDst")]
        use_original_dst: bool,
        /// Whether it has a socket at all.
        #[serde(alias = "bindToPort")]
        bind_to_port: Option<bool>,
    }
    /// `envoy.config.listener.v3.FilterChain`.
    FilterChain {
        /// Its name.
        #[serde(borrow)]
        name: Text<'a>,
        /// For which connections it is.
        #[serde(borrow, alias = "filterChainMatch")]
        filter_chain_match: Option<FilterChainMatch<'a>>,
        /// What is done with them.
        #[serde(borrow)]
        filters: Vec<Filter<'a>>,
        /// Whether they are decrypted, and how.
        #[serde(borrow, alias = "transportSocket")]
        transport_socket: Option<&'a RawValue>,
    }
    /// `envoy.config.listener.v3.FilterChainMatch`.
    FilterChainMatch {
        /// Port before redirection.
        #[serde(alias = "destinationPort")]
        destination_port: Option<u32>,
        /// Addresses before redirection.
        #[serde(borrow, alias = "prefixRanges")]
        prefix_ranges: Vec<CidrRange<'a>>,
        /// Names that TLS asks for.
        #[serde(borrow, alias = "serverNames")]
        server_names: Vec<Text<'a>>,
        /// `tls`, `raw_buffer` or any.
        #[serde(borrow, alias = "transportProtocol")]
        transport_protocol: Text<'a>,
        /// Protocols that TLS offers, or that were found in the first bytes.
        #[serde(borrow, alias = "applicationProtocols")]
        application_protocols: Vec<Text<'a>>,
        /// Addresses of the client.
        #[serde(borrow, alias = "sourcePrefixRanges")]
        source_prefix_ranges: Vec<CidrRange<'a>>,
    }
    /// `envoy.config.core.v3.CidrRange`.
    CidrRange {
        /// Its first bits.
        #[serde(borrow, alias = "addressPrefix")]
        address_prefix: Text<'a>,
        /// How many of them count.
        #[serde(alias = "prefixLen")]
        prefix_len: Option<u32>,
    }
    /// A filter of any kind.
    Filter {
        /// Its name.
        #[serde(borrow)]
        name: Text<'a>,
        /// Its settings, with `@type`.
        #[serde(borrow, alias = "typedConfig")]
        typed_config: Option<&'a RawValue>,
    }
    /// `envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`.
    HttpConnectionManager {
        /// Its routes.
        #[serde(borrow, alias = "routeConfig")]
        route_config: Option<RouteConfiguration<'a>>,
        /// Where its routes are.
        #[serde(borrow)]
        rds: Option<Rds<'a>>,
        /// What is done with requests, in this order.
        #[serde(borrow, alias = "httpFilters")]
        http_filters: Vec<Filter<'a>>,
    }
    /// `envoy.extensions.filters.network.http_connection_manager.v3.Rds`.
    Rds {
        /// Name of the route configuration.
        #[serde(borrow, alias = "routeConfigName")]
        route_config_name: Text<'a>,
    }
    /// `envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy`.
    TcpProxy {
        /// Its only cluster.
        #[serde(borrow)]
        cluster: Text<'a>,
        /// Several by weight.
        #[serde(borrow, alias = "weightedClusters")]
        weighted_clusters: Option<&'a RawValue>,
    }
    /// `envoy.config.route.v3.RouteConfiguration`.
    RouteConfiguration {
        /// Its name.
        #[serde(borrow)]
        name: Text<'a>,
        /// Routes by host.
        #[serde(borrow, alias = "virtualHosts")]
        virtual_hosts: Vec<VirtualHost<'a>>,
    }
    /// `envoy.config.route.v3.VirtualHost`.
    VirtualHost {
        /// Its name.
        #[serde(borrow)]
        name: Text<'a>,
        /// Hosts that it is for.
        #[serde(borrow)]
        domains: Vec<Text<'a>>,
        /// The first that matches counts.
        #[serde(borrow)]
        routes: Vec<Route<'a>>,
    }
    /// `envoy.config.route.v3.Route`.
    Route {
        /// Its name.
        #[serde(borrow)]
        name: Text<'a>,
        /// For which requests it is.
        #[serde(borrow, rename = "match")]
        matcher: RouteMatch<'a>,
        /// Where requests go.
        #[serde(borrow)]
        route: Option<RouteAction<'a>>,
        /// Where the client is sent.
        #[serde(borrow)]
        redirect: Option<&'a RawValue>,
        /// What the client is told.
        #[serde(borrow, alias = "directResponse")]
        direct_response: Option<&'a RawValue>,
        /// What it was made of.
        #[serde(borrow)]
        metadata: Option<Metadata<'a>>,
        /// Settings of filters on this route.
        #[serde(borrow, alias = "typedPerFilterConfig")]
        typed_per_filter_config: BTreeMap<Text<'a>, &'a RawValue>,
    }
    /// `envoy.config.route.v3.RouteMatch`.
    RouteMatch {
        /// Begin of the path.
        #[serde(borrow)]
        prefix: Text<'a>,
        /// Begin of the path, whole segments.
        #[serde(borrow, alias = "pathSeparatedPrefix")]
        path_separated_prefix: Text<'a>,
        /// The path.
        #[serde(borrow)]
        path: Text<'a>,
        /// Expression for the path.
        #[serde(borrow, alias = "safeRegex")]
        safe_regex: Option<Regex<'a>>,
        /// Headers that it needs, too.
        #[serde(borrow)]
        headers: Vec<&'a RawValue>,
        /// Parameters that it needs, too.
        #[serde(borrow, alias = "queryParameters")]
        query_parameters: Vec<&'a RawValue>,
        /// Whether upper and lower case differ.
        #[serde(alias = "caseSensitive")]
        case_sensitive: Option<bool>,
    }
    /// `envoy.type.matcher.v3.RegexMatcher`.
    Regex {
        /// The expression.
        #[serde(borrow)]
        regex: Text<'a>,
    }
    /// `envoy.config.route.v3.RouteAction`.
    RouteAction {
        /// Its only cluster.
        #[serde(borrow)]
        cluster: Option<Text<'a>>,
        /// Several by weight.
        #[serde(borrow, alias = "weightedClusters")]
        weighted_clusters: Option<WeightedClusters<'a>>,
    }
    /// `envoy.config.route.v3.WeightedCluster`.
    WeightedClusters {
        /// Each of them.
        #[serde(borrow)]
        clusters: Vec<WeightedCluster<'a>>,
    }
    /// `envoy.config.route.v3.WeightedCluster.ClusterWeight`.
    WeightedCluster {
        /// Its name.
        #[serde(borrow)]
        name: Text<'a>,
        /// Its part of the sum of all.
        weight: Option<u32>,
    }
    /// `envoy.extensions.transport_sockets.tls.v3.Secret`.
    Secret {
        /// Its name.
        #[serde(borrow)]
        name: Text<'a>,
        /// A certificate of the proxy.
        #[serde(borrow, alias = "tlsCertificate")]
        tls_certificate: Option<TlsCertificate<'a>>,
        /// Whom the proxy believes.
        #[serde(borrow, alias = "validationContext")]
        validation_context: Option<ValidationContext<'a>>,
    }
    /// `envoy.extensions.transport_sockets.tls.v3.TlsCertificate`.
    TlsCertificate {
        /// Certificates, from the proxy's own on.
        #[serde(borrow, alias = "certificateChain")]
        certificate_chain: DataSource<'a>,
    }
    /// `envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext`.
    ValidationContext {
        /// Roots.
        #[serde(borrow, alias = "trustedCa")]
        trusted_ca: DataSource<'a>,
        /// Roots by trust domain.
        #[serde(borrow, alias = "customValidatorConfig")]
        custom_validator_config: Option<Filter<'a>>,
    }
    /// `envoy.config.core.v3.DataSource`.
    DataSource {
        /// In base64.
        #[serde(borrow, alias = "inlineBytes")]
        inline_bytes: Text<'a>,
    }
    /// `envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig`.
    SpiffeValidator {
        /// `@type`.
        #[serde(borrow, rename = "@type")]
        type_url: Text<'a>,
        /// Each with its roots.
        #[serde(borrow, alias = "trustDomains")]
        trust_domains: Vec<TrustDomain<'a>>,
    }
    /// One of its trust domains.
    TrustDomain {
        /// Its name.
        #[serde(borrow)]
        name: Text<'a>,
        /// Its roots.
        #[serde(borrow, alias = "trustBundle")]
        trust_bundle: DataSource<'a>,
    }
}

/// Key of what istiod says of a resource.
const ISTIO: &str = "istio";
/// What an object of Istio's network API begins with in there.
const OBJECT: &str = "/apis/networking.istio.io/";

impl Metadata<'_> {
    /// The object of Istio that a resource was made of, as `NAME.NAMESPACE`; empty if of none.
    #[must_use]
    pub fn object(&self) -> String {
        #[derive(Deserialize)]
        struct Istio<'a> {
            #[serde(borrow)]
            config: Option<Value<'a>>,
        }
        let istio = self.filter_metadata.iter().find(|(name, _)| &***name == ISTIO);
        let istio = istio.and_then(|(_, raw)| serde_json::from_str::<Istio<'_>>(raw.get()).ok());
        let Some(config) = istio.and_then(|istio| istio.config) else { return String::new() };
        let Some(path) = config.as_str().filter(|path| path.starts_with(OBJECT)) else {
            return "<unknown>".into();
        };
        match path.split('/').collect::<Vec<_>>()[..] {
            [_, _, _, _, _, namespace, _, name] => format!("{name}.{namespace}"),
            _ => String::new(),
        }
    }
}

impl Cluster<'_> {
    /// How its endpoints are found: `EDS`, `STATIC`, `STRICT_DNS`, ...
    #[must_use]
    pub fn kind(&self) -> &str {
        if self.discovery.is_empty() { "STATIC" } else { &self.discovery }
    }
}

impl LbEndpoint<'_> {
    /// `UNKNOWN` if istiod says nothing.
    #[must_use]
    pub fn health(&self) -> &str {
        if self.health_status.is_empty() { "UNKNOWN" } else { &self.health_status }
    }
}

impl Locality<'_> {
    /// `REGION/ZONE/SUBZONE`, up to the first that is not known.
    #[must_use]
    pub fn path(&self) -> String {
        let inner = [&self.zone, &self.sub_zone].into_iter().take_while(|part| !part.is_empty());
        inner.fold(self.region.to_string(), |path, part| format!("{path}/{part}"))
    }
}

impl<'a> Listener<'a> {
    /// All chains, the one for all other connections at last.
    pub fn chains(&self) -> impl Iterator<Item = &FilterChain<'a>> {
        self.filter_chains.iter().chain(&self.default_filter_chain)
    }

    /// IP address or path.
    #[must_use]
    pub fn ip(&self) -> &str {
        let Address { socket_address, pipe, .. } = &self.address;
        let ip = socket_address.as_ref().map(|socket| &*socket.address);
        ip.or_else(|| pipe.as_ref().map(|pipe| &*pipe.path)).unwrap_or_default()
    }

    /// The port; 0 if it has none.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.address.socket_address.as_ref().map_or(0, |socket| socket.port_value)
    }
}

impl<'a> Filter<'a> {
    /// Reads its settings.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn read<T: Deserialize<'a> + Default>(&self) -> Result<T, serde_json::Error> {
        self.typed_config.map_or_else(|| Ok(T::default()), |raw| serde_json::from_str(raw.get()))
    }

    /// Its type, without what comes before the name.
    #[must_use]
    pub fn type_name(&self) -> String {
        #[derive(Default, Deserialize)]
        struct Typed<'a> {
            #[serde(borrow, rename = "@type", default)]
            type_url: Text<'a>,
        }
        let typed = self.read::<Typed<'_>>().unwrap_or_default();
        typed.type_url.rsplit('/').next().unwrap_or_default().to_owned()
    }
}
