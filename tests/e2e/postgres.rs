//! PostgreSQL behind a sidecar.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Carriage, Mesh, POSTGRES_BIN as BIN, Postgres, over_every_carriage, psql};

fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

over_every_carriage!(postgresql_serves_who_may_and_refuses_a_third_service, a_deny_ends_an_open_psql_session);

fn postgresql_serves_who_may_and_refuses_a_third_service(carriage: Carriage) {
    let mesh = Mesh::over(carriage);
    let postgres = Postgres::start(mesh.path("").as_path());
    let _db = mesh.serve("db", &postgres.address());
    let web = mesh.call("web", &["db"]);
    let other = mesh.call("other", &["db"]);
    mesh.allow("web", "db");
    let port = port_of(web.upstream("db"));

    let answer = psql(port, "select 6 * 7");
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "42", "{}", String::from_utf8_lossy(&answer.stderr));
    assert!(!psql(port_of(other.upstream("db")), "select 1").status.success(), "a third service is refused");

    let port = port.to_string();
    let pgbench = |arguments: &[&str]| {
        let output = Command::new(Path::new(BIN).join("pgbench"))
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"])
            .args(arguments)
            .arg("postgres")
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "pgbench {arguments:?}\n{text}");
        text
    };
    pgbench(&["-i", "-q"]);
    let report = pgbench(&["-c", "8", "-t", "200"]);
    assert!(report.contains("number of failed transactions: 0"), "{report}");
    assert!(report.contains("1600/1600"), "{report}");
}

fn a_deny_ends_an_open_psql_session(carriage: Carriage) {
    let mesh = Mesh::over(carriage);
    let postgres = Postgres::start(mesh.path("").as_path());
    let _db = mesh.serve("db", &postgres.address());
    let web = mesh.call("web", &["db"]);
    mesh.allow("web", "db");
    let mut session = Command::new("psql")
        .args(["-h", "127.0.0.1", "-p", &port_of(web.upstream("db")).to_string(), "-U", "postgres", "-X", "-At"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = session.stdin.take().unwrap();
    let mut output = BufReader::new(session.stdout.take().unwrap());
    let mut line = String::new();
    writeln!(input, "select 'before';").unwrap();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "before\n");

    mesh.deny("web", "db");
    writeln!(input, "select 'after';").unwrap();
    drop(input);

    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
    assert!(!rest.contains("after"), "a later query was answered: {rest}");
    assert!(!session.wait().unwrap().success());
}
