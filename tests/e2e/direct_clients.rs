//! Clients of other makers at the inbound port, with an SVID of the mesh: OpenSSL and Envoy.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Carriage, Ended, Mesh, Process, SvidFiles, connect, converse, eventually, free_port, is_closed, over_every_tunnel,
};

/// Key updates that the client makes: every other one asks for one of ours.
const UPDATES: u64 = 100;
/// Words each way through Envoy.
const WORDS: u64 = (32 << 20) / 8;

over_every_tunnel!(openssl_updates_keys_while_data_flows_both_ways, envoy_calls_as_a_service_of_the_mesh);

/// Sends numbered lines without a pause until its caller has said its last, and checks that those of the caller are in order.
struct Talker {
    address: String,
    /// Lines of the caller so far.
    heard: Arc<AtomicU64>,
}

impl Talker {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard = Arc::<AtomicU64>::default();
        let talker = Self { address, heard: heard.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A health probe connects, and says nothing.
                if matches!(stream.peek(&mut [0]), Ok(1)) {
                    talk(&stream, &heard);
                }
            }
        });
        talker
    }
}

fn talk(stream: &TcpStream, heard: &AtomicU64) {
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                let line = format!("down {number} {:0512}\n", 0);
                if is_done.load(Ordering::SeqCst) || { stream }.write_all(line.as_bytes()).is_err() {
                    break;
                }
                // OpenSSL's client listens to its keyboard only when nothing has come.
                std::thread::park_timeout(Duration::from_millis(1));
            }
            let _ = writeln!({ stream }, "down end");
        });
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if line == "up end" {
                is_done.store(true, Ordering::SeqCst);
                break;
            }
            assert_eq!(line, format!("up {}", heard.load(Ordering::SeqCst)));
            heard.fetch_add(1, Ordering::SeqCst);
        }
    });
}

/// `openssl s_client`.
struct OpenSsl {
    child: Child,
    keyboard: ChildStdin,
    /// Lines from the service, which were in order.
    seen: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    updates: Arc<AtomicU64>,
}

impl OpenSsl {
    fn connect(inbound: &str, files: &SvidFiles) -> Self {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", inbound, "-servername", &files.name, "-tls1_3", "-quiet", "-no_ign_eof"]);
        command.arg("-cert").arg(&files.leaf).arg("-cert_chain").arg(&files.chain).arg("-key").arg(&files.key);
        command.arg("-CAfile").arg(&files.bundle).args(["-verify_return_error", "-verify_hostname", &files.name]);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let (seen, is_over, updates) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (of_stdout, of_end, of_stderr) = (seen.clone(), is_over.clone(), updates.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line == "down end" {
                    of_end.store(true, Ordering::SeqCst);
                } else if line.starts_with("down ") {
                    let next = format!("down {} ", of_stdout.load(Ordering::SeqCst));
                    assert!(line.starts_with(&next), "{next} should have come, not {line}");
                    of_stdout.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.contains("KEYUPDATE") {
                    of_stderr.fetch_add(1, Ordering::SeqCst);
                } else {
                    println!("openssl: {line}");
                }
            }
        });
        Self { keyboard: child.stdin.take().unwrap(), child, seen, is_over, updates }
    }

    fn type_line(&mut self, line: &str) {
        // In one write: a command is one only where it comes alone and whole.
        self.keyboard.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl_updates_keys_while_data_flows_both_ways(carriage: Carriage) {
    let talker = Talker::start();
    let mesh = Mesh::over(carriage);
    let api = mesh.serve("api", &talker.address);
    let files = SvidFiles::of(&mesh, "web");
    mesh.allow("web", "api");
    let mut openssl = OpenSsl::connect(api.inbound.as_deref().unwrap(), &files);

    for number in 0..UPDATES {
        openssl.type_line(&format!("up {number}"));
        eventually("the line has arrived", || (talker.heard.load(Ordering::SeqCst) == number + 1).then_some(()));
        let seen = openssl.seen.load(Ordering::SeqCst);
        openssl.type_line(if number % 2 == 0 { "K" } else { "k" });
        eventually("the keys are updated", || (openssl.updates.load(Ordering::SeqCst) == number + 1).then_some(()));
        eventually("lines come by the new keys", || (openssl.seen.load(Ordering::SeqCst) > seen + 1).then_some(()));
    }
    openssl.type_line("up end");
    eventually("the last line of the service has come", || openssl.is_over.load(Ordering::SeqCst).then_some(()));

    println!("{carriage}: {} lines beside {UPDATES} key updates", openssl.seen.load(Ordering::SeqCst));
    eventually("the connection is accounted", || {
        let active = api.metric("postern_connections_active", &["direction=\"inbound\""]);
        (active == 0.0 && api.log().contains("reason=\"closed\"")).then_some(())
    });
    assert_eq!(api.metric("postern_handshake_failures_total", &[]), 0.0);
    assert!(!api.log().contains("tls_error"), "{}", api.log());
}

/// Where `tests/run` puts it.
fn envoy() -> PathBuf {
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chain/envoy");
    let asked = Command::new(environment.join("bin/python"))
        .args(["-c", "import envoy; print(list(envoy.__path__)[0])"])
        .output()
        .expect("Envoy is installed; tests/run does that");
    Path::new(String::from_utf8_lossy(&asked.stdout).trim()).join("_bin/envoy")
}

/// Envoy with one listener on `port`, whose connections it carries to `inbound` as the SVID in `files`.
fn envoy_settings(port: u16, inbound: &str, files: &SvidFiles) -> Value {
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let socket_address = |address: &str| {
        let (host, port) = address.rsplit_once(':').unwrap();
        json!({"socket_address": {"address": host, "port_value": port.parse::<u16>().unwrap()}})
    };
    let tls = json!({
        "@type": kind("transport_sockets.tls.v3.UpstreamTlsContext"),
        "sni": files.name,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"filename": files.chain}, "private_key": {"filename": files.key}}],
            "validation_context": {
                "trusted_ca": {"filename": files.bundle},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"suffix": "/svc/api"}}],
            },
        },
    });
    let tcp = json!({"@type": kind("filters.network.tcp_proxy.v3.TcpProxy"), "stat_prefix": "api", "cluster": "api"});
    json!({"static_resources": {
        "listeners": [{
            "name": "api",
            "address": socket_address(&format!("127.0.0.1:{port}")),
            "filter_chains": [{"filters": [{"name": "envoy.filters.network.tcp_proxy", "typed_config": tcp}]}],
        }],
        "clusters": [{
            "name": "api",
            "type": "STATIC",
            "connect_timeout": "5s",
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            "load_assignment": {
                "cluster_name": "api",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(inbound)}}]}],
            },
        }],
    }})
}

fn envoy_calls_as_a_service_of_the_mesh(carriage: Carriage) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mesh = Mesh::over(carriage);
    let api = mesh.serve("api", &listener.local_addr().unwrap().to_string());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A health probe connects, and says nothing.
            std::thread::spawn(move || matches!(stream.peek(&mut [0]), Ok(1)).then(|| converse(&stream, WORDS)));
        }
    });
    let files = SvidFiles::of(&mesh, "web");
    let port = free_port();
    let settings = mesh.path("envoy.json");
    std::fs::write(&settings, envoy_settings(port, api.inbound.as_deref().unwrap(), &files).to_string()).unwrap();
    let mut command = Command::new(envoy());
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "-c"]).arg(&settings);
    let _envoy = Process::start(&mut command, &mesh.path("envoy.log"));
    eventually("Envoy listens", || TcpStream::connect(("127.0.0.1", port)).ok());
    let address = format!("127.0.0.1:{port}");
    assert!(is_closed(&mut connect(&address)), "denied by default");
    mesh.allow("web", "api");

    // Several at once, each with half-closes at both ends.
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..4).map(|_| scope.spawn(|| converse(&connect(&address), WORDS))).collect();
        calls.into_iter().for_each(|call| assert_eq!(call.join().unwrap(), Ended::Complete));
    });

    let mut open = connect(&address);
    open.write_all(&u64::MAX.to_be_bytes()).unwrap();
    open.peek(&mut [0]).unwrap();
    mesh.deny("web", "api");
    eventually("a deny ends its open connection", || match std::io::copy(&mut open, &mut std::io::sink()) {
        Ok(_) => Some(()),
        Err(error) => (error.kind() != std::io::ErrorKind::WouldBlock).then_some(()),
    });
    assert!(is_closed(&mut connect(&address)));
    assert_eq!(api.metric("postern_connections_revoked_total", &["peer=\"web\""]), 1.0);
    assert!(!api.log().contains("tls_error"), "{}", api.log());
}
