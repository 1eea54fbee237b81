//! The table of kinds. From one row come the variant of [`Kind`] and [`Spec`],
//! the look-up by `apiVersion` and `kind`, and typed access to the store.

mod authorization_policy;
mod config_map;
mod destination_rule;
mod endpoint_slice;
mod endpoints;
mod envoy_filter;
mod foreign;
mod gateway;
pub(crate) mod metadata;
mod peer_authentication;
mod proxy_config;
mod request_authentication;
mod secret;
mod service;
mod service_entry;
mod sidecar;
mod telemetry;
mod traffic_extension;
mod virtual_service;
mod wasm_plugin;
mod workload_entry;
mod workload_group;

use std::fmt;

use proto::istio::extensions::v1alpha1::{TrafficExtension, WasmPlugin};
use proto::istio::networking::v1alpha3::{
    DestinationRule, EnvoyFilter, Gateway, Sidecar, VirtualService, WorkloadGroup,
};
use proto::istio::networking::v1beta1::ProxyConfig;
use proto::istio::security::v1beta1::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use proto::istio::telemetry::v1alpha1::Telemetry;
use serde_json::Value;

use crate::kube::{
    ConfigMap, EndpointSlice, Endpoints, Namespace, Node, Pod, Secret, Service, ServiceAccount, ServiceEntry,
    WorkloadEntry,
};
use crate::validate::Checker;
use crate::yaml::content::{self, ReadError};
pub(crate) use foreign::Found;

/// A type that is the content of a kind of object.
pub trait SpecKind: Sized {
    /// The kind.
    const KIND: Kind;

    /// The content, if it is of this kind.
    fn of(spec: &Spec) -> Option<&Self>;
}

/// How an object of a kind is written.
struct Shape {
    /// Whether its content is in `spec`, and not in the object itself.
    is_in_spec: bool,
    /// Fields beside `apiVersion`, `kind` and `metadata`.
    fields: &'static [&'static str],
    /// Fields inside that exist and that the mesh does not use; `None` when
    /// they are too many to be told from those that do not exist.
    unused: Option<&'static [&'static str]>,
}

impl Shape {
    const fn spec(unused: &'static [&'static str]) -> Self {
        Self { is_in_spec: true, fields: &["spec", "status"], unused: Some(unused) }
    }

    const fn whole(fields: &'static [&'static str], unused: Option<&'static [&'static str]>) -> Self {
        Self { is_in_spec: false, fields, unused }
    }
}

macro_rules! kinds {
    ($($kind:ident $group:literal [$($version:literal),+] $plural:literal $namespaced:literal $shape:expr => $check:expr;)*) => {
        /// A kind of object that the mesh knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(
                #[doc = concat!("`", stringify!($kind), "`")]
                $kind,
            )*
        }

        /// What an object says, by kind.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Spec {
            $(
                #[doc = concat!("`", stringify!($kind), "`")]
                $kind(Box<$kind>),
            )*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The word in `kind:`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)* }
            }

            /// The API group; empty for the core group.
            #[must_use]
            pub fn group(self) -> &'static str {
                match self { $(Self::$kind => $group,)* }
            }

            /// The versions that are read.
            #[must_use]
            pub fn versions(self) -> &'static [&'static str] {
                match self { $(Self::$kind => &[$($version),+],)* }
            }

            /// The word in API paths.
            #[must_use]
            pub fn plural(self) -> &'static str {
                match self { $(Self::$kind => $plural,)* }
            }

            /// Whether its objects belong to a namespace.
            #[must_use]
            pub fn is_namespaced(self) -> bool {
                match self { $(Self::$kind => $namespaced,)* }
            }

            fn shape(self) -> &'static Shape {
                match self { $(Self::$kind => { const SHAPE: &Shape = &$shape; SHAPE })* }
            }

            /// Reads the content of an object; unknown fields are told to `unknown`.
            pub(crate) fn read(self, object: &Value, unknown: &mut Vec<String>) -> Result<Spec, ReadError> {
                let in_spec = self.is_in_spec();
                match self {
                    $(Self::$kind => if in_spec {
                        content::field::<$kind>(object, "spec", unknown)
                    } else {
                        content::whole::<$kind>(object, unknown)
                    }.map(|content| Spec::$kind(Box::new(content))),)*
                }
            }
        }

        impl Spec {
            /// Applies the rules of the kind.
            pub fn check(&self, checker: &mut Checker) {
                match self {
                    $(Self::$kind(spec) => {
                        let check: fn(&$kind, &mut Checker) = $check;
                        check(spec, checker);
                    })*
                }
            }
        }

        $(impl SpecKind for $kind {
            const KIND: Kind = Kind::$kind;

            fn of(spec: &Spec) -> Option<&Self> {
                if let Spec::$kind(content) = spec { Some(content) } else { None }
            }
        })*
    };
}

kinds! {
    Service "" ["v1"] "services" true Shape::whole(&["spec", "status"], Some(service::UNUSED)) => service::check;
    EndpointSlice "discovery.k8s.io" ["v1"] "endpointslices" true Shape::whole(&["addressType", "endpoints", "ports"], Some(endpoint_slice::UNUSED)) => endpoint_slice::check;
    Endpoints "" ["v1"] "endpoints" true Shape::whole(&["subsets"], Some(endpoint_slice::UNUSED)) => endpoints::check;
    Pod "" ["v1"] "pods" true Shape::whole(&["spec", "status"], None) => |_, _| {};
    Node "" ["v1"] "nodes" false Shape::whole(&["spec", "status"], None) => |_, _| {};
    Namespace "" ["v1"] "namespaces" false Shape::whole(&["spec", "status"], None) => |_, _| {};
    ServiceAccount "" ["v1"] "serviceaccounts" true Shape::whole(&["secrets", "imagePullSecrets", "automountServiceAccountToken"], None) => |_, _| {};
    Secret "" ["v1"] "secrets" true Shape::whole(&["data", "stringData", "type", "immutable"], None) => secret::check;
    ConfigMap "" ["v1"] "configmaps" true Shape::whole(&["data", "binaryData", "immutable"], None) => config_map::check;
    ServiceEntry "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "serviceentries" true Shape::whole(&["spec", "status"], Some(&[])) => service_entry::check;
    WorkloadEntry "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "workloadentries" true Shape::whole(&["spec", "status"], Some(workload_entry::UNUSED)) => workload_entry::check;
    VirtualService "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "virtualservices" true Shape::spec(&[]) => virtual_service::check;
    DestinationRule "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "destinationrules" true Shape::spec(&[]) => destination_rule::check;
    WorkloadGroup "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "workloadgroups" true Shape::spec(&[]) => workload_group::check;
    Gateway "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "gateways" true Shape::spec(&[]) => gateway::check;
    Sidecar "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "sidecars" true Shape::spec(&[]) => sidecar::check;
    EnvoyFilter "networking.istio.io" ["v1alpha3"] "envoyfilters" true Shape::spec(&[]) => envoy_filter::check;
    ProxyConfig "networking.istio.io" ["v1", "v1beta1"] "proxyconfigs" true Shape::spec(&[]) => proxy_config::check;
    PeerAuthentication "security.istio.io" ["v1", "v1beta1"] "peerauthentications" true Shape::spec(&[]) => peer_authentication::check;
    RequestAuthentication "security.istio.io" ["v1", "v1beta1"] "requestauthentications" true Shape::spec(&[]) => request_authentication::check;
    AuthorizationPolicy "security.istio.io" ["v1", "v1beta1"] "authorizationpolicies" true Shape::spec(&[]) => authorization_policy::check;
    Telemetry "telemetry.istio.io" ["v1", "v1alpha1"] "telemetries" true Shape::spec(&[]) => telemetry::check;
    WasmPlugin "extensions.istio.io" ["v1alpha1"] "wasmplugins" true Shape::spec(&[]) => wasm_plugin::check;
    TrafficExtension "extensions.istio.io" ["v1alpha1"] "trafficextensions" true Shape::spec(&[]) => traffic_extension::check;
}

impl Kind {
    /// Whether it is one of Istio's own.
    #[must_use]
    pub fn is_istio(self) -> bool {
        self.group().ends_with(".istio.io")
    }

    /// Whether its content is in `spec`.
    pub(crate) fn is_in_spec(self) -> bool {
        self.shape().is_in_spec
    }

    /// Fields of the object beside `apiVersion`, `kind` and `metadata`.
    pub(crate) fn fields(self) -> &'static [&'static str] {
        self.shape().fields
    }

    /// Whether a field inside, which the mesh does not read, does not exist.
    pub(crate) fn is_told_when_unknown(self, field: &str) -> bool {
        let shape = self.shape();
        // Those of the object itself are told by themselves.
        let is_inside = shape.is_in_spec || field.contains(['.', '[']) && !field.starts_with("metadata.");
        let name = field.rsplit('.').next().unwrap_or(field);
        is_inside && shape.unused.is_some_and(|unused| !unused.contains(&name))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod extensions_tests;
#[cfg(test)]
mod tests;
