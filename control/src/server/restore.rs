//! A control plane that starts anew on a snapshot, in the same process and on the same addresses.

use std::sync::Arc;

use super::data_dir::DataDir;
use super::{Control, ControlError};
use crate::settings::{DnsListen, Settings};
use crate::snapshot::{Places, put_in_place, take_back};

/// Stops, puts the accepted snapshot in place, and starts. Where the store that comes of it does not start, the one before
/// does.
///
/// # Errors
/// The store before does not start either.
pub(super) async fn anew(control: Control, settings: &Settings, data_dir: &DataDir) -> Result<Control, ControlError> {
    let settings = at_the_same_addresses(&control, settings);
    let seal = Arc::clone(&control.seal);
    let places = Places { store: data_dir.store(), pending: data_dir.pending_snapshot(), before: data_dir.store_before() };
    control.stop(settings.drain).await;
    match put_in_place(&places).await {
        Ok(()) => tracing::warn!(before = %places.before.display(), "the snapshot is in place; the store before it is kept"),
        Err(error) => {
            tracing::error!(%error, "the snapshot was not restored: nothing has changed");
            return Control::start(&settings, data_dir, Some(seal)).await;
        }
    }
    match Control::start(&settings, data_dir, Some(Arc::clone(&seal))).await {
        Ok(control) => Ok(control),
        Err(error) => {
            tracing::error!(%error, "the restored store does not start: going back to the one before");
            let back = take_back(&places);
            back.map_err(|why| ControlError::DataDir { path: settings.data_dir.clone(), why: why.to_string() })?;
            Control::start(&settings, data_dir, Some(seal)).await
        }
    }
}

/// Ports that the kernel chose are asked for again.
fn at_the_same_addresses(control: &Control, settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    let addresses = &control.addresses;
    if let Ok(http) = addresses.http.parse() {
        settings.http = http;
    }
    if let Ok(grpc) = addresses.grpc.parse() {
        settings.grpc = grpc;
    }
    if let (DnsListen::At(_), Some(Ok(dns))) = (&settings.dns, addresses.dns.as_ref().map(|dns| dns.parse())) {
        settings.dns = DnsListen::At(dns);
    }
    settings
}
