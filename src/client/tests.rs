use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// Answers every request on a socket with what `answer` says of its head; keeps the heads.
async fn serve(answer: fn(&str) -> String) -> (tempfile::TempDir, PathBuf, std::sync::Arc<parking_lot::Mutex<Vec<String>>>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("http.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let heads = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
    let kept = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let head = String::from_utf8_lossy(&buffer[..read]).into_owned();
                    kept.lock().push(head.clone());
                    if stream.write_all(answer(&head).as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (dir, path, heads)
}

fn response(head: &str, body: &str) -> String {
    format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn mesh() -> String {
    response(
        "200 OK\r\nserver: postern/0.1.0",
        r#"{"product":"postern","version":"0.1.0","cluster_id":"c","trust_domain":"td","datacenter":"dc1","server_time_ms":1}"#,
    )
}

async fn greet(path: PathBuf) -> Result<Client, Failure> {
    let token = crate::credential::operator(&postern_ca::OperatorToken::generate().unwrap().reveal(), "test").unwrap();
    let target = Target::Socket(path);
    let sender = target.connect().await.unwrap();
    Client::greet(target, sender, Some(token)).await
}

#[tokio::test]
async fn a_server_that_is_postern_gets_the_token_after_it_has_introduced_itself() {
    let (_dir, path, heads) = serve(|head| if head.contains("/v1/mesh") { mesh() } else { response("200 OK", "[]") }).await;
    let mut client = greet(path).await.unwrap();
    let _: Vec<String> = client.get("/v1/tokens").await.unwrap();
    let heads = heads.lock();
    assert!(!heads[0].contains("authorization"), "{heads:?}");
    assert!(heads[1].contains("authorization: Bearer postern-op1."), "{heads:?}");
}

#[tokio::test]
async fn consul_is_named_and_gets_no_token() {
    let (_dir, path, heads) = serve(|head| {
        if head.contains("/v1/agent/self") {
            response("200 OK", r#"{"Config":{},"Member":{}}"#)
        } else {
            response("404 Not Found", "")
        }
    })
    .await;
    let failure = greet(path).await.err().unwrap();
    assert!(failure.what.contains("this is Consul"), "{failure}");
    assert!(heads.lock().iter().all(|head| !head.contains("postern-op1.")));
}

#[tokio::test]
async fn a_consul_that_guards_its_agent_is_known_by_its_headers() {
    let (_dir, path, _) = serve(|_| response("403 Forbidden\r\nX-Consul-Default-Acl-Policy: deny", "Permission denied")).await;
    assert!(greet(path).await.err().unwrap().what.contains("this is Consul"));
}

#[tokio::test]
async fn another_server_is_named_by_what_it_calls_itself() {
    let (_dir, path, _) = serve(|_| response("200 OK\r\nserver: nginx", "<html>")).await;
    assert!(greet(path).await.err().unwrap().what.contains("nginx"));
}

#[tokio::test]
async fn an_error_of_the_server_keeps_its_hint() {
    let (_dir, path, _) = serve(|head| {
        if head.contains("/v1/mesh") {
            mesh()
        } else {
            response("409 Conflict", r#"{"error":"changed since","hint":"plan again"}"#)
        }
    })
    .await;
    let mut client = greet(path).await.unwrap();
    let failure = client.get::<Vec<String>>("/v1/intentions").await.unwrap_err();
    assert_eq!(failure.to_string(), "changed since; plan again");
}

#[test]
fn a_value_in_a_path_can_not_leave_its_segment() {
    assert_eq!(encode("*"), "%2A");
    assert_eq!(encode("a/b?c d"), "a%2Fb%3Fc%20d");
    assert_eq!(encode("web-1.x_y"), "web-1.x_y");
}
