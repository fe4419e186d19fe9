//! The units of `examples/systemd`.

use std::path::Path;
use std::process::Command;

use crate::support::Mesh;

/// A copy of the unit whose binary is the one under test.
fn unit(directory: &Path, name: &str, as_name: &str) -> std::path::PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/systemd").join(name);
    let text = std::fs::read_to_string(source).unwrap();
    let copy = directory.join(as_name);
    std::fs::write(&copy, text.replace("/usr/local/bin/meshctl", env!("CARGO_BIN_EXE_meshctl"))).unwrap();
    copy
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let directory = tempfile::TempDir::new().unwrap();
    unit(directory.path(), "postern-proxy@.service", "postern-proxy@.service");
    let units = [
        unit(directory.path(), "postern-control.service", "postern-control.service"),
        unit(directory.path(), "postern-proxy@.service", "postern-proxy@web.service"),
    ];
    for unit in units {
        let output = Command::new("systemd-analyze").arg("verify").arg(&unit).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        let ours: Vec<&str> = text.lines().filter(|line| line.contains("postern")).collect();
        assert!(output.status.success() && ours.is_empty(), "{}: {text}", unit.display());
    }
}

/// The arguments of `ExecStart`, with the specifiers of an instance `web` filled in.
fn exec_start(text: &str, directory: &str) -> Vec<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words = line.split(' ').skip(1);
    words.map(|word| word.replace("%i", "web").replace("%d", directory).replace("/etc/postern", directory)).collect()
}

#[test]
fn the_units_and_their_settings_are_understood() {
    let mesh = Mesh::start();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/systemd");
    let directory = mesh.path("etc");
    std::fs::create_dir_all(directory.join("proxy")).unwrap();
    std::fs::copy(examples.join("control.yaml"), directory.join("control.yaml")).unwrap();
    std::fs::copy(examples.join("proxy.yaml"), directory.join("proxy/web.yaml")).unwrap();
    std::fs::write(directory.join("token"), "postern-op1.AAAA").unwrap();
    let place = directory.display().to_string();

    // The settings are read and found good; then the first thing that is wrong on purpose is named.
    let control = exec_start(&std::fs::read_to_string(examples.join("postern-control.service")).unwrap(), &place);
    let output = mesh.command(&control[0]).args(&control[1..]).args(["--svid-ttl", "1s"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && text.contains("--svid-ttl"), "{text}");

    let proxy = exec_start(&std::fs::read_to_string(examples.join("postern-proxy@.service")).unwrap(), &place);
    let output = mesh.command(&proxy[0]).args(&proxy[1..]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && text.contains("operator token"), "{text}");
}
