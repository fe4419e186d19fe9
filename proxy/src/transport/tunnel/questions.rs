//! When an end of a tunnel is asked to prove that it was renewed, and how often it lets itself be asked.

use std::time::{Duration, SystemTime};

use postern_ca::Peer;
use tokio::time::Instant;

/// At these parts of its lifetime the peer is asked.
const ASKED_AT: [f64; 3] = [0.75, 0.85, 0.95];
/// Two questions are apart by this part of the lifetime at least: more than the peer insists on, for what the way to it
/// adds to the one and not to the other.
const APART: f64 = 0.075;
/// A question sooner than this part of the own lifetime after the last one is an attack.
const NO_SOONER: f64 = 0.05;

/// What this end asks of the peer.
#[derive(Debug, Default)]
pub(super) struct Questions {
    outstanding: Option<[u8; 32]>,
    last: Option<(SystemTime, Instant)>,
}

impl Questions {
    /// How long it is until the peer is to be asked; `None` when no question is left for this certificate. A tunnel that
    /// begins late in a lifetime asks at once, and no two questions come closer than the peer allows.
    pub fn due_in(&self, peer: &Peer, now: SystemTime, at: Instant) -> Option<Duration> {
        let lifetime = lifetime(peer.not_before, peer.not_after);
        let mut times = ASKED_AT.into_iter().map(|part| peer.not_before + lifetime.mul_f64(part));
        let next = times.find(|time| self.last.is_none_or(|(asked, _)| *time > asked))?;
        let apart = self.last.map_or(at, |(_, asked)| asked + lifetime.mul_f64(APART));
        Some(next.duration_since(now).unwrap_or_default().max(apart.saturating_duration_since(at)))
    }

    /// A new question, in place of one that was not answered.
    pub fn ask(&mut self, now: SystemTime, at: Instant) -> [u8; 32] {
        let nonce = rand::random();
        self.outstanding = Some(nonce);
        self.last = Some((now, at));
        nonce
    }

    /// The question that an answer is for, which is outstanding no more.
    pub fn answered(&mut self) -> Option<[u8; 32]> {
        self.outstanding.take()
    }
}

/// What the peer asks of this end.
#[derive(Debug)]
pub(super) struct Shown {
    lifetime: Duration,
    until: SystemTime,
    asked: Option<Instant>,
}

impl Shown {
    /// The peer knows the certificate of this lifetime; one that begins and ends at the epoch is not known here.
    pub fn new(not_before: SystemTime, not_after: SystemTime) -> Self {
        Self { lifetime: lifetime(not_before, not_after), until: not_after, asked: None }
    }

    /// Whether the peer may ask now.
    #[must_use]
    pub fn may_be_asked(&mut self, at: Instant) -> bool {
        let last = self.asked.replace(at);
        last.is_none_or(|last| at.saturating_duration_since(last) >= self.lifetime.mul_f64(NO_SOONER))
    }

    /// Until when the certificate is valid that the peer knows.
    pub fn until(&self) -> SystemTime {
        self.until
    }

    /// From now on the peer knows the certificate of this lifetime.
    pub fn renewed(&mut self, not_before: SystemTime, not_after: SystemTime) {
        (self.lifetime, self.until) = (lifetime(not_before, not_after), not_after);
    }
}

fn lifetime(not_before: SystemTime, not_after: SystemTime) -> Duration {
    not_after.duration_since(not_before).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn begun() -> SystemTime {
        SystemTime::UNIX_EPOCH + 1_000 * DAY
    }

    fn peer(not_before: SystemTime, lifetime: Duration) -> Peer {
        let [domain, datacenter, service] = ["mesh.example", "dc1", "web"];
        let service = service.parse().expect("service");
        Peer {
            id: postern_ca::SpiffeId::service(
                &domain.parse().expect("domain"),
                &datacenter.parse().expect("datacenter"),
                &service,
            ),
            service: Some(service),
            serial: postern_ca::Serial::random().expect("serial"),
            root: [0; 32],
            not_before,
            not_after: not_before + lifetime,
        }
    }

    /// At which parts of its lifetime a peer is asked that never proves anything, on a tunnel that begins at `from`.
    fn asked(from: f64) -> Vec<f64> {
        let (peer, at) = (peer(begun(), DAY), Instant::now());
        let (mut questions, mut passed, mut asked) = (Questions::default(), DAY.mul_f64(from), Vec::new());
        while let Some(wait) = questions.due_in(&peer, begun() + passed, at + passed) {
            passed += wait;
            questions.ask(begun() + passed, at + passed);
            asked.push((passed.as_secs_f64() / DAY.as_secs_f64() * 1_000.0).round() / 1_000.0);
        }
        asked
    }

    #[test]
    fn a_peer_is_asked_three_times_in_the_last_quarter_of_its_lifetime() {
        assert_eq!(asked(0.0), [0.75, 0.85, 0.95]);
    }

    #[test]
    fn a_tunnel_that_begins_late_asks_at_once_and_never_too_often() {
        assert_eq!(asked(0.8), [0.8, 0.875, 0.95]);
        assert_eq!(asked(0.849), [0.849, 0.924, 0.999]);
        assert_eq!(asked(0.9), [0.9, 0.975]);
        assert_eq!(asked(0.96), [0.96]);
    }

    #[test]
    fn no_tunnel_is_ended_for_the_questions_that_this_end_asks() {
        for begins in 0..100 {
            let at = Instant::now();
            let mut shown = Shown::new(begun(), begun() + DAY);
            for part in asked(f64::from(begins) / 100.0) {
                assert!(shown.may_be_asked(at + DAY.mul_f64(part)), "begun at {begins} %");
            }
        }
    }

    #[test]
    fn a_certificate_that_is_old_when_it_is_proven_is_not_asked_about_at_once() {
        let at = Instant::now();
        let mut questions = Questions::default();
        questions.ask(begun(), at);
        let renewed = peer(begun() - DAY.mul_f64(0.8), DAY);
        let wait = questions.due_in(&renewed, begun(), at).expect("asked again");
        assert!(wait >= DAY.mul_f64(APART), "{wait:?}");
    }

    #[test]
    fn a_clock_that_jumps_makes_no_question_come_too_soon() {
        let (peer, at) = (peer(begun(), DAY), Instant::now());
        let mut questions = Questions::default();
        questions.ask(begun() + DAY.mul_f64(0.75), at);
        let wait = questions.due_in(&peer, begun() + DAY.mul_f64(0.95), at + Duration::from_secs(1)).expect("asked again");
        assert!(wait >= DAY.mul_f64(NO_SOONER), "{wait:?}");
    }

    #[test]
    fn a_question_sooner_than_a_twentieth_of_the_lifetime_is_too_soon() {
        let at = Instant::now();
        let mut shown = Shown::new(begun(), begun() + DAY);
        assert!(shown.may_be_asked(at));
        assert!(!shown.may_be_asked(at + DAY / 20 - Duration::from_secs(1)));
        let mut shown = Shown::new(begun(), begun() + DAY);
        assert!(shown.may_be_asked(at) && shown.may_be_asked(at + DAY / 20));
    }

    #[test]
    fn a_question_is_answered_once() {
        let mut questions = Questions::default();
        assert_eq!(questions.answered(), None);
        questions.ask(begun(), Instant::now());
        let second = questions.ask(begun(), Instant::now());
        assert_eq!((questions.answered(), questions.answered()), (Some(second), None));
    }
}
