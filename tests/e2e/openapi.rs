//! The description of the HTTP API, held against what the control plane answers: schemathesis makes requests of it, valid
//! and invalid ones, and judges each answer by it.

use std::path::Path;
use std::process::Command;

use crate::support::Mesh;

/// What must hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
                      negative_data_rejection,unsupported_method,ignored_auth";

#[test]
fn the_api_answers_as_its_description_says() {
    let mesh = Mesh::start();
    let token = std::fs::read_to_string(mesh.path("data/operator.token")).unwrap();
    let mut command = Command::new(Path::new(env!("CARGO_TARGET_TMPDIR")).join("openapi/bin/schemathesis"));
    command.arg("run").arg(format!("http://{}/v1/openapi.json", mesh.http));
    command.args(["-H", &format!("Authorization: Bearer {}", token.trim())]);
    command.args(["--checks", CHECKS, "--phases", "coverage,fuzzing", "--max-examples", "5"]);
    command.args(["--generation-deterministic", "--no-color", "--exclude-path", "/v1/openapi.json"]);
    // It does not end by itself; tests of their own follow it.
    command.args(["--exclude-path", "/v1/live"]);
    let output = command.current_dir(mesh.path("")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("Tested: 31"), "all of it was tested: {text}");
}
