//! How this instance gets its SVID and keeps it fresh.
//!
//! Every key is on disk before its request is sent, so a lost answer burns nothing: the same key asks again and gets the
//! same certificate. What comes back is checked before it is published.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use postern_api::convert;
use postern_api::v1::{self, identity_client::IdentityClient};
use postern_ca::{EnrolmentToken, Expected, PrivateKey, Svid, SvidSource, SvidVerifier, Trust, TrustSource};
use postern_names::{Datacenter, InstanceId, PortName, ServiceName};
use rand::Rng;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use tokio::time::{sleep, timeout};
use tonic::Code;

use crate::ProxyError;
use crate::clock::Clock;
use crate::control_client::Backoff;
use crate::control_client::dial::{ControlConnection, ControlDialler, DialError, origin};
use crate::metrics::Metrics;
use crate::settings::Periods;
use crate::state::{Enrolment, StateDir, StateError};
use crate::status::Status;

/// The part of an SVID's lifetime after which it is renewed lies in this range.
const RENEWAL: std::ops::RangeInclusive<f64> = 0.5..=0.6;
/// The longest sleep while waiting for a renewal: a clock that jumps is noticed after so long.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Asks the control plane for SVIDs.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The service that this instance is of.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The named ports, each a DNS SAN.
    pub ports: Vec<PortName>,
    /// Where keys and SVIDs are kept.
    pub state: Arc<StateDir>,
    /// How the control plane is reached.
    pub dialler: Arc<ControlDialler>,
    /// Hears the server's time.
    pub clock: Arc<Clock>,
    /// Is told how it goes.
    pub status: Status,
    /// `postern_svid_expiry_timestamp_seconds`.
    pub metrics: Arc<Metrics>,
    /// How long to wait for what.
    pub periods: Periods,
    /// Spent at the first start, or when an expired SVID cannot be renewed any more.
    pub token: Option<EnrolmentToken>,
}

/// Why a request for an SVID did not succeed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// Nobody answered.
    #[error(transparent)]
    NotReached(#[from] DialError),
    /// No answer to the request, or one that asks to try again.
    #[error("{0}")]
    NotAnswered(String),
    /// The control plane said no.
    #[error("refused by the control plane: {0}")]
    Refused(String),
    /// What came is not what was asked for.
    #[error("the control plane gave an SVID that is not usable: {0}")]
    NotUsable(String),
    /// The state directory does not work.
    #[error(transparent)]
    State(#[from] StateError),
}

impl Identity {
    /// Enrols with a token: tries until the control plane can be reached, and gives up only where it says no.
    ///
    /// # Errors
    /// [`ProxyError::TokenRefused`]; [`ProxyError::State`] where the key cannot be kept.
    pub async fn enrol(&self, token: &EnrolmentToken) -> Result<Enrolment, ProxyError> {
        let tls = postern_ca::pinned_client_config(None, token.pin, &[b"h2"]);
        let mut backoff = Backoff::new(self.periods.reconnect_floor, self.periods.reconnect_ceiling);
        loop {
            let problem = match self.enrol_once(token, &tls).await {
                Ok(enrolment) => {
                    tracing::info!(id = %enrolment.svid.id(), lineage = enrolment.lineage, "enrolled");
                    self.tell_success(&enrolment.svid);
                    return Ok(enrolment);
                }
                Err(Failed::Refused(why)) => return Err(refused_token(&why)),
                Err(Failed::NotReached(error)) if error.is_someone_else() => {
                    return Err(ProxyError::TokenRefused(format!(
                        "{error}: this is not the control plane that made the token; check --control, or create a new token there"
                    )));
                }
                Err(Failed::State(error)) => return Err(error.into()),
                Err(problem) => problem.to_string(),
            };
            tracing::warn!(problem, "cannot enrol yet; trying again");
            self.status.tell(|facts| facts.identity_problem = Some(problem));
            let wait = backoff.wait(&mut rand::rng());
            sleep(wait).await;
        }
    }

    async fn enrol_once(&self, token: &EnrolmentToken, tls: &Arc<ClientConfig>) -> Result<Enrolment, Failed> {
        let key = self.key_for_request(None)?;
        let connection = self.dialler.dial(tls).await?;
        let request = v1::EnrollRequest {
            token: token.reveal(),
            csr: key.csr_der().into(),
            instance_id: self.instance.to_string(),
            ports: self.ports.iter().map(ToString::to_string).collect(),
        };
        let mut client = IdentityClient::with_origin(connection.channel.clone(), origin());
        let grant = self.answer(&connection, client.enroll(request)).await?;
        self.accept(grant, key).await
    }

    /// Renews the SVID for as long as the sidecar lives, each time with a new key.
    pub async fn keep_fresh(mut self, mut enrolment: Enrolment, slot: SvidSource, trust: TrustSource, tls: Arc<ClientConfig>) {
        let mut due = self.due(&enrolment.svid);
        loop {
            self.wait_until(due).await;
            enrolment = self.renew(&enrolment, &tls).await;
            adopt_newer_bundle(&trust, &enrolment);
            slot.store(enrolment.svid.clone());
            tracing::info!(serial = %enrolment.svid.serial(), "the SVID was renewed");
            self.tell_success(&enrolment.svid);
            due = renewal_time(enrolment.svid.not_before(), enrolment.svid.not_after(), &mut rand::rng());
        }
    }

    /// When to renew what was found on disk: at once where the ports have changed since.
    fn due(&self, svid: &Svid) -> SystemTime {
        let named = |ports: &[PortName]| ports.iter().filter(|port| **port != PortName::main()).cloned().collect::<BTreeSet<_>>();
        if named(&svid.ports()) == named(&self.ports) {
            renewal_time(svid.not_before(), svid.not_after(), &mut rand::rng())
        } else {
            svid.not_before()
        }
    }

    async fn wait_until(&self, due: SystemTime) {
        while let Ok(left) = due.duration_since(self.clock.now()) {
            if left.is_zero() {
                return;
            }
            sleep(left.min(LONGEST_SLEEP)).await;
        }
    }

    /// Asks until it succeeds. An SVID that has expired meanwhile is shown all the same: the control plane decides how
    /// long after its end it still accepts it.
    async fn renew(&mut self, current: &Enrolment, tls: &Arc<ClientConfig>) -> Enrolment {
        let mut backoff = Backoff::new(self.periods.reconnect_floor, self.periods.renew_ceiling);
        loop {
            let failed = match self.renew_once(current, tls).await {
                Ok(enrolment) => return enrolment,
                Err(failed) => failed,
            };
            let expired = current.svid.not_after() <= self.clock.now();
            if expired
                && matches!(failed, Failed::Refused(_))
                && let Some(enrolment) = self.enrol_anew(current).await
            {
                return enrolment;
            }
            let problem = match (&failed, expired) {
                (Failed::Refused(_), true) => {
                    format!("{failed}; give a new token with --token-file, an empty --state-dir, and start again")
                }
                _ => failed.to_string(),
            };
            tracing::warn!(problem, expired, "the SVID was not renewed; trying again");
            self.status.tell(|facts| facts.identity_problem = Some(problem));
            let wait = backoff.wait(&mut rand::rng());
            sleep(wait).await;
        }
    }

    /// The last resort: a token that was given with this start, tried once.
    async fn enrol_anew(&mut self, current: &Enrolment) -> Option<Enrolment> {
        let token = self.token.take()?;
        let tls = postern_ca::pinned_client_config(None, token.pin, &[b"h2"]);
        match self.enrol_once(&token, &tls).await {
            Ok(enrolment) if enrolment.cluster_id == current.cluster_id && enrolment.svid.id() == current.svid.id() => {
                Some(enrolment)
            }
            Ok(enrolment) => {
                let problem = format!("enrolled anew as {}, in another mesh: start again", enrolment.svid.id());
                tracing::error!(problem);
                self.status.tell(|facts| facts.identity_problem = Some(problem));
                std::future::pending().await
            }
            Err(failed) => {
                tracing::warn!(%failed, "the token that was given at the start does not help");
                None
            }
        }
    }

    async fn renew_once(&self, current: &Enrolment, tls: &Arc<ClientConfig>) -> Result<Enrolment, Failed> {
        let key = self.key_for_request(Some(&current.svid))?;
        let connection = self.dialler.dial(tls).await?;
        let request = v1::RenewRequest {
            csr: key.csr_der().into(),
            instance_id: self.instance.to_string(),
            ports: self.ports.iter().map(ToString::to_string).collect(),
        };
        let mut client = IdentityClient::with_origin(connection.channel.clone(), origin());
        let grant = self.answer(&connection, client.renew(request)).await?;
        self.accept(grant, key).await
    }

    /// The key of a request that was not answered, else a new one; on disk either way.
    fn key_for_request(&self, current: Option<&Svid>) -> Result<PrivateKey, Failed> {
        if let Some(key) = self.state.next_key()?
            && current.is_none_or(|svid| svid.key().public_key_hash() != key.public_key_hash())
        {
            return Ok(key);
        }
        let key = PrivateKey::generate().map_err(|error| Failed::NotAnswered(error.to_string()))?;
        self.state.keep_next_key(&key)?;
        Ok(key)
    }

    async fn answer(
        &self,
        connection: &ControlConnection,
        call: impl Future<Output = Result<tonic::Response<v1::IdentityGrant>, tonic::Status>>,
    ) -> Result<v1::IdentityGrant, Failed> {
        match timeout(self.periods.call, call).await {
            Ok(Ok(grant)) => Ok(grant.into_inner()),
            Ok(Err(status)) if says_no(status.code()) => Err(Failed::Refused(status.message().to_owned())),
            Ok(Err(status)) => {
                self.dialler.prefer_another();
                Err(Failed::NotAnswered(format!("{}: {}", connection.address, status.message())))
            }
            Err(_) => {
                self.dialler.prefer_another();
                Err(Failed::NotAnswered(format!("{}: no answer in time", connection.address)))
            }
        }
    }

    /// Checks a grant and keeps it. Nothing is published before this.
    async fn accept(&self, grant: v1::IdentityGrant, key: PrivateKey) -> Result<Enrolment, Failed> {
        if grant.server_time_ms != 0 {
            self.clock.observe(convert::time(grant.server_time_ms));
        }
        let enrolment = self.check(grant, key).map_err(Failed::NotUsable)?;
        let (state, kept) = (self.state.clone(), enrolment.clone());
        match tokio::task::spawn_blocking(move || state.keep_enrolment(&kept)).await {
            Ok(kept) => kept?,
            Err(error) => return Err(Failed::NotAnswered(format!("the SVID was not kept: {error}"))),
        }
        Ok(enrolment)
    }

    fn check(&self, grant: v1::IdentityGrant, key: PrivateKey) -> Result<Enrolment, String> {
        let chain: Vec<_> = grant.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let svid = Svid::new(chain, key).map_err(|error| error.to_string())?;
        let bundle = convert::bundle_from_wire(&grant.bundle.ok_or("it came without a trust bundle")?)
            .map_err(|error| error.to_string())?;
        let enrolment = Enrolment {
            instance: self.instance.clone(),
            service: self.service.clone(),
            cluster_id: grant.cluster_id,
            lineage: grant.lineage,
            svid: Arc::new(svid),
            bundle,
        };
        let trust = trust_of(&enrolment)?;
        let verifier = SvidVerifier::new(Arc::new(ArcSwap::from_pointee(trust)), Expected::Service(self.service.clone()));
        let (leaf, intermediates) = enrolment.svid.chain().split_first().ok_or("it has no certificate")?;
        verifier.verify(leaf, intermediates, self.clock.now()).map_err(|refusal| refusal.to_string())?;
        Ok(enrolment)
    }

    fn tell_success(&self, svid: &Svid) {
        tell_svid(&self.metrics, svid);
        self.status.tell(|facts| {
            facts.svid_not_after = Some(svid.not_after());
            facts.identity_problem = None;
        });
    }
}

/// Sets the metric that tells when the SVID ends.
pub fn tell_svid(metrics: &Metrics, svid: &Svid) {
    let end = svid.not_after().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics.svid_expiry.set(end.as_secs_f64());
}

/// What an instance trusts by its enrolment alone: the bundle of the grant, in the datacenter of its own SVID.
///
/// # Errors
/// Where the SVID's ID is not one of a service.
pub fn trust_of(enrolment: &Enrolment) -> Result<Trust, String> {
    let id = enrolment.svid.id();
    let datacenter: Option<Datacenter> = id
        .path()
        .strip_prefix("/ns/default/dc/")
        .and_then(|rest| rest.split_once("/svc/"))
        .and_then(|(datacenter, _)| datacenter.parse().ok());
    let datacenter = datacenter.ok_or_else(|| format!("{id} is not the ID of a service"))?;
    Ok(Trust { bundle: enrolment.bundle.clone(), datacenter, revoked: HashSet::new() })
}

/// A random point of 50–60 % of the lifetime, so that a fleet that enrolled together does not renew together.
pub fn renewal_time(not_before: SystemTime, not_after: SystemTime, rng: &mut impl Rng) -> SystemTime {
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    not_before + lifetime.mul_f64(rng.random_range(RENEWAL))
}

/// A renewal can bring a root that the push has not brought yet.
fn adopt_newer_bundle(trust: &TrustSource, enrolment: &Enrolment) {
    trust.rcu(|held| {
        if enrolment.bundle.sequence > held.bundle.sequence {
            Arc::new(Trust { bundle: enrolment.bundle.clone(), ..Trust::clone(held) })
        } else {
            held.clone()
        }
    });
}

fn says_no(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::AlreadyExists
    )
}

fn refused_token(why: &str) -> ProxyError {
    ProxyError::TokenRefused(format!(
        "the control plane refused the enrolment: {why}; create a new token with `meshctl token create --service NAME`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    proptest! {
        #[test]
        fn a_renewal_lies_between_50_and_60_percent_of_the_lifetime(seed: u64, start in 0u64..4_000_000_000, lifetime in 1u64..260_000) {
            let not_before = SystemTime::UNIX_EPOCH + Duration::from_secs(start);
            let not_after = not_before + Duration::from_secs(lifetime);
            let at = renewal_time(not_before, not_after, &mut StdRng::seed_from_u64(seed));
            let share = at.duration_since(not_before).unwrap().as_secs_f64() / lifetime as f64;
            prop_assert!((0.499_999..=0.600_001).contains(&share), "{share}");
        }
    }
}
