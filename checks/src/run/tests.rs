use std::io::{Read, Write};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, UdpSocket};

use super::*;
use crate::loose::{Unknown, from_value};
use crate::{CheckForm, Kind};

/// Nobody listens there. A port that this process just closed can be somebody's still: a program that another
/// test is starting holds it until its `exec`.
const NOWHERE: &str = "127.0.0.1:1";

async fn asked(mut check: Value) -> Answer {
    check["interval"] = "1s".into();
    if check["timeout"].is_null() {
        check["timeout"] = "10s".into();
    }
    let check = from_value::<CheckForm>(check, Unknown::Refused).unwrap().validate().unwrap();
    let Kind::Probe(probe, schedule) = check.kind else { panic!("not asked every so often") };
    ask(&probe, schedule.timeout).await
}

/// A server that answers one request with these bytes, and gives back what it read.
fn server(answer: &'static [u8]) -> (u16, std::thread::JoinHandle<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = vec![0; 4096];
        let mut read = 0;
        while !request[..read].windows(4).any(|four| four == b"\r\n\r\n") {
            read += stream.read(&mut request[read..]).unwrap();
        }
        stream.write_all(answer).unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    (port, served)
}

#[tokio::test]
async fn the_code_of_an_http_answer_is_the_status() {
    for (answer, status) in [
        (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], Status::Passing),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Status::Passing),
        (b"HTTP/1.1 429 Too Many\r\nContent-Length: 4\r\n\r\nbusy", Status::Warning),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", Status::Critical),
        (b"HTTP/1.1 503 Down\r\nContent-Length: 4\r\n\r\ndown", Status::Critical),
        (b"not http at all\r\n\r\n", Status::Critical),
    ] {
        let (port, _) = server(answer);
        let got = asked(json!({"http": format!("http://127.0.0.1:{port}/health")})).await;
        assert_eq!(got.status, status, "{got:?}");
    }
    let (port, _) = server(b"HTTP/1.1 503 Down\r\nContent-Length: 4\r\n\r\ndown");
    assert!(asked(json!({"http": format!("http://127.0.0.1:{port}/")})).await.output.ends_with("Output: down"));
}

#[tokio::test]
async fn an_http_request_is_the_one_that_was_defined() {
    let (port, served) = server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let check = json!({
        "http": format!("http://127.0.0.1:{port}/a?b=c"), "method": "PUT", "body": "x",
        "header": {"X-One": ["1", "2"], "Host": ["other"]}
    });
    assert_eq!(asked(check).await.status, Status::Passing);
    let request = served.join().unwrap().to_ascii_lowercase();
    assert!(request.starts_with("put /a?b=c http/1.1\r\n"), "{request}");
    for line in ["host: other\r\n", "x-one: 1\r\n", "x-one: 2\r\n", "content-length: 1\r\n"] {
        assert!(request.contains(line), "{line} in {request}");
    }
    assert_eq!(request.matches("host:").count(), 1, "{request}");
}

#[tokio::test]
async fn a_password_in_a_url_is_sent_and_shown_to_nobody() {
    for answer in [&b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"[..], b"no http\r\n\r\n"] {
        let (port, served) = server(answer);
        let got = asked(json!({"http": format!("http://user:p%40ss@127.0.0.1:{port}/up")})).await;
        let request = served.join().unwrap();
        // user:p@ss
        assert!(request.contains("Basic dXNlcjpwQHNz\r\n"), "{request}");
        assert!(request.contains(&format!("127.0.0.1:{port}\r\n")), "{request}");
        assert!(got.output.contains(&format!("http://127.0.0.1:{port}/up")), "{}", got.output);
        assert!(!got.output.contains("user") && !got.output.contains("p%40ss"), "{}", got.output);
    }
}

#[tokio::test]
async fn a_long_answer_is_cut() {
    static LONG: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
        let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
        answer.resize(answer.len() + 100_000, b'x');
        answer
    });
    let (port, _) = server(&LONG);
    assert_eq!(asked(json!({"http": format!("http://127.0.0.1:{port}/")})).await.output.len(), crate::OUTPUT_LIMIT);
}

#[tokio::test]
async fn silence_is_critical_when_its_time_is_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let got = asked(json!({"http": format!("http://127.0.0.1:{port}/"), "timeout": "200ms"})).await;
    assert_eq!(got.status, Status::Critical);
    assert!(got.output.contains("within 200ms"), "{}", got.output);
}

#[tokio::test]
async fn a_port_that_is_open_passes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    assert_eq!(asked(json!({"tcp": address})).await.status, Status::Passing);
    assert_eq!(asked(json!({"tcp": NOWHERE})).await.status, Status::Critical);
}

#[tokio::test]
async fn a_udp_port_passes_by_an_answer_or_silence_and_fails_where_nobody_listens() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    assert_eq!(asked(json!({"udp": address, "timeout": "200ms"})).await.status, Status::Passing, "silence");
    let echo = tokio::spawn(async move {
        let mut bytes = [0; 16];
        // The datagram of the silent round comes first.
        for _ in 0..2 {
            let (read, from) = socket.recv_from(&mut bytes).await.unwrap();
            socket.send_to(&bytes[..read], from).await.unwrap();
        }
    });
    assert_eq!(asked(json!({"udp": address})).await.status, Status::Passing, "an answer");
    echo.await.unwrap();
    assert_eq!(asked(json!({"udp": NOWHERE})).await.status, Status::Critical, "nobody listens");
}

#[tokio::test]
async fn the_exit_code_of_a_program_is_the_status() {
    for (code, status) in [(0, Status::Passing), (1, Status::Warning), (2, Status::Critical), (255, Status::Critical)] {
        let got = asked(json!({"args": ["sh", "-c", format!("echo out; echo err >&2; exit {code}")]})).await;
        assert_eq!((got.status, got.output.as_str()), (status, "out\nerr\n"));
    }
    assert_eq!(asked(json!({"args": ["/does/not/exist"]})).await.status, Status::Critical);
}

#[tokio::test]
async fn a_program_that_does_not_end_is_killed_with_what_it_started() {
    let directory = std::env::temp_dir().join(format!("postern-checks-{}", std::process::id()));
    let script = format!("sleep 600 & echo $! > {}; wait", directory.display());
    let got = asked(json!({"args": ["sh", "-c", script], "timeout": "500ms"})).await;
    assert_eq!(got.status, Status::Critical);
    let child: i32 = std::fs::read_to_string(&directory).unwrap().trim().parse().unwrap();
    let _ = std::fs::remove_file(&directory);
    let is_running = || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        // A zombie that nobody collected yet does not run.
        !stat.is_empty() && !stat.contains(") Z ")
    };
    for _ in 0..1000 {
        if !is_running() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the child of the script still runs");
}

#[tokio::test]
async fn a_pinged_server_passes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while connection.accept().await.is_some() {}
    });
    let got = asked(json!({"h2ping": address, "h2ping_use_tls": false})).await;
    assert_eq!(got.status, Status::Passing, "{got:?}");
    serve.abort();
    let (port, _) = server(b"HTTP/1.1 400 Bad\r\n\r\n");
    let got = asked(json!({"h2ping": format!("127.0.0.1:{port}"), "h2ping_use_tls": false})).await;
    assert_eq!(got.status, Status::Critical);
}

#[tokio::test]
async fn a_check_that_was_never_good_is_asked_more_often() {
    let probe = Probe::Script(vec!["sh".into(), "-c".into(), "exit 2".into()]);
    let schedule = Schedule { interval: Duration::from_secs(600), timeout: Duration::from_secs(10) };
    let (told, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let polling = tokio::spawn(async move {
        poll(&probe, schedule, Duration::ZERO, &Semaphore::new(1), |answer| drop(told.send(answer))).await;
    });
    for _ in 0..2 {
        let answer = tokio::time::timeout(Duration::from_secs(20), answers.recv()).await.unwrap().unwrap();
        assert_eq!(answer.status, Status::Critical);
    }
    polling.abort();
}
