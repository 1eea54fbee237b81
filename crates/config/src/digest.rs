//! What objects of Istio say, as JSON, and a short name for it: two that say the
//! same have the same one, in whatever form they were written.

use serde_json::{Value, json};

use crate::Spec;

/// Start and factor of FNV-1a, of 64 bits.
const FNV: (u64, u64) = (0xcbf2_9ce4_8422_2325, 0x0000_0100_0000_01b3);

/// What an object of Istio says; `null` for objects of Kubernetes.
#[must_use]
pub fn json(spec: &Spec) -> Value {
    match spec {
        Spec::ServiceEntry(entry) => of_message(&entry.spec),
        Spec::WorkloadEntry(entry) => of_message(&entry.spec),
        Spec::VirtualService(spec) => of_message(&**spec),
        Spec::DestinationRule(spec) => of_message(&**spec),
        Spec::WorkloadGroup(spec) => of_message(&**spec),
        Spec::Gateway(spec) => of_message(&**spec),
        Spec::Sidecar(spec) => of_message(&**spec),
        Spec::EnvoyFilter(spec) => of_message(&**spec),
        Spec::ProxyConfig(spec) => of_message(&**spec),
        Spec::PeerAuthentication(spec) => of_message(&**spec),
        Spec::RequestAuthentication(spec) => of_message(&**spec),
        Spec::AuthorizationPolicy(spec) => of_message(&**spec),
        Spec::Telemetry(spec) => of_message(&**spec),
        Spec::WasmPlugin(spec) => of_message(&**spec),
        Spec::TrafficExtension(spec) => of_message(&**spec),
        _ => Value::Null,
    }
}

fn of_message(message: &impl serde::Serialize) -> Value {
    serde_json::to_value(message).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

/// A short name for what it says.
#[must_use]
pub fn of(spec: &Spec) -> String {
    let text = json(spec).to_string();
    let hash = text.bytes().fold(FNV.0, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV.1));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> String {
        let objects = crate::yaml::read("a", text).objects;
        of(&objects[0].spec)
    }

    #[test]
    fn objects_that_say_the_same_have_the_same_name() {
        let begin =
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a, namespace: b";
        let one = digest(&format!(
            "{begin}}}\nspec: {{hosts: [c], http: [{{timeout: 5s, route: [{{destination: {{host: c}}}}]}}]}}"
        ));
        let same = digest(&format!(
            "{begin}, labels: {{x: z}}, resourceVersion: '7'}}\nspec:\n  http:\n  - route: [{{destination: {{host: c}}}}]\n    timeout: 5.0s\n  hosts: [c]\n"
        ));
        let other = digest(&format!(
            "{begin}}}\nspec: {{hosts: [c], http: [{{timeout: 6s, route: [{{destination: {{host: c}}}}]}}]}}"
        ));
        assert_eq!(one, same);
        assert_ne!(one, other);
        assert_eq!(one.len(), 16);
    }
}
