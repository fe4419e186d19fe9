//! What is the matter with a mesh, or soon will be: one pure function over what is known.

pub mod ports;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use postern_api::http::{AuthorityStatus, Finding, Severity};

use crate::http::rfc3339;
use crate::metrics::parse_rfc3339;
use crate::mirror::View;
use crate::push::SidecarStatus;
use crate::records::InstanceRecord;
use crate::service_config::jwks::KeyStatus;
use postern_names::PortName;

/// An intermediate is renewed at half its life; one that has less than this left was not.
const INTERMEDIATE_SOON: Duration = Duration::from_secs(7 * 24 * 3600);
/// A root has to be rotated by hand.
const ROOT_SOON: Duration = Duration::from_secs(180 * 24 * 3600);
/// Fewer open files than this are used up by a few hundred sidecars.
const FILE_LIMIT: u64 = 4096;
/// SVIDs begin a minute before they are issued: clocks that differ by more refuse each other's.
const CLOCK_SKEW_MS: u64 = 30_000;

/// What is looked at beside the store; it does not change while the control plane runs.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The name of this host.
    pub host: String,
    /// Most files that this process may have open.
    pub file_limit: u64,
    /// Where the audit log is.
    pub audit_dir: PathBuf,
    /// Why DNS is not served, where it is not although nobody turned it off.
    pub dns_problem: Option<String>,
}

/// Everything that a diagnosis rests on.
pub struct Evidence<'a> {
    /// All records.
    pub view: &'a View,
    /// Open streams.
    pub sidecars: &'a [SidecarStatus],
    /// The keys of JWT providers that come from files and URLs.
    pub keys: &'a BTreeMap<PortName, KeyStatus>,
    /// The certificate authority.
    pub authority: &'a AuthorityStatus,
    /// Whether the audit log is as it was written, and if not, why.
    pub audit: &'a Result<(), String>,
    /// Whether the store takes changes, and if not, why.
    pub store: &'a Result<(), String>,
    /// This host and process.
    pub surroundings: &'a Surroundings,
    /// Lifetime of an SVID.
    pub svid_ttl: Duration,
    /// The time.
    pub now: SystemTime,
}

/// Everything that is the matter, the worst first. Empty: nothing is.
pub fn examine(evidence: &Evidence<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    svids(evidence, &mut findings);
    sidecars(evidence, &mut findings);
    instances(evidence, &mut findings);
    unreadable(evidence, &mut findings);
    keys(evidence, &mut findings);
    authority(evidence, &mut findings);
    this_process(evidence, &mut findings);
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| (&a.code, &a.subject).cmp(&(&b.code, &b.subject))));
    findings
}

fn finding(severity: Severity, code: &str, subject: impl ToString, message: String, cure: &str) -> Finding {
    Finding { severity, code: code.into(), subject: subject.to_string(), message, cure: cure.into() }
}

fn present<'a>(evidence: &Evidence<'a>) -> impl Iterator<Item = &'a InstanceRecord> {
    evidence.view.instances.values().map(|(record, _)| record).filter(|record| !record.left)
}

/// SVIDs that ended or that nobody renewed in time, and enrolments with two holders.
fn svids(evidence: &Evidence<'_>, findings: &mut Vec<Finding>) {
    for record in present(evidence) {
        let Some(lineage) = evidence.view.lineages.get(&record.lineage) else { continue };
        if lineage.forked {
            let message = format!(
                "two holders of one SVID of {} were seen: its state directory was copied, or its key is stolen",
                record.service
            );
            let cure = format!("`meshctl service deregister {} --revoke`, then enrol it anew", record.id);
            findings.push(finding(Severity::Error, "lineage_forked", &record.id, message, &cure));
        }
        let Some(newest) = evidence.view.issuances.get(&lineage.newest) else { continue };
        let until = rfc3339(newest.not_after);
        match newest.not_after.duration_since(evidence.now) {
            Err(_) => findings.push(finding(
                Severity::Error,
                "svid_expired",
                &record.id,
                format!("the SVID of {} ended at {until}: it can neither call nor be called", record.id),
                "start its sidecar: within the renewal grace it renews by itself, after that give it a new token (`meshctl token create`)",
            )),
            // Renewal is due at 50 to 60 % of the lifetime.
            Ok(left) if left < evidence.svid_ttl / 4 => findings.push(finding(
                Severity::Warning,
                "svid_expires_soon",
                &record.id,
                format!("the SVID of {} ends at {until} and was not renewed when it was due", record.id),
                "see the log of its sidecar: it may not reach the control plane",
            )),
            Ok(_) => {}
        }
    }
}

fn sidecars(evidence: &Evidence<'_>, findings: &mut Vec<Finding>) {
    for sidecar in evidence.sidecars {
        if !sidecar.is_current {
            findings.push(finding(
                Severity::Warning,
                "sidecar_behind",
                &sidecar.instance,
                format!(
                    "{} has not acknowledged all changes; it is at revision {} of {}",
                    sidecar.instance, sidecar.authority, evidence.view.revision
                ),
                "look again in a few seconds; if it stays, see the log and the load of its host",
            ));
        }
        if sidecar.clock_ahead_ms.unsigned_abs() > CLOCK_SKEW_MS {
            let side = if sidecar.clock_ahead_ms > 0 { "ahead of" } else { "behind" };
            findings.push(finding(
                Severity::Error,
                "clock_skew",
                &sidecar.instance,
                format!(
                    "the clock of {} is {} s {side} the control plane's: certificates seem expired or not yet valid",
                    sidecar.instance,
                    sidecar.clock_ahead_ms.unsigned_abs() / 1000
                ),
                "set both clocks by NTP",
            ));
        }
        for (key, why) in &sidecar.nacks {
            findings.push(finding(
                Severity::Error,
                "not_understood",
                &sidecar.instance,
                format!(
                    "{} (version {}) does not understand {key}: {}: {why}",
                    sidecar.instance,
                    sidecar.version,
                    postern_api::key::when_not_understood(key)
                ),
                "upgrade this sidecar, or take out what it does not know",
            ));
        }
        for warning in &sidecar.warnings {
            let (code, cure) = kind_of_warning(warning);
            findings.push(finding(Severity::Warning, code, &sidecar.instance, format!("{}: {warning}", sidecar.instance), cure));
        }
    }
}

/// Sidecars report in words; what can be bypassed is the finding that has a name.
fn kind_of_warning(warning: &str) -> (&'static str, &'static str) {
    if warning.contains(" is taken") {
        (
            "port_taken",
            "nothing, if its callers are connected to the control plane; else free the port and start the sidecar again",
        )
    } else if warning.contains("bypass") || warning.contains("loopback") {
        ("sidecar_can_be_bypassed", "let the service listen on 127.0.0.1 only, or on a UNIX socket (--local unix:/path)")
    } else {
        ("sidecar_warning", "see the log of this sidecar")
    }
}

fn instances(evidence: &Evidence<'_>, findings: &mut Vec<Finding>) {
    for record in present(evidence) {
        let is_connected = evidence.sidecars.iter().any(|sidecar| sidecar.instance == record.id);
        let since = rfc3339(record.state_since);
        if !is_connected {
            findings.push(finding(
                Severity::Warning,
                "not_connected",
                &record.id,
                format!("{} has no open stream (state since {since}); it works on with what it knew", record.id),
                "see whether its host and sidecar run and reach the control plane; if it is gone for good, `meshctl service deregister`",
            ));
        } else if !record.healthy && record.address.is_some() {
            findings.push(finding(
                Severity::Warning,
                "instance_critical",
                &record.id,
                format!("the service behind {} does not answer its sidecar since {since}", record.id),
                "see whether the service runs and listens where --local says",
            ));
        }
        if !record.metrics.is_empty() && crate::http::is_loopback_elsewhere(record, &evidence.surroundings.host) {
            findings.push(finding(
                Severity::Warning,
                "metrics_unreachable",
                &record.id,
                format!(
                    "{} offers its metrics at {} on host {}, which Prometheus elsewhere cannot reach: it is left out",
                    record.id, record.metrics, record.node
                ),
                "give its sidecar --metrics with an address that Prometheus reaches",
            ));
        }
    }
}

fn unreadable(evidence: &Evidence<'_>, findings: &mut Vec<Finding>) {
    for (key, (why, _)) in &evidence.view.not_understood {
        findings.push(finding(
            Severity::Error,
            "intention_unreadable",
            key,
            format!("the stored intention {key} cannot be read, and so denies its pair: {why}"),
            "run the version of the control plane that wrote it, or set it anew with `meshctl intention allow|deny`",
        ));
    }
}

/// Keys that cannot be read, and settings that this version cannot.
fn keys(evidence: &Evidence<'_>, findings: &mut Vec<Finding>) {
    for (service, (why, _)) in &evidence.view.settings.unreadable {
        findings.push(finding(
            Severity::Error,
            "settings_unreadable",
            service,
            format!("the stored settings of {service} cannot be read, and sidecars take the defaults: {why}"),
            "run the version of the control plane that wrote them, or set them anew with `meshctl service config apply`",
        ));
    }
    for (provider, status) in evidence.keys {
        let Some(problem) = &status.problem else { continue };
        let has_keys = evidence.view.settings.keys_of(provider).is_some();
        let (severity, then) = if has_keys {
            (Severity::Warning, "the last good ones stay")
        } else {
            (Severity::Error, "there are none yet, and no token of it is good")
        };
        findings.push(finding(
            severity,
            "jwks_stale",
            provider,
            format!("the keys of JWT provider {provider} cannot be read, {then}: {problem}"),
            "see whether the file or URL is right and this control plane reaches it; `meshctl service config show` has both",
        ));
    }
}

fn authority(evidence: &Evidence<'_>, findings: &mut Vec<Finding>) {
    let intermediate = &evidence.authority.intermediate.not_after;
    let renews =
        "the control plane renews it by itself; see its log for why it did not (a brought intermediate needs a new --ca-cert)";
    ending(evidence, "intermediate", intermediate, INTERMEDIATE_SOON, renews, findings);
    for root in &evidence.authority.roots {
        ending(evidence, "root", &root.not_after, ROOT_SOON, "plan a new root: every SVID chains to it", findings);
    }
}

fn ending(evidence: &Evidence<'_>, which: &str, not_after: &str, soon: Duration, cure: &str, findings: &mut Vec<Finding>) {
    let Some(time) = parse_rfc3339(not_after) else { return };
    match time.duration_since(evidence.now) {
        Err(_) => {
            let message = format!("the {which} certificate of the authority ended at {not_after}: no SVID can be issued");
            findings.push(finding(Severity::Error, "ca_expired", which, message, cure));
        }
        Ok(left) if left < soon => {
            let message = format!("the {which} certificate of the authority ends at {not_after}");
            findings.push(finding(Severity::Warning, "ca_expires_soon", which, message, cure));
        }
        Ok(_) => {}
    }
}

fn this_process(evidence: &Evidence<'_>, findings: &mut Vec<Finding>) {
    if let Err(why) = evidence.store {
        findings.push(finding(
            Severity::Error,
            "store_takes_no_changes",
            "control plane",
            format!("the disk failed, and no change is taken: {why}"),
            "see to the disk; the next change after that opens the store again, and the mesh works on meanwhile",
        ));
    }
    if let Err(why) = evidence.audit {
        findings.push(finding(
            Severity::Error,
            "audit_chain_broken",
            evidence.surroundings.audit_dir.display(),
            format!("the audit log is not as it was written: {why}"),
            "keep the files, and compare them with your copy of the log: somebody changed them, or the disk did",
        ));
    }
    if let Some(why) = &evidence.surroundings.dns_problem {
        findings.push(finding(
            Severity::Warning,
            "dns_port_taken",
            "control plane",
            format!("DNS is not served: {why}"),
            "free the port and start the control plane again, or choose --dns, or say that none is wanted with --dns off",
        ));
    }
    let limit = evidence.surroundings.file_limit;
    if limit < FILE_LIMIT {
        findings.push(finding(
            Severity::Warning,
            "file_limit_low",
            "control plane",
            format!("this control plane may have {limit} files open; every sidecar takes one"),
            "raise it, for systemd with LimitNOFILE=65536",
        ));
    }
}

#[cfg(test)]
mod tests;
