//! WebSocket by a library of its own, both ends of it.

use crate::support::{Pair, Service, eventually, run_script};

fn pair() -> Pair {
    let pair = Pair::start("http", |mesh| Service::start(mesh, "websocket_service.py"));
    pair.mesh.allow("web", "api");
    pair
}

#[test]
fn messages_pass_both_ways_whole_and_in_order() {
    run_script("websocket_client.py", &["echo", pair().upstream()]);
}

#[test]
fn messages_of_ten_mib_pass() {
    run_script("websocket_client.py", &["large", pair().upstream()]);
}

#[test]
fn pings_and_pongs_pass_both_ways() {
    run_script("websocket_client.py", &["pings", pair().upstream()]);
}

#[test]
fn the_code_and_the_reason_of_a_close_pass_both_ways() {
    let pair = pair();
    run_script("websocket_client.py", &["close_codes", pair.upstream()]);
    let closed = |path: &str, code: u64| {
        pair.service.requests().iter().any(|line| line["event"] == "closed" && line["path"] == path && line["code"] == code)
    };
    eventually("the service has heard of both", || (closed("/mine", 4001) && closed("/yours", 4002)).then_some(()));
}

#[test]
fn a_path_that_is_denied_is_refused_at_the_handshake() {
    let pair = pair();
    pair.permit("[{action: deny, path_prefix: /admin}, {action: allow, path_prefix: /}]");
    for path in ["/admin/chat", "/x/../admin/chat", "/%61dmin/chat", "//admin"] {
        let refused = run_script("websocket_client.py", &["refused", pair.upstream(), path]);
        assert_eq!(refused["status"], 403, "{path}: {refused}");
        assert!(refused["body"].as_str().unwrap().contains("permission 0"), "{path}: {refused}");
    }
    run_script("websocket_client.py", &["echo", pair.upstream()]);
    assert!(pair.service.requests().iter().all(|line| line["path"] != "/admin/chat"));
}

#[test]
fn the_service_is_told_who_calls_and_the_log_has_one_line_for_a_conversation() {
    let pair = pair();
    run_script("websocket_client.py", &["echo", pair.upstream()]);
    let open = pair.service.requests();
    let headers = open[0]["headers"].to_string().to_lowercase();
    assert!(headers.contains("/svc/web") && headers.contains("x-forwarded-client-cert"), "{headers}");
    eventually("the conversation is in the log", || pair.api.log().contains("status=101").then_some(()));
    assert_eq!(pair.api.log().matches("status=101").count(), 1);
}
