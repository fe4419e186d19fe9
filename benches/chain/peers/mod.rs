//! How each peer is started: one file each.

mod envoy;
mod haproxy;
mod nginx;
pub mod plain;
mod postern;

use anyhow::Context;

use crate::pair::{Pair, Site};
use crate::probe;
use crate::settings::{PeerName, Product, Settings};

/// Starts a pair and proves that it carries requests, and that it refuses a caller with another SPIFFE ID and, at L7, what no
/// permission names.
///
/// # Errors
/// If it does not, with its logs.
pub async fn start(peer: &PeerName, site: Site<'_>, settings: &Settings) -> anyhow::Result<Pair> {
    let started = match peer.product {
        Product::Envoy => envoy::start(site),
        Product::Nginx => nginx::start(site),
        Product::Haproxy => haproxy::start(site),
        Product::Plain => plain::start(site),
        Product::Postern => postern::start(site, &settings.flags_of(peer.variant.as_deref())?),
    };
    let mut pair = started.with_context(|| format!("cannot start {peer}"))?;
    probe::wait_until_ready(&mut pair, site.protocol)
        .await
        .with_context(|| format!("{peer} carries no request; {}", pair.logs()))?;
    if peer.product != Product::Plain {
        for (number, inbound) in pair.inbound.iter().enumerate() {
            let authorisation = probe::check_authorisation(*inbound, site.certificates, site.protocol).await;
            authorisation.with_context(|| format!("{peer}, server-side proxy {number}; {}", pair.logs()))?;
        }
    }
    Ok(pair)
}
