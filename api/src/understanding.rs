//! What of an intention a sidecar understands, so that those that would deny a pair are named before an apply.
//!
//! A sidecar tells in its Hello what it understands. Whoever adds a part to `IntentionBody` adds its name to [`ALL`] and
//! to [`needs`], and never to [`UNTOLD`].

use std::collections::BTreeSet;

use postern_intentions::{Intention, Mode, PathCriterion, Rule};

/// What this version understands; a sidecar of this version tells it.
pub const ALL: [&str; 12] = [
    "audit",
    "expiry",
    "permissions",
    "methods",
    "path",
    "path-regex",
    "headers",
    "query",
    "ports",
    "jwt",
    SERVICE_CONFIG,
    WEIGHTS,
];

/// The resources `config/SERVICE` and `jwt/NAME`. A sidecar that does not tell it is not sent any, and takes the defaults.
pub const SERVICE_CONFIG: &str = "service-config";

/// The weight of an endpoint. To a sidecar that does not tell it all endpoints weigh the same.
pub const WEIGHTS: &str = "weights";

/// The message `Watch` and its lane. It is the control plane that tells it, in its Welcome.
pub const CONFIGURATION: &str = "configuration";

/// The message `Seen`: to a control plane that does not tell it, nothing is told of the calls that were seen.
pub const EDGES: &str = "edges";

/// What a control plane of this version tells in its Welcome.
pub const OF_CONTROL: [&str; 2] = [CONFIGURATION, EDGES];

/// What a sidecar understands that tells nothing: the first version with intentions. Fixed for ever.
pub const UNTOLD: [&str; 10] =
    ["audit", "expiry", "permissions", "methods", "path", "path-regex", "headers", "query", "ports", "jwt"];

/// What a sidecar has to understand to carry this intention out. Nothing beyond an action is always understood.
pub fn needs(intention: &Intention) -> BTreeSet<&'static str> {
    let mut needs = BTreeSet::new();
    let mut when = |holds: bool, what: &'static str| {
        if holds {
            needs.insert(what);
        }
    };
    when(intention.mode == Mode::Audit, "audit");
    when(intention.is_temporary(), "expiry");
    if let Rule::Permissions { permissions, .. } = &intention.rule {
        when(true, "permissions");
        for permission in permissions {
            when(!permission.methods.is_empty(), "methods");
            when(permission.path.is_some(), "path");
            when(matches!(permission.path, Some(PathCriterion::Regex(_))), "path-regex");
            when(!permission.headers.is_empty(), "headers");
            when(!permission.query.is_empty(), "query");
            when(!permission.ports.is_empty(), "ports");
            when(!permission.jwt.is_empty(), "jwt");
        }
    }
    needs
}

/// Whether a sidecar that told `told` takes settings of services and JWT providers.
pub fn takes_settings(told: &[String]) -> bool {
    missing(&BTreeSet::from([SERVICE_CONFIG]), told).is_empty()
}

/// Whether a sidecar that told `told` takes the weights of endpoints.
pub fn takes_weights(told: &[String]) -> bool {
    missing(&BTreeSet::from([WEIGHTS]), told).is_empty()
}

/// What of `needed` a sidecar that told `told` does not understand.
pub fn missing<'a>(needed: &BTreeSet<&'a str>, told: &[String]) -> Vec<&'a str> {
    let understands = |what: &str| match told {
        [] => UNTOLD.contains(&what),
        told => told.iter().any(|told| told == what),
    };
    needed.iter().copied().filter(|what| !understands(what)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use postern_intentions::{Action, HeaderCriterion, JwtCriterion, Permission, QueryCriterion, TextMatch};

    use super::*;

    fn with_everything() -> Intention {
        let permission = Permission {
            action: Action::Allow,
            methods: vec!["GET".into()],
            path: Some(PathCriterion::Regex("/a.*".into())),
            headers: vec![HeaderCriterion { name: "x".into(), matches: TextMatch::Present, invert: false }],
            query: vec![QueryCriterion { name: "q".into(), matches: TextMatch::Present }],
            ports: vec!["main".parse().unwrap()],
            jwt: vec![JwtCriterion { provider: "p".into(), claims: Vec::new() }],
        };
        Intention {
            rule: Rule::Permissions { permissions: vec![permission], otherwise: Action::Deny },
            mode: Mode::Audit,
            expires_at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)),
            ..Intention::new("web".parse().unwrap(), "api".parse().unwrap(), Action::Allow)
        }
    }

    #[test]
    fn every_part_is_needed_under_a_name_that_this_version_tells() {
        let needed = needs(&with_everything());
        let of_intentions = ALL.into_iter().filter(|what| ![SERVICE_CONFIG, WEIGHTS].contains(what));
        assert_eq!(needed, of_intentions.collect());
        let told: Vec<String> = ALL.iter().map(ToString::to_string).collect();
        assert!(missing(&needed, &told).is_empty());
        assert!(missing(&needed, &[]).is_empty(), "the first version knew these");
    }

    #[test]
    fn what_a_sidecar_does_not_tell_is_missing() {
        let needed = needs(&with_everything());
        let told: Vec<String> = ALL.iter().filter(|what| **what != "jwt").map(ToString::to_string).collect();
        assert_eq!(missing(&needed, &told), ["jwt"]);
        assert_eq!(missing(&BTreeSet::from(["something-newer"]), &[]), ["something-newer"]);
    }

    #[test]
    fn a_sidecar_of_the_first_version_takes_no_settings() {
        assert!(!takes_settings(&[]));
        assert!(takes_settings(&ALL.map(str::to_owned)));
    }

    #[test]
    fn an_action_alone_is_always_understood() {
        let (web, api) = ("web".parse().unwrap(), "api".parse().unwrap());
        assert!(needs(&Intention::new(web, api, Action::Allow)).is_empty());
    }
}
