//! `meshctl service`: services and their instances.

pub mod config;

use std::time::Duration;

use hyper::Method;
use postern_api::http::{Deregistered, Instance, ServiceDetail, ServiceSummary};
use postern_intentions::Protocol;

use super::intention::intentions_table;
use super::{done, unbuilt};
use crate::cli::plain::{ServiceArgs, ServiceCommand};
use crate::client::{Client, encode};
use crate::outcome::{Failure, Outcome};
use crate::output::{Output, Tone, ToneText, plain};

/// Lists, shows, deregisters and sets.
pub async fn service(args: ServiceArgs) -> Outcome {
    let output = Output::new(args.output.output);
    match args.command {
        ServiceCommand::Register(_) => return unbuilt::unbuilt("`meshctl service register`"),
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
        ServiceCommand::Deregister { id, revoke } => {
            let path = format!("/v1/instances/{}?revoke={revoke}", encode(id.as_str()));
            let gone: Deregistered = Client::find().await?.call(Method::DELETE, &path, None::<&()>, Duration::ZERO).await?;
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
    let mut text = output.pairs(&[
        ("service", detail.name.to_string()),
        ("protocol", protocol(detail.protocol)),
        ("settings", config::summary(detail.config.as_ref())),
    ]);
    text.push('\n');
    text.push_str(&instances_table(output, &detail.instances));
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

fn health(word: &str) -> ToneText {
    let tone = match word {
        "healthy" => Tone::Good,
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
