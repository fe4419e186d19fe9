//! Databases of Debian's packages, each in a directory of the test.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::{Process, eventually, free_port};

/// Where Debian's package puts the programs.
pub const POSTGRES_BIN: &str = "/usr/lib/postgresql/15/bin";

/// A cluster of its own. PostgreSQL refuses to run as root, so it runs as `postgres` there.
pub struct Postgres {
    _process: Process,
    port: u16,
}

/// Runs a program of PostgreSQL as a user that it accepts.
fn as_postgres(program: &Path) -> Command {
    if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

impl Postgres {
    pub fn start(directory: &Path) -> Self {
        let data: PathBuf = directory.join("pgdata");
        std::fs::create_dir(&data).unwrap();
        if nix::unistd::geteuid().is_root() {
            assert!(Command::new("chown").arg("postgres").arg(&data).status().unwrap().success());
            // The temporary directory is 0700; PostgreSQL's user has to pass through it.
            assert!(Command::new("chmod").arg("o+x").arg(directory).status().unwrap().success());
        }
        let made = as_postgres(&Path::new(POSTGRES_BIN).join("initdb"))
            .args(["--auth", "trust", "--username", "postgres", "--no-sync", "-D"])
            .arg(&data)
            .current_dir("/")
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = free_port();
        let mut command = as_postgres(&Path::new(POSTGRES_BIN).join("postgres"));
        command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port.to_string(), "-k", "", "-c", "fsync=off"]);
        let process = Process::start(command.current_dir("/"), &directory.join("postgres.log"));
        let postgres = Self { _process: process, port };
        eventually("PostgreSQL answers", || psql(port, "select 1").status.success().then_some(()));
        postgres
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

/// One query of the database behind a port.
pub fn psql(port: u16, query: &str) -> std::process::Output {
    Command::new("psql")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres", "-X", "-At", "-c", query])
        .env("PGCONNECT_TIMEOUT", "20")
        .output()
        .unwrap()
}

/// A Redis of its own that keeps nothing.
pub struct Redis {
    _process: Process,
    port: u16,
}

impl Redis {
    pub fn start(directory: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        let process = Process::start(command.current_dir(directory), &directory.join("redis.log"));
        eventually("Redis listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { _process: process, port }
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
