//! What is said on the wire: the gRPC types generated from `proto/`, their conversion to and from the types of
//! `ca`, `intentions` and `traffic`, and the bodies of the HTTP API.
//!
//! `control` and `proxy` never see each other; they meet only in these messages.

/// Types and services generated from `proto/postern/v1`.
#[allow(missing_docs, rust_2018_idioms, clippy::all)]
pub mod v1 {
    tonic::include_proto!("postern.v1");
}

/// What is said to a receiver of traces (OTLP), generated from `proto/opentelemetry`.
#[allow(missing_docs, rust_2018_idioms, clippy::all)]
pub mod otlp {
    tonic::include_proto!("opentelemetry");
}

pub mod codec;
pub mod configuration;
pub mod consul;
pub mod convert;
pub mod http;
pub mod key;
pub mod question;
pub mod seen;
pub mod settings;
pub mod understanding;
