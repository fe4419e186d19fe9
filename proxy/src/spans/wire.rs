//! A request as OTLP and the semantic conventions for HTTP and RPC spans have it.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use postern_api::otlp::any_value::Value;
use postern_api::otlp::span::SpanKind;
use postern_api::otlp::status::StatusCode;
use postern_api::otlp::{
    AnyValue, ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span as OtlpSpan,
    Status,
};
use postern_names::{InstanceId, ServiceName};

use super::Span;
use crate::metrics::{Direction, Judged};

/// Methods that are no `_OTHER` (semantic conventions, `http.request.method`).
const METHODS: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
/// The flag of W3C trace context; only such spans come here.
const SAMPLED: u32 = 1;

/// Whose spans they are.
pub(super) fn resource(service: &ServiceName, instance: &InstanceId) -> Resource {
    Resource { attributes: vec![text("service.name", service.as_str()), text("service.instance.id", instance.as_str())] }
}

/// One message for all of them.
pub(super) fn request(resource: &Resource, spans: &[Span]) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope { name: "postern".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let spans = spans.iter().map(otlp).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { resource: Some(resource.clone()), scope_spans }] }
}

fn otlp(span: &Span) -> OtlpSpan {
    let parent = span.trace.parent;
    let error = error_of(span);
    OtlpSpan {
        trace_id: Bytes::copy_from_slice(&span.trace.id.to_be_bytes()),
        span_id: Bytes::copy_from_slice(&span.trace.span.to_be_bytes()),
        parent_span_id: if parent == 0 { Bytes::new() } else { Bytes::copy_from_slice(&parent.to_be_bytes()) },
        name: name(span),
        kind: match span.direction {
            Direction::Inbound => SpanKind::Server.into(),
            Direction::Outbound => SpanKind::Client.into(),
        },
        start_time_unix_nano: nanoseconds(span.begun),
        end_time_unix_nano: nanoseconds(span.ended),
        attributes: attributes(span, error.clone()),
        status: error.map(|_| Status { message: String::new(), code: StatusCode::Error.into() }),
        flags: SAMPLED,
    }
}

/// Few names: nothing tells what part of a path is a pattern. That of a gRPC call is its method.
fn name(span: &Span) -> String {
    match () {
        () if span.is_grpc => span.path.trim_start_matches('/').to_owned(),
        () if METHODS.contains(&&*span.method) => span.method.to_string(),
        () => "HTTP".to_owned(),
    }
}

fn attributes(span: &Span, error: Option<String>) -> Vec<KeyValue> {
    let mut attributes = vec![
        text("url.scheme", "http"),
        text("url.path", &span.path),
        text("server.address", span.destination.as_str()),
        text("postern.source", span.source.as_str()),
        text("postern.destination", span.destination.as_str()),
        text("postern.port", span.port.as_str()),
        text("postern.verdict", span.judged.map_or("failed", Judged::as_str)),
        text("postern.because", &span.because.to_string()),
        text("postern.reason", span.reason),
    ];
    if METHODS.contains(&&*span.method) {
        attributes.push(text("http.request.method", &span.method));
    } else {
        attributes.push(text("http.request.method", "_OTHER"));
        attributes.push(text("http.request.method_original", &span.method));
    }
    if let Some(status) = span.status {
        attributes.push(number("http.response.status_code", status.into()));
    }
    if span.is_grpc {
        attributes.push(text("rpc.system", "grpc"));
        if let Some((service, method)) = span.path.trim_start_matches('/').rsplit_once('/') {
            attributes.extend([text("rpc.service", service), text("rpc.method", method)]);
        }
    }
    if let Some(status) = span.grpc_status {
        attributes.push(number("rpc.grpc.status_code", status.into()));
    }
    if let Some(instance) = &span.instance {
        attributes.push(text("postern.instance", instance.as_str()));
    }
    if let Some(address) = span.address {
        attributes.push(text("network.peer.address", &address.ip().to_canonical().to_string()));
        attributes.push(number("network.peer.port", address.port().into()));
    }
    attributes.extend(error.map(|error| text("error.type", &error)));
    attributes
}

/// What the conventions count as an error of this end, as `error.type` says it.
fn error_of(span: &Span) -> Option<String> {
    let is_server = span.direction == Direction::Inbound;
    match (span.status, span.grpc_status) {
        (_, Some(0)) => None,
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
        (_, Some(status)) => (!is_server || [2, 4, 12, 13, 14, 15].contains(&status)).then(|| status.to_string()),
        (Some(status), None) if status >= if is_server { 500 } else { 400 } => Some(status.to_string()),
        // What was answered whole, or was refused for the caller's sake, is as it should be.
        (Some(status), None) if span.reason == "answered" || status >= 400 => None,
        _ => Some(span.reason.to_owned()),
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: i64) -> KeyValue {
    pair(key, Value::IntValue(value))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
