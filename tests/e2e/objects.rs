//! Services, instances, tokens and the bundle on the command line; completions.

use std::process::Command;

use crate::support::{EchoServer, Mesh, connect, eventually, is_closed, say};

#[test]
fn every_list_is_a_table_for_people_and_a_document_for_programs() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let _web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    mesh.token("later");
    mesh.wait_connected("web-1");
    let commands: [&[&str]; 13] = [
        &["service", "list"],
        &["service", "show", "api"],
        &["token", "list"],
        &["intention", "list"],
        &["intention", "get", "web", "api"],
        &["intention", "match", "api"],
        &["intention", "match", "web", "--source"],
        &["intention", "check", "web", "api"],
        &["intention", "explain", "web", "api"],
        &["intention", "export"],
        &["ca", "status"],
        &["status"],
        &["doctor"],
    ];
    for command in commands {
        let text = mesh.meshctl(command);
        assert!(!text.trim().is_empty() && !text.contains('\u{1b}'), "{command:?}: {text:?}");
        assert!(!text.lines().any(|line| line.ends_with(' ')), "{command:?} has space at the end of a line: {text:?}");
        mesh.json(command);
        let mut yaml = command.to_vec();
        yaml.extend(["--output", "yaml"]);
        let parsed: Result<serde_yaml::Value, _> = serde_yaml::from_str(&mesh.meshctl(&yaml));
        assert!(parsed.is_ok(), "{command:?}: {parsed:?}");
    }
    let created = mesh.json(&["token", "create", "--service", "x", "--uses", "3"]);
    let keys: Vec<&String> = created.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["id", "token", "service", "uses", "expires_at"]);
}

#[test]
fn a_service_is_shown_with_its_instances_and_its_callers() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let _web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    mesh.wait_connected("api-1");
    mesh.wait_connected("web-1");
    let list = mesh.meshctl(&["service", "list"]);
    assert!(list.contains("SERVICE") && list.contains("api"), "{list}");
    let shown = mesh.meshctl(&["service", "show", "api"]);
    for word in ["api-1", "healthy", "connected", "Who may call it", "web"] {
        assert!(shown.contains(word), "no {word:?} in {shown}");
    }
    let caller = mesh.json(&["service", "show", "web"]);
    assert_eq!(caller["instances"][0]["upstreams"], serde_json::json!(["api"]), "what it calls, before it called");
    assert!(mesh.meshctl(&["service", "show", "web"]).lines().any(|line| line.starts_with("upstreams") && line.ends_with("api")));
    let nobody = mesh.run(&["service", "show", "nobody"]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("service list"));
}

#[test]
fn an_instance_that_is_deregistered_and_revoked_is_out_and_stays_out() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let mut api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert!(say(&mut open, "before").is_some());
    assert_eq!(mesh.run(&["service", "deregister", "nobody-1"]).status.code(), Some(2));

    let said = mesh.meshctl(&["service", "deregister", "api-1", "--revoke"]);
    assert!(said.contains("api-1 of api") && said.contains("revoked"), "{said}");
    assert!(is_closed(&mut open), "an open connection ends");
    assert!(is_closed(&mut connect(web.upstream("api"))), "no new one is made");
    assert!(!mesh.is_connected("api-1"));
    api.kill_hard();
    assert_eq!(mesh.json(&["ca", "status"])["revoked_svids"], 1);
}

#[test]
fn an_instance_that_is_deregistered_alone_comes_back_by_itself() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    mesh.meshctl(&["service", "deregister", "api-1"]);
    mesh.wait_connected("api-1");
    eventually("it can be called again", || say(&mut connect(web.upstream("api")), "again"));
}

#[test]
fn a_revoked_token_enrols_nobody_and_with_svids_ends_who_it_enrolled() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let _api = mesh.serve("api", &echo.address());
    let web = mesh.call("web", &["api"]);
    mesh.allow("web", "api");
    let mut open = connect(web.upstream("api"));
    assert!(say(&mut open, "before").is_some());
    let tokens = mesh.json(&["token", "list"]);
    let of_web = tokens.as_array().unwrap().iter().find(|token| token["service"] == "web").unwrap();
    let id = of_web["id"].as_str().unwrap();
    assert!(!mesh.meshctl(&["token", "list"]).contains("postern1."), "a list shows no secret");

    let said = mesh.meshctl(&["token", "revoke", id]);
    assert!(said.contains("--svids"), "{said}");
    assert!(say(&mut open, "still").is_some(), "what has enrolled stays");
    let said = mesh.meshctl(&["token", "revoke", id, "--svids"]);
    assert!(said.contains("1 SVID"), "{said}");
    assert!(is_closed(&mut open));
    let unknown = mesh.run(&["token", "revoke", "00000000"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("00000000"));
}

#[test]
fn the_exported_bundle_verifies_what_a_sidecar_shows() {
    let echo = EchoServer::start();
    let mesh = Mesh::start();
    let api = mesh.serve("api", &echo.address());
    std::fs::write(mesh.path("bundle.pem"), mesh.meshctl(&["ca", "export"])).unwrap();
    let line = format!(
        "openssl s_client -connect {} -CAfile bundle.pem -showcerts </dev/null 2>&1 | grep -E 'Verify return code: 0|Verification: OK'",
        api.inbound.clone().unwrap()
    );
    let output = Command::new("sh").args(["-c", &line]).current_dir(mesh.path("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn bash_completes_commands_flags_and_nothing_hidden() {
    let mesh = Mesh::start();
    let script = mesh.path("completions.bash");
    std::fs::write(&script, mesh.meshctl(&["completions", "bash"])).unwrap();
    let complete = |words: &[&str]| {
        let line = format!(
            "source {}; COMP_WORDS=(meshctl {}); COMP_CWORD={}; COMP_LINE=\"${{COMP_WORDS[*]}}\"; COMP_POINT=${{#COMP_LINE}}; \
             _meshctl meshctl \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display(),
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len()
        );
        let output = Command::new("bash").args(["-euc", &line]).output().unwrap();
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["intention", "al"]), ["allow"]);
    assert_eq!(complete(&["token", "rev"]), ["revoke"]);
    assert!(complete(&["proxy", "--up"]).contains(&"--upstream".to_owned()));
    assert!(complete(&["control", "--default", ""]).contains(&"audit".to_owned()), "the values of a flag");
    let all = complete(&[""]);
    assert!(all.contains(&"dev".to_owned()));
    for hidden in ["reference", "demo-service", "tether"] {
        assert!(!all.contains(&hidden.to_owned()), "{hidden} is offered");
    }
    for shell in ["zsh", "fish"] {
        let text = mesh.meshctl(&["completions", shell]);
        assert!(text.contains("intention") && !text.contains("demo-service") && !text.contains("tether"), "{shell}");
    }
}
