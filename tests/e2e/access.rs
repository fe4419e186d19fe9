//! Tokens with policies, made and used on the command line.

use crate::support::Mesh;

fn run_as(mesh: &Mesh, secret: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = mesh.command(arguments[0]);
    command.args(&arguments[1..]).env("POSTERN_HTTP", &mesh.http).env("POSTERN_TOKEN", secret);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn a_token_does_what_its_policy_grants_until_it_is_deleted() {
    let mesh = Mesh::start();
    let rules = mesh.path("shop.hcl");
    std::fs::write(&rules, "intentions \"api\" { policy = \"write\" }\nkey_prefix \"shop/\" { policy = \"read\" }\n").unwrap();
    mesh.meshctl(&["acl", "policy", "set", "shop", "-f", rules.to_str().unwrap()]);
    let made = mesh.json(&["acl", "token", "create", "--policy", "shop", "--description", "ci", "--ttl", "2h"]);
    let (id, secret) = (made["AccessorID"].as_str().unwrap(), made["SecretID"].as_str().unwrap());

    let (code, said) = run_as(&mesh, secret, &["intention", "allow", "web", "api", "--wait", "0s"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run_as(&mesh, secret, &["intention", "allow", "web", "db", "--wait", "0s"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("intention:write") && said.contains("db"), "{said}");
    let (code, said) = run_as(&mesh, secret, &["acl", "token", "show", "self"]);
    assert!(code == Some(0) && said.contains("policy shop") && !said.contains(secret), "{said}");
    assert!(mesh.meshctl(&["acl", "token", "list"]).contains("ci"));
    assert!(mesh.meshctl(&["acl", "policy", "show", "shop"]).contains("key_prefix \"shop/\""));

    mesh.meshctl(&["acl", "policy", "set", "shop", "--rules", "intentions \"db\" { policy = \"write\" }"]);
    assert_eq!(run_as(&mesh, secret, &["intention", "allow", "web", "db", "--wait", "0s"]).0, Some(0), "a change holds at once");
    mesh.meshctl(&["acl", "token", "delete", id]);
    let (code, said) = run_as(&mesh, secret, &["intention", "allow", "web", "db", "--wait", "0s"]);
    assert_eq!(code, Some(2), "{said}");
    let refused = mesh.run(&["acl", "policy", "set", "bad", "--rules", "key \"a\" { policy = \"raed\" }"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("raed"), "{refused:?}");
}

#[test]
fn whoever_may_write_one_destination_plans_and_applies_a_file_of_it() {
    let mesh = Mesh::start();
    mesh.allow("cron", "db");
    mesh.meshctl(&["acl", "policy", "set", "api", "--rules", "intentions \"api\" { policy = \"write\" }"]);
    let made = mesh.json(&["acl", "token", "create", "--policy", "api"]);
    let secret = made["SecretID"].as_str().unwrap();
    let write = |name: &str, destination: &str| {
        let file = mesh.path(name);
        std::fs::write(&file, format!("intentions:\n- {{source: web, destination: {destination}, action: allow}}\n")).unwrap();
        file.display().to_string()
    };
    let (own, foreign) = (write("own.yaml", "api"), write("foreign.yaml", "db"));

    let (code, said) = run_as(&mesh, secret, &["intention", "plan", "-f", &own, "--merge"]);
    assert!(code == Some(1) && said.contains("+ web -> api (allow)"), "{said}");
    let (code, said) = run_as(&mesh, secret, &["intention", "apply", "-f", &own, "--merge", "--yes", "--wait", "0s"]);
    assert!(code == Some(0) && said.contains("1 added"), "{said}");

    let (code, said) = run_as(&mesh, secret, &["intention", "plan", "-f", &foreign, "--merge"]);
    assert!(code == Some(2) && said.contains("intention:write"), "{said}");
    // Without --merge the file would take out what it does not have, and that is not told.
    for command in ["plan", "apply"] {
        let (code, said) = run_as(&mesh, secret, &["intention", command, "-f", &own]);
        assert!(code == Some(2) && said.contains("intention:write") && !said.contains("cron"), "{said}");
    }
    assert_eq!(mesh.json(&["intention", "list"])["intentions"].as_array().unwrap().len(), 2);
}
