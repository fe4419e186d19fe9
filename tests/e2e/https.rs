//! The HTTP API beyond loopback, by a certificate that the mesh's own authority issued.

use std::process::{Command, Output};

use crate::support::Mesh;

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
