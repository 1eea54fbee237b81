//! The table of messages: what each code says and how bad it is. Codes, levels
//! and texts are those of Istio, whose documentation explains every one.

use std::fmt;
use std::str::FromStr;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Probably not what was meant.
    Warning,
    /// Does not work.
    Error,
}

impl Level {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Error];

    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Error => "Error",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word is no level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLevel(String);

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} not a valid option, please choose from: [Info Warning Error]", self.0)
    }
}

impl std::error::Error for UnknownLevel {}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        let fits = |level: &Self| level.as_str().eq_ignore_ascii_case(word);
        Self::ALL.into_iter().find(fits).ok_or_else(|| UnknownLevel(word.to_owned()))
    }
}

macro_rules! codes {
    ($($name:ident $code:literal $level:ident $text:literal;)*) => {
        /// What a finding is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(
                #[doc = $text]
                $name,
            )*
        }

        impl Code {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The code, `IST0101`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Its name in Istio's documentation.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// How bad it is.
            #[must_use]
            pub fn level(self) -> Level {
                match self { $(Self::$name => Level::$level,)* }
            }

            /// What it says; `{}` stands for what differs from case to case, `{?}` for the
            /// same in quotes.
            #[must_use]
            pub fn template(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    InternalError "IST0001" Error "Internal error: {}";
    Deprecated "IST0002" Warning "Deprecated: {}";
    ReferencedResourceNotFound "IST0101" Error "Referenced {} not found: {?}";
    NamespaceNotInjected "IST0102" Info "The namespace is not enabled for Istio injection. Run 'kubectl label namespace {} istio-injection=enabled' to enable it, or 'kubectl label namespace {} istio-injection=disabled' to explicitly mark it as not needing injection.";
    PodMissingProxy "IST0103" Warning "The pod {} is missing the Istio proxy. This can often be resolved by restarting or redeploying the workload.";
    SchemaValidationError "IST0106" Error "Schema validation error: {}";
    MisplacedAnnotation "IST0107" Warning "Misplaced annotation: {} can only be applied to {}";
    UnknownAnnotation "IST0108" Warning "Unknown annotation: {}";
    ConflictingMeshGatewayVirtualServiceHosts "IST0109" Error "The VirtualServices {} associated with mesh gateway define the same host {} which can lead to undefined behavior. This can be fixed by merging the conflicting VirtualServices into a single resource.";
    ConflictingSidecarWorkloadSelectors "IST0110" Error "The Sidecars {} in namespace {?} select the same workload pod {?}, which can lead to undefined behavior.";
    MultipleSidecarsWithoutWorkloadSelectors "IST0111" Error "The Sidecars {} in namespace {?} have no workload selector, which can lead to undefined behavior.";
    VirtualServiceDestinationPortSelectorRequired "IST0112" Error "This VirtualService routes to a service {?} that exposes multiple ports {}. Specifying a port in the destination is required to disambiguate.";
    DeploymentAssociatedToMultipleServices "IST0116" Warning "This deployment {} is associated with multiple services using port {} but different protocols: {}";
    PortNameIsNotUnderNamingConvention "IST0118" Info "Port name {} (port: {}, targetPort: {}) doesn't follow the naming convention of Istio port.";
    NamespaceMultipleInjectionLabels "IST0123" Warning "The namespace has more than one type of injection labels {}, which may lead to undefined behavior. Make sure only one injection label exists.";
    InvalidAnnotation "IST0125" Warning "Invalid annotation {}: {}";
    UnknownMeshNetworksServiceRegistry "IST0126" Error "Unknown service registry {} in network {}";
    NoMatchingWorkloadsFound "IST0127" Warning "No matching workloads for this resource with the following labels: {}";
    NoServerCertificateVerificationDestinationLevel "IST0128" Warning "DestinationRule {} in namespace {} has TLS mode set to {} but no caCertificates are set to validate server identity for host: {}";
    NoServerCertificateVerificationPortLevel "IST0129" Warning "DestinationRule {} in namespace {} has TLS mode set to {} but no caCertificates are set to validate server identity for host: {} at port {}";
    VirtualServiceUnreachableRule "IST0130" Warning "VirtualService rule {} not used ({}).";
    VirtualServiceIneffectiveMatch "IST0131" Info "VirtualService rule {} match {} is not used (duplicate/overlapping match in rule {}).";
    VirtualServiceHostNotFoundInGateway "IST0132" Warning "one or more host {} defined in VirtualService {} not found in Gateway {}.";
    SchemaWarning "IST0133" Warning "Schema validation warning: {}";
    ServiceEntryAddressesRequired "IST0134" Warning "ServiceEntry addresses are required for this protocol.";
    DeprecatedAnnotation "IST0135" Info "Annotation {?} has been deprecated{} and may not work in future Istio versions.";
    AlphaAnnotation "IST0136" Info "Annotation {?} is part of an alpha-phase feature and may be incompletely supported.";
    DeploymentConflictingPorts "IST0137" Warning "This deployment {} is associated with multiple services {} using targetPort {?} but different ports: {}.";
    GatewayDuplicateCertificate "IST0138" Warning "Duplicate certificate in multiple gateways {} may cause 404s if clients re-use HTTP2 connections.";
    InvalidWebhook "IST0139" Error "{}";
    IngressRouteRulesNotAffected "IST0140" Warning "Subset in virtual service {} has no effect on ingress gateway {} requests";
    InsufficientPermissions "IST0141" Error "Missing required permission to create resource {} ({})";
    UnsupportedKubernetesVersion "IST0142" Error "The Kubernetes Version {?} is lower than the minimum version: {}";
    LocalhostListener "IST0143" Error "Port {} is exposed in a Service but listens on localhost. It will not be exposed to other pods.";
    InvalidApplicationUID "IST0144" Warning "User ID (UID) 1337 is reserved for the sidecar proxy.";
    ConflictingGateways "IST0145" Error "Conflict with gateways {} (workload selector {}, port {}, hosts {}).";
    ImageAutoWithoutInjectionWarning "IST0146" Warning "{} {} contains `image: auto` but does not match any Istio injection webhook selectors.";
    ImageAutoWithoutInjectionError "IST0147" Error "{} {} contains `image: auto` but does not match any Istio injection webhook selectors.";
    NamespaceInjectionEnabledByDefault "IST0148" Info "is enabled for Istio injection, as Istio is installed with enableNamespacesByDefault as true.";
    JwtClaimBasedRoutingWithoutRequestAuthN "IST0149" Error "The virtual service uses the JWT claim based routing (key: {}) but found no request authentication for the gateway ({}) pod ({}). The request authentication must first be applied for the gateway pods to validate the JWT token and make the claims available for routing.";
    ExternalNameServiceTypeInvalidPortName "IST0150" Warning "Port name for ExternalName service is invalid. Proxy may prevent tcp named ports and unmatched traffic for ports serving TCP protocol from being forwarded correctly";
    EnvoyFilterUsesRelativeOperation "IST0151" Warning "This EnvoyFilter does not have a priority and has a relative patch operation set which can cause the EnvoyFilter not to be applied. Using the INSERT_FIRST of ADD option or setting the priority may help in ensuring the EnvoyFilter is applied correctly.";
    EnvoyFilterUsesReplaceOperationIncorrectly "IST0152" Error "The REPLACE operation is only valid for HTTP_FILTER and NETWORK_FILTER.";
    EnvoyFilterUsesAddOperationIncorrectly "IST0153" Error "The ADD operation will be ignored when applyTo is set to ROUTE_CONFIGURATION, or HTTP_ROUTE.";
    EnvoyFilterUsesRemoveOperationIncorrectly "IST0154" Error "The REMOVE operation will be ignored when applyTo is set to ROUTE_CONFIGURATION, or HTTP_ROUTE.";
    EnvoyFilterUsesRelativeOperationWithProxyVersion "IST0155" Warning "This EnvoyFilter does not have a priority and has a relative patch operation (NSTERT_BEFORE/AFTER, REPLACE, MERGE, DELETE) and proxyVersion set which can cause the EnvoyFilter not to be applied during an upgrade. Using the INSERT_FIRST or ADD option or setting the priority may help in ensuring the EnvoyFilter is applied correctly.";
    UnsupportedGatewayAPIVersion "IST0156" Error "The Gateway API CRD version {} is lower than the minimum version: {}";
    FutureUnsupportedGatewayAPIVersion "IST0172" Warning "The Gateway API CRD version {} is lower than the minimum version: {}";
    InvalidTelemetryProvider "IST0157" Warning "The Telemetry {} in namespace {?} with empty providers will be ignored.";
    PodsIstioProxyImageMismatchInNamespace "IST0158" Warning "The Istio proxy images of the pods running in the namespace do not match the image defined in the injection configuration (pod names: {}). This often happens after upgrading the Istio control-plane and can be fixed by redeploying the pods.";
    ConflictingTelemetryWorkloadSelectors "IST0159" Error "The Telemetries {} in namespace {?} select the same workload pod {?}, which can lead to undefined behavior.";
    MultipleTelemetriesWithoutWorkloadSelectors "IST0160" Error "The Telemetries {} in namespace {?} have no workload selector, which can lead to undefined behavior.";
    InvalidGatewayCredential "IST0161" Error "The credential referenced by the Gateway {} in namespace {} is invalid, which can cause the traffic not to work as expected.";
    GatewayPortNotDefinedOnService "IST0162" Warning "The gateway is listening on a target port (port {}) that is not defined in the Service associated with its workload instances (Pod selector {}). If you need to access the gateway port through the gateway Service, it will not be available.";
    InvalidExternalControlPlaneConfig "IST0163" Warning "The hostname ({}) that was provided for the webhook ({}) to reach the ingress gateway on the external control plane cluster {}. Traffic may not flow properly.";
    ExternalControlPlaneAddressIsNotAHostname "IST0164" Info "The address ({}) that was provided for the webhook ({}) to reach the ingress gateway on the external control plane cluster is an IP address. This is not recommended for a production environment.";
    ReferencedInternalGateway "IST0165" Warning "Gateway reference in VirtualService {} is to an implementation-generated internal Gateway: {}.";
    IneffectiveSelector "IST0166" Warning "Ineffective selector on Kubernetes Gateway {}. Use the TargetRef field instead.";
    IneffectivePolicy "IST0167" Warning "The policy has no impact: {}.";
    UnknownUpgradeCompatibility "IST0168" Warning "The configuration {?} changed in release {}, but compatibility cannot be automatically detected: {}. Or, install with `--set compatibilityVersion={}` to retain the old default.";
    UpdateIncompatibility "IST0169" Warning "The configuration {?} changed in release {}: {}. Or, install with `--set compatibilityVersion={}` to retain the old default.";
    MultiClusterInconsistentService "IST0170" Warning "The service {} in namespace {?} is inconsistent across clusters {}, which can lead to undefined behaviors. The inconsistent behaviors are: {}.";
    NegativeConditionStatus "IST0171" Warning "A condition with a negative status is present: type={}, reason={}, message={}.";
    DestinationRuleSubsetNotSelectPods "IST0173" Error "The Subset {} defined in the DestinationRule does not select any pods. Which may lead to 503 UH (NoHealthyUpstream).";
    UnknownDestinationRuleHost "IST0174" Warning "The host {} defined in the DestinationRule does not match any services in the mesh.";
    JwksUriFetchUnrestricted "IST0175" Warning "BLOCKED_CIDRS_IN_JWKS_URIS is not configured but {} RequestAuthentication resource(s) exist ({}). Consider configuring it to restrict JWKS URI fetches to trusted networks.";
    GatewayAPICRDVersionBelowMinimum "IST0176" Warning "Gateway API CRD {?} is at version {?} but Istio requires at least {?}; resources of this kind will not be processed. Upgrade the Gateway API CRDs to satisfy the minimum version.";
    ConflictingServiceEntryProtocol "IST0177" Warning "Multiple ServiceEntries ({}) define the same host {?} and port {} with conflicting protocols ({}).";
}

/// Where the codes are explained.
pub const DOCUMENTATION: &str = "https://istio.io/latest/docs/reference/config/analysis";

impl Code {
    /// The page that explains it.
    #[must_use]
    pub fn documentation(self) -> String {
        format!("{DOCUMENTATION}/{}/", self.as_str().to_ascii_lowercase())
    }

    /// The text with what differs filled in, in order.
    #[must_use]
    pub fn fill(self, values: &[&str]) -> String {
        let mut values = values.iter();
        let mut text = String::new();
        let mut rest = self.template();
        while let Some((before, after)) = rest.split_once('{') {
            let value = values.next().copied().unwrap_or_default();
            let is_quoted = after.starts_with('?');
            text += before;
            if is_quoted {
                text += &format!("{value:?}")
            } else {
                text += value
            }
            rest = after.split_once('}').map_or("", |(_, rest)| rest);
        }
        text + rest
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names as they stand in messages, `[a b]`.
pub(crate) fn list<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    format!("[{}]", names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_different_and_sorted_levels_are_known() {
        let mut codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        let count = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), count);
        assert_eq!("warning".parse(), Ok(Level::Warning));
        assert!("bad".parse::<Level>().is_err());
        assert!(Level::Error > Level::Warning && Level::Warning > Level::Info);
    }

    #[test]
    fn values_stand_where_they_belong() {
        let text = Code::ReferencedResourceNotFound.fill(&["gateway", "a/b"]);
        assert_eq!(text, "Referenced gateway not found: \"a/b\"");
        assert_eq!(list(&["a", "b"]), "[a b]");
    }
}
