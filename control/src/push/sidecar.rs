//! One open stream, as the rest of the control plane sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use postern_api::key::ResourceKey;
use postern_api::v1;
use postern_ca::Serial;
use postern_names::{InstanceId, ServiceName};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lanes::{Lane, Pending};
use super::render::{TakesSettings, TakesWeights};
use crate::mirror::View;

/// For how long a sidecar tells all decisions, once it is asked to.
const FOLLOW: Duration = Duration::from_secs(10);
/// Revisions of which is remembered what they closed.
const CUTS: usize = 32;

/// The two lanes of a stream that others mark. The configuration lane is the stream's own.
#[derive(Debug)]
pub struct Lanes {
    /// Intentions, default, revocations, bundle.
    pub authority: Lane,
    /// Endpoints and settings of the upstreams.
    pub reachability: Lane,
}

/// Who opened a stream.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its instance id.
    pub instance: InstanceId,
    /// The service in its SVID.
    pub service: ServiceName,
    /// The SVID.
    pub serial: Serial,
    /// The enrolment that it goes back to.
    pub lineage: String,
    /// From where.
    pub address: SocketAddr,
}

/// What a sidecar told of itself in its Hello.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// The services that it calls.
    pub(super) upstreams: BTreeSet<ServiceName>,
    /// Its version.
    pub(super) version: String,
    /// What it understands.
    pub(super) understands: Vec<String>,
}

/// One open stream.
#[derive(Debug)]
pub struct Sidecar {
    /// Distinguishes streams of one instance.
    pub(super) number: u64,
    pub(super) identity: Identity,
    /// The services that it calls, as its Hello told.
    pub(super) upstreams: BTreeSet<ServiceName>,
    /// Those, and all that their settings lead to. Changed only under the view's lock.
    pub(super) watched: Mutex<BTreeSet<ServiceName>>,
    pub(super) settings: TakesSettings,
    pub(super) weights: TakesWeights,
    pub(super) version: String,
    pub(super) since: SystemTime,
    pub(super) lanes: Mutex<Lanes>,
    /// Something was marked.
    pub(super) wake: Notify,
    pub(super) closed: CancellationToken,
    closed_because: Mutex<Option<End>>,
    /// Past the Welcome.
    pub(super) is_open: AtomicBool,
    progress: watch::Sender<Progress>,
    nacks: Mutex<Nacks>,
    /// What the last changes closed there, by the revision that was acknowledged.
    cut: Mutex<BTreeMap<u64, Cut>>,
    pub(super) warnings: Mutex<Vec<String>>,
    /// Parts of an intention that it understands, as its Hello told.
    pub(super) understands: Vec<String>,
    pub(super) active_connections: AtomicU64,
    pub(super) clock_ahead_ms: AtomicI64,
    follow: Mutex<Follow>,
}

/// Whether somebody follows what this sidecar decides.
#[derive(Debug, Default)]
struct Follow {
    /// It is yet to be told.
    is_due: bool,
    /// Until when it tells all decisions.
    until: Option<Instant>,
}

/// What a change closed at a sidecar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cut {
    /// Open connections.
    pub(super) connections: u64,
    /// Requests under way.
    pub(super) requests: u64,
}

/// How far the lanes got, for those who wait.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    authority_at: Option<Instant>,
    reachability_at: Option<Instant>,
    is_gone: bool,
}

/// What has to arrive before a change is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The authority lane: the change is enforced.
    Authority,
    /// Both lanes: calls go by it, too.
    Both,
}

/// What was not understood, by lane: a complete message begins anew.
#[derive(Debug, Default)]
struct Nacks {
    authority: BTreeMap<String, String>,
    reachability: BTreeMap<String, String>,
}

/// A stream as `status` shows it.
#[derive(Debug, Clone)]
pub struct SidecarStatus {
    /// Its instance.
    pub instance: InstanceId,
    /// Its service.
    pub service: ServiceName,
    /// Version of the sidecar.
    pub version: String,
    /// From where its stream comes.
    pub address: SocketAddr,
    /// Since when the stream is open.
    pub since: SystemTime,
    /// The SVID that it was opened with.
    pub serial: Serial,
    /// The enrolment of that SVID.
    pub lineage: String,
    /// The services that it calls.
    pub upstreams: Vec<ServiceName>,
    /// The revision that it acknowledged on the authority lane.
    pub authority: u64,
    /// The revision that it acknowledged on the reachability lane.
    pub reachability: u64,
    /// Whether it holds all that it should.
    pub is_current: bool,
    /// Whether it enforces all that it should.
    pub enforces_all: bool,
    /// How long ago it acknowledged something that it enforces; none: not on this stream.
    pub acknowledged_ago: Option<Duration>,
    /// Resources that it did not understand, and why.
    pub nacks: Vec<(String, String)>,
    /// Parts of an intention that it understands, as it told; none: it told nothing.
    pub understands: Vec<String>,
    /// Findings that it reported for `doctor`.
    pub warnings: Vec<String>,
    /// Connections open through it at its last beat.
    pub active_connections: u64,
    /// By how many milliseconds its clock was ahead of ours at its last beat; negative: behind.
    pub clock_ahead_ms: i64,
}

/// Why a stream ends, and what the sidecar hears of it.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// It hears the reason, and comes back only after a while.
    Refused(v1::Refusal),
    /// It hears the reason, and comes back soon.
    Interrupted(String),
    /// It hears nothing: it ended the stream itself.
    Quiet(String),
}

impl End {
    /// Refused, for a reason that no other code fits.
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(v1::Refusal { code: v1::refusal::Code::Refused.into(), reason: reason.into(), retry_after_ms: 0 })
    }

    /// The reason, for the log.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.reason,
            Self::Interrupted(reason) | Self::Quiet(reason) => reason,
        }
    }
}

/// What became of waiting for one sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited {
    /// It holds the revision; acknowledged then, if it had to be told at all.
    InForce(Option<Instant>),
    /// Its stream ended first.
    Gone,
}

impl Sidecar {
    pub(super) fn new(number: u64, identity: Identity, told: Told) -> Self {
        let Told { upstreams, version, understands } = told;
        let takes = postern_api::understanding::takes_settings(&understands);
        let takes_weights = postern_api::understanding::takes_weights(&understands);
        let now = Instant::now();
        Self {
            number,
            identity,
            upstreams,
            watched: Mutex::default(),
            settings: if takes { TakesSettings::Yes } else { TakesSettings::No },
            weights: if takes_weights { TakesWeights::Yes } else { TakesWeights::No },
            version,
            since: SystemTime::now(),
            lanes: Mutex::new(Lanes { authority: Lane::new(now), reachability: Lane::new(now) }),
            wake: Notify::new(),
            closed: CancellationToken::new(),
            closed_because: Mutex::new(None),
            is_open: AtomicBool::new(false),
            progress: watch::Sender::new(Progress::default()),
            nacks: Mutex::default(),
            cut: Mutex::default(),
            warnings: Mutex::default(),
            understands,
            active_connections: AtomicU64::new(0),
            clock_ahead_ms: AtomicI64::new(0),
            follow: Mutex::default(),
        }
    }

    /// Has it tell all decisions for a while from now on, unless it still does for more than half of that.
    pub(super) fn follow(&self, now: Instant) {
        {
            let mut follow = self.follow.lock();
            if follow.until.is_some_and(|until| until > now + FOLLOW / 2) {
                return;
            }
            *follow = Follow { is_due: true, until: Some(now + FOLLOW) };
        }
        self.wake.notify_one();
    }

    /// What it is to be told of those who follow.
    pub(super) fn take_follow(&self) -> Option<v1::Follow> {
        let is_due = std::mem::take(&mut self.follow.lock().is_due);
        is_due.then(|| v1::Follow { for_ms: u32::try_from(FOLLOW.as_millis()).unwrap_or(u32::MAX) })
    }

    /// Watches what it calls, and where the settings in this view lead from there. Gives that.
    pub(super) fn watch(&self, view: &View) -> BTreeSet<ServiceName> {
        let watched = match self.settings {
            TakesSettings::Yes => view.settings.closure(&self.upstreams),
            // Whoever knows no routes calls nobody else.
            TakesSettings::No => self.upstreams.clone(),
        };
        self.watched.lock().clone_from(&watched);
        watched
    }

    pub(super) fn mark(&self, lane: v1::Lane, key: &ResourceKey, now: Instant) {
        self.with_lane(lane, |lane| lane.mark(key, now));
        self.wake.notify_one();
    }

    pub(super) fn mark_everything(&self, now: Instant) {
        {
            let mut lanes = self.lanes.lock();
            lanes.authority.mark_everything(now);
            lanes.reachability.mark_everything(now);
        }
        self.wake.notify_one();
    }

    pub(super) fn take(&self, lane: v1::Lane, revision: u64) -> Option<Pending> {
        self.with_lane(lane, |lane| lane.take(revision, Instant::now()))
    }

    /// Remembers what the enforcement of `revision` closed; before it is acknowledged.
    pub(super) fn keep_cut(&self, revision: u64, cut: Cut) {
        let mut kept = self.cut.lock();
        kept.insert(revision, cut);
        while kept.len() > CUTS {
            kept.pop_first();
        }
    }

    /// What was closed when `revision` was enforced, with what was enforced together with it.
    pub(super) fn cut_by(&self, revision: u64) -> Cut {
        self.cut.lock().range(revision..).next().map(|(_, cut)| *cut).unwrap_or_default()
    }

    /// The sidecar applied what is in flight. Gives how long the oldest change in it took, or `None` for an
    /// acknowledgement of something that is not in flight.
    pub(super) fn acknowledge(&self, lane: v1::Lane, revision: u64) -> Option<Duration> {
        let changed_at = self.with_lane(lane, |lane| lane.acknowledge(revision))?;
        let now = Instant::now();
        self.progress.send_modify(|progress| match lane {
            v1::Lane::Reachability => progress.reachability_at = Some(now),
            v1::Lane::Authority | v1::Lane::Configuration | v1::Lane::Unspecified => progress.authority_at = Some(now),
        });
        Some(now.duration_since(changed_at))
    }

    fn with_lane<R>(&self, lane: v1::Lane, f: impl FnOnce(&mut Lane) -> R) -> R {
        let mut lanes = self.lanes.lock();
        match lane {
            v1::Lane::Reachability => f(&mut lanes.reachability),
            v1::Lane::Authority | v1::Lane::Configuration | v1::Lane::Unspecified => f(&mut lanes.authority),
        }
    }

    /// A complete message supersedes what was not understood before it; of a delta, only the keys that it holds.
    pub(super) fn forget_nacks(&self, lane: v1::Lane, complete: bool, keys: &[String]) {
        let mut nacks = self.nacks.lock();
        let nacks = nacks.of(lane);
        if complete {
            nacks.clear();
        } else {
            nacks.retain(|key, _| !keys.contains(key));
        }
    }

    pub(super) fn keep_nacks(&self, lane: v1::Lane, nacks: Vec<v1::Nack>) {
        let mut kept = self.nacks.lock();
        let kept = kept.of(lane);
        for nack in nacks {
            if kept.len() < 1000 {
                kept.insert(nack.key.chars().take(300).collect(), nack.why.chars().take(300).collect());
            }
        }
    }

    /// Ends the stream; the first reason counts.
    pub(super) fn close(&self, end: End) {
        self.closed_because.lock().get_or_insert(end);
        self.closed.cancel();
    }

    pub(super) fn closed_because(&self) -> End {
        self.closed_because.lock().clone().unwrap_or_else(|| End::Quiet(String::new()))
    }

    pub(super) fn is_gone(&self) {
        self.progress.send_modify(|progress| progress.is_gone = true);
    }

    /// Waits until the lanes hold everything up to `revision`.
    pub(super) async fn in_force(&self, revision: u64, awaited: Awaited) -> Waited {
        let mut progress = self.progress.subscribe();
        loop {
            let now = *progress.borrow_and_update();
            match self.arrived(revision, awaited, now) {
                Some(at) => return Waited::InForce(at),
                None if now.is_gone => return Waited::Gone,
                None => {}
            }
            if progress.changed().await.is_err() {
                return Waited::Gone;
            }
        }
    }

    /// When the revision was acknowledged, where it had to be told at all; `None` while it is not.
    fn arrived(&self, revision: u64, awaited: Awaited, progress: Progress) -> Option<Option<Instant>> {
        let lanes = self.lanes.lock();
        let authority = (&lanes.authority, progress.authority_at);
        let reachability = (awaited == Awaited::Both).then_some((&lanes.reachability, progress.reachability_at));
        let awaited = [Some(authority), reachability];
        let mut last = None;
        for (lane, at) in awaited.into_iter().flatten() {
            if !lane.covers(revision) {
                return None;
            }
            if lane.acknowledged() >= revision {
                last = last.max(at);
            }
        }
        Some(last)
    }

    pub(super) fn status(&self) -> SidecarStatus {
        let (authority, reachability, enforces_all, is_current) = {
            let lanes = self.lanes.lock();
            let enforces_all = lanes.authority.is_settled();
            let is_current = enforces_all && lanes.reachability.is_settled();
            (lanes.authority.acknowledged(), lanes.reachability.acknowledged(), enforces_all, is_current)
        };
        SidecarStatus {
            instance: self.identity.instance.clone(),
            service: self.identity.service.clone(),
            version: self.version.clone(),
            address: self.identity.address,
            since: self.since,
            serial: self.identity.serial,
            lineage: self.identity.lineage.clone(),
            upstreams: self.upstreams.iter().cloned().collect(),
            authority,
            reachability,
            is_current,
            enforces_all,
            acknowledged_ago: self.progress.borrow().authority_at.map(|at| at.elapsed()),
            nacks: self.nacks.lock().all(),
            understands: self.understands.clone(),
            warnings: self.warnings.lock().clone(),
            active_connections: self.active_connections.load(Ordering::Relaxed),
            clock_ahead_ms: self.clock_ahead_ms.load(Ordering::Relaxed),
        }
    }
}

impl Nacks {
    fn of(&mut self, lane: v1::Lane) -> &mut BTreeMap<String, String> {
        match lane {
            v1::Lane::Reachability => &mut self.reachability,
            v1::Lane::Authority | v1::Lane::Configuration | v1::Lane::Unspecified => &mut self.authority,
        }
    }

    fn all(&self) -> Vec<(String, String)> {
        self.authority.iter().chain(&self.reachability).map(|(key, why)| (key.clone(), why.clone())).collect()
    }
}
