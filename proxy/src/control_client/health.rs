//! Whether the service beside this sidecar accepts connections, and whether others can reach it past the sidecar.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::local::LocalTarget;

/// How often a service that does not answer is looked at: it may just be starting, and its callers wait for it.
const PERIOD_UNTIL_WELL: Duration = Duration::from_millis(250);

/// Probes every target each `period`, more often while one does not answer, and tells whether all accept a connection
/// within `timeout`. Without a target the service is taken to be well. Ends when nobody listens.
pub async fn probe(targets: Arc<[LocalTarget]>, period: Duration, timeout: Duration, healthy: watch::Sender<bool>) {
    while !healthy.is_closed() {
        let accepts = all_accept(&targets, timeout).await;
        healthy.send_if_modified(|told| std::mem::replace(told, accepts) != accepts);
        if targets.is_empty() {
            // There will never be anything else to tell.
            return healthy.closed().await;
        }
        sleep(if accepts { period } else { period.min(PERIOD_UNTIL_WELL) }).await;
    }
}

async fn all_accept(targets: &[LocalTarget], timeout: Duration) -> bool {
    for target in targets {
        if let Err(error) = target.dial(timeout).await {
            tracing::debug!(%target, %error, "the service does not accept connections");
            return false;
        }
    }
    true
}

/// Ports of the service on this host that listen beyond loopback: callers could pass by the sidecar.
pub fn open_beyond_loopback(targets: &[LocalTarget]) -> Vec<String> {
    let tables: Vec<String> =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let listening: Vec<(IpAddr, u16)> = tables.iter().flat_map(|table| listeners(table)).collect();
    targets.iter().filter_map(|target| warning(target, &listening)).collect()
}

fn warning(target: &LocalTarget, listening: &[(IpAddr, u16)]) -> Option<String> {
    let port = match target {
        LocalTarget::Socket(address) if address.ip().is_loopback() => address.port(),
        LocalTarget::Name { host, port } if host == "localhost" => *port,
        _ => return None,
    };
    let (ip, _) = listening.iter().find(|(ip, listens)| *listens == port && !ip.is_loopback())?;
    Some(format!("port {port} of the service listens on {ip}: the sidecar can be bypassed; let the service listen on 127.0.0.1"))
}

/// The listening sockets in the text of `/proc/net/tcp` or `/proc/net/tcp6` (proc(5)).
fn listeners(table: &str) -> impl Iterator<Item = (IpAddr, u16)> + '_ {
    const LISTEN: &str = "0A";
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next()?;
        let state = fields.nth(1)?;
        let (ip, port) = local.split_once(':')?;
        (state == LISTEN).then_some(())?;
        Some((address(ip)?, u16::from_str_radix(port, 16).ok()?))
    })
}

/// An address as the kernel prints it: 32-bit words in the byte order of the machine.
fn address(hex: &str) -> Option<IpAddr> {
    let bytes = data_encoding::HEXUPPER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
    let in_order: Vec<u8> =
        bytes.chunks_exact(4).flat_map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]).to_ne_bytes()).collect();
    if let Ok(four) = <[u8; 4]>::try_from(in_order.as_slice()) {
        return Some(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(in_order.as_slice()).ok()?;
    Some(Ipv6Addr::from(sixteen).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1
   1: 00000000:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 2 1
   2: 0100007F:1F92 0100007F:8888 01 00000000:00000000 00:00000000 00000000  1000        0 3 1
";

    #[test]
    #[cfg(target_endian = "little")]
    fn a_port_that_listens_everywhere_is_told() {
        let found: Vec<_> = listeners(TABLE).collect();
        assert_eq!(found, [("127.0.0.1".parse().unwrap(), 8080), ("0.0.0.0".parse().unwrap(), 8081)]);
        let loopback = |port: u16| LocalTarget::Socket(([127, 0, 0, 1], port).into());
        assert_eq!(warning(&loopback(8080), &found), None);
        assert!(warning(&loopback(8081), &found).unwrap().contains("8081"));
        assert_eq!(warning(&loopback(8082), &found), None);
    }

    #[tokio::test]
    async fn the_service_is_well_when_it_accepts_connections() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target: Arc<[LocalTarget]> = [LocalTarget::Socket(listener.local_addr().unwrap())].into();
        let (healthy, mut told) = watch::channel(false);
        let task = tokio::spawn(probe(target, Duration::from_millis(5), Duration::from_secs(1), healthy));

        told.wait_for(|healthy| *healthy).await.unwrap();
        drop(listener);
        told.wait_for(|healthy| !*healthy).await.unwrap();

        task.abort();
    }
}
