//! Routes, splits, the resolver, mirrors.

use postern_intentions::checks::{check_path, check_text};
use postern_names::PortName;

use super::super::{Mirror, Percent, Redirect, Resolver, Route, ServiceSettings, Split};
use super::faults::{Checker, shown};

impl ServiceSettings {
    pub(super) fn check_routing(&self, checker: &mut Checker) {
        checker.within("routes", |checker| {
            checker.at_most("routes", self.routes.len());
            checker.each(&self.routes, |checker, route| self.check_route(checker, route));
        });
        checker.within("split", |checker| self.check_split(checker));
        checker.within("resolver", |checker| self.check_resolver(checker, &self.resolver));
        if let Some(mirror) = &self.mirror {
            checker.within("mirror", |checker| self.check_mirror(checker, mirror));
        }
    }

    fn check_route(&self, checker: &mut Checker, route: &Route) {
        checker.within("match", |checker| route.matches.check(checker));
        let (to, matches) = (&route.to, &route.matches);
        checker.within("to", |checker| {
            self.check_subset(checker, to.service.as_ref(), to.subset.as_ref());
            if let Some(rewrite) = &to.rewrite {
                checker.check("rewrite", check_path(rewrite));
                let has_place = matches.path_prefix.is_some() || matches.path_exact.is_some();
                let cure = "give match.path_prefix or match.path_exact, whose place it takes";
                checker.holds("rewrite", has_place, "rewrite is given, and nothing says of what", cure);
            }
            checker.within("request_headers", |checker| to.request_headers.check(checker));
            checker.within("response_headers", |checker| to.response_headers.check(checker));
            if let Some(retries) = &to.retries {
                checker.within("retries", |checker| retries.check(checker, &self.timeouts));
            }
            if let Some(mirror) = &to.mirror {
                checker.within("mirror", |checker| self.check_mirror(checker, mirror));
            }
        });
    }

    fn check_split(&self, checker: &mut Checker) {
        if self.split.is_empty() {
            return;
        }
        checker.at_most("shares", self.split.len());
        checker.each(&self.split, |checker, share: &Split| {
            self.check_subset(checker, share.service.as_ref(), share.subset.as_ref());
        });
        let sum: u64 = self.split.iter().map(|share| u64::from(share.weight.hundredths())).sum();
        if sum != u64::from(Percent::ALL.hundredths()) {
            let percent = format!("{}.{:02}", sum / 100, sum % 100);
            checker.note(format!("the weights add up to {percent}"), "make them add up to 100");
        }
    }

    fn check_resolver(&self, checker: &mut Checker, resolver: &Resolver) {
        checker.within("subsets", |checker| {
            checker.at_most("subsets", resolver.subsets.len());
            for (name, subset) in &resolver.subsets {
                checker.within(name, |checker| {
                    if name.parse::<PortName>().is_err() {
                        checker.note(format!("subset name {:?} is not valid", shown(name)), "use 1 to 63 of a-z, 0-9 and -");
                    }
                    checker.holds(
                        "meta",
                        !subset.meta.is_empty(),
                        "meta is empty: every instance would be meant",
                        "give a label",
                    );
                    checker.within("meta", |checker| {
                        for (key, value) in &subset.meta {
                            checker.check(key, check_text("a key of meta", key, 256));
                            if !value.is_empty() {
                                checker.check(key, check_text("a value of meta", value, 256));
                            }
                        }
                    });
                });
            }
        });
        if let Some(default) = resolver.default_subset.as_ref().filter(|name| !resolver.subsets.contains_key(*name)) {
            let what = format!("{} has no subset {:?}", self.service, shown(default));
            checker.note_at("default_subset", what, "define it in resolver.subsets");
        }
        if let Some(redirect) = &resolver.redirect {
            let what = "redirect and failover are both given";
            checker.holds("failover", resolver.failover.is_empty(), what, "all requests are redirected; keep one of the two");
            checker.within("redirect", |checker| self.check_redirect(checker, redirect));
        }
        checker.within("failover", |checker| {
            checker.at_most("failover targets", resolver.failover.len());
            checker.each(&resolver.failover, |checker, target| {
                self.check_subset(checker, target.service.as_ref(), target.subset.as_ref());
                if target.service.as_ref().is_none_or(|service| *service == self.service) && target.subset.is_none() {
                    checker.note("the target is this service itself", "name another service, or a subset");
                }
            });
        });
    }

    fn check_redirect(&self, checker: &mut Checker, redirect: &Redirect) {
        self.check_subset(checker, redirect.service.as_ref(), redirect.subset.as_ref());
        let is_elsewhere = redirect.service.as_ref().is_some_and(|service| *service != self.service);
        if !is_elsewhere && redirect.subset.is_none() && redirect.port.is_none() {
            checker.note("the redirect leads to this service itself", "name another service, a subset or a port");
        }
    }

    fn check_mirror(&self, checker: &mut Checker, mirror: &Mirror) {
        self.check_subset(checker, Some(&mirror.service), mirror.subset.as_ref());
        checker.holds(
            "percent",
            mirror.percent > Percent::default(),
            "percent is 0: nothing is mirrored",
            "leave the mirror out",
        );
    }
}
