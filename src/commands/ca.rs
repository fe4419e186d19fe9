//! `meshctl ca`: the certificate authority of the mesh.

use std::time::Duration;

use postern_api::http::{AuthorityStatus, CertificateStatus};

use super::{done, unbuilt};
use crate::cli::plain::{CaArgs, CaCommand};
use crate::client::Client;
use crate::outcome::Outcome;
use crate::output::{Output, plain};
use crate::{duration, terminal};

/// Shows and exports.
pub async fn ca(args: CaArgs) -> Outcome {
    match args.command {
        CaCommand::Rotate(_) => return unbuilt::unbuilt("`meshctl ca rotate`"),
        CaCommand::Status => {
            let status: AuthorityStatus = Client::find().await?.get("/v1/authority").await?;
            Output::new(args.output.output).show(&status, |output| status_text(output, &status))?;
        }
        CaCommand::Export => terminal::print(&Client::find().await?.get_text("/v1/authority/bundle").await?)?,
    }
    done()
}

fn status_text(output: &Output, status: &AuthorityStatus) -> String {
    let mut text = output.pairs(&[
        ("trust domain", status.trust_domain.to_string()),
        ("SVIDs last", duration::text(Duration::from_secs(status.svid_ttl_s))),
        ("SVIDs active", status.active_svids.to_string()),
        ("SVIDs revoked", status.revoked_svids.to_string()),
    ]);
    let row = |kind: &str, certificate: &CertificateStatus| {
        vec![
            plain(kind),
            plain(&certificate.origin),
            plain(&certificate.not_before),
            plain(&certificate.not_after),
            plain(&certificate.pin),
        ]
    };
    let mut rows: Vec<_> = status.roots.iter().map(|root| row("root", root)).collect();
    rows.push(row("intermediate", &status.intermediate));
    text.push('\n');
    text.push_str(&output.table(&["certificate", "origin", "from", "until", "pin"], rows));
    text
}
