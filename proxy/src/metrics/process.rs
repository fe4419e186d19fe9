//! What the operating system says about this process, under the names that Prometheus clients agree on.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use prometheus::{Counter, Gauge, IntGauge, Registry};

/// The process metrics; read anew for each scrape.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    cpu: Counter,
    resident: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
}

impl ProcessMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            cpu: Counter::new("process_cpu_seconds_total", "Processor time used, user and system, in seconds.")?,
            resident: IntGauge::new("process_resident_memory_bytes", "Memory that is resident, in bytes.")?,
            open_fds: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            max_fds: IntGauge::new("process_max_fds", "The most file descriptors that may be open.")?,
        };
        let start = Gauge::new("process_start_time_seconds", "When this process began to keep metrics, as a UNIX time.")?;
        start.set(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        registry.register(Box::new(start))?;
        registry.register(Box::new(metrics.cpu.clone()))?;
        registry.register(Box::new(metrics.resident.clone()))?;
        registry.register(Box::new(metrics.open_fds.clone()))?;
        registry.register(Box::new(metrics.max_fds.clone()))?;
        Ok(metrics)
    }

    /// Takes the present figures. One that the system does not give keeps its last value.
    pub(super) fn refresh(&self) {
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            let used = seconds(usage.user_time()) + seconds(usage.system_time());
            self.cpu.inc_by((used - self.cpu.get()).max(0.0));
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            self.max_fds.set(i64::try_from(soft).unwrap_or(i64::MAX));
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the directory that is being read.
            self.open_fds.set((entries.count() as i64 - 1).max(0));
        }
        if let Some(bytes) = std::fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
            self.resident.set(bytes);
        }
    }
}

fn resident_bytes(status: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
