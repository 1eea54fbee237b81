//! Settings of the whole mesh and of one proxy: defaults, layers, YAML.

mod check;
pub mod extension_provider;
mod mesh_config;
pub mod networks;
pub mod proxy_config;
pub mod yaml;

pub use mesh_config::MeshConfig;
pub use networks::MeshNetworks;
pub use proto::istio::mesh::v1alpha1::ProxyConfig;
