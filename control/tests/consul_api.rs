//! Consul's HTTP API: what all its routes share.

mod support;

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::Value;
use support::{Answer, Control};

async fn with_token(control: &Control, path: &str, header: &str, value: &str) -> Answer {
    control.raw(Method::GET, path, &[("host", "localhost"), (header, value)], "").await
}

#[tokio::test]
async fn the_operators_token_is_taken_wherever_consul_takes_one() {
    let control = Control::start().await;
    let token = control.token();
    let path = "/v1/status/leader";
    assert_eq!(with_token(&control, path, "x-consul-token", &token).await.status, StatusCode::OK);
    assert_eq!(with_token(&control, path, "authorization", &format!("Bearer {token}")).await.status, StatusCode::OK);
    let in_query = control.raw(Method::GET, &format!("{path}?token={token}"), &[("host", "localhost")], "").await;
    assert_eq!(in_query.ok(), Value::from(control.addresses.grpc.clone()));
    control.stop().await;
}

#[tokio::test]
async fn errors_are_worded_as_consul_words_them() {
    let control = Control::start().await;
    let denied = control.raw(Method::GET, "/v1/status/leader", &[("host", "localhost")], "").await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN);
    assert!(denied.text.starts_with("Permission denied: anonymous token lacks permission 'operator:read'"), "{}", denied.text);
    assert!(denied.headers["content-type"].to_str().unwrap().starts_with("text/plain"));
    let wrong = with_token(&control, "/v1/status/leader", "x-consul-token", "a2f4e1c0-0000-0000-0000-000000000000").await;
    assert_eq!((wrong.status, wrong.text.as_str()), (StatusCode::FORBIDDEN, "ACL not found"));
    let unknown = control.get("/v1/kv-not/x").await;
    assert!(unknown.refused(404).contains("there is no route"), "not a path of Consul's");
    let unknown = control.get("/v1/status/nowhere").await;
    assert_eq!(
        (unknown.status, unknown.text.as_str()),
        (StatusCode::NOT_FOUND, "Invalid URL path: not a recognized HTTP API endpoint")
    );
    let method = control.delete("/v1/status/leader").await;
    assert_eq!((method.status, method.text.as_str()), (StatusCode::METHOD_NOT_ALLOWED, "method DELETE not allowed"));
    assert!(method.headers["allow"].to_str().unwrap().contains("GET"));
    let elsewhere = control.get("/v1/status/leader?dc=dc2").await;
    assert_eq!((elsewhere.status, elsewhere.text.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "No path to datacenter"));
    let namespace = control.get("/v1/status/leader?ns=team").await;
    assert_eq!(namespace.status, StatusCode::BAD_REQUEST);
    let absent = control.put("/v1/agent/join/10.0.0.1", Value::Null).await;
    assert_eq!(absent.status, StatusCode::NOT_IMPLEMENTED);
    assert!(absent.text.contains("no gossip pool"), "{}", absent.text);
    control.stop().await;
}

#[tokio::test]
async fn an_answer_is_pretty_where_it_was_asked_to_be() {
    let control = Control::start().await;
    let answer = control.get("/v1/status/peers?pretty&stale&cached&dc=dc1").await;
    assert_eq!(answer.text, format!("[\n    \"{}\"\n]\n", control.addresses.grpc));
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["x-consul-default-acl-policy"], "deny");
    control.stop().await;
}

#[tokio::test]
async fn a_page_of_somebody_else_may_not_call() {
    let control = Control::start().await;
    let token = control.token();
    let headers = [("host", "localhost"), ("x-consul-token", token.as_str()), ("origin", "http://evil.test")];
    let refused = control.raw(Method::GET, "/v1/status/leader", &headers, "").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let rebound = control.raw(Method::GET, "/v1/status/leader", &[("host", "evil.test"), ("x-consul-token", &token)], "").await;
    assert_eq!(rebound.status, StatusCode::FORBIDDEN);
    tokio::time::timeout(Duration::from_secs(10), control.stop()).await.unwrap();
}
