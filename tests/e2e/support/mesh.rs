//! A control plane and its sidecars, in a directory of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use super::carriage::Carriage;
use super::host::Host;
use super::process::{Process, eventually, meshctl_binary};

/// A control plane in a process of its own.
pub struct Mesh {
    directory: TempDir,
    control: Option<Process>,
    options: Vec<String>,
    of_sidecars: Vec<String>,
    host: Option<Host>,
    /// Of the system.
    roots: Option<PathBuf>,
    pub http: String,
    pub grpc: String,
    pub dns: String,
}

impl Mesh {
    /// With the shipped periods.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Its directory alone: the control plane is started by the test.
    pub fn unstarted() -> Self {
        Self::new(None, "127.0.0.1:0", &[])
    }

    /// With further flags of `meshctl control`.
    pub fn start_with(options: &[&str]) -> Self {
        let mut mesh = Self::new(None, "127.0.0.1:0", options);
        mesh.start_control();
        mesh
    }

    /// With this between its sidecars.
    pub fn over(carriage: Carriage) -> Self {
        let mut mesh = Self::start();
        mesh.of_sidecars = carriage.flags().map(String::from).to_vec();
        mesh
    }

    /// With the roots of this file in place of those that the system has.
    pub fn start_trusting(roots: &Path) -> Self {
        let mut mesh = Self::new(None, "127.0.0.1:0", &[]);
        mesh.roots = Some(roots.into());
        mesh.start_control();
        mesh
    }

    /// With the HTTP API on `address`.
    pub fn start_with_http(address: &str) -> Self {
        let mut mesh = Self::new(None, "127.0.0.1:0", &[]);
        mesh.http = address.into();
        mesh.start_control();
        mesh
    }

    /// On another host, with port 8502 of `grpc` for its sidecars.
    pub fn start_on(host: &Host, grpc: &str) -> Self {
        let mut mesh = Self::new(Some(host.clone()), grpc, &[]);
        mesh.start_control();
        mesh
    }

    /// On another host, with DNS there.
    pub fn start_with_dns_on(host: &Host, dns: &str) -> Self {
        let mut mesh = Self::new(Some(host.clone()), "127.0.0.1:8502", &[]);
        mesh.dns = dns.into();
        mesh.start_control();
        mesh
    }

    /// On another host with its HTTP API on an address of the network, by a certificate that `certificate` in the mesh's
    /// directory verifies.
    pub fn start_with_https_on(host: &Host, ip: &str) -> Self {
        let mut mesh = Self::new(Some(host.clone()), &format!("{ip}:8502"), &[]);
        let (certificate, key) = (mesh.path("certificate"), mesh.path("key"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=control", "-addext", &format!("subjectAltName=IP:{ip}")])
            .arg("-out")
            .arg(&certificate)
            .arg("-keyout")
            .arg(&key)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        mesh.http = format!("{ip}:8500");
        for (flag, file) in [("--http-cert", certificate), ("--http-key", key)] {
            mesh.options.extend([flag.into(), file.display().to_string()]);
        }
        mesh.start_control();
        mesh
    }

    fn new(host: Option<Host>, grpc: &str, options: &[&str]) -> Self {
        Self {
            directory: TempDir::new().unwrap(),
            control: None,
            options: options.iter().map(ToString::to_string).collect(),
            of_sidecars: Vec::new(),
            host,
            roots: None,
            http: "127.0.0.1:0".into(),
            grpc: grpc.into(),
            dns: "127.0.0.1:0".into(),
        }
    }

    /// Starts the control plane, on the addresses that it had before.
    pub fn start_control(&mut self) {
        assert!(self.control.is_none(), "the control plane runs already");
        let mut command = self.command("control");
        command.args(["--http", &self.http, "--grpc", &self.grpc, "--dns", &self.dns, "--print-addresses"]);
        command.arg("--seal-key-file").arg(self.path("seal.key"));
        command.args(&self.options);
        command.envs(self.roots.iter().map(|roots| ("SSL_CERT_FILE", roots)));
        let control = Process::start_announcing(&mut command, &self.path("control.log"));
        let addresses: Value = serde_json::from_str(&control.line()).unwrap();
        self.http = addresses["http"].as_str().unwrap().into();
        self.grpc = addresses["grpc"].as_str().unwrap().into();
        self.dns = addresses["dns"].as_str().unwrap().into();
        self.control = Some(control);
    }

    pub fn control(&mut self) -> &mut Process {
        self.control.as_mut().expect("the control plane runs")
    }

    /// `kill -9` of the control plane.
    pub fn kill_control(&mut self) {
        self.control.take().expect("the control plane runs").kill_hard();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `meshctl COMMAND` with this mesh's data directory and nothing else of the environment.
    pub fn command(&self, command: &str) -> Command {
        let mut process = on_host(self.host.as_ref());
        process.arg(command).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        process.env("POSTERN_DATA_DIR", self.directory.path().join("data")).env("HOME", self.directory.path());
        process.current_dir(self.directory.path());
        process
    }

    /// Runs a client command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments[0]).args(&arguments[1..]).output().unwrap()
    }

    /// Runs a client command that must succeed; its standard output.
    #[track_caller]
    pub fn meshctl(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "meshctl {arguments:?}: {:?}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// The JSON that a client command prints.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.extend(["-o", "json"]);
        serde_json::from_str(&self.meshctl(&all)).unwrap()
    }

    pub fn allow(&self, source: &str, destination: &str) {
        self.meshctl(&["intention", "allow", source, destination, "--wait", "20s"]);
    }

    pub fn deny(&self, source: &str, destination: &str) {
        self.meshctl(&["intention", "deny", source, destination, "--wait", "20s"]);
    }

    pub fn token(&self, service: &str) -> String {
        self.json(&["token", "create", "--service", service])["token"].as_str().unwrap().into()
    }

    /// A sidecar in front of `local`, with an id of its own.
    pub fn serve(&self, service: &str, local: &str) -> Sidecar {
        self.sidecar(service, &format!("{service}-1"), &["--local", local])
    }

    /// A sidecar in front of `local`, which speaks `protocol`.
    pub fn serve_as(&self, service: &str, protocol: &str, local: &str) -> Sidecar {
        self.sidecar(service, &format!("{service}-1"), &["--local", local, "--protocol", protocol])
    }

    /// Puts intentions in force beside those that are there already.
    #[track_caller]
    pub fn apply(&self, intentions: &str) {
        let file = self.path("intentions.yaml");
        std::fs::write(&file, intentions).unwrap();
        self.meshctl(&["intention", "apply", "-f", &file.display().to_string(), "--merge", "--yes", "--wait", "20s"]);
    }

    /// Puts settings of services in force beside those that are there already.
    #[track_caller]
    pub fn set(&self, settings: &str) {
        let file = self.path("settings.yaml");
        std::fs::write(&file, settings).unwrap();
        self.meshctl(&["service", "config", "apply", "-f", &file.display().to_string(), "--yes", "--wait", "20s"]);
    }

    /// A sidecar that only calls `upstreams`.
    pub fn call(&self, service: &str, upstreams: &[&str]) -> Sidecar {
        let mut options = Vec::new();
        let listening: Vec<String> = upstreams.iter().map(|name| format!("{name}=127.0.0.1:0")).collect();
        for upstream in &listening {
            options.extend(["--upstream", upstream.as_str()]);
        }
        self.sidecar(service, &format!("{service}-1"), &options)
    }

    /// A sidecar with the flags given.
    pub fn sidecar(&self, service: &str, id: &str, options: &[&str]) -> Sidecar {
        self.sidecar_at(self.host.clone(), service, id, options)
    }

    /// A sidecar on another host.
    pub fn sidecar_on(&self, host: &Host, service: &str, id: &str, options: &[&str]) -> Sidecar {
        self.sidecar_at(Some(host.clone()), service, id, options)
    }

    fn sidecar_at(&self, host: Option<Host>, service: &str, id: &str, options: &[&str]) -> Sidecar {
        let token = self.token(service);
        let mut sidecar = Sidecar {
            host,
            directory: self.directory.path().into(),
            arguments: self.sidecar_arguments(service, id, options),
            token: Some(token),
            id: id.into(),
            process: None,
            inbound: None,
            admin: String::new(),
            upstreams: BTreeMap::new(),
        };
        sidecar.start();
        sidecar
    }

    fn sidecar_arguments(&self, service: &str, id: &str, options: &[&str]) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["--service", service, "--id", id, "--control", &self.grpc, "--print-addresses", "--admin", "127.0.0.1:0"]
                .iter()
                .map(ToString::to_string)
                .collect();
        if !options.contains(&"--listen") {
            arguments.extend(["--listen".into(), "127.0.0.1:0".into()]);
        }
        arguments.extend(["--state-dir".into(), self.path(&format!("state-{id}")).display().to_string()]);
        arguments.extend(self.of_sidecars.iter().cloned());
        arguments.extend(options.iter().map(ToString::to_string));
        arguments
    }

    /// Whether the control plane sees an open stream of this instance.
    pub fn is_connected(&self, id: &str) -> bool {
        let status = self.json(&["status"]);
        let instances = status["instances"].as_array().cloned().unwrap_or_default();
        instances.iter().any(|instance| instance["id"] == id && instance["connected"] == true)
    }

    #[track_caller]
    pub fn wait_connected(&self, id: &str) {
        eventually(&format!("{id} is connected"), || self.is_connected(id).then_some(()));
    }
}

/// The binary under test, on a host of its own where one is given.
fn on_host(host: Option<&Host>) -> Command {
    match host {
        Some(host) => host.command(meshctl_binary()),
        None => Command::new(meshctl_binary()),
    }
}

/// A sidecar in a process of its own.
pub struct Sidecar {
    host: Option<Host>,
    directory: PathBuf,
    arguments: Vec<String>,
    token: Option<String>,
    process: Option<Process>,
    pub id: String,
    pub inbound: Option<String>,
    pub admin: String,
    pub upstreams: BTreeMap<String, String>,
}

impl Sidecar {
    /// Starts it and waits until it says that it can serve traffic.
    #[track_caller]
    pub fn start(&mut self) {
        let mut command = on_host(self.host.as_ref());
        command.arg("proxy").args(&self.arguments).env_clear().env("HOME", &self.directory);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("POSTERN_DATA_DIR", self.directory.join("data-of-proxies"));
        if let Some(token) = self.token.take() {
            command.env("POSTERN_PROXY_TOKEN", token);
        }
        let process = Process::start_announcing(&mut command, &self.directory.join(format!("{}.log", self.id)));
        let addresses: Value = serde_json::from_str(&process.line()).unwrap();
        self.inbound = addresses["inbound"].as_str().map(Into::into);
        self.admin = addresses["admin"].as_str().unwrap().into();
        self.upstreams = serde_json::from_value(addresses["upstreams"].clone()).unwrap_or_default();
        self.process = Some(process);
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the sidecar runs")
    }

    pub fn kill_hard(&mut self) {
        self.process.take().expect("the sidecar runs").kill_hard();
    }

    /// What it runs with from the next start on, beside what it was made with.
    pub fn add_flags(&mut self, flags: &[&str]) {
        self.arguments.extend(flags.iter().map(ToString::to_string));
    }

    /// Tunnels that are open, of one direction.
    pub fn tunnels(&self, direction: &str) -> f64 {
        self.metric("postern_tunnels_active", &[&format!("direction=\"{direction}\"")])
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join(format!("{}.log", self.id))).unwrap_or_default()
    }

    pub fn upstream(&self, name: &str) -> &str {
        &self.upstreams[name]
    }

    /// A GET of the admin listener: status and body.
    pub fn admin(&self, path: &str) -> (u16, String) {
        super::traffic::http_get(&self.admin, path)
    }

    /// The sum of all series of a metric whose line contains every one of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let (_, text) = self.admin("/metrics");
        text.lines()
            .filter(|line| line.starts_with(name) && labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}
