//! Credentials in Secrets and ConfigMaps, and the names that proxies ask for them by.

use std::fmt;

use config::kube::{ConfigMap, Pair, Roots, Secret};
use config::{Kind, Store, kube};

/// Begins the name of a Secret of the proxy's namespace: `kubernetes://[NAMESPACE/]NAME`.
const OF_PROXY: &str = "kubernetes://";
/// Begins the name of a Secret that a Gateway of its namespace names:
/// `kubernetes-gateway://NAMESPACE/NAME`.
const OF_GATEWAY: &str = "kubernetes-gateway://";
/// Begins the name of certificates in a ConfigMap: `configmap://NAMESPACE/NAME`.
const PUBLIC: &str = "configmap://";
/// Ends the name of the certificates that sign those of clients.
const ROOTS: &str = "-cacert";

/// Secrets of the control plane itself: whoever has one of them can be anybody.
const OF_CONTROL_PLANE: [&str; 2] = ["cacerts", "istio-ca-secret"];

/// What a name asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// Namespace of the Secret; `None` means the proxy's.
    pub namespace: Option<&'a str>,
    /// Name of the Secret, perhaps with `-cacert` behind it.
    pub name: &'a str,
    /// Whether it is a ConfigMap: it holds nothing but certificates that sign
    /// others, which are for everybody.
    pub is_public: bool,
}

/// A name that no Secret can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no Secret: expected kubernetes://NAME, kubernetes-gateway://NAMESPACE/NAME or \
     configmap://NAMESPACE/NAME"
)]
pub struct Unnamed(String);

impl<'a> Reference<'a> {
    /// Reads the name of a resource.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(text: &'a str) -> Result<Self, Unnamed> {
        let is_word = |word: &str| !word.is_empty() && !word.contains('/');
        let reference = if let Some(rest) = text.strip_prefix(OF_PROXY) {
            match rest.split_once('/') {
                Some((namespace, name)) => Self { namespace: Some(namespace), name, is_public: false },
                None => Self { namespace: None, name: rest, is_public: false },
            }
        } else {
            let public = text.strip_prefix(PUBLIC);
            let rest = public.or_else(|| text.strip_prefix(OF_GATEWAY)).and_then(|rest| rest.split_once('/'));
            let (namespace, name) = rest.ok_or_else(|| Unnamed(text.into()))?;
            Self { namespace: Some(namespace), name, is_public: public.is_some() }
        };
        if is_word(reference.name) && reference.namespace.is_none_or(is_word) {
            Ok(reference)
        } else {
            Err(Unnamed(text.into()))
        }
    }

    /// Whether only certificates that sign others are asked for, and no key.
    #[must_use]
    pub fn is_roots(&self) -> bool {
        self.is_public || self.name.ends_with(ROOTS)
    }
}

/// What a Secret gives a proxy.
#[derive(Clone, Copy, Debug)]
pub enum Credential<'a> {
    /// A certificate with its key.
    Pair(&'a Pair),
    /// Certificates that sign others.
    Roots(&'a Roots),
}

/// Why there is no credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such Secret.
    #[error("there is no Secret {namespace}/{name}")]
    Missing {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// No such ConfigMap.
    #[error("there is no ConfigMap {namespace}/{name}")]
    NoConfigMap {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The ConfigMap holds no certificates that can be used.
    #[error("ConfigMap {namespace}/{name}: {field} {message}")]
    FlawedConfigMap {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The value that is wrong.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The Secret is not for proxies.
    #[error("the Secret {namespace}/{name} is that of the control plane itself")]
    Forbidden {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// It holds no credentials that can be used.
    #[error("Secret {namespace}/{name}: {field} {message}")]
    Flawed {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The value that is wrong.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

/// All Secrets and ConfigMaps. Each is read when it is asked for, once.
#[derive(Default)]
pub struct Index {
    secrets: Store,
    config_maps: Store,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Index(..)")
    }
}

impl Index {
    /// Indexes those of a store.
    #[must_use]
    pub fn build(store: &Store) -> Self {
        Self { secrets: store.only(Kind::Secret), config_maps: store.only(Kind::ConfigMap) }
    }

    /// Credentials of registries: the content of a Secret of Docker's type.
    #[must_use]
    pub fn docker_config(&self, namespace: &str, name: &str) -> Option<String> {
        let secret = self.get(namespace, name)?;
        let is_docker = secret.secret_type == "kubernetes.io/dockerconfigjson";
        String::from_utf8(secret.value(".dockerconfigjson").filter(|_| is_docker)?).ok()
    }

    /// The credential of a name, of a Secret in `namespace`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn find(
        &self,
        namespace: &str,
        name: &str,
        may_be_roots: impl FnOnce() -> bool,
    ) -> Result<Credential<'_>, Error> {
        let owned = |name: &str| (namespace.to_owned(), name.to_owned());
        if let Some(base) = name.strip_suffix(ROOTS) {
            // In a Secret of their own, or beside the server's certificate.
            let name = if self.get(namespace, name).is_some() { name } else { base };
            let secret = self.get(namespace, name).ok_or_else(|| {
                let (namespace, name) = owned(name);
                Error::Missing { namespace, name }
            })?;
            return secret.roots().map(Credential::Roots).map_err(|flaw| flawed(flaw, owned(name)));
        }
        let (space, own) = owned(name);
        if OF_CONTROL_PLANE.contains(&name) {
            return Err(Error::Forbidden { namespace: space, name: own });
        }
        let secret = self.get(namespace, name).ok_or(Error::Missing { namespace: space, name: own })?;
        match (secret.pair(), secret.roots()) {
            (Err(_), Ok(roots)) if may_be_roots() => Ok(Credential::Roots(roots)),
            (pair, _) => pair.map(Credential::Pair).map_err(|flaw| flawed(flaw, owned(name))),
        }
    }

    /// The certificates in a ConfigMap of `namespace`, by its name or with
    /// `-cacert` behind it.
    ///
    /// # Errors
    /// Why there are none.
    pub fn public(&self, namespace: &str, name: &str) -> Result<Credential<'_>, Error> {
        let name = name.strip_suffix(ROOTS).unwrap_or(name);
        let (space, own) = (namespace.to_owned(), name.to_owned());
        match self.config_maps.get::<ConfigMap>(namespace, name) {
            None => Err(Error::NoConfigMap { namespace: space, name: own }),
            Some((_, map)) => map.roots().map(Credential::Roots).map_err(|flaw| Error::FlawedConfigMap {
                namespace: space,
                name: own,
                field: flaw.field.clone(),
                message: flaw.message.clone(),
            }),
        }
    }

    fn get(&self, namespace: &str, name: &str) -> Option<&Secret> {
        self.secrets.get::<Secret>(namespace, name).map(|(_, secret)| secret)
    }
}

fn flawed(flaw: &kube::Flaw, (namespace, name): (String, String)) -> Error {
    Error::Flawed { namespace, name, field: flaw.field.clone(), message: flaw.message.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_resources_are_read() {
        let read = |text| Reference::parse(text).map(|found| (found.namespace, found.name)).ok();
        assert_eq!(read("kubernetes://shop"), Some((None, "shop")));
        assert_eq!(read("kubernetes://ns/shop"), Some((Some("ns"), "shop")));
        assert_eq!(read("kubernetes-gateway://ns/shop-cacert"), Some((Some("ns"), "shop-cacert")));
        let public = |text| Reference::parse(text).is_ok_and(|found| found.is_public && found.is_roots());
        assert!(public("configmap://ns/shop") && !public("kubernetes://ns/shop-cacert"));
        for text in [
            "kubernetes-gateway://shop",
            "kubernetes://",
            "kubernetes://a/",
            "kubernetes:///a",
            "kubernetes://a/b/c",
            "configmap://a",
            "invalid://",
            "default",
            "",
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_reference_is_what_a_secret_may_be_called(text in "((kubernetes(-gateway)?|configmap)://)?[a-z/-]{0,12}|.{0,24}") {
            if let Ok(found) = Reference::parse(&text) {
                let words = [Some(found.name), found.namespace];
                for word in words.into_iter().flatten() {
                    proptest::prop_assert!(!word.is_empty() && !word.contains('/'));
                }
                proptest::prop_assert!(text.ends_with(found.name));
            }
        }
    }
}
