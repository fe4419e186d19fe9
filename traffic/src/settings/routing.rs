//! Where requests go: routes, splits and the resolver. In Consul these are service-router, service-splitter and
//! service-resolver.

use std::collections::BTreeMap;

use postern_intentions::{HeaderCriterion, QueryCriterion};
use postern_names::{PortName, ServiceName};
use serde::{Deserialize, Serialize};

use super::{Percent, Retries};
use crate::Period;

/// Requests that match go where `to` says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which requests; absent: all.
    #[serde(default, rename = "match", skip_serializing_if = "super::is_default")]
    pub matches: RequestMatch,
    /// What happens to them.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub to: RouteAction,
}

/// Requests, by what they say. All that is given must hold; a repeated header or parameter must match in all its values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestMatch {
    /// Upper-case methods; empty: every method.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<String>,
    /// The whole path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_exact: Option<String>,
    /// `/v1` is `/v1` and all below it; with a `/` at its end only what is below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// A regular expression for the whole path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_regex: Option<String>,
    /// On headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderCriterion>,
    /// On parameters of the query.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query: Vec<QueryCriterion>,
}

/// What happens to requests of a route.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteAction {
    /// The service that they go to; absent: this one, by its split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The subset of it; absent: by its split or its default subset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// What takes the place of the matched `path_prefix` (or of the whole path after `path_exact`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,
    /// Changes to the headers of the request.
    #[serde(skip_serializing_if = "super::is_default")]
    pub request_headers: HeaderEdits,
    /// Changes to the headers of the answer.
    #[serde(skip_serializing_if = "super::is_default")]
    pub response_headers: HeaderEdits,
    /// In place of the service's `timeouts.request`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// In place of the service's `retries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// In place of the service's `mirror`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Mirror>,
}

/// Changes to headers, in the order remove, set, add. Headers of the mesh (`x-postern-*`, `x-forwarded-client-cert`),
/// hop-by-hop headers and `host` cannot be named.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderEdits {
    /// Taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Replaced or added.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    /// Added beside what is there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub add: BTreeMap<String, String>,
}

/// A share of the requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// How many of a hundred, in steps of 0.01.
    pub weight: Percent,
    /// The service that they go to; absent: this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The subset of it; absent: its default subset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
}

/// Which instances of a service are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resolver {
    /// Instances by their metadata (`--meta K=V`).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subsets: BTreeMap<String, Subset>,
    /// The subset that is meant where none is named; absent: all instances.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_subset: Option<String>,
    /// All requests go elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<Redirect>,
    /// Where requests go, in this order, when no instance that is meant can take them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failover: Vec<SubsetRef>,
}

/// Instances that have all of these labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subset {
    /// Key and value, each as `--meta` says them.
    pub meta: BTreeMap<String, String>,
}

/// Another place for all requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redirect {
    /// The service; absent: this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The subset; absent: its default subset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// The port; absent: the one that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
}

/// A subset of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubsetRef {
    /// The service; absent: this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The subset; absent: its default subset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
}

/// A share of the requests is sent a second time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The service that gets the copies.
    pub service: ServiceName,
    /// The subset of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// How many of a hundred.
    #[serde(default = "all")]
    pub percent: Percent,
}

fn all() -> Percent {
    Percent::ALL
}
