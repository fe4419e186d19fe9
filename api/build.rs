//! Generates the gRPC types from the .proto files with a compiler in Rust: no protoc is needed to build.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["proto/postern/v1/identity.proto", "proto/postern/v1/mesh.proto", "proto/opentelemetry/trace.proto"];
    let files = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".").codec_path("crate::codec::SmallBuffers").compile_fds(files)?;
    Ok(())
}
