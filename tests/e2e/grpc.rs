//! gRPC by the library that most people use, both ends of it.

use crate::support::{Pair, Process, Service, eventually, run_script, script};

fn pair() -> Pair {
    let pair = Pair::start("grpc", |mesh| Service::start(mesh, "grpc_service.py"));
    pair.mesh.allow("web", "api");
    pair
}

#[test]
fn unary_and_streaming_calls_go_through_in_every_combination() {
    run_script("grpc_client.py", &["every_kind_of_call", pair().upstream()]);
}

#[test]
fn a_hundred_mib_stream_up_down_and_both_ways() {
    run_script("grpc_client.py", &["bulk", pair().upstream()]);
}

#[test]
fn a_deadline_ends_a_call_at_both_ends() {
    let pair = pair();
    run_script("grpc_client.py", &["deadlines", pair.upstream()]);
    let mine =
        |event: &str, method: &str| pair.service.requests().iter().any(|line| line["event"] == event && line["method"] == method);
    eventually("the service is told", || (mine("cancelled", "Wait") && mine("over", "Ticks")).then_some(()));
    let begun = pair.service.requests();
    let wait = begun.iter().find(|line| line["method"] == "Wait" && line["event"] == "begun").unwrap();
    println!("{wait}");
}

#[test]
fn a_call_that_is_cancelled_is_cancelled_at_the_service() {
    let pair = pair();
    run_script("grpc_client.py", &["cancellation", pair.upstream()]);
    let over = |method: &str| pair.service.requests().iter().any(|line| line["event"] == "over" && line["method"] == method);
    eventually("the service is told", || (over("Wait") && over("Ticks")).then_some(()));
}

#[test]
fn metadata_passes_both_ways_as_text_and_as_bytes() {
    run_script("grpc_client.py", &["metadata", pair().upstream()]);
}

#[test]
fn a_failure_arrives_with_its_status_message_and_trailers() {
    run_script("grpc_client.py", &["failures", pair().upstream()]);
}

#[test]
fn a_permission_speaks_of_methods() {
    let pair = pair();
    pair.permit(
        "[{action: deny, path_exact: /pkg.Service/Fail}, {action: deny, path_prefix: /pkg.Service/Server}, \
         {action: allow, path_prefix: /pkg.Service/, methods: [POST]}]",
    );
    run_script("grpc_client.py", &["every_kind_but_server", pair.upstream()]);
    let denied = run_script("grpc_client.py", &["denied", pair.upstream(), "Fail"]);
    assert_eq!(denied["code"], "PERMISSION_DENIED");
    let details = denied["details"].as_str().unwrap();
    assert!(details.contains("intention web -> api (deny, permission 0)"), "{details}");
    let otherwise = run_script("grpc_client.py", &["denied", pair.upstream(), "../Other.Service/Unary"]);
    assert_eq!(otherwise["code"], "PERMISSION_DENIED", "{otherwise}");
    let methods: Vec<_> = pair.service.requests().iter().map(|line| line["method"].clone()).collect();
    assert!(!methods.contains(&"Fail".into()) && !methods.contains(&"Server".into()), "{methods:?}");
    let log = pair.api.log();
    assert!(log.contains("grpc_status=7") && log.contains("/pkg.Service/Fail"), "{log}");
}

#[test]
fn every_kind_of_call_that_is_denied_says_so() {
    let pair = Pair::start("grpc", |mesh| Service::start(mesh, "grpc_service.py"));
    let denied = run_script("grpc_client.py", &["denied_kinds", pair.upstream()]);
    assert_eq!(denied["code"], "PERMISSION_DENIED");
    let denied = run_script("grpc_client.py", &["denied", pair.upstream(), "Unary"]);
    let details = denied["details"].as_str().unwrap();
    assert!(details.contains("\"because\":\"default (deny)\""), "{details}");
    assert_eq!(pair.service.requests().len(), 0);
}

#[test]
fn over_a_rate_limit_a_call_is_resource_exhausted() {
    let pair = pair();
    pair.mesh.set(
        "services: [{service: api, protocol: grpc, rate_limits: [{match: {path_exact: /pkg.Service/Fail}, requests_per_second: 0.01, burst: 1}]}]\n",
    );
    // What the service itself says, then what its sidecar says.
    assert_eq!(run_script("grpc_client.py", &["denied", pair.upstream(), "Fail"])["code"], "UNKNOWN");
    let limited = run_script("grpc_client.py", &["denied", pair.upstream(), "Fail"]);
    assert_eq!(limited["code"], "RESOURCE_EXHAUSTED", "{limited}");
    assert!(limited["details"].as_str().unwrap().contains("rate limit 0 of the service is used up"), "{limited}");
    run_script("grpc_client.py", &["every_kind_of_call", pair.upstream()]);
    assert_eq!(pair.service.requests().iter().filter(|line| line["method"] == "Fail" && line["event"] == "begun").count(), 1);
    let log = pair.api.log();
    assert!(log.lines().any(|line| line.contains("grpc_status=8") && line.contains("rate_limited")), "{log}");
}

#[test]
fn faults_that_are_ordered_abort_calls_with_the_status_of_grpc_or_delay_them() {
    let pair = pair();
    let order = |faults: &str| pair.mesh.set(&format!("services: [{{service: api, protocol: grpc, faults: {faults}}}]\n"));
    for (status, code) in [(503, "UNAVAILABLE"), (429, "UNAVAILABLE"), (404, "UNIMPLEMENTED"), (403, "PERMISSION_DENIED")] {
        order(&format!("{{abort: {{percent: 100, status: {status}}}}}"));
        let told = run_script("grpc_client.py", &["denied", pair.upstream(), "Unary"]);
        assert_eq!(told["code"], code, "{status}: {told}");
    }
    assert_eq!(pair.service.requests().len(), 0);
    order("{delay: {percent: 100, delay: 1s}}");
    run_script("grpc_client.py", &["delayed", pair.upstream(), "1"]);
    let unary =
        |event: &str| pair.service.requests().iter().filter(|line| line["method"] == "Unary" && line["event"] == event).count();
    assert_eq!(unary("begun"), 1, "the call whose deadline was shorter has not arrived");
}

#[test]
fn many_streams_live_on_one_connection_and_many_connections_beside_each_other() {
    let pair = pair();
    // Callers have a hundred streams a connection; they wait or open a second one for more.
    run_script("grpc_client.py", &["many_streams", pair.upstream(), "90"]);
    run_script("grpc_client.py", &["many_channels", pair.upstream()]);
}

#[test]
fn a_service_that_goes_away_is_unavailable_and_is_found_again_under_another_sidecar() {
    let mut pair = pair();
    run_script("grpc_client.py", &["every_kind_of_call", pair.upstream()]);
    pair.service.process().kill_hard();
    let told = run_script("grpc_client.py", &["denied", pair.upstream(), "Unary"]);
    assert_eq!(told["code"], "UNAVAILABLE", "{told}");
    let log = pair.mesh.path("second.requests");
    let mut second = script("grpc_service.py");
    let process = Process::start_announcing(second.arg(&log), &pair.mesh.path("second.log"));
    let address: String = serde_json::from_str(&process.line()).unwrap();
    let _other = pair.mesh.sidecar("api", "api-2", &["--local", &address, "--protocol", "grpc"]);
    eventually("calls go to the one that is there", || {
        let mut probe = script("grpc_client.py");
        let done = probe.args(["every_kind_of_call", pair.upstream()]).output().unwrap();
        done.status.success().then_some(())
    });
}
