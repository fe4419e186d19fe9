//! The task of one tunnel: it moves bytes, keeps time, and has both ends prove who they are now.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_ca::{SvidSource, SvidVerifier, TrustSource};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::snapshot::Snapshot;

use super::end::End;
use super::link::{Link, News, Opening, Proving};
use super::proof::{self, Binding, PROOF_TOO_LONG, Proof, ProofError};
use super::questions::{Questions, Shown};
use super::{Role, TunnelStream};

/// The most that the goodbye of a tunnel may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// The longest sleep while something expires: the control plane may tell that it is later than the clock of this host says.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What both ends know of the handshake, and what they prove their identities with.
pub(crate) struct Identities {
    pub(crate) svid: SvidSource,
    pub(crate) trust: TrustSource,
    pub(crate) verifier: Arc<SvidVerifier>,
    pub(crate) clock: Arc<Clock>,
    /// The leaf that this end showed in the handshake.
    pub(crate) own_leaf: CertificateDer<'static>,
    /// The leaf that the peer showed in the handshake.
    pub(crate) peer_leaf: CertificateDer<'static>,
}

/// Drives one tunnel.
pub(crate) struct Driver {
    pub(crate) link: Arc<Link>,
    pub(crate) role: Role,
    pub(crate) identities: Identities,
    /// Changes whenever somebody may be trusted no more.
    pub(crate) changes: watch::Receiver<Arc<Snapshot>>,
    pub(crate) stopping: CancellationToken,
    /// After so long without a stream the end that dialled closes the tunnel.
    pub(crate) idle: Duration,
    pub(crate) metrics: Arc<Metrics>,
}

/// Where the proofs of this tunnel stand, those of the peer and our own.
struct Proofs {
    questions: Questions,
    shown: Shown,
}

enum Step {
    News(Option<End>),
    Timer,
    Changed,
    /// Nobody publishes any more: the sidecar stops.
    Unpublished,
    Stopping,
}

impl Driver {
    /// Runs the tunnel until it ends; `serve` is given each stream that the peer opens.
    pub(crate) async fn run(mut self, mut serve: impl FnMut(TunnelStream, Opening)) -> End {
        let mut proofs = Proofs { questions: Questions::default(), shown: self.shown() };
        let mut idle_since = Some(Instant::now());
        let (mut stopping, mut published) = (false, true);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let end = loop {
            let mut news = News::default();
            let step = tokio::select! {
                biased;
                end = poll_fn(|cx| self.link.poll_drive(cx, &mut news)) => Step::News(end),
                () = self.stopping.cancelled(), if !stopping => Step::Stopping,
                changed = self.changes.changed(), if published => changed.map_or(Step::Unpublished, |()| Step::Changed),
                () = timer.as_mut() => Step::Timer,
            };
            match step {
                Step::News(Some(end)) => break end,
                Step::News(None) => self.see_to(news, &mut proofs, &mut serve),
                Step::Stopping => stopping = true,
                Step::Unpublished => published = false,
                Step::Changed | Step::Timer => {}
            }
            self.link.on_timeout(Instant::now());
            if let Err(end) = self.check_peer(&mut proofs.questions) {
                self.link.end(end);
            }
            idle_since = if self.link.is_idle() { idle_since.or_else(|| Some(Instant::now())) } else { None };
            if let Some(since) = idle_since
                && (stopping || (self.role == Role::Dialler && since.elapsed() >= self.idle))
            {
                break End::new(if stopping { "draining" } else { "idle" }, "no stream is open");
            }
            timer.as_mut().reset(self.next_look(idle_since, &proofs.questions));
        };
        if end.word == PROOF_TOO_LONG {
            self.count_refused(end.word, &end.detail);
        }
        if let Some(reason) = end.violation() {
            self.metrics.tunnel_violated(reason);
            tracing::warn!(peer = %self.link.service(), reason, detail = %end.detail, "the peer broke the protocol of a tunnel, which ends");
        }
        self.link.end(end.clone());
        self.say_goodbye().await;
        end
    }

    fn see_to(&self, news: News, proofs: &mut Proofs, serve: &mut impl FnMut(TunnelStream, Opening)) {
        for opening in news.opened {
            serve(TunnelStream::new(self.link.clone(), opening.id), opening);
        }
        for proving in news.proofs {
            let answered = match proving {
                Proving::Challenge(nonce) => self.prove(nonce, &mut proofs.shown),
                Proving::Proof(bytes) => self.check(&bytes, &mut proofs.questions),
            };
            if let Err(end) = answered {
                // One refusal ends it; what came after it is worth no further word.
                return self.link.end(end);
            }
        }
    }

    async fn say_goodbye(&self) {
        let mut told = false;
        let goodbye = poll_fn(|cx| self.link.poll_goodbye(cx, &mut told));
        // A peer that is gone hears nothing; the socket closes either way.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }

    /// When to look at clocks again.
    fn next_look(&self, idle_since: Option<Instant>, questions: &Questions) -> Instant {
        let (now, at) = (self.identities.clock.now(), Instant::now());
        let peer = self.link.peer().current();
        let until = questions.due_in(&peer, now, at).unwrap_or_else(|| peer.not_after.duration_since(now).unwrap_or_default());
        // A millisecond more than needed, so that what is looked at then is over.
        let identity = at + (until + Duration::from_millis(1)).min(LONGEST_SLEEP);
        let mut next = self.link.next_timeout().min(identity);
        if let (Some(since), Role::Dialler) = (idle_since, self.role) {
            next = next.min(since + self.idle);
        }
        next
    }

    /// Ends a tunnel whose peer is trusted no more, and asks in time for the proof that it was renewed.
    fn check_peer(&self, questions: &mut Questions) -> Result<(), End> {
        let (now, at) = (self.identities.clock.now(), Instant::now());
        let identity = self.link.peer();
        if let Err(refusal) = identity.still_trusted(&self.identities.trust.load(), now) {
            return Err(End::untrusted(refusal.word(), refusal));
        }
        if questions.due_in(&identity.current(), now, at).is_some_and(|due| due.is_zero()) {
            self.link.challenge(questions.ask(now, at));
        }
        Ok(())
    }

    /// What the peer knows of us is what we showed; the slot may hold a newer one already.
    fn shown(&self) -> Shown {
        match self.identities.svid.load() {
            Some(svid) if svid.chain().first() == Some(&self.identities.own_leaf) => {
                Shown::new(svid.not_before(), svid.not_after())
            }
            _ => Shown::new(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH),
        }
    }

    /// Proves that this end has been renewed, if it has.
    fn prove(&self, nonce: [u8; 32], shown: &mut Shown) -> Result<(), End> {
        if !shown.may_be_asked(Instant::now()) {
            return Err(self.refuse("challenged_too_often", "the peer asks for proofs more often than identities are renewed"));
        }
        // Without a newer one there is no answer: the peer asks again.
        let Some(svid) = self.identities.svid.load().filter(|svid| svid.not_after() > shown.until()) else { return Ok(()) };
        match proof::prove(&svid, &self.binding(self.role, &nonce)) {
            Ok(bytes) => {
                shown.renewed(svid.not_before(), svid.not_after());
                self.link.prove(bytes);
            }
            Err(error) => tracing::warn!(%error, "cannot prove the renewed identity on a tunnel"),
        }
        Ok(())
    }

    /// Takes the peer's proof of its renewed identity.
    fn check(&self, bytes: &[u8], questions: &mut Questions) -> Result<(), End> {
        let refused = |error: ProofError| self.refuse(error.word(), &error.to_string());
        let nonce = questions.answered().ok_or_else(|| self.refuse("proof_unasked", "no challenge is outstanding"))?;
        let proof = Proof::parse(bytes).map_err(refused)?;
        let identity = self.link.peer();
        // Before the check, so that no revocation falls between.
        identity.answers_for(proof.serial().map_err(refused)?);
        let other = if self.role == Role::Dialler { Role::Acceptor } else { Role::Dialler };
        let binding = self.binding(other, &nonce);
        let now = self.identities.clock.now();
        let renewed = proof.check(&binding, &self.identities.verifier, &identity.current(), now).map_err(refused)?;
        tracing::debug!(peer = %self.link.service(), serial = %renewed.serial, "the peer of a tunnel has proved its renewed identity");
        identity.renew(renewed, now);
        Ok(())
    }

    /// Counts and logs that the peer did not prove itself as it should; the end that follows from it.
    fn refuse(&self, word: &'static str, why: &str) -> End {
        self.count_refused(word, why);
        End::untrusted(word, why)
    }

    fn count_refused(&self, word: &'static str, why: &str) {
        self.metrics.proof_refused(word);
        tracing::warn!(peer = %self.link.service(), reason = word, why, "a proof of identity was refused; the tunnel ends");
    }

    fn binding<'a>(&'a self, signer: Role, challenge: &'a [u8; 32]) -> Binding<'a> {
        let Identities { own_leaf, peer_leaf, .. } = &self.identities;
        let (client_leaf, server_leaf) = match self.role {
            Role::Dialler => (own_leaf, peer_leaf),
            Role::Acceptor => (peer_leaf, own_leaf),
        };
        Binding { signer, challenge, client_leaf, server_leaf }
    }
}

#[cfg(test)]
mod tests;
