//! Who calls: the operator, by token or as our own user or root on the UNIX socket; the bearer of a token of access control; or nobody.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::http::header::HeaderName;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use parking_lot::Mutex;
use postern_ca::OperatorToken;
use tokio::sync::OwnedSemaphorePermit;
use zeroize::Zeroizing;

use super::consul::call::Params;
use super::demand::{self, Demand};
use super::error::ApiError;
use crate::acl::{self, Access, Authority, Denied, Grants, Resource};
use crate::mirror::{Bearer, Mirror};
use crate::policy::Author;

const CONSUL_TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

/// From where a connection comes.
#[derive(Debug, Clone)]
pub enum Origin {
    /// TCP, with or without TLS.
    Tcp(IpAddr),
    /// The UNIX socket, whose peer the kernel names.
    Unix {
        /// The user of the peer.
        uid: u32,
    },
}

/// The connection that a request came on.
#[derive(Debug, Clone)]
pub struct Connection {
    /// From where.
    pub origin: Origin,
    /// The same as the audit log writes it.
    from: Arc<str>,
    unauthenticated: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    is_authenticated: Arc<AtomicBool>,
    /// The credential that its last request showed, and whose it is: hashing it is most of what a small request costs.
    last_shown: Arc<Mutex<LastShown>>,
}

type LastShown = Option<(Zeroizing<String>, Whose)>;

/// Whose a credential looks to be. It never changes, so it may be kept; whether a token counts is asked each time.
#[derive(Debug, Clone)]
enum Whose {
    /// An operator's, under this name.
    Operator(String),
    /// Of whoever has the token of access control with this hash, if anybody.
    Bearer(String),
}

impl Connection {
    /// A connection that did not show a credential yet; it holds a place among those of its address.
    pub fn new(origin: Origin, place: Option<OwnedSemaphorePermit>) -> Self {
        let from = match &origin {
            Origin::Tcp(address) => address.to_string().into(),
            Origin::Unix { .. } => "unix".into(),
        };
        Self {
            origin,
            from,
            unauthenticated: Arc::new(Mutex::new(place)),
            is_authenticated: Arc::default(),
            last_shown: Arc::default(),
        }
    }

    fn author(&self, who: String) -> Author {
        Author { who, from: self.from.to_string() }
    }

    fn last_shown(&self, text: &str) -> Option<Whose> {
        let last = self.last_shown.lock();
        let (known, whose) = last.as_ref()?;
        verify_slices_are_equal(known.as_bytes(), text.as_bytes()).is_ok().then(|| whose.clone())
    }

    /// A credential was shown: its place is free for others.
    fn authenticated(&self) {
        if !self.is_authenticated.swap(true, Ordering::Relaxed) {
            self.unauthenticated.lock().take();
        }
    }
}

/// The hashes of the operator tokens that count.
#[derive(Debug, Clone, Default)]
pub struct Operators(Arc<Vec<String>>);

impl Operators {
    /// Hex SHA-256 each.
    pub fn new(hashes: Vec<String>) -> Self {
        Self(Arc::new(hashes))
    }

    fn accepts(&self, token: &OperatorToken) -> Option<String> {
        let hash = token.hash();
        let is_same = |known: &&String| verify_slices_are_equal(known.as_bytes(), hash.as_bytes()).is_ok();
        self.0.iter().filter(is_same).count().gt(&0).then_some(hash)
    }
}

/// Who the tokens of access control belong to.
pub trait Bearers {
    /// Who has the secret with this hash now.
    fn bearer(&self, hash: &str) -> Option<Bearer>;
    /// What a request without a secret may do.
    fn anonymous(&self) -> Arc<Grants>;
}

impl Bearers for Mirror {
    fn bearer(&self, hash: &str) -> Option<Bearer> {
        self.read(|view| view.access.bearer(hash, SystemTime::now(), view.cluster.datacenter.as_str()))
    }

    fn anonymous(&self) -> Arc<Grants> {
        self.read(|view| view.access.anonymous(SystemTime::now(), view.cluster.datacenter.as_str()))
    }
}

/// Decides whether a request may go on, in whose name, and with what authority. Where the route asks the authority itself,
/// that is left to it.
///
/// # Errors
/// 401 without a valid credential where one is needed, 403 where the credential does not reach; 403 for a wrong one on a
/// route of Consul's API.
pub fn admit(
    operators: &Operators,
    bearers: &impl Bearers,
    connection: &Connection,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<(Author, Authority), ApiError> {
    let path = uri.path();
    let address = match connection.origin {
        Origin::Unix { uid } => {
            return Ok((connection.author(format!("uid:{uid}")), Authority::operator()));
        }
        Origin::Tcp(address) => address,
    };
    let demand = demand::of(method, path);
    let is_open = demand == Demand::Nothing || (demand == Demand::NothingOnLoopback && address.is_loopback());
    let shown = match demand {
        Demand::OfRoute => credential_of_consul(uri, headers),
        _ => credential(headers)?,
    };
    let nobody = || (connection.author("anonymous".into()), Authority::of_anonymous(bearers.anonymous()));
    let (author, authority) = match shown.map(|text| holder(operators, bearers, &text, connection)) {
        None => nobody(),
        Some(Ok(holder)) => {
            connection.authenticated();
            holder
        }
        Some(Err(_)) if is_open => nobody(),
        Some(Err(error)) => {
            tracing::warn!(%address, path, "a request with a wrong credential was refused");
            // The words that Consul's clients look for.
            return Err(if demand == Demand::OfRoute { ApiError::new(StatusCode::FORBIDDEN, "ACL not found") } else { error });
        }
    };
    let needed = match &demand {
        Demand::Nothing | Demand::OfRoute => None,
        Demand::NothingOnLoopback if is_open => None,
        Demand::NothingOnLoopback => Some((Access::Read, Resource::Operator)),
        Demand::Permission(access, subject) => Some((*access, subject.resource())),
    };
    if let Some((access, resource)) = needed {
        authority.require(access, resource).map_err(|denied| refusal(&authority, denied))?;
    }
    Ok((author, authority))
}

/// 401 for whoever showed nothing, 403 for whoever may not.
pub(super) fn refusal(authority: &Authority, denied: Denied) -> ApiError {
    if authority.is_anonymous() {
        unauthorised("this call needs the operator token, or one that may do it")
    } else {
        ApiError::from(denied)
    }
}

fn holder(
    operators: &Operators,
    bearers: &impl Bearers,
    text: &str,
    connection: &Connection,
) -> Result<(Author, Authority), ApiError> {
    let known = connection.last_shown(text);
    let is_new = known.is_none();
    let whose = known.unwrap_or_else(|| Whose::of(operators, text));
    let holder = match &whose {
        Whose::Operator(who) => (connection.author(who.clone()), Authority::operator()),
        Whose::Bearer(hash) => {
            let bearer = bearers.bearer(hash).ok_or_else(|| unknown(text))?;
            let who = format!("token:{}", bearer.accessor.get(..8).unwrap_or(&bearer.accessor));
            (connection.author(who), Authority::of_token(bearer.accessor, bearer.grants))
        }
    };
    if is_new {
        *connection.last_shown.lock() = Some((Zeroizing::new(text.to_owned()), whose));
    }
    Ok(holder)
}

impl Whose {
    fn of(operators: &Operators, text: &str) -> Self {
        match text.parse().ok().and_then(|token| operators.accepts(&token)) {
            Some(hash) => Self::Operator(format!("operator:{}", hash.get(..8).unwrap_or(&hash))),
            None => Self::Bearer(acl::hash_of(text)),
        }
    }
}

/// Why a credential is that of nobody.
fn unknown(text: &str) -> ApiError {
    if text.starts_with("postern1.") {
        return unauthorised("this is an enrolment token, which only a sidecar can spend");
    }
    match text.parse::<OperatorToken>() {
        Ok(_) => unauthorised("this operator token is not valid here"),
        Err(_) => unauthorised("the credential is neither an operator token nor a token of access control"),
    }
}

fn unauthorised(error: &str) -> ApiError {
    ApiError::new(StatusCode::UNAUTHORIZED, error).hint(
        "send `Authorization: Bearer postern-op1.…`; the token is in the file operator.token of the control plane's data directory, \
         and the UNIX socket http.sock beside it needs none",
    )
}

/// The credential as Consul takes it: `X-Consul-Token`, `Authorization: Bearer …`, or `?token=`.
pub(super) fn credential_of_consul(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let bearer = text(header::AUTHORIZATION).and_then(|value| value.split_once(' '));
    let bearer = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim().to_owned());
    let named = text(CONSUL_TOKEN).map(ToOwned::to_owned);
    let asked = || uri.query().and_then(|query| Params::parse(query).text("token").map(ToOwned::to_owned));
    let is_given = |token: &String| !token.is_empty();
    asked().filter(is_given).or(named.filter(is_given)).or(bearer.filter(is_given))
}

/// `Authorization: Bearer …`, or `X-Consul-Token` for clients that know that one.
fn credential(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        let bearer = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, token) = bearer.ok_or_else(|| unauthorised("the Authorization header is not `Bearer TOKEN`"))?;
        return Ok(Some(token.trim().to_owned()));
    }
    let consul = headers.get(CONSUL_TOKEN).and_then(|value| value.to_str().ok()).map(str::trim);
    Ok(consul.filter(|token| !token.is_empty()).map(ToOwned::to_owned))
}

/// Reads the operator token of a data directory; `None` where there is none yet.
///
/// # Errors
/// A message with the cure where the file is open to others or holds something else.
pub fn read_token(path: &Path) -> Result<Option<OperatorToken>, String> {
    use std::os::unix::fs::MetadataExt;
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    let mode = std::fs::metadata(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?.mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(format!("{path} has mode {:04o}: others can read it; delete it, and a new one is made", mode & 0o7777));
    }
    let token = text.trim().parse().map_err(|error| format!("{}: {error}; delete it, and a new one is made", path.display()))?;
    Ok(Some(token))
}

/// Writes a new operator token, 0600.
///
/// # Errors
/// A message that names the file.
pub fn write_token(path: &Path, token: &OperatorToken) -> Result<(), String> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(Zeroizing::new(format!("{}\n", token.reveal())).as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| format!("cannot write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    /// One token, which may read the control plane and the service web.
    struct OneToken;

    impl Bearers for OneToken {
        fn bearer(&self, hash: &str) -> Option<Bearer> {
            let rules = acl::parse("operator = \"read\" service \"web\" { policy = \"read\" }").unwrap();
            (hash == acl::hash_of("secret"))
                .then(|| Bearer { accessor: "12345678-9".into(), grants: Arc::new(Grants::of(rules)) })
        }

        fn anonymous(&self) -> Arc<Grants> {
            Arc::new(Grants::of(acl::parse("service \"open\" { policy = \"read\" }").unwrap()))
        }
    }

    #[test]
    fn a_token_reaches_as_far_as_its_policies() {
        let far = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));
        for (path, status) in [
            ("/v1/services/web", None),
            ("/v1/services/api", Some(StatusCode::FORBIDDEN)),
            ("/v1/authority", None),
            ("/metrics", None),
            ("/v1/service-config/api", Some(StatusCode::FORBIDDEN)),
        ] {
            let got = admit_with(&[("authorization", "Bearer secret")], path, far);
            assert_eq!(got.clone().err(), status, "{path}");
            assert!(got.is_err() || got.unwrap() == "token:12345678");
        }
        assert_eq!(admit_with(&[], "/v1/services/web", far), Err(StatusCode::UNAUTHORIZED));
        assert_eq!(admit_with(&[], "/v1/services/open", far).unwrap(), "anonymous");
        assert_eq!(admit_with(&[("x-consul-token", "other")], "/v1/services/open", far), Err(StatusCode::UNAUTHORIZED));
    }

    fn admit_with(headers: &[(&'static str, &str)], path: &str, address: IpAddr) -> Result<String, StatusCode> {
        let token: OperatorToken = TOKEN.parse().unwrap();
        let operators = Operators::new(vec![token.hash()]);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let connection = Connection::new(Origin::Tcp(address), None);
        let admitted = admit(&operators, &OneToken, &connection, &Method::GET, &path.parse().unwrap(), &map);
        admitted.map(|(author, _)| author.who).map_err(|error| error.status())
    }

    const TOKEN: &str = "postern-op1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    #[test]
    fn the_operators_token_is_accepted_in_both_headers() {
        for headers in [("authorization", format!("Bearer {TOKEN}")), ("x-consul-token", TOKEN.to_owned())] {
            let who = admit_with(&[(headers.0, &headers.1)], "/v1/overview", LOOPBACK).unwrap();
            assert!(who.starts_with("operator:"), "{who}");
        }
    }

    #[test]
    fn without_a_valid_token_nothing_but_the_open_routes_answers() {
        let other = format!("Bearer {}", TOKEN.replace("AAAA", "AAAB"));
        for headers in [vec![], vec![("authorization", other.as_str())], vec![("authorization", "Basic eDp5")]] {
            assert_eq!(admit_with(&headers, "/v1/overview", LOOPBACK), Err(StatusCode::UNAUTHORIZED), "{headers:?}");
        }
        assert_eq!(admit_with(&[], "/v1/mesh", LOOPBACK).unwrap(), "anonymous");
    }

    /// A token that counts until it is deleted.
    struct OneTokenUntil(AtomicBool);

    impl Bearers for OneTokenUntil {
        fn bearer(&self, hash: &str) -> Option<Bearer> {
            OneToken.bearer(hash).filter(|_| self.0.load(Ordering::Relaxed))
        }

        fn anonymous(&self) -> Arc<Grants> {
            OneToken.anonymous()
        }
    }

    #[test]
    fn what_a_connection_showed_before_does_not_count_for_what_it_shows_now() {
        let (connection, counts) = (Connection::new(Origin::Tcp(LOOPBACK), None), OneTokenUntil(true.into()));
        let operators = Operators::new(vec![TOKEN.parse::<OperatorToken>().unwrap().hash()]);
        let ask = |token: &str| {
            let headers = HeaderMap::from_iter([(CONSUL_TOKEN, token.parse().unwrap())]);
            let uri = "/v1/services/web".parse().unwrap();
            admit(&operators, &counts, &connection, &Method::GET, &uri, &headers).map(|(author, _)| author.who).ok()
        };
        for _ in 0..2 {
            assert_eq!(ask("secret").as_deref(), Some("token:12345678"));
            assert_eq!(ask("other"), None);
            assert!(ask(TOKEN).unwrap().starts_with("operator:"));
            assert_eq!(ask("secret").as_deref(), Some("token:12345678"));
        }
        counts.0.store(false, Ordering::Relaxed);
        assert_eq!(ask("secret"), None, "it was deleted");
        assert!(ask(TOKEN).is_some());
    }

    #[test]
    fn metrics_are_open_on_loopback_only() {
        let far = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));
        for path in ["/metrics", "/v1/prometheus/targets"] {
            assert!(admit_with(&[], path, LOOPBACK).is_ok());
            assert_eq!(admit_with(&[], path, far), Err(StatusCode::UNAUTHORIZED));
        }
    }
}
