//! Against OpenSSL's own client and server, with KeyUpdates from both ends.

use std::process::Stdio;

use postern_ca::CertificateDer;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;

use super::*;

const SUITES: [&str; 3] = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// The files that OpenSSL wants of an SVID.
struct Files {
    directory: tempfile::TempDir,
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("text")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

impl Files {
    fn of(svid: &Svid) -> Self {
        let directory = tempfile::tempdir().expect("directory");
        let chain: String = svid.chain().iter().map(|der: &CertificateDer<'_>| pem("CERTIFICATE", der)).collect();
        std::fs::write(directory.path().join("chain.pem"), chain).expect("chain");
        std::fs::write(directory.path().join("key.pem"), pem("PRIVATE KEY", &svid.key().to_pkcs8())).expect("key");
        Self { directory }
    }

    fn arguments(&self) -> Vec<String> {
        let path = |name: &str| self.directory.path().join(name).to_str().expect("path").to_owned();
        vec!["-cert".into(), path("chain.pem"), "-cert_chain".into(), path("chain.pem"), "-key".into(), path("key.pem")]
    }
}

struct OpenSsl {
    _child: Child,
    stdin: ChildStdin,
    /// What it prints, on either stream.
    printed: mpsc::UnboundedReceiver<String>,
}

fn forward(from: impl AsyncRead + Unpin + Send + 'static, to: mpsc::UnboundedSender<String>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if to.send(line).is_err() {
                return;
            }
        }
    });
}

impl OpenSsl {
    fn run(mut arguments: Vec<String>, more: &[&str]) -> Self {
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        let mut child = Command::new("openssl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl is installed");
        let (lines, printed) = mpsc::unbounded_channel();
        forward(child.stdout.take().expect("stdout"), lines.clone());
        forward(child.stderr.take().expect("stderr"), lines);
        Self { stdin: child.stdin.take().expect("stdin"), _child: child, printed }
    }

    async fn type_line(&mut self, line: &str) {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await.expect("stdin");
    }

    /// Waits for a line that contains this, and returns it.
    async fn prints(&mut self, what: &str) -> String {
        let found = async {
            while let Some(line) = self.printed.recv().await {
                if line.contains(what) {
                    return line;
                }
            }
            panic!("openssl ended without {what:?}");
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("openssl did not print {what:?}"))
    }
}

/// `K` (which asks us for new keys, too) and `k` typed at OpenSSL, between lines of data each way.
async fn converse(openssl: &mut OpenSsl, ours: &mut Established) {
    for round in 0..20 {
        let line = format!("line {round} of openssl");
        openssl.type_line(&line).await;
        assert_eq!(ours.hear(line.len() + 1).await, format!("{line}\n").as_bytes());
        for command in ["K", "k", "K"] {
            openssl.type_line(command).await;
            assert_eq!(ours.hear_record().await, Ok(Heard::Nothing), "a key update");
        }
        let line = format!("line {round} of ours");
        ours.say(format!("{line}\n").as_bytes()).await;
        openssl.prints(&line).await;
    }
}

#[tokio::test]
async fn a_client_of_openssl_updates_keys_both_ways_and_closes() {
    let world = World::new();
    let files = Files::of(&world.svid("web"));
    for (kind, suite) in KINDS.into_iter().flat_map(|kind| SUITES.map(|suite| (kind, suite))) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let arguments = [vec!["s_client".to_owned()], files.arguments()].concat();
        let more = ["-connect", &address, "-servername", "api.mesh.example", "-tls1_3", "-ciphersuites", suite];
        let mut openssl = OpenSsl::run(arguments, &more);
        let configs = world.server(world.slot("api"), kind, &[]);
        let (socket, _) = listener.accept().await.expect("accept");
        let accepting = accept(socket, kind, |_| Ok(configs.current().expect("svid")));
        let mut ours = tokio::time::timeout(PATIENCE, accepting).await.expect("in time").expect("a handshake");
        converse(&mut openssl, &mut ours).await;
        openssl.type_line("Q").await;
        while ours.hear_record().await.expect("a record") != Heard::Closed {}
    }
}

#[tokio::test]
async fn a_server_of_openssl_sends_tickets_and_updates_keys_both_ways() {
    let world = World::new();
    let files = Files::of(&world.svid("api"));
    for (kind, suite) in KINDS.into_iter().flat_map(|kind| SUITES.map(|suite| (kind, suite))) {
        let arguments = [vec!["s_server".to_owned()], files.arguments()].concat();
        let more = ["-accept", "127.0.0.1:0", "-Verify", "1", "-tls1_3", "-ciphersuites", suite, "-naccept", "1"];
        let mut openssl = OpenSsl::run(arguments, &more);
        let line = openssl.prints("ACCEPT ").await;
        let address = line.strip_prefix("ACCEPT ").expect("an address");
        let socket = TcpStream::connect(address).await.expect("connect");
        let (config, own_leaf) = world.client(world.slot("web"), "api", kind, &[]).current().expect("svid");
        let connecting = connect(socket, kind, config, own_leaf, name());
        let mut ours = tokio::time::timeout(PATIENCE, connecting).await.expect("in time").expect("a handshake");
        converse(&mut openssl, &mut ours).await;
        let close = ours.layer.close_notify();
        ours.socket.write_all(&close).await.expect("close_notify");
        openssl.prints("CONNECTION CLOSED").await;
    }
}
