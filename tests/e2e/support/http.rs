//! HTTP services behind sidecars, and scripts that call them.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::mesh::{Mesh, Sidecar};
use super::process::{Process, eventually, free_port};

/// How long a script may run that a test waits for.
const SCRIPT: Duration = Duration::from_secs(240);

/// A script of this directory, in the environment that `tests/run` makes.
pub fn script(name: &str) -> Command {
    script_of("http", name)
}

/// A script in another of the environments that `tests/run` makes.
fn script_of(environment: &str, name: &str) -> Command {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join(environment).join("bin/python");
    assert!(python.exists(), "{} is missing; tests/run makes it", python.display());
    let mut command = Command::new(python);
    command.arg("-u").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/scripts").join(name));
    command
}

/// Runs a script to its end, which must be a good one; the last line that it prints is JSON.
#[track_caller]
pub fn run_script(name: &str, arguments: &[&str]) -> Value {
    run_script_of("http", name, arguments)
}

/// The same for a script of another environment.
#[track_caller]
pub fn run_script_of(environment: &str, name: &str, arguments: &[&str]) -> Value {
    let mut child = script_of(environment, name)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (stdout, stderr) = (read_apart(stdout), read_apart(stderr));
    let deadline = Instant::now() + SCRIPT;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => std::thread::park_timeout(Duration::from_millis(10)),
        }
    };
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let is_good = status.is_some_and(|status| status.success());
    assert!(is_good, "{name} {arguments:?} ({id}): {status:?} (none: it hung)\n{stdout}{stderr}");
    stdout.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or(Value::Null)
}

fn read_apart(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// `curl`, which must succeed; what it prints on standard output.
#[track_caller]
pub fn curl(arguments: &[&str]) -> String {
    let output = Command::new("curl").args(["-sS", "--max-time", "240"]).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "curl {arguments:?}: {}{text}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A service in a process of its own that logs the requests which reach it.
pub struct Service {
    pub address: String,
    log: PathBuf,
    process: Process,
}

impl Service {
    /// A script that prints its address.
    pub fn start(mesh: &Mesh, name: &str) -> Self {
        Self::start_named(mesh, name, "")
    }

    /// A script that answers with `instance`.
    pub fn start_named(mesh: &Mesh, name: &str, instance: &str) -> Self {
        let log = mesh.path(&format!("{name}-{instance}.requests"));
        let mut command = script(name);
        command.arg(&log).arg(instance);
        let process = Process::start_announcing(&mut command, &mesh.path(&format!("{name}-{instance}.log")));
        let address: String = serde_json::from_str(&process.line()).unwrap();
        Self { address, log, process }
    }

    /// nginx with a root of its own, and its access log for a log. `listen` is what stands behind the port.
    pub fn nginx(mesh: &Mesh, listen: &str, locations: &str) -> Self {
        Self::nginx_named(mesh, "nginx", listen, locations)
    }

    /// nginx whose files are in a directory of this name.
    pub fn nginx_named(mesh: &Mesh, name: &str, listen: &str, locations: &str) -> Self {
        let root = mesh.path(name);
        std::fs::create_dir(&root).unwrap();
        let port = free_port();
        let user = if nix::unistd::geteuid().is_root() { "user root;" } else { "" };
        // The raw target and what nginx resolved it to.
        let configuration = format!(
            "{user} daemon off; pid {root}/pid; error_log stderr warn; worker_processes 1;
             events {{ worker_connections 4096; }}
             http {{ client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f;
                     uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; keepalive_requests 1000000; keepalive_timeout 600s;
                     log_format seen escape=json '{{\"method\":\"$request_method\",\"path\":\"$request_uri\",\"resolved\":\"$uri\",\
                     \"sent\":\"$bytes_sent\"}}';
                     access_log {root}/requests seen;
                     server {{ listen 127.0.0.1:{port} backlog=4096 {listen}; root {root}/www; {locations} }} }}",
            root = root.display()
        );
        let file = root.join("nginx.conf");
        std::fs::create_dir(root.join("www")).unwrap();
        std::fs::write(root.join("www/index.html"), "index\n").unwrap();
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-p").arg(&root);
        let process = Process::start(&mut command, &mesh.path(&format!("{name}.log")));
        eventually("nginx listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { address: format!("127.0.0.1:{port}"), log: root.join("requests"), process }
    }

    /// The requests that have reached it so far.
    pub fn requests(&self) -> Vec<Value> {
        // Not all that is asked for is UTF-8.
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How many requests whose path (as JSON) has this in it have reached it so far.
    pub fn count(&self, of: &str) -> usize {
        self.requests().iter().filter(|request| request["path"].as_str().is_some_and(|path| path.contains(of))).count()
    }

    /// Asks the service itself, past the mesh.
    pub fn tell(&self, path: &str) {
        assert_eq!(super::http_get(&self.address, path).0, 200, "{path}");
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// `web` calls `api`, whose service speaks HTTP.
pub struct Pair {
    pub mesh: Mesh,
    pub api: Sidecar,
    pub web: Sidecar,
    pub service: Service,
}

impl Pair {
    /// Both sidecars, with nothing allowed yet.
    pub fn start(protocol: &str, service: impl FnOnce(&Mesh) -> Service) -> Self {
        Self::of(Mesh::start(), protocol, service)
    }

    /// The same in a mesh that is there already.
    pub fn of(mesh: Mesh, protocol: &str, service: impl FnOnce(&Mesh) -> Service) -> Self {
        let service = service(&mesh);
        let api = mesh.serve_as("api", protocol, &service.address);
        let web = mesh.call("web", &["api"]);
        Self { mesh, api, web, service }
    }

    /// The ASGI service, which `web` may call.
    pub fn allowed(protocol: &str) -> Self {
        let pair = Self::start(protocol, |mesh| Service::start(mesh, "http_service.py"));
        pair.mesh.allow("web", "api");
        pair
    }

    /// Where `web` calls `api`.
    pub fn upstream(&self) -> &str {
        self.web.upstream("api")
    }

    /// Puts an intention of `web` to `api` in force that has these permissions (YAML, in brackets).
    #[track_caller]
    pub fn permit(&self, permissions: &str) {
        self.mesh.apply(&format!("intentions:\n- {{source: web, destination: api, permissions: {permissions}}}\n"));
    }
}
