//! The file by which `istioctl --mesh` finds the pods of a mesh.

use std::path::PathBuf;

use serde_json::json;

use super::Mesh;

/// Its name, in the mesh's directory.
const FILE: &str = "istioctl.yaml";

impl Mesh {
    /// The file by which `istioctl --mesh` finds its pods.
    pub fn roster(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// What stands in it; YAML takes JSON.
    pub(super) fn roster_text(&self) -> String {
        let pods = self.pods.iter().filter(|pod| !pod.workload.is_bare()).map(|pod| {
            let workload = &pod.workload;
            json!({
                "name": workload.name, "namespace": workload.namespace,
                "netns": pod.network, "labels": workload.labels, "log": pod.agent_log(),
            })
        });
        let istiod = self.programs.ours("istiod");
        let token = [
            istiod.display().to_string(),
            "token".into(),
            "--service-account".into(),
            "istio-system/default".into(),
            "--state-dir".into(),
            self.istiod.state.display().to_string(),
        ];
        let text = json!({
            "istiods": [{"name": "istiod", "netns": self.istiod.namespace, "log": self.istiod.log}],
            "roots": self.istiod.state.join("roots.pem"),
            "tokenCommand": token,
            "objects": self.objects,
            "pods": pods.collect::<Vec<_>>(),
        });
        format!("{text:#}\n")
    }
}
