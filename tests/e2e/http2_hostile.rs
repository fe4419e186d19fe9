//! HTTP/2 that means harm, through a caller's sidecar and straight at the destination's port: refused, with nobody else
//! disturbed and memory bounded.

use serde_json::Value;

use crate::support::{Pair, Sidecar, SvidFiles, curl, http_get, run_script};

/// What a sidecar may grow by under any of it.
const GROWTH: f64 = (64 << 20) as f64;

struct Stage {
    pair: Pair,
    files: SvidFiles,
}

impl Stage {
    fn new() -> Self {
        let pair = Pair::allowed("http2");
        let files = SvidFiles::of(&pair.mesh, "web");
        Self { pair, files }
    }

    /// The same at both places; what became of it there.
    fn attack(&self, scenario: &str) -> [Value; 2] {
        let inbound = self.pair.api.inbound.clone().unwrap();
        let path = |path: &std::path::Path| path.display().to_string();
        let (chain, key, bundle) = (path(&self.files.chain), path(&self.files.key), path(&self.files.bundle));
        let direct = [scenario, &inbound, &chain, &key, &bundle, &self.files.name];
        let calm = self.memory();
        let told = [run_script("http2_hostile.py", &[scenario, self.pair.upstream()]), run_script("http2_hostile.py", &direct)];
        println!("{scenario}: {told:?}");
        assert_eq!(http_get(self.pair.upstream(), "/fine").0, 200, "{scenario}: others are disturbed");
        assert_eq!(curl(&["--http2-prior-knowledge", &format!("http://{}/fine", self.pair.upstream())]), "ok\n");
        for (now, calm) in self.memory().iter().zip(calm) {
            assert!(now - calm < GROWTH, "{scenario}: a sidecar went from {calm} to {now} bytes");
        }
        told
    }

    fn memory(&self) -> [f64; 2] {
        let of = |sidecar: &Sidecar| sidecar.metric("process_resident_memory_bytes", &[]);
        [of(&self.pair.web), of(&self.pair.api)]
    }

    fn paths_seen(&self) -> Vec<String> {
        self.pair.service.requests().iter().map(|request| request["path"].as_str().unwrap().into()).collect()
    }
}

#[track_caller]
fn ends(told: &[Value; 2]) {
    for one in told {
        assert!(one["ended"] == true || one["goaway"].is_u64(), "the connection lives on: {one}");
    }
}

#[test]
fn streams_that_are_reset_at_once_end_the_connection() {
    let stage = Stage::new();
    ends(&stage.attack("rapid_reset"));
    stage.attack("rapid_reset_one_by_one");
    assert!(stage.paths_seen().iter().filter(|path| *path == "/reset").count() <= 400);
}

#[test]
fn a_head_that_goes_on_and_on_ends_the_connection() {
    let stage = Stage::new();
    for scenario in ["continuation_flood", "empty_continuation_flood"] {
        let told = stage.attack(scenario);
        ends(&told);
        for one in &told {
            assert!(one["sent"].as_u64().unwrap() < 64 << 20, "{one}");
        }
    }
    assert!(!stage.paths_seen().contains(&"/flood".to_owned()));
}

#[test]
fn frames_that_say_nothing_end_the_connection() {
    let stage = Stage::new();
    for scenario in ["empty_data_flood", "settings_flood", "ping_flood", "ping_flood_unread"] {
        ends(&stage.attack(scenario));
    }
}

#[test]
fn who_takes_nothing_of_what_was_asked_for_costs_little() {
    let stage = Stage::new();
    for told in stage.attack("zero_window") {
        assert!(told["ended"] == true || told["overflow"].is_u64(), "a window cannot overflow: {told}");
    }
    for told in stage.attack("zero_window_update") {
        assert!(told["ended"] == true || told["reset"] == 1, "{told}");
    }
}

#[test]
fn a_connection_has_a_hundred_streams_and_a_head_64_kib() {
    let stage = Stage::new();
    for told in stage.attack("too_many_streams") {
        // REFUSED_STREAM, for which the caller may try again, or the end of the connection.
        let opened = told["opened"].as_u64().unwrap();
        assert!(opened == 100 && told["count"] == 30 && told["refused"] == serde_json::json!([7]), "{told}");
    }
    for told in stage.attack("large_header_list") {
        assert!(told["status"] == 431 || told["reset"].is_u64() || told["ended"] == true, "{told}");
        assert!(told["good"] == 200 || told["ended"] == true, "{told}");
    }
}

#[test]
fn what_is_malformed_is_refused_and_never_reaches_the_service() {
    let stage = Stage::new();
    for told in stage.attack("malformed") {
        for (name, became) in told.as_object().unwrap() {
            let is_refused = became["status"].as_u64().is_none_or(|status| (400..500).contains(&status));
            assert!(is_refused, "{name}: {became}");
            assert!(became["status"].is_u64() || became["reset"].is_u64() || became["ended"] == true, "{name}: {became}");
        }
    }
    let seen = stage.paths_seen();
    assert!(seen.iter().all(|path| ["/fine", "/hash"].contains(&path.as_str())), "{seen:?}");
}

#[test]
fn trailers_do_not_carry_an_identity() {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let heard = std::sync::Arc::<parking_lot::Mutex<String>>::default();
    let of_service = heard.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let heard = of_service.clone();
            std::thread::spawn(move || {
                let (mut text, mut buffer) = (String::new(), [0; 4096]);
                while let Ok(read @ 1..) = stream.read(&mut buffer) {
                    text.push_str(&String::from_utf8_lossy(&buffer[..read]));
                    heard.lock().push_str(&String::from_utf8_lossy(&buffer[..read]));
                    if text.contains("\r\n0\r\n") && text.ends_with("\r\n\r\n") {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                        text.clear();
                    }
                }
            });
        }
    });
    let mesh = crate::support::Mesh::start();
    let api = mesh.serve_as("api", "http", &address);
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let files = SvidFiles::of(&mesh, "web");
    let path = |path: &std::path::Path| path.display().to_string();
    let (chain, key, bundle) = (path(&files.chain), path(&files.key), path(&files.bundle));
    run_script("http2_hostile.py", &["trailers_with_identity", web.upstream("api")]);
    let inbound = api.inbound.clone().unwrap();
    run_script("http2_hostile.py", &["trailers_with_identity", &inbound, &chain, &key, &bundle, &files.name]);
    let heard = heard.lock().to_lowercase();
    let spoofed = [
        "x-forwarded-client-cert: spoof",
        "x_forwarded_client_cert: spoof",
        "x-postern-source: spoof",
        "x_postern_source: spoof",
    ];
    assert!(heard.contains("abc") && spoofed.iter().all(|line| !heard.contains(line)), "{heard}");
}
