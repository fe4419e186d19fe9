//! nginx behind a sidecar: much at once, much at all, and readers that stop.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::Command;
use std::time::Duration;

use crate::support::{
    Carriage, EchoServer, Mesh, Process, TUNNEL_IN_PLACE, connect, eventually, free_port, over_every_carriage, say,
};

/// How much is read, and how long one of its readers stops: all of it where most has to be proven.
fn size_and_stop(carriage: Carriage) -> (u64, Duration) {
    if carriage == TUNNEL_IN_PLACE { (1 << 30, Duration::from_secs(30)) } else { (1 << 27, Duration::from_secs(10)) }
}

over_every_carriage!(
    a_large_file_arrives_whole_past_a_reader_that_stops,
    a_half_closed_connection_still_carries_the_answer,
    a_thousand_connections_at_once,
);

/// nginx with one document root.
fn nginx(mesh: &Mesh, port: u16) -> Process {
    let root = mesh.path("nginx");
    std::fs::create_dir(&root).unwrap();
    let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let configuration = format!(
        "{user} daemon off; pid {root}/pid; error_log stderr warn; worker_processes 1;
         events {{ worker_connections 4096; }}
         http {{ access_log off; client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
                 uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; send_timeout 300s;
                 server {{ listen 127.0.0.1:{port} backlog=4096; root {root}; }} }}",
        root = root.display()
    );
    let file = root.join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let process = Process::start(Command::new("nginx").arg("-c").arg(&file).arg("-p").arg(&root), &mesh.path("nginx.log"));
    eventually("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    process
}

fn sha256_of(mut source: impl Read) -> String {
    let mut digest =
        Command::new("sha256sum").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let copied = std::io::copy(&mut source, &mut digest.stdin.take().unwrap()).unwrap();
    let output = digest.wait_with_output().unwrap();
    format!("{copied} {}", String::from_utf8_lossy(&output.stdout).split(' ').next().unwrap())
}

/// A request, with the answer's head read off.
fn get(address: &str, path: &str) -> std::net::TcpStream {
    let mut stream = connect(address);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    stream
}

fn a_large_file_arrives_whole_past_a_reader_that_stops(carriage: Carriage) {
    let (size, stop) = size_and_stop(carriage);
    let mesh = Mesh::over(carriage);
    let port = free_port();
    let _nginx = nginx(&mesh, port);
    let file = mesh.path("nginx/large");
    let filled = Command::new("sh")
        .arg("-c")
        .arg(format!(
            "openssl enc -aes-128-ctr -nosalt -pass pass:x -in /dev/zero 2>/dev/null | head -c {size} > {}",
            file.display()
        ))
        .status()
        .unwrap();
    assert!(filled.success());
    let _files = mesh.serve("files", &format!("127.0.0.1:{port}"));
    let web = mesh.call("web", &["files"]);
    mesh.allow("web", "files");
    let upstream = web.upstream("files").to_owned();

    // A reader that takes a little, stops, and goes on; meanwhile the same file is read without a stop.
    let slow = {
        let upstream = upstream.clone();
        std::thread::spawn(move || {
            let mut body = get(&upstream, "/large");
            let mut start = vec![0; 1 << 20];
            body.read_exact(&mut start).unwrap();
            std::thread::park_timeout(stop);
            sha256_of(start.as_slice().chain(body))
        })
    };
    let original = sha256_of(std::fs::File::open(&file).unwrap());
    assert!(original.starts_with(&size.to_string()));
    assert_eq!(sha256_of(get(&upstream, "/large")), original);
    assert_eq!(slow.join().unwrap(), original);
}

fn a_half_closed_connection_still_carries_the_answer(carriage: Carriage) {
    let echo = EchoServer::start();
    let mesh = Mesh::over(carriage);
    let _api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut stream = connect(web.upstream("api"));
    let sent = vec![b'x'; 3 << 20];
    let mut writer = stream.try_clone().unwrap();
    let text = sent.clone();
    let sender = std::thread::spawn(move || {
        writer.write_all(&text).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });

    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();

    sender.join().unwrap();
    assert!(received == sent, "{} of {} bytes came back", received.len(), sent.len());
}

fn a_thousand_connections_at_once(carriage: Carriage) {
    let echo = EchoServer::start();
    let mesh = Mesh::over(carriage);
    let _api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");

    let mut open: Vec<_> = (0..1_000).map(|_| connect(web.upstream("api"))).collect();
    for (number, stream) in open.iter_mut().enumerate() {
        let text = format!("{number:08}");
        assert_eq!(say(stream, &text).as_deref(), Some(text.as_str()));
    }
    assert_eq!(echo.connections(), 1_000);
}
