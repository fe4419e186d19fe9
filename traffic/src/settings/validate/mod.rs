//! What settings say and cannot mean: every fault, with its place.

mod faults;
mod headers;
mod jwt;
mod limits;
mod requests;
mod routing;

use postern_intentions::Protocol;
use postern_names::ServiceName;

use self::faults::Checker;
pub use self::faults::{Fault, Place, Step};
pub(crate) use self::headers::is_reserved;
pub use self::jwt::{JWKS_LIMIT, JwksError, check_jwks};
use super::{JwtProvider, ServiceSettings, TrafficFile};

/// Bytes of the settings of one service as JSON: they travel in one message.
pub const SETTINGS_LIMIT: usize = 128 << 10;

impl TrafficFile {
    /// Checks everything that the file says, and that nothing is in it twice.
    ///
    /// # Errors
    /// Every fault, in the order of the file.
    pub fn validate(&self) -> Result<(), Vec<Fault>> {
        let mut checker = Checker::default();
        checker.within("services", |checker| {
            checker.each(&self.services, |checker, settings| settings.check(checker));
            checker.once(&self.services, "service", |settings| settings.service.as_str(), "a service has one entry");
        });
        checker.within("jwt_providers", |checker| {
            checker.each(&self.jwt_providers, |checker, provider| provider.check(checker));
            checker.once(&self.jwt_providers, "name", |provider| provider.name.as_str(), "a provider has one entry");
        });
        checker.finish()
    }
}

impl ServiceSettings {
    /// Checks everything that can be judged without other services.
    ///
    /// # Errors
    /// Every fault; places are within these settings.
    pub fn validate(&self) -> Result<(), Vec<Fault>> {
        let mut checker = Checker::default();
        self.check(&mut checker);
        checker.finish()
    }

    fn check(&self, checker: &mut Checker) {
        checker.within("rate_limits", |checker| {
            checker.at_most("rate limits", self.rate_limits.len());
            checker.each(&self.rate_limits, |checker, limit| limit.check(checker));
        });
        checker.within("timeouts", |checker| self.timeouts.check(checker));
        checker.within("retries", |checker| self.retries.check(checker, &self.timeouts));
        checker.within("balancer", |checker| self.balancer.check(checker));
        checker.within("outlier_ejection", |checker| self.outlier_ejection.check(checker));
        checker.within("circuit_breakers", |checker| self.circuit_breakers.check(checker));
        checker.within("faults", |checker| self.faults.check(checker));
        self.check_routing(checker);
        self.check_protocol(checker);
        match serde_json::to_vec(self) {
            Ok(json) if json.len() <= SETTINGS_LIMIT => {}
            Ok(_) => checker.note("the settings of this service are larger than 128 KiB", "leave out routes, or join them"),
            Err(error) => checker.note(format!("the settings cannot be written as JSON: {error}"), "use finite numbers"),
        }
    }

    /// Bytes hold no requests.
    fn check_protocol(&self, checker: &mut Checker) {
        if self.protocol != Some(Protocol::Tcp) {
            return;
        }
        let of_requests = [
            ("rate_limits", !self.rate_limits.is_empty()),
            ("faults", self.faults.delay.is_some() || self.faults.abort.is_some()),
            ("routes", !self.routes.is_empty()),
            ("mirror", self.mirror.is_some()),
        ];
        for (key, _) in of_requests.into_iter().filter(|(_, is_given)| *is_given) {
            let what = format!("protocol is tcp, and {key} is about requests");
            checker.note_at(key, what, "set protocol to http, http2 or grpc, or leave it out");
        }
    }

    /// Whether the subset is one of this service.
    fn has_subset(&self, of: Option<&ServiceName>, subset: &str) -> bool {
        of.is_some_and(|service| *service != self.service) || self.resolver.subsets.contains_key(subset)
    }

    /// Notes a subset that nobody defined. Those of other services are their own affair: they may come later.
    fn check_subset(&self, checker: &mut Checker, of: Option<&ServiceName>, subset: Option<&String>) {
        let Some(subset) = subset.filter(|subset| !self.has_subset(of, subset)) else { return };
        let known: Vec<&str> = self.resolver.subsets.keys().map(String::as_str).collect();
        let cure = match postern_intentions::yaml::nearest(subset, &known) {
            Some(word) => format!("did you mean {word:?}?"),
            None => "define it in resolver.subsets".to_owned(),
        };
        checker.note_at("subset", format!("{} has no subset {:?}", self.service, faults::shown(subset)), cure);
    }
}

impl JwtProvider {
    /// Checks everything but what a file or URL holds.
    ///
    /// # Errors
    /// Every fault; places are within this provider.
    pub fn validate(&self) -> Result<(), Vec<Fault>> {
        let mut checker = Checker::default();
        self.check(&mut checker);
        checker.finish()
    }
}

#[cfg(test)]
mod tests;
