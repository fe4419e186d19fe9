//! Finding the control plane: what the environment names, else a socket in the data directory, else the usual port.

use std::path::{Path, PathBuf};

use postern_names::Address;

use super::Client;
use super::connection::{Target, tls};
use crate::credential::{self, Secret};
use crate::data_dir::{self, Environment};
use crate::outcome::Failure;

const USUAL_PORT: u16 = 8500;

/// Where to look, in order.
pub struct Finder {
    candidates: Vec<Candidate>,
}

struct Candidate {
    target: Target,
    credential: Option<Secret>,
}

impl Finder {
    /// What a client command looks at: `POSTERN_HTTP`, `POSTERN_TOKEN` and `POSTERN_TOKEN_FILE`, else this machine.
    pub fn new(environment: Environment<'_>) -> Result<Self, Failure> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let credential = named_credential(&set)?;
        let place = set("POSTERN_HTTP");
        if place.is_none() && credential.is_none() {
            return Ok(Self::on_this_machine(&data_dir::find(environment)?));
        }
        let ca_file = set("POSTERN_CA_FILE").map(PathBuf::from);
        let place = place.unwrap_or_else(|| format!("http://127.0.0.1:{USUAL_PORT}"));
        let target = target(&place, ca_file.as_deref())?;
        if credential.is_some() && is_in_the_clear(&target) {
            return Err(Failure::new(format!("POSTERN_HTTP is {target}, and a token is not sent in the clear over a network"))
                .cure("use https://"));
        }
        Ok(Self { candidates: vec![Candidate { target, credential }] })
    }

    /// What can be reached with what this user can read on this machine.
    pub fn on_this_machine(data_dir: &Path) -> Self {
        let sockets = [data_dir.join("http.sock"), data_dir.join("dev/http.sock")];
        let mut candidates: Vec<Candidate> = sockets
            .into_iter()
            .filter(|path| path.exists())
            .map(|path| Candidate { target: Target::Socket(path), credential: None })
            .collect();
        // The port is anybody's who comes first. The token beside the sockets is not for them, and whom it is for has a socket.
        let usual = Target::Http { host: "127.0.0.1".into(), port: USUAL_PORT };
        candidates.push(Candidate { target: usual, credential: None });
        Self { candidates }
    }

    /// Only what can be used without asking anybody: a socket of this machine.
    pub fn with_a_credential(mut self) -> Option<Self> {
        self.candidates.retain(|candidate| matches!(candidate.target, Target::Socket(_)));
        (!self.candidates.is_empty()).then_some(self)
    }

    /// The socket of one control plane.
    pub fn socket(path: PathBuf) -> Self {
        Self { candidates: vec![Candidate { target: Target::Socket(path), credential: None }] }
    }

    /// Greets the first that is there.
    pub async fn connect(self) -> Result<Client, Failure> {
        let alone = self.candidates.len() == 1;
        let mut tried = Vec::new();
        let mut cure = None;
        for candidate in self.candidates {
            match candidate.target.connect().await {
                Ok(sender) => return Client::greet(candidate.target, sender, candidate.credential).await,
                Err(error) => {
                    cure = cure.or(candidate.target.cure(&error));
                    tried.push(format!("{} ({error})", candidate.target));
                }
            }
        }
        let what = if alone { "cannot reach the control plane at" } else { "no control plane answers; tried" };
        let general = "start one with `meshctl control` or `meshctl dev`, or say where it is with POSTERN_HTTP";
        Err(Failure::new(format!("{what} {}", tried.join(", "))).cure(cure.unwrap_or_else(|| general.to_owned())))
    }
}

fn named_credential(set: &impl Fn(&str) -> Option<String>) -> Result<Option<Secret>, Failure> {
    if let Some(token) = set("POSTERN_TOKEN") {
        return credential::operator(&token, "POSTERN_TOKEN").map(Some);
    }
    let Some(path) = set("POSTERN_TOKEN_FILE") else { return Ok(None) };
    let place = format!("POSTERN_TOKEN_FILE {path}");
    let token = credential::read_file(Path::new(&path), "POSTERN_TOKEN_FILE")?;
    credential::operator(&token, &place).map(Some)
}

/// `http(s)://HOST:PORT`, or an ADDR: plain on loopback, TLS elsewhere.
pub fn target(text: &str, ca_file: Option<&Path>) -> Result<Target, Failure> {
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme), rest.trim_end_matches('/')),
        None => (None, text),
    };
    let address: Address = rest.parse().map_err(|error: postern_names::NameError| {
        Failure::new(format!("POSTERN_HTTP: {error}")).cure("write http://HOST:PORT, https://HOST:PORT or an address")
    })?;
    let encrypted = match scheme {
        Some("http") => false,
        Some("https") => true,
        Some(other) => {
            return Err(Failure::new(format!("POSTERN_HTTP: {other}:// is not spoken here"))
                .cure("write http://HOST:PORT or https://HOST:PORT"));
        }
        None => !address.is_loopback() && !is_every_address(&address),
    };
    match address {
        Address::Unix(path) => Ok(Target::Socket(path)),
        Address::Tcp { host, port } => {
            let host = if host == "::" { "127.0.0.1".into() } else { host };
            if encrypted {
                Ok(Target::Https { host, port, tls: tls(ca_file)?, ca_file: ca_file.map(Path::to_owned) })
            } else {
                Ok(Target::Http { host, port })
            }
        }
    }
}

/// `:PORT` means every address to a listener; to a client it is this machine.
fn is_every_address(address: &Address) -> bool {
    matches!(address, Address::Tcp { host, .. } if host == "::")
}

fn is_in_the_clear(target: &Target) -> bool {
    match target {
        Target::Http { host, port } => !Address::Tcp { host: host.clone(), port: *port }.is_loopback(),
        Target::Https { .. } | Target::Socket(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Result<Vec<(String, bool)>, Failure> {
        let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        let finder = Finder::new(&lookup)?;
        Ok(finder.candidates.iter().map(|candidate| (candidate.target.to_string(), candidate.credential.is_some())).collect())
    }

    #[test]
    fn what_the_environment_names_is_the_only_candidate() {
        assert_eq!(found(&[("POSTERN_HTTP", "http://10.0.0.1:8500")]).unwrap(), [("http://10.0.0.1:8500".to_owned(), false)]);
        assert_eq!(found(&[("POSTERN_HTTP", "9500")]).unwrap(), [("http://127.0.0.1:9500".to_owned(), false)]);
        assert_eq!(found(&[("POSTERN_HTTP", "unix:/run/x.sock")]).unwrap(), [("unix:/run/x.sock".to_owned(), false)]);
        assert!(found(&[("POSTERN_HTTP", "ftp://x:1")]).is_err());
    }

    #[test]
    fn sockets_come_before_the_usual_port() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("dev")).unwrap();
        let place = dir.path().to_str().unwrap();
        assert_eq!(found(&[("POSTERN_DATA_DIR", place)]).unwrap(), [("http://127.0.0.1:8500".to_owned(), false)]);
        std::fs::write(dir.path().join("dev/http.sock"), "").unwrap();
        std::fs::write(dir.path().join("http.sock"), "").unwrap();
        let all = found(&[("POSTERN_DATA_DIR", place)]).unwrap();
        assert_eq!(all.len(), 3);
        std::fs::write(dir.path().join("operator.token"), "postern-op1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
        assert_eq!(found(&[("POSTERN_DATA_DIR", place)]).unwrap(), all, "no token for whoever has the port");
        assert!(all[0].0.ends_with("/http.sock") && all[1].0.ends_with("/dev/http.sock"), "{all:?}");
    }

    #[test]
    fn an_enrolment_token_is_refused_before_it_is_sent() {
        let failure = found(&[("POSTERN_TOKEN", "postern1.a.b")]).unwrap_err();
        assert!(failure.what.contains("enrolment token"), "{failure}");
    }

    #[test]
    fn a_token_file_that_can_not_be_read_is_named() {
        let failure = found(&[("POSTERN_TOKEN_FILE", "/nowhere/token")]).unwrap_err();
        assert!(failure.what.contains("/nowhere/token"), "{failure}");
    }
}
