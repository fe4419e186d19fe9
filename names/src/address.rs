//! Where something listens or is found.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::NameError;

/// An ADDR: `HOST:PORT`, `[v6]:PORT`, `:PORT` (every local address), a bare `PORT` (loopback) or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A name or IP literal, and a port.
    Tcp {
        /// Without brackets; `::` for every local address.
        host: String,
        /// 0 asks the kernel.
        port: u16,
    },
    /// A UNIX socket with an absolute path.
    Unix(PathBuf),
}

impl Address {
    /// A port of 127.0.0.1.
    pub fn loopback(port: u16) -> Self {
        Self::Tcp { host: "127.0.0.1".into(), port }
    }

    /// Whether only this machine can reach it.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
        }
    }
}

impl FromStr for Address {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refuse = |why| NameError::new("address", text, why);
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(refuse("the path of a UNIX socket is absolute; write HOST:PORT, [v6]:PORT, :PORT, PORT or unix:/path"))
            };
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refuse("the port is not a number; write HOST:PORT, [v6]:PORT, :PORT, PORT or unix:/path"));
        }
        let port =
            port.parse().map_err(|_| refuse("a port is at most 65535; write HOST:PORT, [v6]:PORT, :PORT, PORT or unix:/path"))?;
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let inner = rest
                    .strip_suffix(']')
                    .ok_or_else(|| refuse("a [ is not closed; write HOST:PORT, [v6]:PORT, :PORT, PORT or unix:/path"))?;
                inner.parse::<std::net::Ipv6Addr>().map_err(|_| {
                    refuse("inside [] stands an IPv6 address; write HOST:PORT, [v6]:PORT, :PORT, PORT or unix:/path")
                })?;
                inner
            }
            None if host.is_empty() => "::",
            None if host.contains(':') => {
                return Err(refuse("an IPv6 address stands in brackets; write HOST:PORT, [v6]:PORT, :PORT, PORT or unix:/path"));
            }
            None => host,
        };
        if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':')) {
            return Err(refuse(
                "the host is neither a name nor an IP address; write HOST:PORT, [v6]:PORT, :PORT, PORT or unix:/path",
            ));
        }
        Ok(Self::Tcp { host: host.into(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_read() {
        for (text, read) in [
            ("db.example:5432", "db.example:5432"),
            ("[::1]:80", "[::1]:80"),
            (":8500", "[::]:8500"),
            ("8000", "127.0.0.1:8000"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()).as_deref(), Ok(read));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_form_that_is() {
        for text in [
            "", "x", "a:b", "1:2:3", "::1", "[::1", "[zz]:1", "h:65536", "a/b:1", "u@h:1", "unix:", "unix:a", "a b:1", "-1",
            "+1", "host:",
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.starts_with("address") && error.contains("write HOST:PORT"), "{text:?}: {error}");
        }
    }
}
