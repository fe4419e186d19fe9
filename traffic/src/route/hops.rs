//! Whether settings send requests round in circles: for whoever accepts settings.

use std::collections::BTreeMap;

use postern_names::ServiceName;

use super::{MAX_HOPS, RoutingError};
use crate::settings::ServiceSettings;

/// What still counts at a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Split,
    Redirect,
}

type Node = (ServiceName, Stage);

/// Checks that no request for `service` can be sent on more than [`MAX_HOPS`] times, whatever its split draws and its routes
/// match. `settings` has those of every service.
///
/// # Errors
/// [`RoutingError::TooManyHops`] with a way on which it is.
pub fn check_hops<'s>(
    service: &ServiceName,
    settings: impl Fn(&ServiceName) -> Option<&'s ServiceSettings>,
) -> Result<(), RoutingError> {
    // Where a request can be after so many hops, each with where it was before.
    let mut reached: Vec<BTreeMap<Node, Node>> = vec![starts(service, &settings)];
    while let Some(last) = reached.last().filter(|last| !last.is_empty()) {
        if reached.len() > MAX_HOPS + 1 {
            return Err(RoutingError::TooManyHops { service: service.clone(), path: way(&reached) });
        }
        let next = last.keys().flat_map(|node| next(node, &settings).into_iter().map(|next| (next, node.clone()))).collect();
        reached.push(next);
    }
    Ok(())
}

/// The called service and those that its routes lead to, which is no hop.
fn starts<'s>(service: &ServiceName, settings: &impl Fn(&ServiceName) -> Option<&'s ServiceSettings>) -> BTreeMap<Node, Node> {
    let routes = settings(service).into_iter().flat_map(|settings| &settings.routes);
    let routed = routes.map(|route| {
        let to = route.to.service.as_ref().unwrap_or(service);
        (to.clone(), if route.to.subset.is_some() { Stage::Redirect } else { Stage::Split })
    });
    std::iter::once((service.clone(), Stage::Split)).chain(routed).map(|node| (node.clone(), node)).collect()
}

/// Where a request can be one hop later.
fn next<'s>((service, stage): &Node, settings: &impl Fn(&ServiceName) -> Option<&'s ServiceSettings>) -> Vec<Node> {
    let Some(settings) = settings(service) else { return Vec::new() };
    let other = |to: &Option<ServiceName>| to.clone().filter(|to| to != service);
    let split = settings.split.iter().filter(|_| *stage == Stage::Split).filter_map(|share| {
        let stage = if share.subset.is_some() { Stage::Redirect } else { Stage::Split };
        other(&share.service).map(|to| (to, stage))
    });
    let stays = *stage == Stage::Redirect
        || settings.split.is_empty()
        || settings.split.iter().any(|share| other(&share.service).is_none());
    let redirect = settings.resolver.redirect.iter().filter(|_| stays);
    let redirected = redirect.filter_map(|redirect| other(&redirect.service));
    split.chain(redirected.map(|to| (to, Stage::Redirect))).collect()
}

fn way(reached: &[BTreeMap<Node, Node>]) -> String {
    let mut names = Vec::new();
    let mut node = reached.last().and_then(|last| last.keys().next());
    for layer in reached.iter().rev() {
        let Some(at) = node else { break };
        names.push(at.0.as_str());
        node = layer.get(at);
    }
    names.reverse();
    names.join(" -> ")
}
