//! The table of analyzers, and running them.

mod application_uid;
mod authorization_policy;
mod blocked_cidrs;
mod ca_certificates;
mod conditions;
mod crd_version;
mod deployment_services;
mod deprecation;
mod destination_host;
mod destination_rule_subset;
mod destinations;
mod envoy_filter;
mod external_control_plane;
mod gateway_certificate;
mod gateway_conflict;
mod gateway_port;
mod gateway_secret;
mod image_auto;
mod injection;
mod injection_image;
mod jwt_claim_route;
mod kubernetes_annotations;
mod kubernetes_gateway_selector;
mod mesh;
mod mesh_gateway_hosts;
mod mesh_networks;
mod multicluster_service;
mod port_name;
pub(crate) mod schema;
mod service_entry_addresses;
mod service_entry_conflict;
mod sidecar_selector;
mod subset_pods;
mod telemetry_default_selector;
mod telemetry_lightstep;
mod telemetry_provider;
mod telemetry_selector;
mod virtual_service_gateway;
mod webhook;

use crate::{Code, Finding, Kind, Resource, World};

/// Gathers what analyzers find.
#[derive(Debug, Default)]
pub struct Report<'a> {
    findings: Vec<Finding<'a>>,
}

impl<'a> Report<'a> {
    /// Adds a finding about an object.
    fn add(&mut self, code: Code, resource: &'a Resource, values: &[&str]) {
        self.findings.push(Finding { code, text: code.fill(values), resource: Some(resource), line: None });
    }

    /// Adds a finding about a field, `spec.host`, of an object.
    fn add_at(&mut self, code: Code, resource: &'a Resource, field: &str, values: &[&str]) {
        let line = resource.source.as_ref().and_then(|source| source.line_of(field));
        self.findings.push(Finding { code, text: code.fill(values), resource: Some(resource), line });
    }
}

/// Something that looks at objects.
#[derive(Clone, Copy, Debug)]
pub struct Analyzer {
    /// Its name, as `--analyzer` takes it.
    pub name: &'static str,
    /// What it looks for.
    pub description: &'static str,
    /// Kinds that it must know; it does not run where one is left out.
    pub inputs: &'static [Kind],
    run: Run,
}

#[derive(Clone, Copy, Debug)]
enum Run {
    Rules(for<'a> fn(&'a World, &mut Report<'a>)),
    Schema(Kind),
}

impl Analyzer {
    const fn new(
        name: &'static str,
        description: &'static str,
        inputs: &'static [Kind],
        rules: for<'a> fn(&'a World, &mut Report<'a>),
    ) -> Self {
        Self { name, description, inputs, run: Run::Rules(rules) }
    }
}

macro_rules! schemas {
    ($($kind:ident)*) => {
        const SCHEMAS: &[Analyzer] = &[$(Analyzer {
            name: concat!("schema.ValidationAnalyzer.", stringify!($kind)),
            description: concat!("Runs schema validation as an analyzer on '", stringify!($kind), "' resources"),
            inputs: &[Kind::$kind],
            run: Run::Schema(Kind::$kind),
        }),*];
    };
}

schemas! {
    AuthorizationPolicy DestinationRule EnvoyFilter Gateway MeshConfig MeshNetworks PeerAuthentication
    ProxyConfig RequestAuthentication ServiceEntry Sidecar Telemetry TrafficExtension VirtualService
    WasmPlugin WorkloadEntry WorkloadGroup
}

use Kind as K;

/// Those with rules over several objects.
const RULES: &[Analyzer] = &[
    Analyzer::new(
        "annotations.K8sAnalyzer",
        "Checks for misplaced and invalid Istio annotations in Kubernetes resources",
        &[K::Namespace, K::Service, K::Pod, K::Deployment],
        kubernetes_annotations::run,
    ),
    Analyzer::new(
        "authn.BlockedCIDRsAnalyzer",
        "Checks that BLOCKED_CIDRS_IN_JWKS_URIS is configured on istiod when RequestAuthentication resources exist",
        &[K::RequestAuthentication, K::Deployment],
        blocked_cidrs::run,
    ),
    Analyzer::new(
        "auth.AuthorizationPoliciesAnalyzer",
        "Checks the validity of authorization policies",
        &[K::MeshConfig, K::AuthorizationPolicy, K::Namespace, K::Pod],
        authorization_policy::run,
    ),
    Analyzer::new(
        "conditions.ConditionAnalyzer",
        "Checks for negative status conditions on resources",
        &[
            K::Service,
            K::ServiceEntry,
            K::WorkloadEntry,
            K::AuthorizationPolicy,
            K::KubernetesGateway,
            K::HttpRoute,
            K::GrpcRoute,
        ],
        conditions::run,
    ),
    Analyzer::new(
        "deployment.MultiServiceAnalyzer",
        "Checks association between services and pods",
        &[K::Service, K::Deployment, K::Namespace],
        deployment_services::run,
    ),
    Analyzer::new(
        "applicationUID.Analyzer",
        "Checks invalid application UID",
        &[K::Pod, K::Deployment],
        application_uid::run,
    ),
    Analyzer::new(
        "destinationrule.CaCertificateAnalyzer",
        "Checks if caCertificates is set when TLS mode is SIMPLE/MUTUAL",
        &[K::DestinationRule],
        ca_certificates::run,
    ),
    Analyzer::new(
        "destinationrule.SubsetSelectPodAnalyzer",
        "Checks if pods are selected by subsets in destination rules.",
        &[K::DestinationRule, K::Pod, K::Service, K::ServiceEntry, K::Node],
        subset_pods::run,
    ),
    Analyzer::new(
        "deprecation.DeprecationAnalyzer",
        "Checks for deprecated Istio types and fields",
        &[K::VirtualService, K::Sidecar, K::CustomResourceDefinition],
        deprecation::run,
    ),
    // The blank at the end is Istio's.
    Analyzer::new(
        "envoyfilter.EnvoyPatchAnalyzer",
        "Checks an envoyFilters ",
        &[K::EnvoyFilter],
        envoy_filter::run,
    ),
    Analyzer::new(
        "externalcontrolplane.ExternalControlPlaneAnalyzer",
        "Checks that the remote IstioOperator resources reference an external control plane",
        &[K::ValidatingWebhookConfiguration, K::MutatingWebhookConfiguration],
        external_control_plane::run,
    ),
    Analyzer::new(
        "gateway.IngressGatewayPortAnalyzer",
        "Checks a gateway's ports against the gateway's Kubernetes service ports",
        &[K::Gateway, K::Pod, K::Service],
        gateway_port::run,
    ),
    Analyzer::new(
        "gateway.CertificateAnalyzer",
        "Checks a gateway certificate",
        &[K::Gateway],
        gateway_certificate::run,
    ),
    Analyzer::new(
        "gateway.SecretAnalyzer",
        "Checks a gateway's referenced secrets for correctness",
        &[K::Gateway, K::Pod, K::Secret],
        gateway_secret::run,
    ),
    Analyzer::new(
        "gateway.ConflictingGatewayAnalyzer",
        "Checks a gateway's selector, port number and hosts",
        &[K::Gateway, K::Pod],
        gateway_conflict::run,
    ),
    Analyzer::new(
        "injection.Analyzer",
        "Checks conditions related to Istio sidecar injection",
        &[K::Namespace, K::Pod, K::ConfigMap],
        injection::run,
    ),
    Analyzer::new(
        "injection.ImageAnalyzer",
        "Checks the image of auto-injection configured with the running proxies on pods",
        &[K::Namespace, K::Pod, K::ConfigMap, K::MeshConfig, K::ProxyConfig],
        injection_image::run,
    ),
    Analyzer::new(
        "injection.ImageAutoAnalyzer",
        "Makes sure that Pods and Deployments with `image: auto` are going to be injected",
        &[K::Namespace, K::Pod, K::Deployment, K::MutatingWebhookConfiguration],
        image_auto::run,
    ),
    Analyzer::new(
        "k8sgateway.SelectorAnalyzer",
        "Check that selectors are effective for Kubernetes gateway",
        &[K::AuthorizationPolicy, K::RequestAuthentication, K::Telemetry, K::WasmPlugin, K::Pod],
        kubernetes_gateway_selector::run,
    ),
    Analyzer::new(
        "k8sgateway.CRDVersionAnalyzer",
        "Checks Gateway API CRDs are at the minimum version required by this Istio version",
        &[K::CustomResourceDefinition],
        crd_version::run,
    ),
    Analyzer::new(
        "meshnetworks.MeshNetworksAnalyzer",
        "Check the validity of MeshNetworks in the cluster",
        &[K::MeshNetworks, K::Secret],
        mesh_networks::run,
    ),
    Analyzer::new(
        "services.MultiClusterServiceAnalyzer",
        "Check the validity of services in the multi-cluster environment",
        &[K::Service],
        multicluster_service::run,
    ),
    Analyzer::new(
        "service.PortNameAnalyzer",
        "Checks the port names associated with each service",
        &[K::Service],
        port_name::run,
    ),
    Analyzer::new(
        "sidecar.SelectorAnalyzer",
        "Validates that sidecars that define a workload selector match at least one pod, and that there aren't multiple sidecar resources that select overlapping pods",
        &[K::Sidecar, K::Pod, K::Namespace],
        sidecar_selector::run,
    ),
    Analyzer::new(
        "virtualservice.ConflictingMeshGatewayHostsAnalyzer",
        "Checks if multiple virtual services associated with the mesh gateway have conflicting hosts",
        &[K::VirtualService],
        mesh_gateway_hosts::run,
    ),
    Analyzer::new(
        "virtualservice.DestinationHostAnalyzer",
        "Checks the destination hosts associated with each virtual service",
        &[K::ServiceEntry, K::VirtualService, K::Service],
        destination_host::run,
    ),
    Analyzer::new(
        "virtualservice.DestinationRuleAnalyzer",
        "Checks the destination rules associated with each virtual service",
        &[K::VirtualService, K::DestinationRule],
        destination_rule_subset::run,
    ),
    Analyzer::new(
        "virtualservice.GatewayAnalyzer",
        "Checks the gateways associated with each virtual service",
        &[K::Gateway, K::KubernetesGateway, K::VirtualService],
        virtual_service_gateway::run,
    ),
    Analyzer::new(
        "virtualservice.JWTClaimRouteAnalyzer",
        "Checks the VirtualService using JWT claim based routing has corresponding RequestAuthentication",
        &[K::VirtualService, K::RequestAuthentication, K::Gateway, K::Pod],
        jwt_claim_route::run,
    ),
    Analyzer::new(
        "serviceentry.Analyzer",
        "Checks the validity of ServiceEntry",
        &[K::ServiceEntry, K::MeshConfig],
        service_entry_addresses::run,
    ),
    Analyzer::new(
        "serviceentry.ConflictingServiceEntryProtocolAnalyzer",
        "Checks if multiple ServiceEntries define the same host and port with different protocols",
        &[K::ServiceEntry],
        service_entry_conflict::run,
    ),
    Analyzer::new(
        "webhook.Analyzer",
        "Checks the validity of Istio webhooks",
        &[K::MutatingWebhookConfiguration, K::Service],
        webhook::run,
    ),
    Analyzer::new(
        "telemetry.ProviderAnalyzer",
        "Validates that providers in telemetry resource is valid",
        &[K::Telemetry, K::MeshConfig],
        telemetry_provider::run,
    ),
    Analyzer::new(
        "telemetry.SelectorAnalyzer",
        "Validates that telemetries that define a selector match at least one pod, and that there aren't multiple telemetry resources that select overlapping pods",
        &[K::Telemetry, K::Pod],
        telemetry_selector::run,
    ),
    Analyzer::new(
        "telemetry.DefaultSelectorAnalyzer",
        "Validates that there aren't multiple telemetry resources that have no selector",
        &[K::Telemetry],
        telemetry_default_selector::run,
    ),
    Analyzer::new(
        "telemetry.LightstepAnalyzer",
        "Validates that lightstep provider is still used",
        &[K::Telemetry, K::MeshConfig],
        telemetry_lightstep::run,
    ),
];

/// Runs by its name only: annotations of alpha features are too common to be told of.
const ON_DEMAND: &[Analyzer] = &[Analyzer::new(
    "annotations.AlphaAnalyzer",
    "Checks for alpha Istio annotations in Kubernetes resources",
    &[K::Namespace, K::Service, K::Pod, K::Deployment],
    kubernetes_annotations::alpha,
)];

/// All analyzers that run when none is named.
#[must_use]
pub fn all() -> Vec<&'static Analyzer> {
    RULES.iter().chain(SCHEMAS).collect()
}

/// The analyzers of these names; all when no name is known.
#[must_use]
pub fn named<S: AsRef<str>>(names: &[S]) -> Vec<&'static Analyzer> {
    let is_named = |one: &&Analyzer| names.iter().any(|name| name.as_ref() == one.name);
    let found: Vec<_> = RULES.iter().chain(SCHEMAS).chain(ON_DEMAND).filter(is_named).collect();
    if found.is_empty() { all() } else { found }
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome<'a> {
    /// What was found, in no order.
    pub findings: Vec<Finding<'a>>,
    /// Analyzers that were to run.
    pub executed: Vec<&'static str>,
    /// Those of them that could not, for a kind that is not looked at.
    pub skipped: Vec<&'static str>,
}

/// Looks at all objects.
#[must_use]
pub fn run<'a>(world: &'a World, analyzers: &[&'static Analyzer]) -> Outcome<'a> {
    let mut report = Report::default();
    let mut skipped = Vec::new();
    for one in analyzers {
        if !one.inputs.iter().all(|kind| world.scope.has(*kind)) {
            skipped.push(one.name);
            continue;
        }
        match one.run {
            Run::Rules(rules) => rules(world, &mut report),
            Run::Schema(kind) => schema::run(kind, world, &mut report),
        }
    }
    let executed = analyzers.iter().map(|one| one.name).collect();
    Outcome { findings: report.findings, executed, skipped }
}
