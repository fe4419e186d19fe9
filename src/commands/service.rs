//! `meshctl service`: services and their instances.

pub mod config;
mod register;

use std::collections::BTreeSet;

use postern_api::http::{Deregistered, Instance, RegisteredInstance, ServiceDetail, ServiceSummary};
use postern_intentions::Protocol;
use postern_names::{InstanceId, ServiceName};

use super::done;
use super::intention::intentions_table;
use crate::cli::plain::{ServiceArgs, ServiceCommand};
use crate::client::{Client, encode};
use crate::outcome::{Failure, Outcome};
use crate::output::{Output, Tone, ToneText, plain};

/// Lists, shows, deregisters and sets.
pub async fn service(args: ServiceArgs) -> Outcome {
    let output = Output::new(args.output.output);
    match args.command {
        ServiceCommand::Register { file } => register::register(&output, &file).await?,
        ServiceCommand::Maintenance { id, node, on, off: _, reason } => {
            register::maintenance(&output, id, node, on.then_some(reason)).await?;
        }
        ServiceCommand::Config { command } => return config::config(&output, command).await,
        ServiceCommand::List => {
            let services: Vec<ServiceSummary> = Client::find().await?.get("/v1/services").await?;
            output.show(&services, |output| list_text(output, &services))?;
        }
        ServiceCommand::Show { name } => {
            let detail: Option<ServiceDetail> = Client::find().await?.get_if_there(&format!("/v1/services/{name}")).await?;
            let Some(detail) = detail else {
                return Err(
                    Failure::new(format!("there is no service {name}")).cure("`meshctl service list` shows those that are")
                );
            };
            output.show(&detail, |output| detail_text(output, &detail))?;
        }
        ServiceCommand::Deregister { id, node, revoke } => {
            let mut client = Client::find().await?;
            let path = format!("/v1/instances/{}?revoke={revoke}", encode(&id));
            let has_sidecar = match node.is_none() && id.parse::<InstanceId>().is_ok() {
                true => client.delete_if_there::<Deregistered>(&path).await?,
                false => None,
            };
            let Some(gone) = has_sidecar else {
                register::deregister(&output, &mut client, &id, node.as_deref()).await?;
                return done();
            };
            output.show(&gone, |_| {
                let more = if gone.revoked { ", and its SVIDs are revoked" } else { "" };
                format!("{} of {} is deregistered{more}", gone.id, gone.service)
            })?;
        }
    }
    done()
}

fn protocol(protocol: Option<Protocol>) -> String {
    protocol.map_or_else(|| "tcp".to_owned(), |protocol| protocol.to_string())
}

fn list_text(output: &Output, services: &[ServiceSummary]) -> String {
    let rows = services.iter().map(|service| {
        let tone = match service.healthy {
            0 => Tone::Bad,
            healthy if healthy < service.instances => Tone::Doubtful,
            _ => Tone::Good,
        };
        vec![
            plain(&service.name),
            plain(protocol(service.protocol)),
            plain(service.instances),
            (service.healthy.to_string(), tone),
            plain(service.connected),
        ]
    });
    output.table(&["service", "protocol", "instances", "healthy", "connected"], rows.collect())
}

fn detail_text(output: &Output, detail: &ServiceDetail) -> String {
    let upstreams: BTreeSet<_> =
        detail.instances.iter().flat_map(|instance| &instance.upstreams).map(ServiceName::as_str).collect();
    let upstreams: Vec<_> = upstreams.into_iter().collect();
    let mut text = output.pairs(&[
        ("service", detail.name.to_string()),
        ("protocol", protocol(detail.protocol)),
        ("upstreams", if upstreams.is_empty() { "none".to_owned() } else { upstreams.join(", ") }),
        ("settings", config::summary(detail.config.as_ref())),
    ]);
    text.push('\n');
    text.push_str(&instances_table(output, &detail.instances));
    if !detail.registered.is_empty() {
        text.push_str("\nWithout a sidecar:\n");
        text.push_str(&registered_table(output, &detail.registered));
    }
    text.push_str(&checks_text(output, detail));
    text.push_str("\nWho may call it:\n");
    text.push_str(&intentions_table(output, &detail.inbound));
    text
}

/// Instances, one a row.
pub fn instances_table(output: &Output, instances: &[Instance]) -> String {
    if instances.is_empty() {
        return "no instances\n".into();
    }
    let rows = instances.iter().map(|instance| {
        vec![
            plain(&instance.id),
            plain(&instance.service),
            health(&instance.health),
            plain(instance.address.as_deref().unwrap_or("-")),
            connection(instance),
            plain(if instance.version.is_empty() { "-" } else { &instance.version }),
            plain(instance.revision),
            plain(instance.svid_not_after.as_deref().unwrap_or("-")),
        ]
    });
    output.table(&["instance", "service", "health", "address", "sidecar", "version", "revision", "svid until"], rows.collect())
}

fn registered_table(output: &Output, registered: &[RegisteredInstance]) -> String {
    let rows = registered.iter().map(|instance| {
        let address =
            if instance.port == 0 { instance.address.clone() } else { format!("{}:{}", instance.address, instance.port) };
        vec![
            plain(&instance.id),
            plain(&instance.node),
            health(&instance.health),
            plain(address),
            plain(if instance.tags.is_empty() { "-".to_owned() } else { instance.tags.join(" ") }),
        ]
    });
    output.table(&["instance", "node", "health", "address", "tags"], rows.collect())
}

/// The checks that are not passing, with what they say.
fn checks_text(output: &Output, detail: &ServiceDetail) -> String {
    let with_sidecar = detail.instances.iter().map(|instance| (instance.id.to_string(), &instance.checks));
    let all = with_sidecar.chain(detail.registered.iter().map(|instance| (instance.id.clone(), &instance.checks)));
    let failing = all.flat_map(|(id, checks)| {
        let failing = checks.iter().filter(|check| check.status != "passing");
        failing.map(move |check| {
            let first = check.output.lines().next().unwrap_or_default();
            vec![plain(&id), plain(&check.id), health(&check.status), plain(first.chars().take(100).collect::<String>())]
        })
    });
    let rows: Vec<_> = failing.collect();
    if rows.is_empty() { String::new() } else { format!("\n{}", output.table(&["instance", "check", "status", "it says"], rows)) }
}

fn health(word: &str) -> ToneText {
    let tone = match word {
        "healthy" => Tone::Good,
        "warning" | "maintenance" => Tone::Doubtful,
        "critical" => Tone::Bad,
        _ => Tone::Plain,
    };
    (word.to_owned(), tone)
}

fn connection(instance: &Instance) -> ToneText {
    match instance.connected {
        true => ("connected".into(), Tone::Good),
        false => (format!("away since {}", instance.since), Tone::Doubtful),
    }
}
