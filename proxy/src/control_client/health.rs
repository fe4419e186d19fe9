//! How well the service beside this sidecar is: by its checks, or whether it accepts connections; and whether others can
//! reach it past the sidecar.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use postern_api::v1;
use postern_checks::{Damper, Definition, Kind, Status, run};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep};

use crate::local::LocalTarget;

/// The first results come within this, so that an instance is soon there.
const FIRST_WITHIN: Duration = Duration::from_millis(250);
/// Output that changes while the status does not is told this often.
const OUTPUT_PERIOD: Duration = Duration::from_secs(60);
/// Checks that run at the same time.
const CHECKS_AT_ONCE: usize = 4;

/// How well the service is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Health {
    /// Whether it can be called.
    pub is_well: bool,
    /// What its checks say; none: it is seen whether it accepts connections.
    pub checks: Vec<v1::Check>,
}

impl Health {
    /// Before anything was found out.
    pub fn unknown(checks: &[Definition]) -> Self {
        let checks: Vec<v1::Check> = checks
            .iter()
            .map(|check| v1::Check {
                id: check.id.clone(),
                name: check.name.clone(),
                kind: check.type_name().to_owned(),
                notes: check.notes.clone(),
                status: check.initial.to_string(),
                output: String::new(),
            })
            .collect();
        let is_well = !checks.is_empty() && !checks.iter().any(|check| check.status == Status::Critical.as_str());
        Self { is_well, checks }
    }
}

/// Runs the checks, and tells what they find: a change of a status at once, other output now and then. Ends when nobody
/// listens.
pub async fn check(checks: Arc<[Definition]>, health: watch::Sender<Health>) {
    let places = Semaphore::new(CHECKS_AT_ONCE);
    let health = &health;
    let running = checks.iter().enumerate().filter_map(|(at, check)| match &check.kind {
        Kind::Probe(probe, schedule) => {
            let finding = Mutex::new((Damper::new(check.thresholds, check.initial), None));
            let spread = schedule.interval.min(FIRST_WITHIN);
            Some(run::poll(probe, *schedule, spread, &places, move |answer| {
                let (damper, told_at) = &mut *finding.lock();
                tell(health, at, damper.take(answer.status), answer.output, told_at);
            }))
        }
        Kind::Ttl(_) | Kind::Alias { .. } => None,
    });
    tokio::select! {
        _ = join_all(running) => {}
        () = health.closed() => {}
    }
}

fn tell(health: &watch::Sender<Health>, at: usize, status: Status, output: String, told_at: &mut Option<Instant>) {
    health.send_if_modified(|health| {
        let Some(check) = health.checks.get_mut(at) else { return false };
        let is_changed = check.status != status.as_str();
        let is_due = check.output != output && told_at.is_none_or(|at| at.elapsed() >= OUTPUT_PERIOD);
        if !is_changed && !is_due {
            return false;
        }
        if is_changed {
            tracing::info!(check = check.id, output, "{status}");
        }
        *told_at = Some(Instant::now());
        check.status = status.to_string();
        check.output = output;
        health.is_well = !health.checks.iter().any(|check| check.status == Status::Critical.as_str());
        true
    });
}

/// How often a service that does not answer is looked at: it may just be starting, and its callers wait for it.
const PERIOD_UNTIL_WELL: Duration = Duration::from_millis(250);

/// Probes every target each `period`, more often while one does not answer, and tells whether all accept a connection
/// within `timeout`. Without a target the service is taken to be well. Ends when nobody listens.
pub async fn probe(targets: Arc<[LocalTarget]>, period: Duration, timeout: Duration, health: watch::Sender<Health>) {
    while !health.is_closed() {
        let accepts = all_accept(&targets, timeout).await;
        health.send_if_modified(|health| {
            let is_changed = std::mem::replace(&mut health.is_well, accepts) != accepts;
            if is_changed {
                tracing::info!("the service {}", if accepts { "accepts connections" } else { "does not accept connections" });
            }
            is_changed
        });
        if targets.is_empty() {
            // There will never be anything else to tell.
            return health.closed().await;
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
        let (health, mut told) = watch::channel(Health::default());
        let task = tokio::spawn(probe(target, Duration::from_millis(5), Duration::from_secs(1), health));

        told.wait_for(|health| health.is_well).await.unwrap();
        drop(listener);
        told.wait_for(|health| !health.is_well).await.unwrap();

        task.abort();
    }

    #[tokio::test]
    async fn a_service_is_as_well_as_the_worst_of_its_checks() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let check = |id: &str, address: &str| {
            let (id, tcp, interval) = (id.to_owned(), address.to_owned(), "100ms".to_owned());
            let form = postern_checks::CheckForm { id, tcp, interval, ..Default::default() };
            form.validate().unwrap()
        };
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let checks: Arc<[Definition]> = [check("a", &address), check("b", &other.local_addr().unwrap().to_string())].into();
        let (health, mut told) = watch::channel(Health::unknown(&checks));
        assert!(!told.borrow().is_well);
        let task = tokio::spawn(super::check(checks, health));

        let patience = Duration::from_secs(20);
        tokio::time::timeout(patience, told.wait_for(|health| health.is_well)).await.unwrap().unwrap();
        drop(listener);
        let waited = tokio::time::timeout(patience, told.wait_for(|health| !health.is_well)).await;
        let health = waited.unwrap().unwrap().clone();
        assert_eq!((health.checks[0].status.as_str(), health.checks[1].status.as_str()), ("critical", "passing"));
        assert!(health.checks[0].output.contains(&address), "{}", health.checks[0].output);
        task.abort();
    }
}
