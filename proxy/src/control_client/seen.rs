//! When the control plane is told what was seen of calls.

use std::time::Duration;

use postern_api::understanding;
use postern_api::v1::{self, sidecar_message};
use rand::Rng;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::session::{OUTGOING, Session};
use super::{ControlClient, Ended};
use crate::sightings::Sightings;

/// Denied and failed calls are told within this time.
const DECISIONS: Duration = Duration::from_secs(1);
/// The same, of all calls, while somebody follows.
const FOLLOWED: Duration = Duration::from_millis(250);
/// The longest that it is followed without being asked again.
const LONGEST_FOLLOW: Duration = Duration::from_secs(600);
/// Messages that may wait to be sent besides: acknowledgements and beats always find room.
const ROOM_FOR_OTHERS: usize = OUTGOING / 2;

/// When what is told on one stream. Nothing before the control plane said that it understands it.
#[derive(Debug, Default)]
pub(super) struct Telling {
    reports: Option<Interval>,
    follow_until: Option<Instant>,
    decisions_at: Option<Instant>,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Everything.
    Report,
    /// Single calls.
    Decisions,
}

impl Telling {
    /// Waits until something is due. Nothing is lost where this is dropped.
    pub(super) async fn due(&mut self, sightings: &Sightings) -> Due {
        let Some(reports) = &mut self.reports else { return std::future::pending().await };
        let is_followed = self.follow_until.is_some_and(|until| Instant::now() < until);
        let decisions_at = self.decisions_at;
        let decisions = async {
            if !is_followed {
                sightings.urgent().await;
            }
            if let Some(at) = decisions_at {
                sleep_until(at).await;
            }
        };
        tokio::select! {
            biased;
            _ = reports.tick() => Due::Report,
            () = decisions => Due::Decisions,
        }
    }

    fn told_decisions(&mut self) {
        let now = Instant::now();
        let is_followed = self.follow_until.is_some_and(|until| now < until);
        self.decisions_at = Some(now + if is_followed { FOLLOWED } else { DECISIONS });
    }
}

/// Spread over the sidecars, which may all have connected at the same moment.
fn reports(period: Duration) -> Interval {
    let first = rand::rng().random_range(Duration::ZERO..=period);
    let mut reports = interval_at(Instant::now() + first, period);
    reports.set_missed_tick_behavior(MissedTickBehavior::Delay);
    reports
}

impl ControlClient {
    /// Tells from here on, if the control plane takes it.
    pub(super) fn begin_telling(&mut self, session: &mut Session, welcome: &v1::Welcome) {
        self.reports.begin_stream();
        self.reports.sightings().follow(Duration::ZERO);
        let is_taken = welcome.understands.iter().any(|what| what == understanding::EDGES);
        session.telling = Telling { reports: is_taken.then(|| reports(self.periods.report)), ..Telling::default() };
    }

    /// Somebody watches for so long; zero: nobody does any more.
    pub(super) fn follow(&self, session: &mut Session, lasts: Duration) {
        let lasts = lasts.min(LONGEST_FOLLOW);
        self.reports.sightings().follow(lasts);
        let now = Instant::now();
        if session.telling.follow_until.replace(now + lasts).is_none_or(|until| until < now) {
            session.telling.decisions_at = None;
        }
    }

    /// Tells what is due, as far as there is room for it; the rest waits.
    pub(super) fn tell_seen(&mut self, session: &mut Session, due: Due) -> Result<(), Ended> {
        let room = session.outgoing.capacity().saturating_sub(ROOM_FOR_OTHERS);
        if room > 0 {
            self.tell(session, due, room)?;
        }
        session.telling.told_decisions();
        Ok(())
    }

    /// What is left when the last call has ended.
    pub(super) fn tell_the_last(&mut self, session: &mut Session) -> Result<(), Ended> {
        if session.telling.reports.is_none() {
            return Ok(());
        }
        self.tell(session, Due::Report, session.outgoing.capacity())
    }

    fn tell(&mut self, session: &mut Session, due: Due, room: usize) -> Result<(), Ended> {
        if session.outgoing.is_closed() {
            // Nothing is taken for it, so it is told on the next stream.
            return Err(Ended::Lost("the stream was closed".into()));
        }
        let messages = match due {
            Due::Report => self.reports.messages(room),
            Due::Decisions => self.reports.decisions().into_iter().collect(),
        };
        messages.into_iter().try_for_each(|seen| session.send(sidecar_message::Message::Seen(seen)))
    }
}
