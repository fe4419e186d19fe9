//! `meshctl status`: the control plane and every instance.

use postern_api::http::Status;

use super::done;
use super::service::instances_table;
use crate::cli::OutputArgs;
use crate::client::Client;
use crate::outcome::Outcome;
use crate::output::Output;

/// Shows the mesh at a glance.
pub async fn status(args: OutputArgs) -> Outcome {
    let mut client = Client::find().await?;
    let status: Status = client.get("/v1/overview").await?;
    let place = client.place();
    Output::new(args.output).show(&status, |output| text(output, &status, place))?;
    done()
}

fn text(output: &Output, status: &Status, place: String) -> String {
    let connected = status.instances.iter().filter(|instance| instance.connected).count();
    let mut text = output.pairs(&[
        ("control plane", format!("{place}, version {}, since {}", status.mesh.version, status.started_at)),
        ("trust domain", status.mesh.trust_domain.to_string()),
        ("datacenter", status.mesh.datacenter.to_string()),
        ("revision", status.revision.to_string()),
        ("intentions", format!("{}, default {}", status.intentions, status.default)),
        ("services", status.services.to_string()),
        ("sidecars", format!("{connected} of {} connected", status.instances.len())),
    ]);
    if !status.instances.is_empty() {
        text.push('\n');
        text.push_str(&instances_table(output, &status.instances));
    }
    if !status.behind.is_empty() {
        let names: Vec<&str> = status.behind.iter().map(|id| id.as_str()).collect();
        text.push_str(&format!("\nbehind (not yet acknowledged what was sent): {}\n", names.join(", ")));
    }
    for refused in &status.not_understood {
        text.push_str(&format!("\n{} does not understand {}: {}\n", refused.instance, refused.key, refused.why));
    }
    text
}
