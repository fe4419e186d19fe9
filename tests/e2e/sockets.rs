//! UNIX sockets: who may speak to a control plane and a sidecar without a token.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::{EchoServer, Mesh};

/// Asks over a socket as root of this machine, or as another user.
fn ask(socket: &Path, path: &str, user: Option<u32>) -> Output {
    let mut command = match user {
        None => Command::new("curl"),
        Some(uid) => {
            let mut command = Command::new("setpriv");
            command.args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into(), "curl".into()]);
            command
        }
    };
    command.args(["-sS", "-m", "10", "--unix-socket"]).arg(socket).arg(format!("http://localhost{path}")).output().unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn open_to_all(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

const NOBODY: u32 = 65_534;

#[test]
fn the_sockets_are_for_their_owner_whatever_the_files_modes_say() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let cases = [
        (mesh.path("data"), mesh.path("data/http.sock"), "/v1/overview", "trust_domain"),
        (mesh.path("state-api-1"), mesh.path("state-api-1/admin.sock"), "/snapshot", "\"service\""),
    ];
    open_to_all(mesh.path("data").parent().unwrap(), 0o711);
    for (directory, socket, path, word) in cases {
        assert_eq!(mode(&socket), 0o600, "{}", socket.display());
        assert_eq!(mode(&directory), 0o700, "{}", directory.display());
        let ours = ask(&socket, path, None);
        assert!(String::from_utf8_lossy(&ours.stdout).contains(word), "{ours:?}");

        let theirs = ask(&socket, path, Some(NOBODY));
        assert!(!theirs.status.success() && theirs.stdout.is_empty(), "the modes keep others out: {theirs:?}");
        open_to_all(&directory, 0o711);
        open_to_all(&socket, 0o666);
        let theirs = ask(&socket, path, Some(NOBODY));
        assert!(!theirs.status.success() && theirs.stdout.is_empty(), "the kernel says who it is: {theirs:?}");
        let ours = ask(&socket, path, None);
        assert!(ours.status.success(), "{ours:?}");
    }
    assert_eq!(mode(&mesh.path("data/operator.token")), 0o600);
    assert_eq!(mode(&mesh.path("seal.key")), 0o600);
}

#[test]
fn the_port_shows_no_snapshot() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let api = mesh.serve("api", &echo.address());
    assert_eq!(api.admin("/ready").0, 200);
    assert_eq!(api.admin("/metrics").0, 200);
    let (status, text) = api.admin("/snapshot");
    assert!(status == 403 && text.contains("admin.sock"), "{status} {text}");
}
