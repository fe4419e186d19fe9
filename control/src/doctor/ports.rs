//! Which process has a port, read from `/proc` where there is one.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name, as the kernel has it.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

/// Whether an address that a control plane would listen on is taken now.
pub fn is_taken(address: SocketAddr) -> bool {
    match crate::grpc::listen(address) {
        Ok(_) => false,
        Err(error) => error.kind() == io::ErrorKind::AddrInUse,
    }
}

/// Who listens on a TCP port of this host; `None` where nobody does, or where it is not ours to know.
pub fn holder_of(port: u16) -> Option<Holder> {
    let sockets: HashSet<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(listening).filter(|(on, _)| *on == port).collect::<Vec<_>>())
        .map(|(_, socket)| socket)
        .collect();
    if sockets.is_empty() { None } else { process_of(&sockets) }
}

/// Names the holder of a port in the error of a bind.
pub(crate) fn name_holder(port: u16, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::AddrInUse {
        return error;
    }
    match holder_of(port) {
        Some(holder) => io::Error::new(error.kind(), format!("it is in use by {holder}")),
        None => error,
    }
}

/// Port and inode of a line of `/proc/net/tcp` that is a listener.
fn listening(line: &str) -> Option<(u16, u64)> {
    const LISTEN: &str = "0A";
    let mut words = line.split_whitespace();
    let (_, port) = words.nth(1)?.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    if words.nth(1)? != LISTEN {
        return None;
    }
    Some((port, words.nth(5)?.parse().ok()?))
}

/// The first process that has one of these sockets open, among those that this user may look at.
fn process_of(sockets: &HashSet<u64>) -> Option<Holder> {
    let names: HashSet<String> = sockets.iter().map(|socket| format!("socket:[{socket}]")).collect();
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        let mut targets = files.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
        if targets.any(|target| target.to_str().is_some_and(|target| names.contains(target))) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(Holder { pid, name: name.trim().to_owned() });
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_table_is_read_where_it_is_a_listener() {
        let line = "   0: 0100007F:2134 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listening(line), Some((8500, 31337)));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None, "an open connection");
        assert_eq!(listening("  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"), None);
    }

    #[test]
    fn the_process_that_has_a_port_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(is_taken(address));
        assert_eq!(holder_of(address.port()).map(|holder| holder.pid), Some(std::process::id()));
        let error = crate::grpc::bind(address).unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        drop(taken);
        assert!(!is_taken(address));
    }
}
