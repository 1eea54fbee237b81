//! Which namespaces are part of the mesh (`discoverySelectors`).

use std::collections::BTreeMap;

/// A selector of labels, as Kubernetes has them: all parts must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels with their values.
    pub labels: BTreeMap<String, String>,
    /// Further requirements.
    pub requirements: Vec<Requirement>,
}

/// What one label must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Name of the label.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// Values to compare with.
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// It has one of the values.
    In,
    /// It is not there or has none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

/// Several selectors, of which one must fit; without any, everything fits.
pub type Selectors = Vec<Selector>;

impl Selector {
    /// Whether it fits an object with these labels.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.labels.iter().all(has) && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let is_one = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => is_one,
            Operator::NotIn => !is_one,
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_are_those_of_kubernetes() {
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let fits = |key: &str, operator, values: &[&str]| {
            let values = values.iter().map(|&value| value.to_owned()).collect();
            let requirements = vec![Requirement { key: key.into(), operator, values }];
            Selector { labels: BTreeMap::new(), requirements }.matches(&labels)
        };
        assert!(fits("a", Operator::In, &["x", "b"]) && !fits("a", Operator::In, &["x"]));
        assert!(!fits("c", Operator::In, &["b"]) && fits("c", Operator::NotIn, &["b"]));
        assert!(!fits("a", Operator::NotIn, &["b"]) && fits("a", Operator::Exists, &[]));
        assert!(fits("c", Operator::DoesNotExist, &[]) && !fits("a", Operator::DoesNotExist, &[]));
        assert!(Selector::default().matches(&labels));
    }
}
