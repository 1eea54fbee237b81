//! Flags of `kube-inject`.

use std::path::PathBuf;

use clap::Args;

/// Flags of `kube-inject`.
#[derive(Args, Debug)]
pub struct KubeInject {
    /// File of workloads; `-` is standard input.
    #[arg(short, long = "filename", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where to write to; standard output without it.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Templates and their choice, instead of the key `config` of that ConfigMap.
    #[arg(long = "injectConfigFile", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Values of the chart, instead of the key `values` of that ConfigMap; no cluster is asked then.
    #[arg(long = "valuesFile", value_name = "FILE")]
    pub values: Option<PathBuf>,
    /// Mesh configuration, instead of the key `mesh` of the ConfigMap; without either, the defaults.
    #[arg(id = "mesh-config", long = "meshConfigFile", value_name = "FILE")]
    pub mesh: Option<PathBuf>,
    /// ConfigMap of the injector, to which `-REVISION` is added.
    #[arg(long = "injectConfigMapName", default_value = "istio-sidecar-injector", value_name = "NAME")]
    pub config_map: String,
    /// ConfigMap of the mesh configuration, to which `-REVISION` is added.
    #[arg(long = "meshConfigMapName", default_value = "istio", value_name = "NAME")]
    pub mesh_map: String,
    /// Revision of the control plane.
    #[arg(short, long, default_value = "", value_name = "NAME")]
    pub revision: String,
    /// Whether the cluster's nodes run restartable init containers (1.33): true, false, or auto: no node is known here.
    #[arg(
        long = "nativeSidecars",
        env = "ENABLE_NATIVE_SIDECARS",
        default_value = "auto",
        value_name = "MODE"
    )]
    pub native: String,
}
