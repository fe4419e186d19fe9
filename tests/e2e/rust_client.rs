//! Client libraries made for Consul in Rust, which decode every answer by types of their own (`tests/e2e/rust-client`).

use std::path::Path;
use std::process::Command;

use crate::support::Mesh;

/// Every call of the library that Postern answers.
#[track_caller]
fn makes_all_of_its_calls(library: &str) {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rust-client/debug/rust-client");
    assert!(program.exists(), "{} is missing; tests/run makes it", program.display());
    let mesh = Mesh::start();
    let token = std::fs::read_to_string(mesh.path("data/operator.token")).unwrap();
    let mut command = Command::new("timeout");
    command.arg("120").arg(program).args([library, &format!("http://{}", mesh.http), token.trim()]);
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{library} made all of its calls"), "{errors}");
}

#[test]
fn consulrs_decodes_every_answer() {
    makes_all_of_its_calls("consulrs");
}

#[test]
fn rs_consul_decodes_every_answer() {
    makes_all_of_its_calls("rs-consul");
}
