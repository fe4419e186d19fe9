//! What the process itself uses, read from `/proc` where there is one.

use std::time::SystemTime;

use prometheus::{Gauge, Registry};

use super::{gauge, seconds};

/// The process metrics under the names that every Prometheus client uses.
pub(super) struct Process {
    cpu_seconds: Gauge,
    resident_bytes: Gauge,
    virtual_bytes: Gauge,
    open_fds: Gauge,
    max_fds: Gauge,
}

impl Process {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        gauge(registry, "process_start_time_seconds", "Start of the process, Unix time.")?.set(seconds(SystemTime::now()));
        Ok(Self {
            cpu_seconds: gauge(registry, "process_cpu_seconds_total", "User and system CPU time spent.")?,
            resident_bytes: gauge(registry, "process_resident_memory_bytes", "Resident memory.")?,
            virtual_bytes: gauge(registry, "process_virtual_memory_bytes", "Virtual memory.")?,
            open_fds: gauge(registry, "process_open_fds", "Open file descriptors.")?,
            max_fds: gauge(registry, "process_max_fds", "Most file descriptors that may be open.")?,
        })
    }

    pub(super) fn observe(&self) {
        use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            let (user, system) = (usage.user_time(), usage.system_time());
            let whole = (user.tv_sec() + system.tv_sec()) as f64;
            self.cpu_seconds.set(whole + (user.tv_usec() + system.tv_usec()) as f64 / 1e6);
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            self.max_fds.set(soft as f64);
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the directory itself.
            self.open_fds.set(entries.count().saturating_sub(1) as f64);
        }
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            self.resident_bytes.set(kibibytes(&status, "VmRSS:"));
            self.virtual_bytes.set(kibibytes(&status, "VmSize:"));
        }
    }
}

/// A line such as `VmRSS:      1234 kB`, in bytes.
fn kibibytes(status: &str, name: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()).unwrap_or(0.0) * 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_status_is_read_in_bytes() {
        assert_eq!(kibibytes("Name:\tx\nVmRSS:\t    12 kB\n", "VmRSS:"), 12_288.0);
        assert_eq!(kibibytes("Name:\tx\n", "VmRSS:"), 0.0);
    }
}
