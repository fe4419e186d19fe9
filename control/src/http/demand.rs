//! What each route of our own demands of whoever calls it. A route that is not named here demands the operator.

use std::borrow::Cow;

use axum::http::Method;

use postern_intentions::Party;

use super::consul;
use crate::acl::{Access, Authority, Denied, Resource};
use crate::policy::Touched;

/// What a request has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: it is how a client knows that it talks to Postern.
    Nothing,
    /// Nothing on loopback, for Prometheus; elsewhere to read the control plane.
    NothingOnLoopback,
    /// A permission; where the subject is known from the body or the record alone, the route asks further.
    Permission(Access, Subject),
    /// The route asks what the caller may.
    OfRoute,
}

/// What a permission is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The control plane.
    Operator,
    /// A service; empty: any.
    Service(String),
    /// Every service.
    AllServices,
    /// The intentions of a destination; empty: any.
    Intentions(String),
    /// All intentions.
    AllIntentions,
}

impl Subject {
    /// As the evaluator takes it.
    pub fn resource(&self) -> Resource<'_> {
        match self {
            Self::Operator => Resource::Operator,
            Self::Service(name) => Resource::Service(name),
            Self::AllServices => Resource::AllServices,
            Self::Intentions(name) => Resource::Intentions(name),
            Self::AllIntentions => Resource::AllIntentions,
        }
    }
}

/// What this request demands.
pub fn of(method: &Method, path: &str) -> Demand {
    use Access::{Read, Write};
    if consul::owns(path) {
        return Demand::OfRoute;
    }
    let reads = method == Method::GET || method == Method::HEAD;
    let access = if reads { Read } else { Write };
    let segments: Vec<Cow<'_, str>> = path.strip_prefix('/').unwrap_or_default().split('/').map(decoded).collect();
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    let subject = match segments.as_slice() {
        ["v1", "mesh" | "openapi.json"] if reads => return Demand::Nothing,
        // The page itself; its data are the API's.
        [""] | ["ui", ..] if reads => return Demand::Nothing,
        ["metrics"] | ["v1", "prometheus", "targets"] if reads => return Demand::NothingOnLoopback,
        ["v1", "intentions"] if reads => Subject::Intentions(String::new()),
        // [`of_apply`] asks for what it touches.
        ["v1", "intentions"] => Subject::Intentions(String::new()),
        ["v1", "intentions", _, destination] => Subject::Intentions((*destination).to_owned()),
        // Pairs that may not be read are left out.
        ["v1", "history"] if reads => Subject::Intentions(String::new()),
        ["v1", "rollback"] => Subject::AllIntentions,
        // It changes nothing; the route asks for the destination.
        ["v1", "decide"] => return Demand::Permission(Read, Subject::Intentions(String::new())),
        // The routes leave out what the caller may not read.
        // It changes nothing, and holds what the caller may read.
        ["v1", "suggest"] => return Demand::Permission(Read, Subject::Intentions(String::new())),
        ["v1", "edges" | "live"] if reads => Subject::Intentions(String::new()),
        ["v1", "services" | "service-config" | "tokens"] if reads => Subject::Service(String::new()),
        ["v1", "services", name] if reads => Subject::Service((*name).to_owned()),
        ["v1", "service-config", name] => Subject::Service((*name).to_owned()),
        ["v1", "service-config"] => Subject::AllServices,
        // The routes ask for the service that the token is for, or that the instance is of.
        ["v1", "tokens"] | ["v1", "tokens" | "instances", _] => Subject::Service(String::new()),
        _ => Subject::Operator,
    };
    Demand::Permission(access, subject)
}

/// What an apply, or the plan of one, demands of whoever may not change all intentions: to write each destination of which
/// an intention comes, changes or goes, and the control plane where the default does. An intention that stays as it is needs
/// to be readable: else whoever guesses would be told that the guess was right.
///
/// # Errors
/// [`Denied`], which names no destination that the request does not name and the caller may not read.
pub fn of_apply(authority: &Authority, touched: &Touched<'_>) -> Result<(), Denied> {
    if authority.may(Access::Write, Resource::AllIntentions) {
        return Ok(());
    }
    let may_read = |destination: &Party| authority.may(Access::Read, Resource::Intentions(&destination.to_string()));
    let may_write = |destination: &Party| authority.require(Access::Write, Resource::Intentions(&destination.to_string()));
    let (set, kept) = touched.of_request();
    set.into_iter().chain(kept.into_iter().filter(|destination| !may_read(destination))).try_for_each(may_write)?;
    for destination in touched.left_out() {
        if may_read(destination) {
            may_write(destination)?;
        } else {
            authority.require(Access::Write, Resource::AllIntentions)?;
        }
    }
    if touched.default() { authority.require(Access::Write, Resource::Operator) } else { Ok(()) }
}

/// A segment as the router decodes it. What cannot be decoded is no name, and no route takes it.
fn decoded(segment: &str) -> Cow<'_, str> {
    match String::from_utf8(consul::call::decode(segment, consul::call::Plus::IsPlus)) {
        Ok(text) if text == segment => Cow::Borrowed(segment),
        Ok(text) => Cow::Owned(text),
        Err(_) => Cow::Borrowed("\u{fffd}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_is_about_what_the_path_names() {
        let permission = |access, subject| Demand::Permission(access, subject);
        for (method, path, demand) in [
            (Method::GET, "/v1/mesh", Demand::Nothing),
            (Method::PUT, "/v1/mesh", permission(Access::Write, Subject::Operator)),
            (Method::GET, "/", Demand::Nothing),
            (Method::GET, "/ui/graph/draw.js", Demand::Nothing),
            (Method::GET, "/uix", permission(Access::Read, Subject::Operator)),
            (Method::POST, "/ui/", permission(Access::Write, Subject::Operator)),
            (Method::GET, "/metrics", Demand::NothingOnLoopback),
            (Method::GET, "/v1/kv/a", Demand::OfRoute),
            (Method::PUT, "/v1/intentions/web/api", permission(Access::Write, Subject::Intentions("api".into()))),
            (Method::PUT, "/v1/intentions/web/%61pi", permission(Access::Write, Subject::Intentions("api".into()))),
            (Method::DELETE, "/v1/intentions/web/%2A", permission(Access::Write, Subject::Intentions("*".into()))),
            (Method::PUT, "/v1/intentions", permission(Access::Write, Subject::Intentions(String::new()))),
            (Method::POST, "/v1/rollback", permission(Access::Write, Subject::AllIntentions)),
            (Method::GET, "/v1/history", permission(Access::Read, Subject::Intentions(String::new()))),
            (Method::PUT, "/v1/service-config", permission(Access::Write, Subject::AllServices)),
            (Method::GET, "/v1/services/web", permission(Access::Read, Subject::Service("web".into()))),
            (Method::GET, "/v1/authority", permission(Access::Read, Subject::Operator)),
            (Method::POST, "/v1/whatever/comes", permission(Access::Write, Subject::Operator)),
            (Method::GET, "/v1/services/web/", permission(Access::Read, Subject::Operator)),
            (Method::GET, "//v1/mesh", permission(Access::Read, Subject::Operator)),
        ] {
            assert_eq!(of(&method, path), demand, "{method} {path}");
        }
    }
}
