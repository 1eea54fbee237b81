//! What tests, the demo and benchmarks share: comparison with recorded data,
//! a mesh in network namespaces, load, and what takes telemetry.

pub mod app;
pub mod bench;
pub mod browser;
pub mod call;
pub mod check;
pub mod client;
pub mod conformance;
pub mod demo;
pub mod docker;
pub mod echo;
pub mod examples;
pub mod fuzz;
pub mod grpc;
pub mod interrupt;
pub mod kube;
pub mod load;
pub mod mesh;
pub mod netns;
pub mod oracle;
pub mod plane;
pub mod process;
pub mod program;
pub mod report;
pub mod telemetry;
