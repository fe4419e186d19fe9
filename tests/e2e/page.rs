//! The page at `/ui/`, in a real browser on a real control plane.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Mesh, run_script_of};

fn operator_token(mesh: &Mesh) -> String {
    std::fs::read_to_string(mesh.path("data/operator.token")).unwrap().trim().to_owned()
}

/// What a person does on the page of this mesh, a function of `page.py`; what it answers.
#[track_caller]
pub fn on_page(mesh: &Mesh, what: &str, more: &[&str]) -> Value {
    let token = operator_token(mesh);
    run_script_of("browser", "page.py", &[&[what, &mesh.http, &token], more].concat())
}

#[test]
fn what_of_the_page_needs_no_browser_is_right() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/scripts/page_test.mjs");
    let output = Command::new("node").arg(script).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_wrong_token_is_refused_with_the_cure_and_a_right_one_is_forgotten_with_the_page() {
    on_page(&Mesh::start(), "log_in", &[]);
}

#[test]
fn a_token_that_may_do_little_sees_little_and_is_told_what_it_lacks() {
    let mesh = Mesh::start();
    mesh.meshctl(&["kv", "put", "app/motd", "hello"]);
    mesh.meshctl(&["acl", "policy", "set", "motd", "--rules", "key \"app/motd\" { policy = \"read\" }"]);
    let made = mesh.json(&["acl", "token", "create", "--policy", "motd"]);
    let secret = made["SecretID"].as_str().unwrap();
    run_script_of("browser", "page.py", &["limited", &mesh.http, secret]);
}

#[test]
fn an_intention_is_added_edited_and_deleted_with_its_plan() {
    let mesh = Mesh::start();
    mesh.allow("web", "api");
    on_page(&mesh, "intentions", &[]);
    assert_eq!(mesh.json(&["intention", "list"])["intentions"].as_array().unwrap().len(), 1);
}

#[test]
fn a_key_that_somebody_else_changed_is_not_overwritten_unseen() {
    let mesh = Mesh::start();
    mesh.meshctl(&["kv", "put", "app/motd", "hello"]);
    on_page(&mesh, "keys", &[]);
    assert_eq!(mesh.meshctl(&["kv", "list"]), "app/motd\n");
}

#[test]
fn what_looks_like_markup_stays_text() {
    let mesh = Mesh::start();
    mesh.meshctl(&["kv", "put", "<script src=x onerror=document.title='hit'>", "x"]);
    mesh.meshctl(&["intention", "allow", "web", "api", "--reason", "<img src=x onerror=document.title='hit'>", "--wait", "0s"]);
    on_page(&mesh, "markup", &[]);
}

#[test]
fn five_hundred_services_with_three_thousand_edges_are_drawn() {
    let took = on_page(&Mesh::start(), "large", &["500", "3000"]);
    println!("{took}");
}
