//! Traces: what a receiver is told of a call, decoded with OpenTelemetry's own types.

use serde_json::Value;

use crate::support::{Mesh, Service, Sidecar, curl, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

struct Traced {
    mesh: Mesh,
    receiver: Service,
    _service: Service,
    api: Sidecar,
    web: Sidecar,
}

impl Traced {
    fn start() -> Self {
        let mesh = Mesh::start();
        let receiver = Service::start(&mesh, "otlp_receiver.py");
        let service = Service::start(&mesh, "http_service.py");
        let url = format!("http://{}", receiver.address);
        let api = mesh.sidecar("api", "api-1", &["--local", &service.address, "--protocol", "http", "--otlp", &url]);
        let web = mesh.sidecar("web", "web-1", &["--upstream", "api=127.0.0.1:0", "--otlp", &url]);
        Self { mesh, receiver, _service: service, api, web }
    }

    fn get(&self, path: &str, flags: &str) -> String {
        let header = format!("traceparent: 00-{TRACE}-{PARENT}-{flags}");
        let url = format!("http://{}{path}", self.web.upstream("api"));
        curl(&["-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &url])
    }

    /// The client's span and the server's, of the request with this path.
    #[track_caller]
    fn spans(&self, path: &str) -> (Value, Value) {
        eventually("both ends have told of the request", || {
            let all = self.receiver.requests();
            let of = |kind: &str| {
                let found: Vec<_> =
                    all.iter().filter(|span| span["kind"] == kind && span["attributes"]["url.path"] == path).cloned().collect();
                assert!(found.len() <= 1, "told twice: {found:?}");
                found.into_iter().next()
            };
            Some((of("SPAN_KIND_CLIENT")?, of("SPAN_KIND_SERVER")?))
        })
    }
}

#[test]
fn a_call_is_two_spans_of_one_trace_and_the_caller_is_the_parent_of_the_called() {
    let traced = Traced::start();
    traced.mesh.allow("web", "api");
    assert_eq!(traced.get("/one?token=secret", "01"), "200");
    let (client, server) = traced.spans("/one");
    assert_eq!((&client["trace"], &server["trace"]), (&TRACE.into(), &TRACE.into()));
    assert_eq!((&client["parent"], &server["parent"]), (&PARENT.into(), &client["span"]));
    assert_ne!(client["span"], server["span"]);
    for (span, service) in [(&client, "web"), (&server, "api")] {
        assert_eq!(span["resource"]["service.name"], service);
        assert_eq!(span["resource"]["service.instance.id"], format!("{service}-1"));
        let attributes = &span["attributes"];
        for (key, value) in [
            ("http.request.method", "GET"),
            ("server.address", "api"),
            ("postern.source", "web"),
            ("postern.destination", "api"),
            ("postern.instance", "api-1"),
            ("postern.verdict", "allow"),
            ("postern.reason", "answered"),
        ] {
            assert_eq!(attributes[key], value, "{key} of {span}");
        }
        assert_eq!(
            (&attributes["http.response.status_code"], &span["name"], &span["flags"]),
            (&200.into(), &"GET".into(), &1.into())
        );
        assert_eq!(span["status"], "STATUS_CODE_UNSET");
        assert!(!span.to_string().contains("secret"), "{span}");
    }
    let time = |span: &Value, key: &str| span[key].as_u64().unwrap();
    assert!(time(&client, "start") <= time(&server, "end") && time(&server, "start") <= time(&server, "end"));
}

#[test]
fn a_denied_call_is_told_by_both_ends_and_one_that_is_not_sampled_by_none() {
    let traced = Traced::start();
    traced.mesh.apply("intentions:\n- {source: web, destination: api, permissions: [{action: allow, path_exact: /yes}]}\n");
    assert_eq!(traced.get("/unsampled", "00"), "403");
    assert_eq!(traced.get("/no", "01"), "403");
    let (client, server) = traced.spans("/no");
    assert_eq!((&server["trace"], &server["parent"]), (&TRACE.into(), &client["span"]));
    assert_eq!(server["attributes"]["postern.verdict"], "deny");
    assert!(server["attributes"]["postern.because"].as_str().unwrap().contains("web -> api"), "{server}");
    assert_eq!(client["attributes"]["http.response.status_code"], 403);
    // Each sidecar tells in order, so what came before would be there by now.
    assert!(traced.receiver.requests().iter().all(|span| span["attributes"]["url.path"] != "/unsampled"));
}

#[test]
fn a_receiver_that_is_down_harms_no_call_and_the_last_spans_leave_at_shutdown() {
    let mut traced = Traced::start();
    traced.mesh.allow("web", "api");
    assert_eq!(traced.get("/last", "01"), "200");
    for sidecar in [&mut traced.web, &mut traced.api] {
        sidecar.process().signal(nix::sys::signal::Signal::SIGTERM);
        assert!(sidecar.process().exit().success());
    }
    traced.spans("/last");

    let nowhere = format!("http://127.0.0.1:{}", crate::support::free_port());
    let mut web = traced.mesh.sidecar("web", "web-2", &["--upstream", "api=127.0.0.1:0", "--otlp", &nowhere]);
    traced.api.start();
    let url = format!("http://{}/down", web.upstream("api"));
    eventually("the call passes", || (curl(&["-o", "/dev/null", "-w", "%{http_code}", &url]) == "200").then_some(()));
    eventually("the log tells of it", || web.log().contains("spans cannot be delivered").then_some(()));
    web.process().signal(nix::sys::signal::Signal::SIGTERM);
    assert!(web.process().exit().success(), "it does not wait for the receiver");
}
