//! Who may see an object (`exportTo`).

/// Namespaces that see an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visibility(Vec<String>);

impl Visibility {
    /// From `exportTo`, or the mesh's default when it is empty; `.` is `namespace`.
    #[must_use]
    pub fn new(export_to: &[String], default: &[String], namespace: &str) -> Self {
        let list = if export_to.is_empty() { default } else { export_to };
        Self(list.iter().map(|item| if item == "." { namespace.to_owned() } else { item.clone() }).collect())
    }

    /// Whether a namespace sees it.
    #[must_use]
    pub fn includes(&self, namespace: &str) -> bool {
        self.0.iter().any(|item| item == "*" || item == namespace)
    }

    /// Whether every namespace sees it.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.0.iter().any(|item| item == "*")
    }

    /// The namespaces; `None` for all.
    #[must_use]
    pub fn namespaces(&self) -> Option<&[String]> {
        (!self.0.iter().any(|item| item == "*")).then_some(&self.0)
    }

    /// Whether only its own namespace sees it.
    #[must_use]
    pub fn is_private_to(&self, namespace: &str) -> bool {
        self.0.iter().all(|item| item == namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_to_has_four_forms() {
        let list = |items: &[&str]| items.iter().map(|&item| item.into()).collect::<Vec<String>>();
        let all = list(&["*"]);
        let of = |items: &[&str]| Visibility::new(&list(items), &all, "own");
        assert!(of(&[]).includes("other"));
        assert!(of(&["."]).includes("own") && !of(&["."]).includes("other"));
        assert!(of(&["x", "y"]).includes("y") && !of(&["x"]).includes("own"));
        assert!(!of(&["~"]).includes("own"));
        assert!(of(&["."]).is_private_to("own"));
    }
}
