//! `meshctl dev`: what it keeps, and two of them at once.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Mesh, Process, eventually, http_get};

/// A `dev` of its own, in the data directory `data`.
struct Dev {
    process: Process,
    data: std::path::PathBuf,
}

impl Dev {
    fn start(place: &Mesh, data: &str, flags: &[&str]) -> Self {
        let (log, data) = (place.path(&format!("{data}.log")), place.path(data));
        let _ = std::fs::remove_file(&log);
        let mut command = place.command("dev");
        command.args(flags).env("POSTERN_DATA_DIR", &data).env("POSTERN_CONTROL_SEAL_KEY_FILE", place.path("dev.seal"));
        let dev = Self { process: Process::start(&mut command, &log), data };
        eventually("dev says how it ends", || dev.process.log().contains("Ctrl-C ends it").then_some(()));
        dev
    }

    fn json(&self, place: &Mesh, arguments: &[&str]) -> Value {
        let mut command = place.command(arguments[0]);
        let output = command.args(&arguments[1..]).args(["-o", "json"]).env("POSTERN_DATA_DIR", &self.data).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// HOST:PORT of the service `web`.
    fn web(&self) -> String {
        let log = self.process.log();
        let (_, rest) = log.split_once("curl http://").unwrap();
        rest.split('/').next().unwrap().to_owned()
    }

    fn stop(mut self) {
        self.process.signal(Signal::SIGINT);
        assert_eq!(self.process.exit().code(), Some(0));
    }
}

#[test]
fn what_is_kept_is_the_same_mesh_after_a_restart() {
    let place = Mesh::start();
    let first = Dev::start(&place, "dev-data", &["--keep"]);
    assert!(first.process.log().contains("its data stay"));
    let mut deny = place.command("intention");
    deny.args(["deny", "shop", "web"]).env("POSTERN_DATA_DIR", &first.data);
    assert!(deny.output().unwrap().status.success());
    let before = (first.json(&place, &["ca", "status"]), first.json(&place, &["intention", "list"]));
    first.stop();

    // Without --keep this time: what was to be kept stays kept, and it says so.
    let second = Dev::start(&place, "dev-data", &[]);
    assert!(second.process.log().contains("its data stay"));
    let after = (second.json(&place, &["ca", "status"]), second.json(&place, &["intention", "list"]));
    assert_eq!(before.0["trust_domain"], after.0["trust_domain"]);
    assert_eq!(before.0["roots"], after.0["roots"]);
    assert_eq!(before.1["intentions"], after.1["intentions"]);
    let services: Vec<String> = ["web", "api", "db"]
        .iter()
        .map(|name| second.json(&place, &["service", "show", name])["instances"][0]["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(services, ["web-dev", "api-dev", "db-dev"]);
    assert_eq!(before.0["active_svids"], after.0["active_svids"], "no identity was issued anew");
    let web = second.web();
    eventually("the chain answers", || http_get(&web, "/").1.contains("db says hello").then_some(()));
    second.stop();
    assert!(place.path("dev-data/dev").exists() && place.path("dev.seal").exists());
}

#[test]
fn two_at_once_take_other_ports_and_one_data_directory_is_for_one() {
    let place = Mesh::start();
    let first = Dev::start(&place, "one", &["--bare"]);
    let second = Dev::start(&place, "two", &["--bare"]);
    let of = |dev: &Dev| dev.process.log().lines().next().unwrap().to_owned();
    let address = |line: &str| line.split_whitespace().find(|word| word.starts_with("http://")).unwrap().to_owned();
    assert_ne!(address(&of(&first)), address(&of(&second)));
    assert_ne!(first.json(&place, &["status"])["mesh"]["cluster_id"], second.json(&place, &["status"])["mesh"]["cluster_id"]);

    let mut third = place.command("dev");
    let output = third.arg("--bare").env("POSTERN_DATA_DIR", &first.data).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("runs already") && text.contains("POSTERN_DATA_DIR"), "{text}");
    assert!(first.json(&place, &["status"])["mesh"].is_object(), "the first is untouched");
    first.stop();
    second.stop();
    assert!(!place.path("one/dev").exists() && !place.path("two/dev").exists());
}
