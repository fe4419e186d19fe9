//! Claims the addresses of a sidecar.
//!
//! A port is claimed by a plain bind: with SO_REUSEPORT a second sidecar of the same user would silently share it.
//! SO_REUSEADDR only lets a port be used again while old connections linger; it never shares one that is listened on.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};

use crate::ProxyError;
use crate::outbound::{UpstreamListener, UpstreamSpec};
use crate::settings::{Address, Settings, UpstreamSetting};
use crate::state::StateDir;

/// Where sidecars listen for each other, unless told otherwise.
const INBOUND_PORTS: RangeInclusive<u16> = 21_000..=21_255;
/// Where `/metrics` and `/ready` are, unless told otherwise.
const ADMIN_PORTS: RangeInclusive<u16> = 19_000..=19_255;
const BACKLOG: i32 = 4_096;

/// The listener for other sidecars; `None` for an instance that only calls. The port is remembered.
pub fn inbound(settings: &Settings, state: &StateDir) -> Result<Option<TcpListener>, ProxyError> {
    if settings.locals.is_empty() {
        return Ok(None);
    }
    let listener = match &settings.listen {
        // What the kernel chose at the first start, callers know by now: it is asked for first at the next one.
        Some(Address::Tcp { host, port: 0 }) => {
            let before = state.port().map(|port| Address::Tcp { host: host.clone(), port });
            let again = before.and_then(|address| tcp(&address, "").ok());
            match again {
                Some(listener) => listener,
                None => tcp(&Address::Tcp { host: host.clone(), port: 0 }, "choose another --listen")?,
            }
        }
        Some(address) => tcp(address, "choose another --listen")?,
        None => {
            let remembered = state.port();
            let ports = remembered.into_iter().chain(INBOUND_PORTS);
            first_free(&everywhere(), ports, "free a port of 21000–21255, or give --listen")?
        }
    };
    state.keep_port(port_of(&listener)?)?;
    Ok(Some(listener))
}

/// The listener for `/metrics` and `/ready`.
pub fn admin(settings: &Settings) -> Result<TcpListener, ProxyError> {
    match &settings.admin {
        Some(address) => tcp(address, "choose another --admin"),
        None => first_free(&[Ipv4Addr::LOCALHOST.into()], ADMIN_PORTS, "free a port of 19000–19255, or give --admin"),
    }
}

/// The listeners for the service beside this sidecar.
pub fn upstreams(settings: &Settings) -> Result<Vec<(UpstreamSpec, UpstreamListener)>, ProxyError> {
    settings.upstreams.iter().map(upstream).collect()
}

fn upstream(setting: &UpstreamSetting) -> Result<(UpstreamSpec, UpstreamListener), ProxyError> {
    let listener = match &setting.listen {
        Address::Unix(path) => UpstreamListener::Unix(path.clone(), unix(path)?),
        address => UpstreamListener::Tcp(tcp(address, "another process uses it; choose another address for this --upstream")?),
    };
    Ok((UpstreamSpec { service: setting.service.clone(), port: setting.port.clone() }, listener))
}

/// Binds the first address that a setting resolves to.
pub fn tcp(address: &Address, cure: &str) -> Result<TcpListener, ProxyError> {
    let failed = |source| ProxyError::Bind { address: address.to_string(), source, cure: cure.into() };
    let Address::Tcp { host, port } = address else {
        return Err(ProxyError::Configuration(format!("{address} cannot be listened on here; give HOST:PORT")));
    };
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in (host.as_str(), *port).to_socket_addrs().map_err(failed)? {
        match bind(resolved) {
            Ok(listener) => return Ok(listener),
            Err(error) if resolved.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) && has_no_v6(&error) => {
                return bind((Ipv4Addr::UNSPECIFIED, *port).into()).map_err(failed);
            }
            Err(error) => refused = error,
        }
    }
    Err(failed(refused))
}

/// A UNIX socket that only this user can open, from its first moment on.
pub fn unix(path: &Path) -> Result<UnixListener, ProxyError> {
    let failed = |cure: &str| {
        let (address, cure) = (format!("unix:{}", path.display()), cure.to_owned());
        move |source| ProxyError::Bind { address, source, cure }
    };
    remove_left_over(path).map_err(failed("another process listens there, or it is not a socket; choose another path"))?;
    bind_private(path).map_err(failed("check that its directory exists and can be written to"))
}

/// A socket that nobody answers was left by a process that was killed.
fn remove_left_over(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file of that name"))
        }
        Ok(_) if UnixStream::connect(path).is_ok() => Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => std::fs::remove_file(path),
    }
}

/// Binds in a directory that nobody else can enter, and moves the socket to its place once it is closed to others.
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let room = parent.join(format!(".p{}", std::process::id()));
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&room)?;
    let bound = bind_in(&room, path);
    let removed = std::fs::remove_dir_all(&room);
    let listener = bound?;
    removed?;
    Ok(listener)
}

fn bind_in(room: &Path, path: &Path) -> io::Result<UnixListener> {
    let inside = room.join("s");
    let listener = UnixListener::bind(&inside)?;
    std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    std::fs::rename(&inside, path)?;
    Ok(listener)
}

fn first_free(hosts: &[IpAddr], ports: impl Iterator<Item = u16>, cure: &str) -> Result<TcpListener, ProxyError> {
    let mut last = None;
    for port in ports {
        for host in hosts {
            let address = SocketAddr::new(*host, port);
            match bind(address) {
                Ok(listener) => return Ok(listener),
                Err(error) if has_no_v6(&error) => {}
                Err(error) => {
                    last = Some((address, error));
                    break;
                }
            }
        }
    }
    let (address, source) = last.unwrap_or_else(|| (SocketAddr::new(hosts[0], 0), io::ErrorKind::AddrNotAvailable.into()));
    Err(ProxyError::Bind { address: address.to_string(), source, cure: cure.into() })
}

/// Every interface: both families where there is IPv6, else IPv4.
fn everywhere() -> [IpAddr; 2] {
    [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()]
}

fn has_no_v6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::AddrNotAvailable)
        || error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn port_of(listener: &TcpListener) -> Result<u16, ProxyError> {
    local_address(listener).map(|address| address.port())
}

/// The address that a listener has.
pub fn local_address(listener: &TcpListener) -> Result<SocketAddr, ProxyError> {
    listener.local_addr().map_err(|source| ProxyError::System { what: "the address of a listener cannot be read", source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_listened_on_is_not_shared() {
        let first = bind(([127, 0, 0, 1], 0).into()).unwrap();
        assert_eq!(bind(first.local_addr().unwrap()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn the_first_free_port_is_taken() {
        let taken = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let port = taken.local_addr().unwrap().port();
        let ports = [port, 0].into_iter();
        let other = first_free(&[Ipv4Addr::LOCALHOST.into()], ports, "").unwrap();
        assert_ne!(other.local_addr().unwrap().port(), port);
    }

    #[test]
    fn a_unix_socket_is_for_its_owner_alone_and_replaces_one_that_was_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db.sock");
        drop(unix(&path).unwrap());

        let listener = unix(&path).unwrap();

        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(unix(&path).is_err(), "it is in use");
        drop(listener);
    }
}
