//! The kinds of objects that are looked at.

use std::fmt;

macro_rules! kinds {
    ($($kind:ident $word:literal $group:literal [$($version:literal),*] $plural:literal $namespaced:literal $runtime:literal;)*) => {
        /// A kind of object that is looked at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(
                #[doc = concat!("`", $word, "` of `", $group, "`")]
                $kind,
            )*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The word in `kind:`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $word,)* }
            }

            /// The API group; empty for the core group.
            #[must_use]
            pub fn group(self) -> &'static str {
                match self { $(Self::$kind => $group,)* }
            }

            /// The versions that are read, the one to ask a cluster for first.
            #[must_use]
            pub fn versions(self) -> &'static [&'static str] {
                match self { $(Self::$kind => &[$($version),*],)* }
            }

            /// The word in API paths; empty for what is no object of the API.
            #[must_use]
            pub fn plural(self) -> &'static str {
                match self { $(Self::$kind => $plural,)* }
            }

            /// Whether its objects belong to a namespace.
            #[must_use]
            pub fn is_namespaced(self) -> bool {
                match self { $(Self::$kind => $namespaced,)* }
            }

            /// Whether its objects say what runs: files of configuration are
            /// seldom whole in this.
            #[must_use]
            pub fn is_runtime(self) -> bool {
                match self { $(Self::$kind => $runtime,)* }
            }
        }
    };
}

kinds! {
    AuthorizationPolicy "AuthorizationPolicy" "security.istio.io" ["v1", "v1beta1"] "authorizationpolicies" true false;
    DestinationRule "DestinationRule" "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "destinationrules" true false;
    EnvoyFilter "EnvoyFilter" "networking.istio.io" ["v1alpha3"] "envoyfilters" true false;
    Gateway "Gateway" "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "gateways" true false;
    MeshConfig "MeshConfig" "" [] "" true false;
    MeshNetworks "MeshNetworks" "" [] "" true false;
    PeerAuthentication "PeerAuthentication" "security.istio.io" ["v1", "v1beta1"] "peerauthentications" true false;
    ProxyConfig "ProxyConfig" "networking.istio.io" ["v1beta1", "v1"] "proxyconfigs" true false;
    RequestAuthentication "RequestAuthentication" "security.istio.io" ["v1", "v1beta1"] "requestauthentications" true false;
    ServiceEntry "ServiceEntry" "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "serviceentries" true false;
    Sidecar "Sidecar" "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "sidecars" true false;
    Telemetry "Telemetry" "telemetry.istio.io" ["v1", "v1alpha1"] "telemetries" true false;
    TrafficExtension "TrafficExtension" "extensions.istio.io" ["v1alpha1"] "trafficextensions" true false;
    VirtualService "VirtualService" "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "virtualservices" true false;
    WasmPlugin "WasmPlugin" "extensions.istio.io" ["v1alpha1"] "wasmplugins" true false;
    WorkloadEntry "WorkloadEntry" "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "workloadentries" true false;
    WorkloadGroup "WorkloadGroup" "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "workloadgroups" true false;
    Namespace "Namespace" "" ["v1"] "namespaces" false true;
    Node "Node" "" ["v1"] "nodes" false true;
    Pod "Pod" "" ["v1"] "pods" true true;
    Service "Service" "" ["v1"] "services" true true;
    Secret "Secret" "" ["v1"] "secrets" true true;
    ConfigMap "ConfigMap" "" ["v1"] "configmaps" true false;
    Deployment "Deployment" "apps" ["v1"] "deployments" true false;
    MutatingWebhookConfiguration "MutatingWebhookConfiguration" "admissionregistration.k8s.io" ["v1"] "mutatingwebhookconfigurations" false false;
    ValidatingWebhookConfiguration "ValidatingWebhookConfiguration" "admissionregistration.k8s.io" ["v1"] "validatingwebhookconfigurations" false false;
    CustomResourceDefinition "CustomResourceDefinition" "apiextensions.k8s.io" ["v1"] "customresourcedefinitions" false false;
    KubernetesGateway "Gateway" "gateway.networking.k8s.io" ["v1", "v1beta1"] "gateways" true false;
    HttpRoute "HTTPRoute" "gateway.networking.k8s.io" ["v1", "v1beta1"] "httproutes" true false;
    GrpcRoute "GRPCRoute" "gateway.networking.k8s.io" ["v1"] "grpcroutes" true false;
}

impl Kind {
    /// The kind that `apiVersion` and `kind` name.
    #[must_use]
    pub fn find(api_version: &str, word: &str) -> Option<Self> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let fits = |kind: &Self| {
            kind.as_str() == word && kind.group() == group && kind.versions().contains(&version)
        };
        Self::ALL.iter().copied().find(fits)
    }

    /// The same kind, if it is one of Istio's own.
    #[must_use]
    pub fn istio(self) -> Option<config::Kind> {
        if !self.group().ends_with(".istio.io") {
            return None;
        }
        config::Kind::ALL.iter().copied().find(|kind| kind.as_str() == self.as_str() && kind.is_istio())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_by_their_group() {
        assert_eq!(Kind::find("networking.istio.io/v1alpha3", "Gateway"), Some(Kind::Gateway));
        assert_eq!(Kind::find("gateway.networking.k8s.io/v1", "Gateway"), Some(Kind::KubernetesGateway));
        assert_eq!(Kind::find("networking.istio.io/v9", "Gateway"), None);
        assert_eq!(Kind::find("v1", "Pod"), Some(Kind::Pod));
        let istio = Kind::ALL.iter().filter(|kind| kind.istio().is_some()).count();
        assert_eq!(istio, config::Kind::ALL.iter().filter(|kind| kind.is_istio()).count());
    }
}
