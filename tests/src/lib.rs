//! What tests, the demo and benchmarks share: comparison with recorded data,
//! a mesh in network namespaces, load.

pub mod oracle;
