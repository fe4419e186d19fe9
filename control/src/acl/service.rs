//! What the sidecars of a service may read for it.

use postern_names::ServiceName;

use super::resource::{Access, Resource};
use crate::mirror::View;

/// Whether the sidecars of `service` may touch this resource so: keys where a role that names the service grants it.
pub fn service_may(view: &View, service: &ServiceName, access: Access, resource: Resource<'_>) -> bool {
    view.access.of_service(service, view.cluster.datacenter.as_str()).may(access, resource)
}
