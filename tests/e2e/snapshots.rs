//! The whole store, saved, changed and brought back.

use std::os::unix::fs::PermissionsExt;

use crate::support::{EchoServer, Mesh, connect, eventually, say};

/// Whether a call gets through now.
fn is_let_through(address: &str) -> bool {
    say(&mut connect(address), "hello").is_some()
}

#[test]
fn a_restore_brings_the_state_of_before_back_and_sidecars_follow() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    eventually("web reaches api", || is_let_through(web.upstream("api")).then_some(()));
    let file = mesh.path("monday.snapshot");
    let name = file.to_str().unwrap();
    let said = mesh.meshctl(&["snapshot", "save", name]);
    assert!(said.contains("seal key is not in it") && said.contains("1 intention"), "{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(mesh.run(&["snapshot", "save", name]).status.code(), Some(2), "a backup is never overwritten");

    mesh.deny("web", "api");
    for number in 0..20 {
        mesh.deny(&format!("other-{number}"), "api");
    }
    let token = mesh.json(&["token", "create", "--service", "late"]);
    eventually("web is denied", || (!is_let_through(web.upstream("api"))).then_some(()));

    let damaged = mesh.path("damaged.snapshot");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    std::fs::write(&damaged, bytes).unwrap();
    for command in [vec!["snapshot", "inspect"], vec!["snapshot", "restore", "--yes"]] {
        let refused = mesh.run(&[&command[..], &[damaged.to_str().unwrap()]].concat());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains("checksum"), "{said}");
    }
    assert_eq!(mesh.json(&["intention", "list"])["intentions"].as_array().unwrap().len(), 21, "nothing has changed");
    assert_eq!(mesh.run(&["snapshot", "restore", name]).status.code(), Some(2), "nobody is there to be asked");

    let inspected = mesh.json(&["snapshot", "inspect", name]);
    assert_eq!(inspected["snapshot"]["counts"]["intention"], 1, "{inspected}");
    mesh.meshctl(&["snapshot", "restore", "--yes", name]);
    assert_eq!(mesh.json(&["intention", "list"])["intentions"].as_array().unwrap().len(), 1);
    mesh.wait_connected(&web.id);
    mesh.wait_connected(&api.id);
    eventually("web reaches api again", || is_let_through(web.upstream("api")).then_some(()));
    eventually("the sidecar says why", || api.log().contains("restored from a snapshot").then_some(()));
    let tokens = mesh.json(&["token", "list"]).to_string();
    assert!(tokens.contains(token["id"].as_str().unwrap()), "what was issued since stays: {tokens}");
    mesh.deny("web", "api");
    eventually("changes hold again", || (!is_let_through(web.upstream("api"))).then_some(()));
}

#[test]
fn another_mesh_takes_the_place_of_this_one_only_where_that_is_said() {
    let one = Mesh::start();
    one.allow("web", "api");
    let file = one.path("one.snapshot");
    let name = file.to_str().unwrap();
    one.meshctl(&["snapshot", "save", name]);
    let two = Mesh::start();
    let refused = two.run(&["snapshot", "restore", "--yes", name]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("--replace-mesh"), "{said}");
    let refused = two.run(&["snapshot", "restore", "--yes", "--replace-mesh", name]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && said.contains("seal key"), "{said}");

    // A new machine with the copy of the seal key.
    let mut three = Mesh::unstarted();
    std::fs::copy(one.path("seal.key"), three.path("seal.key")).unwrap();
    three.start_control();
    three.meshctl(&["snapshot", "restore", "--yes", "--replace-mesh", name]);
    assert_eq!(three.json(&["status"])["mesh"]["cluster_id"], one.json(&["status"])["mesh"]["cluster_id"]);
    assert_eq!(three.json(&["intention", "list"])["intentions"].as_array().unwrap().len(), 1);
}
