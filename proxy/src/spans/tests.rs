use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use postern_api::otlp::any_value::Value;
use postern_api::otlp::{ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse, Span as OtlpSpan};
use prost::Message;
use tokio::net::TcpListener;

use super::*;

fn span(number: u64) -> Span {
    let ended = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    Span {
        trace: Trace { id: 7, parent: 0, span: number, is_sampled: true },
        begun: ended - Duration::from_millis(5),
        ended,
        direction: Direction::Inbound,
        source: "web".parse().expect("name"),
        destination: "api".parse().expect("name"),
        instance: Some("api-1".parse().expect("id")),
        port: PortName::main(),
        address: Some("10.0.0.5:4000".parse().expect("address")),
        method: "GET".into(),
        path: "/items".into(),
        is_grpc: false,
        status: Some(200),
        grpc_status: None,
        judged: Some(Judged::Allow),
        because: Decider::Words("default (allow)".into()),
        reason: "answered",
    }
}

fn told(span: Span) -> OtlpSpan {
    let resource = wire::resource(&"api".parse().expect("name"), &"api-1".parse().expect("id"));
    let mut request = wire::request(&resource, &[span]);
    request.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
}

fn attributes(span: &OtlpSpan) -> BTreeMap<&str, String> {
    let shown = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let value =
        |attribute: &postern_api::otlp::KeyValue| attribute.value.as_ref().and_then(|value| value.value.as_ref().map(shown));
    span.attributes.iter().map(|attribute| (attribute.key.as_str(), value(attribute).expect("a value"))).collect()
}

/// Answers with these statuses, then with 200; keeps what it was sent.
struct Receiver {
    url: OtlpUrl,
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

async fn receiver(answers: &[(u16, i64)]) -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("address")).parse().expect("a URL");
    let got: Arc<Mutex<Vec<ExportTraceServiceRequest>>> = Arc::default();
    let (kept, answers) = (got.clone(), Arc::new(Mutex::new(VecDeque::from(answers.to_vec()))));
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.expect("a connection");
            let (kept, answers) = (kept.clone(), answers.clone());
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (kept, answers) = (kept.clone(), answers.clone());
                async move {
                    assert_eq!(
                        (request.uri().path(), &request.headers()["content-type"]),
                        ("/v1/traces", &"application/x-protobuf".parse().expect("value"))
                    );
                    let body = request.into_body().collect().await.expect("a body").to_bytes();
                    let (status, rejected_spans) = answers.lock().pop_front().unwrap_or((200, 0));
                    if status == 200 {
                        kept.lock().push(ExportTraceServiceRequest::decode(body).expect("OTLP"));
                    }
                    let partial_success = Some(ExportTracePartialSuccess { rejected_spans, ..Default::default() });
                    let told = ExportTraceServiceResponse { partial_success }.encode_to_vec();
                    let mut answer = Response::new(Full::new(Bytes::from(told)));
                    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
                    Ok::<_, Infallible>(answer)
                }
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    Receiver { url, got }
}

fn dropped(metrics: &Metrics, reason: &str) -> u64 {
    let text = metrics.encode().expect("text");
    let series = format!("postern_spans_dropped_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or(0)
}

fn started(url: OtlpUrl) -> (SpanSink, Exporter, Arc<Metrics>) {
    let metrics = Metrics::new().expect("metrics");
    let (sink, exporter) = queue(url, (&"api".parse().expect("name"), &"api-1".parse().expect("id")), metrics.clone());
    (sink, exporter, metrics)
}

#[test]
fn a_full_queue_drops_and_counts_and_nobody_waits() {
    let (sink, _exporter, metrics) = started("http://127.0.0.1:1".parse().expect("a URL"));
    for number in 1..=MOST_WAITING as u64 + 3 {
        sink.send(span(number));
    }
    assert_eq!(dropped(&metrics, "queue_full"), 3);
}

#[tokio::test]
async fn a_busy_receiver_gets_each_span_once_in_batches() {
    let receiver = receiver(&[(503, 0), (429, 0)]).await;
    let (sink, exporter, metrics) = started(receiver.url);
    for number in 1..=1_000 {
        sink.send(span(number));
    }
    drop(sink);
    tokio::time::timeout(Duration::from_secs(20), exporter.run()).await.expect("an end");
    let got = receiver.got.lock();
    let batches: Vec<Vec<_>> = got
        .iter()
        .map(|request| request.resource_spans[0].scope_spans[0].spans.iter().map(|span| span.span_id.clone()).collect())
        .collect();
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [512, 488]);
    let all: std::collections::BTreeSet<_> = batches.into_iter().flatten().collect();
    assert_eq!(all.len(), 1_000);
    assert_eq!((dropped(&metrics, "not_delivered"), dropped(&metrics, "refused")), (0, 0));
}

#[tokio::test]
async fn what_a_receiver_refuses_is_counted_and_not_sent_again() {
    let receiver = receiver(&[(400, 0), (200, 1)]).await;
    let (sink, exporter, metrics) = started(receiver.url);
    let running = tokio::spawn(exporter.run());
    sink.send(span(1));
    while dropped(&metrics, "refused") == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sink.send(span(2));
    sink.send(span(3));
    drop(sink);
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("an end").expect("no panic");
    assert_eq!(receiver.got.lock().len(), 1);
    assert_eq!(dropped(&metrics, "refused"), 2, "one refused whole, one of the two that were taken in part");
}

#[test]
fn a_request_is_told_by_the_semantic_conventions() {
    let got = told(span(0x0102_0304_0506_0708));
    assert_eq!((got.name.as_str(), got.kind, got.status.is_none(), got.flags), ("GET", 2, true, 1));
    assert_eq!((&got.trace_id[15..], &got.span_id[..], got.parent_span_id.len()), (&[7][..], &[1, 2, 3, 4, 5, 6, 7, 8][..], 0));
    assert_eq!(got.end_time_unix_nano - got.start_time_unix_nano, 5_000_000);
    let attributes = attributes(&got);
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/items"),
        ("http.response.status_code", "200"),
        ("server.address", "api"),
        ("network.peer.address", "10.0.0.5"),
        ("postern.source", "web"),
        ("postern.destination", "api"),
        ("postern.verdict", "allow"),
        ("postern.because", "default (allow)"),
    ] {
        assert_eq!(attributes.get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[test]
fn each_end_counts_its_own_errors() {
    let http = |direction, status, reason| told(Span { direction, status, reason, ..span(1) }).status.is_some();
    assert!(http(Direction::Outbound, Some(404), "answered") && !http(Direction::Inbound, Some(404), "answered"));
    assert!(http(Direction::Inbound, Some(503), "answered") && http(Direction::Inbound, None, "caller_gone"));
    assert!(http(Direction::Inbound, Some(200), "answer_broken_off") && !http(Direction::Inbound, Some(403), "denied"));
    let grpc = |direction, status| {
        told(Span { direction, is_grpc: true, path: "/shop.Cart/Add".into(), grpc_status: Some(status), ..span(1) })
    };
    assert!(grpc(Direction::Outbound, 7).status.is_some() && grpc(Direction::Inbound, 7).status.is_none());
    let failed = grpc(Direction::Inbound, 14);
    assert_eq!((failed.name.as_str(), failed.status.is_some()), ("shop.Cart/Add", true));
    let attributes = attributes(&failed);
    assert_eq!((attributes["rpc.service"].as_str(), attributes["rpc.method"].as_str()), ("shop.Cart", "Add"));
    assert_eq!(attributes["rpc.grpc.status_code"], "14");
}

#[test]
fn what_a_caller_makes_up_stays_short() {
    let long = "é".repeat(5_000);
    assert_eq!(bounded(&long).len(), MOST_TEXT);
    let got = told(Span { method: "BREW".into(), ..span(1) });
    assert_eq!((got.name.as_str(), attributes(&got)["http.request.method"].as_str()), ("HTTP", "_OTHER"));
}
