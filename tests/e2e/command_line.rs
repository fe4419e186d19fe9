//! Bad input: one line that names the thing, the place and the cure; exit code 2; nothing changed.

use crate::support::Mesh;

#[track_caller]
fn refused(mesh: &Mesh, arguments: &[&str], expected: &[&str]) {
    let output = mesh.run(arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
    for word in expected {
        assert!(text.contains(word), "{arguments:?} does not say {word:?}: {text}");
    }
}

#[test]
fn bad_input_is_refused_and_changes_nothing() {
    let mesh = Mesh::start();
    mesh.allow("web", "api");
    let before = mesh.meshctl(&["intention", "export"]);
    let file = mesh.path("bad.yaml");
    let name = file.display().to_string();

    refused(&mesh, &["intention", "allow", "Web", "api"], &["Web", "lower case"]);
    refused(&mesh, &["intention", "allow", "web", "api", "--for", "2 fortnights"], &["2 fortnights"]);
    refused(&mesh, &["intention", "get", "nobody", "api"], &["nobody"]);
    refused(&mesh, &["token", "create"], &["--service"]);
    refused(&mesh, &["job", "ps"], &["not built"]);
    std::fs::write(&file, "intentions:\n  - {source: web, destination: api, action: alow}\n").unwrap();
    refused(&mesh, &["intention", "apply", "-f", &name, "--yes"], &["bad.yaml", "2", "alow", "allow"]);
    std::fs::write(
        &file,
        "intentions:\n  - {source: web, destination: api, action: allow}\n  - {source: web, destination: api, action: deny}\n",
    )
    .unwrap();
    refused(&mesh, &["intention", "validate", &name], &["bad.yaml", "3", "web"]);
    std::fs::write(&file, "default: deny\nintentions: []\n").unwrap();
    refused(&mesh, &["intention", "apply", "-f", &name], &["--yes"]);

    assert_eq!(mesh.meshctl(&["intention", "export"]), before, "nothing changed");
}

#[test]
fn export_and_apply_change_nothing() {
    let mesh = Mesh::start();
    mesh.allow("web", "api");
    mesh.deny("*", "db");
    let file = mesh.path("intentions.yaml");
    std::fs::write(&file, mesh.meshctl(&["intention", "export"])).unwrap();
    let before = mesh.json(&["intention", "list"])["revision"].clone();
    mesh.meshctl(&["intention", "apply", "-f", file.to_str().unwrap(), "--yes"]);
    assert_eq!(mesh.json(&["intention", "list"])["revision"], before);
}

#[test]
fn a_file_of_five_thousand_intentions_is_applied_in_one_revision_and_exported_as_it_was() {
    let mesh = Mesh::start();
    let file = mesh.path("intentions.yaml");
    let mut text = String::from("default: deny\nintentions:\n");
    for n in 0..5000 {
        let action = if n % 3 == 0 { "deny" } else { "allow" };
        text.push_str(&format!("  - {{source: service-{n}, destination: api-{}, action: {action}}}\n", n % 50));
    }
    std::fs::write(&file, text).unwrap();
    let name = file.to_str().unwrap();
    mesh.meshctl(&["intention", "apply", "-f", name, "--yes"]);
    let exported = mesh.meshctl(&["intention", "export"]);
    let listed = mesh.json(&["intention", "list"]);
    let revisions: std::collections::BTreeSet<u64> =
        listed["intentions"].as_array().unwrap().iter().map(|one| one["revision"].as_u64().unwrap()).collect();
    assert_eq!((listed["intentions"].as_array().unwrap().len(), revisions.len()), (5000, 1));
    let plan = mesh.run(&["intention", "plan", "-f", name]);
    assert_eq!((plan.status.code(), String::from_utf8_lossy(&plan.stdout).trim()), (Some(0), "nothing would change"));
    let again = mesh.path("exported.yaml");
    std::fs::write(&again, &exported).unwrap();
    let plan = mesh.run(&["intention", "plan", "-f", again.to_str().unwrap()]);
    assert_eq!(plan.status.code(), Some(0), "what was exported is what is there");
    std::fs::write(&again, "default: deny\nintentions: []\n").unwrap();
    mesh.meshctl(&["intention", "apply", "-f", again.to_str().unwrap(), "--yes"]);
    assert_eq!(mesh.json(&["intention", "list"])["intentions"].as_array().unwrap().len(), 0);
}

#[test]
fn check_answers_with_its_exit_code() {
    let mesh = Mesh::start();
    mesh.allow("web", "api");
    assert_eq!(mesh.run(&["intention", "check", "web", "api"]).status.code(), Some(0));
    let denied = mesh.run(&["intention", "check", "db", "api"]);
    assert_eq!(denied.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&denied.stdout).contains("default (deny)"));
}

#[test]
fn a_server_that_is_not_postern_gets_no_token() {
    let mesh = Mesh::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = std::thread::spawn(move || {
        let mut all = String::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut buffer = [0; 4096];
            let length = std::io::Read::read(&mut stream, &mut buffer).unwrap_or(0);
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with("quit") {
                break;
            }
            all += &text;
            let _ = std::io::Write::write_all(
                &mut stream,
                b"HTTP/1.1 404 Not Found\r\nX-Consul-Default-Acl-Policy: allow\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
        all
    });
    let output = mesh
        .command("status")
        .env("POSTERN_HTTP", format!("http://{address}"))
        .env("POSTERN_TOKEN", "postern-op1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("Consul"), "{text}");
    std::io::Write::write_all(&mut std::net::TcpStream::connect(address).unwrap(), b"quit").unwrap();
    assert!(!seen.join().unwrap().contains("postern-op1"), "the token was sent to a stranger");
}

#[test]
fn the_reference_is_what_the_program_says() {
    let mesh = Mesh::start();
    let committed = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md")).unwrap();
    assert!(mesh.meshctl(&["reference"]) == committed, "docs/reference.md is behind: meshctl reference > docs/reference.md");
}

#[test]
fn the_example_file_is_valid() {
    let mesh = Mesh::start();
    mesh.meshctl(&["intention", "validate", concat!(env!("CARGO_MANIFEST_DIR"), "/examples/intentions.yaml")]);
}
