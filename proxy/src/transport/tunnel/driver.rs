//! The task of one tunnel: it moves bytes, keeps time, and has both ends prove who they are now.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postern_ca::{Peer, SvidSource, SvidVerifier, TrustSource};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::metrics::Metrics;

use super::link::{End, Link, News, Proving};
use super::proof::{self, Binding, Proof, ProofError};
use super::{Role, TunnelStream};

/// At these parts of the peer's lifetime it is asked to prove that it has been renewed.
const CHALLENGED_AT: [f64; 3] = [0.75, 0.85, 0.95];
/// A challenge sooner than this part of the own lifetime after the last one is an attack.
const CHALLENGED_NO_SOONER: f64 = 0.05;
/// The most that the goodbye of a tunnel may take.
const GOODBYE: Duration = Duration::from_secs(1);

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
    pub(crate) changes: watch::Receiver<Arc<crate::snapshot::Snapshot>>,
    pub(crate) stopping: CancellationToken,
    /// After so long without a stream the end that dialled closes the tunnel.
    pub(crate) idle: Duration,
    pub(crate) metrics: Arc<Metrics>,
}

/// Where the proofs of this tunnel stand.
struct Proofs {
    outstanding: Option<[u8; 32]>,
    asked: usize,
    challenged: Option<Instant>,
    /// Until when the leaf is valid that the peer knows of us.
    shown_until: SystemTime,
}

enum Step {
    News(Option<End>),
    Timer,
    Changed,
    Stopping,
}

impl Driver {
    /// Runs the tunnel until it ends; `serve` is given each stream that the peer opens.
    pub(crate) async fn run(mut self, mut serve: impl FnMut(TunnelStream, super::link::Opening)) -> End {
        // What the peer knows of us is what we showed; the slot may hold a newer one already.
        let own_leaf = &self.identities.own_leaf;
        let shown = self.identities.svid.load().filter(|svid| svid.chain().first() == Some(own_leaf));
        let own_until = shown.map_or(SystemTime::UNIX_EPOCH, |svid| svid.not_after());
        let mut proofs = Proofs { outstanding: None, asked: 0, challenged: None, shown_until: own_until };
        let mut idle_since = Some(Instant::now());
        let mut stopping = false;
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        let end = loop {
            let mut news = News::default();
            let step = tokio::select! {
                biased;
                end = poll_fn(|cx| self.link.poll_drive(cx, &mut news)) => Step::News(end),
                () = self.stopping.cancelled(), if !stopping => Step::Stopping,
                changed = self.changes.changed() => match changed {
                    Ok(()) => Step::Changed,
                    Err(_) => Step::Stopping,
                },
                () = timer.as_mut() => Step::Timer,
            };
            match step {
                Step::News(Some(end)) => break end,
                Step::News(None) => {
                    for opening in news.opened {
                        serve(TunnelStream::new(self.link.clone(), opening.id), opening);
                    }
                    for proving in news.proofs {
                        if let Err(end) = self.answer(proving, &mut proofs) {
                            self.link.end(end);
                        }
                    }
                }
                Step::Stopping => stopping = true,
                Step::Changed | Step::Timer => {}
            }
            self.link.on_timeout(Instant::now());
            if let Err(end) = self.check_peer(&mut proofs) {
                self.link.end(end);
            }
            idle_since = if self.link.open_streams() > 0 { None } else { idle_since.or_else(|| Some(Instant::now())) };
            if let Some(since) = idle_since
                && (stopping || (self.role == Role::Dialler && since.elapsed() >= self.idle))
            {
                break End::new(if stopping { "draining" } else { "idle" }, "no stream is open");
            }
            timer.as_mut().reset(self.next_look(idle_since, &proofs));
        };
        self.link.end(end.clone());
        self.say_goodbye().await;
        end
    }

    async fn say_goodbye(&self) {
        let mut told = false;
        let goodbye = poll_fn(|cx| self.link.poll_goodbye(cx, &mut told));
        // A peer that is gone hears nothing; the socket closes either way.
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }

    /// When to look at clocks again.
    fn next_look(&self, idle_since: Option<Instant>, proofs: &Proofs) -> Instant {
        let now = self.identities.clock.now();
        let peer = self.link.peer().current();
        let next_of_peer = challenge_at(&peer, proofs.asked).unwrap_or(peer.not_after);
        // A millisecond more than needed, so that what is looked at then is over.
        let until = next_of_peer.duration_since(now).unwrap_or_default() + Duration::from_millis(1);
        // The control plane may tell that it is later than the clock of this host says.
        let identity = Instant::now() + until.min(Duration::from_secs(60));
        let mut next = self.link.next_timeout().min(identity);
        if let (Some(since), Role::Dialler) = (idle_since, self.role) {
            next = next.min(since + self.idle);
        }
        next
    }

    /// Ends a tunnel whose peer is trusted no more, and asks in time for the proof that it was renewed.
    fn check_peer(&self, proofs: &mut Proofs) -> Result<(), End> {
        let now = self.identities.clock.now();
        let identity = self.link.peer();
        if let Err(refusal) = identity.still_trusted(&self.identities.trust.load(), now) {
            return Err(End::new(refusal.word(), refusal));
        }
        let peer = identity.current();
        if challenge_at(&peer, proofs.asked).is_some_and(|at| at <= now) {
            let nonce: [u8; 32] = rand::random();
            proofs.outstanding = Some(nonce);
            proofs.asked += 1;
            self.link.challenge(nonce);
        }
        Ok(())
    }

    fn answer(&self, proving: Proving, proofs: &mut Proofs) -> Result<(), End> {
        match proving {
            Proving::Challenge(nonce) => self.prove(nonce, proofs),
            Proving::Proof(bytes) => self.check(&bytes, proofs),
        }
    }

    /// Proves that this end has been renewed, if it has.
    fn prove(&self, nonce: [u8; 32], proofs: &mut Proofs) -> Result<(), End> {
        let Some(svid) = self.identities.svid.load() else { return Ok(()) };
        let lifetime = svid.not_after().duration_since(svid.not_before()).unwrap_or_default();
        let now = Instant::now();
        if proofs.challenged.is_some_and(|last| now - last < lifetime.mul_f64(CHALLENGED_NO_SOONER)) {
            return Err(End::new("challenged_too_often", "the peer asks for proofs more often than identities are renewed"));
        }
        proofs.challenged = Some(now);
        if svid.not_after() <= proofs.shown_until {
            // Not renewed yet: the peer asks again.
            return Ok(());
        }
        match proof::prove(&svid, &self.binding(self.role, &nonce)) {
            Ok(bytes) => {
                proofs.shown_until = svid.not_after();
                self.link.prove(bytes);
            }
            Err(error) => tracing::warn!(%error, "cannot prove the renewed identity on a tunnel"),
        }
        Ok(())
    }

    /// Takes the peer's proof of its renewed identity.
    fn check(&self, bytes: &[u8], proofs: &mut Proofs) -> Result<(), End> {
        let refused = |word: &'static str, why: String| {
            self.metrics.proof_refused(word);
            tracing::warn!(peer = %self.link.service(), reason = word, why, "a proof of identity was refused; the tunnel ends");
            End::new(word, why)
        };
        let Some(nonce) = proofs.outstanding.take() else {
            return Err(refused("proof_unasked", "no challenge is outstanding".into()));
        };
        let failed = |error: ProofError| refused(error.word(), error.to_string());
        let proof = Proof::parse(bytes).map_err(failed)?;
        let identity = self.link.peer();
        // Before the check, so that no revocation falls between.
        identity.answers_for(proof.serial().map_err(failed)?);
        let other = if self.role == Role::Dialler { Role::Acceptor } else { Role::Dialler };
        let binding = self.binding(other, &nonce);
        let now = self.identities.clock.now();
        let checked = proof.check(&binding, &self.identities.verifier, &identity.current(), now);
        let renewed = checked.map_err(failed)?;
        identity.renew(renewed);
        proofs.asked = 0;
        Ok(())
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

/// When the peer is challenged for the (`asked` + 1)th time.
fn challenge_at(peer: &Peer, asked: usize) -> Option<SystemTime> {
    let lifetime = peer.not_after.duration_since(peer.not_before).unwrap_or_default();
    CHALLENGED_AT.get(asked).map(|part| peer.not_before + lifetime.mul_f64(*part))
}
