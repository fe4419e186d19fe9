//! The processes of `dev`: a control plane, and three services with a sidecar each.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_join::first_of;
use hyper::Method;
use postern_api::http::{CreateTokenRequest, CreatedToken, ServiceSummary, SetRequest, SetVerb, Written};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::process::Process;
use crate::cli::{LogArgs, LogFormat};
use crate::client::{Client, Finder};
use crate::data_dir::process_environment;
use crate::outcome::Failure;

/// Who calls whom.
const CHAIN: [(&str, Option<&str>); 3] = [("db", None), ("api", Some("db")), ("web", Some("api"))];

/// The policy that requests without a token have here.
const READ_EVERYTHING: &str = "read-everything";

/// How long the services may take until they can be called.
const HEALTHY: Duration = Duration::from_secs(30);

/// What runs.
pub struct Mesh {
    /// Where its data are.
    pub directory: PathBuf,
    /// HOST:PORT of the HTTP API.
    pub http: String,
    /// HOST:PORT where sidecars connect.
    pub grpc: String,
    /// HOST:PORT of the DNS server.
    pub dns: String,
    /// HOST:PORT of the service `web` itself.
    pub web: Option<String>,
    /// HOST:PORT of every service itself.
    locals: Vec<String>,
    log: LogArgs,
    seals_in_memory: bool,
    control: Option<Process>,
    services: Vec<Process>,
}

impl Mesh {
    /// Nothing runs yet.
    pub fn new(directory: &Path, log: &LogArgs, seals_in_memory: bool) -> Self {
        Self {
            directory: directory.to_owned(),
            http: String::new(),
            grpc: String::new(),
            dns: String::new(),
            web: None,
            locals: Vec::new(),
            log: log.clone(),
            seals_in_memory,
            control: None,
            services: Vec::new(),
        }
    }

    /// Where the logs are.
    pub fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    fn log_flags(&self) -> Vec<String> {
        let format = match self.log.log_format {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        };
        ["--log-level", &self.log.log_level, "--log-format", format].map(String::from).to_vec()
    }

    /// Starts the control plane, on the usual ports where they are free. Another process may take one of those between
    /// our look and the start; then there are others.
    pub async fn start_control(&mut self) -> Result<(), Failure> {
        let usual = [usual_or_free(8500), usual_or_free(8502), usual_or_free(8600)];
        let any = [(); 3].map(|()| String::from("127.0.0.1:0"));
        match self.start_control_on(&usual).await {
            Err(_) if usual != any => self.start_control_on(&any).await,
            started => started,
        }
    }

    async fn start_control_on(&mut self, [http, grpc, dns]: &[String; 3]) -> Result<(), Failure> {
        let mut arguments = vec!["control".to_owned(), "--print-addresses".into(), "--until-stdin-closes".into()];
        arguments.extend(["--data-dir".into(), self.directory.display().to_string()]);
        arguments.extend(["--http".into(), http.clone(), "--grpc".into(), grpc.clone()]);
        arguments.extend(["--dns".into(), dns.clone()]);
        if self.seals_in_memory {
            arguments.push("--seal-in-memory".into());
        } else if let Some(path) = process_environment("POSTERN_CONTROL_SEAL_KEY_FILE") {
            // Everything else of the environment is kept from the processes here; what is kept must open again.
            arguments.extend(["--seal-key-file".into(), path]);
        }
        arguments.extend(self.log_flags());
        let control = self.control.insert(Process::start("control", &arguments, &[], &self.directory.join("logs"))?);
        let addresses: postern_control::Addresses = control.addresses().await?;
        self.http = addresses.http;
        self.grpc = addresses.grpc;
        self.dns = addresses.dns.unwrap_or_default();
        Ok(())
    }

    /// Starts db, api and web, each with its sidecar, and waits until they can be called.
    pub async fn start_services(&mut self) -> Result<(), Failure> {
        for (name, calls) in CHAIN {
            let token = self.token(name).await?;
            let port = free_port()?;
            let arguments = self.service_arguments(name, calls, port);
            let process = Process::start(name, &arguments, &[("POSTERN_RUN_TOKEN", &token)], &self.logs())?;
            self.services.push(process);
            let local = format!("127.0.0.1:{port}");
            if name == "web" {
                self.web = Some(local.clone());
            }
            self.locals.push(local);
        }
        for service in &mut self.services {
            let _: postern_proxy::Addresses = service.addresses().await?;
        }
        self.until_healthy().await
    }

    /// A service starts after its sidecar, and can be called from the sidecar's next probe on. Until its first probe an
    /// instance counts as healthy, so the services themselves are asked first.
    async fn until_healthy(&self) -> Result<(), Failure> {
        let mut client = self.client().await?;
        let healthy = async {
            for local in &self.locals {
                while TcpStream::connect(local).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            loop {
                let services: Vec<ServiceSummary> = client.get("/v1/services").await?;
                if services.iter().filter(|service| service.healthy > 0).count() >= CHAIN.len() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        match tokio::time::timeout(HEALTHY, healthy).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(format!(
                "the demo services did not become healthy; their logs are in {}",
                self.logs().display()
            ))),
        }
    }

    fn service_arguments(&self, name: &str, calls: Option<&str>, port: u16) -> Vec<String> {
        let local = format!("127.0.0.1:{port}");
        let state = self.directory.join("proxy").join(format!("{name}-dev")).display().to_string();
        let id = format!("{name}-dev");
        let mut arguments: Vec<String> =
            ["run", "--service", name, "--id", &id, "--control", &self.grpc, "--state-dir", &state].map(String::from).into();
        arguments.extend(
            ["--local", &local, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--access-log", "all"].map(String::from),
        );
        arguments.extend(
            ["--probe", "250ms", "--shutdown-delay", "0s", "--drain", "1s", "--print-addresses", "--until-stdin-closes"]
                .map(String::from),
        );
        arguments.extend(self.log_flags());
        if let Some(upstream) = calls {
            arguments.extend(["--upstream".into(), format!("{upstream}=127.0.0.1:0")]);
        }
        let binary = super::process::this_binary().unwrap_or_else(|_| PathBuf::from("meshctl")).display().to_string();
        arguments.extend(["--", &binary, "demo-service", "--name", name, "--listen", &local].map(String::from));
        if let Some(upstream) = calls {
            arguments.extend(["--calls", upstream].map(String::from));
        }
        arguments
    }

    async fn client(&self) -> Result<Client, Failure> {
        Finder::socket(self.directory.join("http.sock")).connect().await
    }

    async fn token(&self, service: &str) -> Result<String, Failure> {
        let service = service.parse().map_err(|error: postern_names::NameError| Failure::new(error.to_string()))?;
        let request = CreateTokenRequest { service, uses: Some(1), ttl_s: Some(300) };
        let created: CreatedToken = self.client().await?.call(Method::POST, "/v1/tokens", Some(&request), Duration::ZERO).await?;
        Ok(created.token)
    }

    /// Requests without a token may read: on this machine there is nothing to hide, and tools work at once. A mesh that is
    /// kept and has the policy already stays as it is.
    pub async fn let_everyone_read(&self) -> Result<(), Failure> {
        let mut client = self.client().await?;
        let there: Option<Value> = client.get_if_there(&format!("/v1/acl/policy/name/{READ_EVERYTHING}")).await?;
        if there.is_some() {
            return Ok(());
        }
        let kinds = ["key", "service", "node", "session", "intentions", "event", "query", "agent"];
        let rules: String = kinds.iter().map(|kind| format!("{kind}_prefix \"\" {{ policy = \"read\" }}\n")).collect();
        let policy = json!({ "Name": READ_EVERYTHING, "Rules": rules + "operator = \"read\"\n", "Description": "meshctl dev" });
        let _: Value = client.call(Method::PUT, "/v1/acl/policy", Some(&policy), Duration::ZERO).await?;
        let token = json!({ "Description": "Anonymous Token", "Policies": [{ "Name": READ_EVERYTHING }] });
        let path = "/v1/acl/token/00000000-0000-0000-0000-000000000002";
        let _: Value = client.call(Method::PUT, path, Some(&token), Duration::ZERO).await?;
        Ok(())
    }

    /// Allows a call, and waits until that is in force.
    pub async fn allow(&self, source: &str, destination: &str) -> Result<(), Failure> {
        let wait = Duration::from_secs(5);
        let request = SetRequest {
            verb: SetVerb::Allow,
            expires_in_s: None,
            reason: Some("meshctl dev".into()),
            wait_ms: 5_000,
            dry_run: false,
            expected_revision: None,
        };
        let _: Written = self
            .client()
            .await?
            .call(Method::PUT, &format!("/v1/intentions/{source}/{destination}"), Some(&request), wait)
            .await?;
        Ok(())
    }

    /// Waits until a process ends that should not.
    pub async fn first_to_end(&mut self) -> Failure {
        let processes = self.control.iter_mut().chain(&mut self.services);
        first_of(processes.map(|process| Box::pin(process.ended())).collect()).await
    }

    /// Takes everything down: services first, so that they can say goodbye.
    pub async fn stop(mut self, hurry: impl Future<Output = ()>) {
        let orderly = async {
            for service in &self.services {
                service.ask_to_end();
            }
            for service in &mut self.services {
                service.gone().await;
            }
            if let Some(control) = &mut self.control {
                control.ask_to_end();
                control.gone().await;
            }
        };
        tokio::select! {
            () = orderly => {}
            () = hurry => {}
        }
    }
}

/// Waiting for the first of many futures.
mod futures_join {
    use std::future::poll_fn;
    use std::pin::Pin;
    use std::task::Poll;

    /// The output of the first that is done.
    pub async fn first_of<F: Future>(mut futures: Vec<Pin<Box<F>>>) -> F::Output {
        poll_fn(|context| {
            for future in &mut futures {
                if let Poll::Ready(output) = future.as_mut().poll(context) {
                    return Poll::Ready(output);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The usual port of loopback, or one that the kernel chooses when that is taken.
fn usual_or_free(port: u16) -> String {
    let port = if TcpListener::bind(("127.0.0.1", port)).is_ok() { port } else { 0 };
    format!("127.0.0.1:{port}")
}

fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| Failure::new(format!("there is no free port on loopback: {error}")))
}
