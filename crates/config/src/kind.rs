//! The table of kinds. From one row come the variant of [`Kind`] and [`Spec`],
//! the look-up by `apiVersion` and `kind`, and typed access to the store.

mod destination_rule;
mod peer_authentication;
mod virtual_service;
mod workload_entry;

use std::fmt;

use proto::istio::networking::v1alpha3::{DestinationRule, VirtualService, WorkloadEntry};
use proto::istio::security::v1beta1::PeerAuthentication;
use serde_json::Value;

use crate::kube::{EndpointSlice, Namespace, Node, Pod, Service, ServiceAccount};
use crate::validate::Checker;
use crate::yaml::{self, ReadError};

/// A type that is the content of a kind of object.
pub trait SpecKind: Sized {
    /// The kind.
    const KIND: Kind;

    /// The content, if it is of this kind.
    fn of(spec: &Spec) -> Option<&Self>;
}

/// Where in an object its content stands.
enum Content {
    /// In `spec`.
    Spec,
    /// In the object itself, beside `metadata`.
    Whole,
}

macro_rules! kinds {
    ($($kind:ident $group:literal [$($version:literal),+] $plural:literal $namespaced:literal $content:ident $check:expr;)*) => {
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

            /// Reads the content of an object; unknown fields are told to `unknown`.
            pub(crate) fn read(self, object: &Value, unknown: &mut Vec<String>) -> Result<Spec, ReadError> {
                match self {
                    $(Self::$kind => match Content::$content {
                        Content::Spec => yaml::field::<$kind>(object, "spec", unknown),
                        Content::Whole => yaml::whole::<$kind>(object),
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
    Service "" ["v1"] "services" true Spec |_, _| {};
    EndpointSlice "discovery.k8s.io" ["v1"] "endpointslices" true Whole |_, _| {};
    Pod "" ["v1"] "pods" true Whole |_, _| {};
    Node "" ["v1"] "nodes" false Whole |_, _| {};
    Namespace "" ["v1"] "namespaces" false Whole |_, _| {};
    ServiceAccount "" ["v1"] "serviceaccounts" true Whole |_, _| {};
    WorkloadEntry "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "workloadentries" true Spec workload_entry::check;
    VirtualService "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "virtualservices" true Spec virtual_service::check;
    DestinationRule "networking.istio.io" ["v1", "v1beta1", "v1alpha3"] "destinationrules" true Spec destination_rule::check;
    PeerAuthentication "security.istio.io" ["v1", "v1beta1"] "peerauthentications" true Spec peer_authentication::check;
}

impl Kind {
    /// The kind that `apiVersion` and `kind` name. `Ok(None)`: a kind that the
    /// mesh does not use.
    ///
    /// # Errors
    /// When the kind exists, but not in that version; with the versions that do.
    pub fn find(api_version: &str, kind: &str) -> Result<Option<Self>, String> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let Some(found) =
            Self::ALL.iter().copied().find(|known| known.as_str() == kind && known.group() == group)
        else {
            return Ok(None);
        };
        if found.versions().contains(&version) {
            return Ok(Some(found));
        }
        let full = |version: &&str| {
            if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") }
        };
        let known: Vec<String> = found.versions().iter().map(full).collect();
        Err(format!("{api_version:?} is no version of {kind}: use {}", known.join(" or ")))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
