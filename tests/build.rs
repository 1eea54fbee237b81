//! Generates the adapter service of the conformance suite.

use std::error::Error;
use std::path::Path;

use protox::Compiler;

const PROTO: &str = "proto/adapter.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let mut compiler = Compiler::new(["proto"])?;
    compiler.include_imports(true).open_file(Path::new(PROTO).file_name().ok_or("a file")?)?;
    let mut config = tonic_prost_build::Config::new();
    config.extern_path(".google.protobuf.Any", "::proto::Any");
    tonic_prost_build::configure().compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    Ok(())
}
