//! The HTTP API beyond loopback, by a certificate that the mesh's own authority issued.

use std::process::{Command, Output, Stdio};

use crate::support::{EchoServer, Mesh, Process, script};

/// A control plane whose HTTP API listens on every address, and the port that it has.
fn beyond_loopback() -> (Mesh, String) {
    let mesh = Mesh::start_with_http("0.0.0.0:0");
    let port = mesh.http.rsplit_once(':').unwrap().1.to_owned();
    (mesh, port)
}

/// `meshctl` as on another host: no data directory, only the address and what `further` says.
fn from_elsewhere(mesh: &Mesh, address: &str, further: &[(&str, &str)]) -> Output {
    let mut command = mesh.command("status");
    command.env("POSTERN_DATA_DIR", mesh.path("elsewhere")).env("POSTERN_HTTP", address);
    command.env("POSTERN_TOKEN_FILE", mesh.path("data/operator.token"));
    command.envs(further.iter().copied()).output().unwrap()
}

fn exported(mesh: &Mesh) -> String {
    let file = mesh.path("ca.pem");
    std::fs::write(&file, mesh.meshctl(&["ca", "export"])).unwrap();
    file.display().to_string()
}

#[test]
fn the_mesh_s_own_authority_vouches_for_the_api_beyond_loopback() {
    let (mesh, port) = beyond_loopback();
    let ca = exported(&mesh);
    for host in ["127.0.0.1", "localhost"] {
        let output = from_elsewhere(&mesh, &format!("https://{host}:{port}"), &[("POSTERN_CA_FILE", &ca)]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{host}: {text}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("trust domain"), "{output:?}");
    }
}

#[test]
fn curl_trusts_what_ca_export_prints() {
    let (mesh, port) = beyond_loopback();
    let ca = exported(&mesh);
    let curl = |further: &[&str]| {
        let url = format!("https://127.0.0.1:{port}/v1/mesh");
        Command::new("curl").args(["-sS", "--max-time", "20", &url]).args(further).output().unwrap()
    };
    let answer = curl(&["--cacert", &ca]);
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    assert!(String::from_utf8_lossy(&answer.stdout).contains("\"postern\""), "{answer:?}");
    assert!(!curl(&[]).status.success(), "nobody else trusts the mesh");
}

#[track_caller]
fn refused(output: &Output, expected: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    for word in expected {
        assert!(text.contains(word), "it does not say {word:?}: {text}");
    }
}

#[test]
fn what_is_wrong_with_the_certificate_is_told_with_its_cure() {
    let (mesh, port) = beyond_loopback();
    let address = format!("https://127.0.0.1:{port}");
    // Other authorities than the mesh's, as a system has them.
    let other = Mesh::start();
    let others = exported(&other);
    refused(
        &from_elsewhere(&mesh, &address, &[("POSTERN_CA_FILE", &others)]),
        &[&address, "POSTERN_CA_FILE", "another authority", "meshctl ca export"],
    );
    refused(&from_elsewhere(&mesh, &address, &[]), &["meshctl ca export", "POSTERN_CA_FILE"]);
    let ca = exported(&mesh);
    let plain = other.http.clone();
    refused(&from_elsewhere(&mesh, &format!("https://{plain}"), &[("POSTERN_CA_FILE", &ca)]), &["TLS", "http://"]);
    refused(&from_elsewhere(&mesh, &format!("http://127.0.0.1:{port}"), &[]), &["https://"]);
}

/// What OpenSSL says of a handshake with `address` in this version alone, and whether there was one.
fn handshake(address: &str, version: &str) -> (bool, String) {
    let output = Command::new("openssl").args(["s_client", "-connect", address, version]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (!said.contains("Cipher is (NONE)"), said)
}

#[test]
fn no_port_of_the_mesh_speaks_tls_1_2() {
    let (mesh, port) = beyond_loopback();
    let echo = EchoServer::start();
    let api = mesh.serve("api", &echo.address());
    for address in [&format!("127.0.0.1:{port}"), &mesh.grpc, api.inbound.as_ref().unwrap()] {
        let (is_spoken, said) = handshake(address, "-tls1_3");
        assert!(is_spoken, "{address}: {said}");
        let (is_spoken, said) = handshake(address, "-tls1_2");
        assert!(!is_spoken && said.contains("alert protocol version"), "{address}: {said}");
    }
}

#[test]
fn meshctl_speaks_tls_1_2_with_nobody() {
    let (mesh, _) = beyond_loopback();
    let line = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout old.key -out old.pem -days 2 \
                -subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE";
    assert!(Command::new("bash").args(["-euc", line]).current_dir(mesh.path("")).output().unwrap().status.success());
    let status_of = |version: &str| {
        let mut command = script("https_files.py");
        command.args([mesh.path(""), mesh.path("old.pem"), mesh.path("old.key")]).arg(version);
        let server = Process::start_announcing(&mut command, &mesh.path(&format!("{version}.log")));
        let ca = mesh.path("old.pem").display().to_string();
        from_elsewhere(&mesh, &format!("https://localhost:{}", server.line()), &[("POSTERN_CA_FILE", &ca)])
    };
    // It shakes hands there, and hears then that it is no control plane.
    refused(&status_of("TLSv1_3"), &["is not Postern"]);
    refused(&status_of("TLSv1_2"), &["ProtocolVersion"]);
}
