//! Between the messages on the wire and the types of `ca` and `intentions`.
//!
//! prost drops unknown fields silently. A resource that grants access therefore travels as bytes that are decoded and
//! encoded again: a difference means that the sender said something that this version does not understand, and then
//! the resource denies (`not understood`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postern_ca::TrustBundle;
use postern_intentions::{
    Action, ClaimCriterion, ClaimMatch, DefaultPolicy, HeaderCriterion, Intention, JwtCriterion, Mode, PathCriterion, Permission,
    QueryCriterion, Rule, TextMatch,
};
use prost::Message;

use crate::v1;

/// Why a resource was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotUnderstood(pub String);

fn not_understood(what: impl Into<String>) -> NotUnderstood {
    NotUnderstood(what.into())
}

/// Milliseconds since the Unix epoch; 0 for times before it.
pub fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// The time that [`millis`] gives; times past the year 9999 are cut to it, so that no arithmetic overflows.
pub fn time(millis: u64) -> SystemTime {
    const YEAR_9999: u64 = 253_370_764_800_000;
    UNIX_EPOCH + Duration::from_millis(millis.min(YEAR_9999))
}

/// Decodes a message and refuses it when it holds anything that this version would drop.
///
/// # Errors
/// [`NotUnderstood`] for an undecodable message, an unknown field, or a field written in another than the canonical way.
pub fn decode_exact<M: Message + Default>(body: &[u8]) -> Result<M, NotUnderstood> {
    let message = M::decode(body).map_err(|error| not_understood(format!("cannot be decoded: {error}")))?;
    if message.encode_to_vec() == body {
        Ok(message)
    } else {
        Err(not_understood("holds a field that this version does not know"))
    }
}

/// An intention as it travels. Description and metadata stay at the control plane.
pub fn intention_to_body(intention: &Intention) -> v1::IntentionBody {
    let (action, permissions, otherwise) = match &intention.rule {
        Rule::Action(action) => (action_to_wire(*action), Vec::new(), v1::Action::Unspecified),
        Rule::Permissions { permissions, otherwise } => {
            (v1::Action::Unspecified, permissions.iter().map(permission_to_wire).collect(), action_to_wire(*otherwise))
        }
    };
    v1::IntentionBody {
        source: intention.source.to_string(),
        destination: intention.destination.to_string(),
        action: action.into(),
        permissions,
        otherwise: otherwise.into(),
        mode: match intention.mode {
            Mode::Enforce => v1::Mode::Enforce,
            Mode::Audit => v1::Mode::Audit,
        }
        .into(),
        expires_at_ms: intention.expires_at.map_or(0, millis),
    }
}

/// The intention in a resource's body.
///
/// # Errors
/// [`NotUnderstood`] where anything is unknown, malformed or not valid: such an intention denies its pair.
pub fn intention_from_bytes(body: &[u8]) -> Result<Intention, NotUnderstood> {
    let wire: v1::IntentionBody = decode_exact(body)?;
    let mode = match v1::Mode::try_from(wire.mode) {
        Ok(v1::Mode::Enforce) => Mode::Enforce,
        Ok(v1::Mode::Audit) => Mode::Audit,
        _ => return Err(not_understood(format!("mode {} is not known", wire.mode))),
    };
    let rule = if wire.permissions.is_empty() {
        if wire.otherwise != i32::from(v1::Action::Unspecified) {
            return Err(not_understood("has `otherwise` without permissions"));
        }
        Rule::Action(action_from_wire(wire.action)?)
    } else {
        if wire.action != i32::from(v1::Action::Unspecified) {
            return Err(not_understood("has an action and permissions"));
        }
        Rule::Permissions {
            permissions: wire.permissions.iter().map(permission_from_wire).collect::<Result<_, _>>()?,
            otherwise: action_from_wire(wire.otherwise)?,
        }
    };
    let intention = Intention {
        source: wire.source.parse().map_err(|e| not_understood(format!("source: {e}")))?,
        destination: wire.destination.parse().map_err(|e| not_understood(format!("destination: {e}")))?,
        rule,
        mode,
        expires_at: (wire.expires_at_ms != 0).then(|| time(wire.expires_at_ms)),
        description: String::new(),
        meta: Default::default(),
    };
    intention.validate().map_err(|error| not_understood(error.to_string()))?;
    Ok(intention)
}

fn action_to_wire(action: Action) -> v1::Action {
    match action {
        Action::Allow => v1::Action::Allow,
        Action::Deny => v1::Action::Deny,
    }
}

fn action_from_wire(action: i32) -> Result<Action, NotUnderstood> {
    match v1::Action::try_from(action) {
        Ok(v1::Action::Allow) => Ok(Action::Allow),
        Ok(v1::Action::Deny) => Ok(Action::Deny),
        _ => Err(not_understood(format!("action {action} is not known"))),
    }
}

fn permission_to_wire(permission: &Permission) -> v1::Permission {
    v1::Permission {
        action: action_to_wire(permission.action).into(),
        methods: permission.methods.clone(),
        path: permission.path.as_ref().map(|path| match path {
            PathCriterion::Exact(text) => v1::permission::Path::PathExact(text.clone()),
            PathCriterion::Prefix(text) => v1::permission::Path::PathPrefix(text.clone()),
            PathCriterion::Regex(text) => v1::permission::Path::PathRegex(text.clone()),
        }),
        headers: permission.headers.iter().map(header_to_wire).collect(),
        query: permission.query.iter().map(query_to_wire).collect(),
        ports: permission.ports.iter().map(ToString::to_string).collect(),
        jwt: permission.jwt.iter().map(jwt_to_wire).collect(),
    }
}

fn permission_from_wire(wire: &v1::Permission) -> Result<Permission, NotUnderstood> {
    Ok(Permission {
        action: action_from_wire(wire.action)?,
        methods: wire.methods.clone(),
        path: wire.path.as_ref().map(|path| match path {
            v1::permission::Path::PathExact(text) => PathCriterion::Exact(text.clone()),
            v1::permission::Path::PathPrefix(text) => PathCriterion::Prefix(text.clone()),
            v1::permission::Path::PathRegex(text) => PathCriterion::Regex(text.clone()),
        }),
        headers: wire.headers.iter().map(header_from_wire).collect::<Result<_, _>>()?,
        query: wire.query.iter().map(query_from_wire).collect::<Result<_, _>>()?,
        ports: wire
            .ports
            .iter()
            .map(|port| port.parse().map_err(|error| not_understood(format!("port: {error}"))))
            .collect::<Result<_, _>>()?,
        jwt: wire.jwt.iter().map(jwt_from_wire).collect::<Result<_, _>>()?,
    })
}

fn header_to_wire(header: &HeaderCriterion) -> v1::HeaderCriterion {
    use v1::header_criterion::Match;
    v1::HeaderCriterion {
        name: header.name.clone(),
        r#match: Some(match &header.matches {
            TextMatch::Present => Match::Present(true),
            TextMatch::Exact(text) => Match::Exact(text.clone()),
            TextMatch::Prefix(text) => Match::Prefix(text.clone()),
            TextMatch::Suffix(text) => Match::Suffix(text.clone()),
            TextMatch::Contains(text) => Match::Contains(text.clone()),
            TextMatch::Regex(text) => Match::Regex(text.clone()),
        }),
        invert: header.invert,
    }
}

fn header_from_wire(wire: &v1::HeaderCriterion) -> Result<HeaderCriterion, NotUnderstood> {
    use v1::header_criterion::Match;
    let matches = match &wire.r#match {
        Some(Match::Present(true)) => TextMatch::Present,
        Some(Match::Exact(text)) => TextMatch::Exact(text.clone()),
        Some(Match::Prefix(text)) => TextMatch::Prefix(text.clone()),
        Some(Match::Suffix(text)) => TextMatch::Suffix(text.clone()),
        Some(Match::Contains(text)) => TextMatch::Contains(text.clone()),
        Some(Match::Regex(text)) => TextMatch::Regex(text.clone()),
        Some(Match::Present(false)) | None => return Err(not_understood("a header criterion has no match")),
    };
    Ok(HeaderCriterion { name: wire.name.clone(), matches, invert: wire.invert })
}

/// Queries know present, exact and regex alone (validated before they are stored).
fn query_to_wire(query: &QueryCriterion) -> v1::QueryCriterion {
    use v1::query_criterion::Match;
    let matches = match &query.matches {
        TextMatch::Present => Match::Present(true),
        TextMatch::Exact(text) => Match::Exact(text.clone()),
        TextMatch::Regex(text) => Match::Regex(text.clone()),
        TextMatch::Prefix(_) | TextMatch::Suffix(_) | TextMatch::Contains(_) => {
            return v1::QueryCriterion { name: query.name.clone(), r#match: None };
        }
    };
    v1::QueryCriterion { name: query.name.clone(), r#match: Some(matches) }
}

fn query_from_wire(wire: &v1::QueryCriterion) -> Result<QueryCriterion, NotUnderstood> {
    use v1::query_criterion::Match;
    let matches = match &wire.r#match {
        Some(Match::Present(true)) => TextMatch::Present,
        Some(Match::Exact(text)) => TextMatch::Exact(text.clone()),
        Some(Match::Regex(text)) => TextMatch::Regex(text.clone()),
        Some(Match::Present(false)) | None => return Err(not_understood("a query criterion has no match")),
    };
    Ok(QueryCriterion { name: wire.name.clone(), matches })
}

fn jwt_to_wire(jwt: &JwtCriterion) -> v1::JwtCriterion {
    use v1::claim_criterion::Match;
    v1::JwtCriterion {
        provider: jwt.provider.clone(),
        claims: jwt
            .claims
            .iter()
            .map(|claim| v1::ClaimCriterion {
                path: claim.path.clone(),
                r#match: Some(match &claim.matches {
                    ClaimMatch::Equals(text) => Match::Equals(text.clone()),
                    ClaimMatch::Contains(text) => Match::Contains(text.clone()),
                }),
            })
            .collect(),
    }
}

fn jwt_from_wire(wire: &v1::JwtCriterion) -> Result<JwtCriterion, NotUnderstood> {
    use v1::claim_criterion::Match;
    let claims = wire
        .claims
        .iter()
        .map(|claim| {
            let matches = match &claim.r#match {
                Some(Match::Equals(text)) => ClaimMatch::Equals(text.clone()),
                Some(Match::Contains(text)) => ClaimMatch::Contains(text.clone()),
                None => return Err(not_understood("a claim criterion has no match")),
            };
            Ok(ClaimCriterion { path: claim.path.clone(), matches })
        })
        .collect::<Result<_, _>>()?;
    Ok(JwtCriterion { provider: wire.provider.clone(), claims })
}

/// The default policy as it travels.
pub fn default_to_body(policy: DefaultPolicy) -> v1::DefaultBody {
    use v1::default_body::Policy;
    let policy = match policy {
        DefaultPolicy::Deny => Policy::Deny,
        DefaultPolicy::Allow => Policy::Allow,
        DefaultPolicy::Audit => Policy::Audit,
    };
    v1::DefaultBody { policy: policy.into() }
}

/// The default policy in a resource's body.
///
/// # Errors
/// [`NotUnderstood`]: the receiver then denies by default.
pub fn default_from_bytes(body: &[u8]) -> Result<DefaultPolicy, NotUnderstood> {
    use v1::default_body::Policy;
    let wire: v1::DefaultBody = decode_exact(body)?;
    match Policy::try_from(wire.policy) {
        Ok(Policy::Deny) => Ok(DefaultPolicy::Deny),
        Ok(Policy::Allow) => Ok(DefaultPolicy::Allow),
        Ok(Policy::Audit) => Ok(DefaultPolicy::Audit),
        _ => Err(not_understood(format!("default policy {} is not known", wire.policy))),
    }
}

/// A trust bundle as it travels.
pub fn bundle_to_wire(bundle: &TrustBundle) -> v1::Bundle {
    v1::Bundle {
        trust_domain: bundle.trust_domain.to_string(),
        roots: bundle.roots().iter().map(|root| bytes::Bytes::copy_from_slice(root)).collect(),
        sequence: bundle.sequence,
    }
}

/// The trust bundle in a message.
///
/// # Errors
/// [`NotUnderstood`] where its trust domain is not valid or it has no root.
pub fn bundle_from_wire(wire: &v1::Bundle) -> Result<TrustBundle, NotUnderstood> {
    if wire.roots.is_empty() {
        return Err(not_understood("the trust bundle has no root"));
    }
    let trust_domain = wire.trust_domain.parse().map_err(|error| not_understood(format!("{error}")))?;
    let roots = wire.roots.iter().map(|root| root.to_vec().into()).collect();
    Ok(TrustBundle::new(trust_domain, roots, wire.sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(yaml_permissions: bool) -> Intention {
        let rule = if yaml_permissions {
            Rule::Permissions {
                permissions: vec![Permission {
                    action: Action::Allow,
                    methods: vec!["GET".into()],
                    path: Some(PathCriterion::Prefix("/v1/".into())),
                    headers: vec![HeaderCriterion {
                        name: "x-team".into(),
                        matches: TextMatch::Suffix("a".into()),
                        invert: true,
                    }],
                    query: vec![QueryCriterion { name: "q".into(), matches: TextMatch::Present }],
                    ports: vec!["main".parse().unwrap()],
                    jwt: vec![JwtCriterion {
                        provider: "p".into(),
                        claims: vec![ClaimCriterion { path: "a.b".into(), matches: ClaimMatch::Contains("c".into()) }],
                    }],
                }],
                otherwise: Action::Deny,
            }
        } else {
            Rule::Action(Action::Deny)
        };
        Intention {
            source: "web".parse().unwrap(),
            destination: "*".parse().unwrap(),
            rule,
            mode: Mode::Audit,
            expires_at: Some(time(1_800_000_000_000)),
            description: String::new(),
            meta: Default::default(),
        }
    }

    #[test]
    fn an_intention_survives_the_wire() {
        for permissions in [false, true] {
            let intention = sample(permissions);
            let bytes = intention_to_body(&intention).encode_to_vec();
            assert_eq!(intention_from_bytes(&bytes).unwrap(), intention);
        }
    }

    #[test]
    fn an_unknown_field_is_not_understood() {
        let mut bytes = intention_to_body(&sample(false)).encode_to_vec();
        bytes.extend([0xF8, 0x06, 0x01]); // field 111, varint 1
        assert!(intention_from_bytes(&bytes).unwrap_err().0.contains("does not know"));
    }

    #[test]
    fn an_unknown_field_inside_a_permission_is_not_understood() {
        let mut body = intention_to_body(&sample(true));
        let mut permission = body.permissions[0].encode_to_vec();
        permission.extend([0xF8, 0x06, 0x01]);
        body.permissions.clear();
        let mut bytes = body.encode_to_vec();
        bytes.push(0x22); // field 4, length-delimited
        bytes.push(u8::try_from(permission.len()).unwrap());
        bytes.extend(permission);
        assert!(intention_from_bytes(&bytes).is_err());
    }

    #[test]
    fn an_unknown_enum_value_is_not_understood() {
        let mut body = intention_to_body(&sample(false));
        body.action = 7;
        assert!(intention_from_bytes(&body.encode_to_vec()).is_err());
        let mut body = intention_to_body(&sample(false));
        body.mode = 0;
        assert!(intention_from_bytes(&body.encode_to_vec()).is_err());
        let body = v1::DefaultBody { policy: 9 };
        assert!(default_from_bytes(&body.encode_to_vec()).is_err());
    }
}
