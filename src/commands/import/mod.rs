//! `meshctl import consul`: what a Consul has, brought here, with a report of what could not be.
//!
//! | module | what it holds |
//! |---|---|
//! | `source` | a running Consul, or files of its JSON |
//! | `plan` | what of it is carried, and what is not |

mod plan;
mod source;

use std::time::Duration;

use hyper::Method;
use postern_api::http::{Applied, AppliedServiceConfig, ApplyRequest, ApplyServiceConfigRequest};
use postern_traffic::TrafficFile;
use serde_json::{Value, json};

use self::plan::Plan;
use self::source::Source;
use super::done;
use crate::cli::import::{ImportArgs, ImportCommand, ImportConsulArgs};
use crate::client::Client;
use crate::outcome::{Failure, Outcome};
use crate::output::Output;

/// For one step.
const STEP: Duration = Duration::from_secs(60);
/// Operations and bytes of values of one transaction.
const KEYS_AT_ONCE: usize = 64;
const BYTES_AT_ONCE: usize = 256 << 10;
/// In the audit log.
const REASON: &str = "meshctl import consul";

/// Reads, brings over, and reports.
pub async fn import(args: ImportArgs) -> Outcome {
    let output = Output::new(args.output.output);
    let ImportCommand::Consul(args) = args.command;
    let plan = plan_of(&args).await?;
    if !args.dry_run {
        carry(&plan).await?;
    }
    let report = plan.report(args.dry_run);
    output.show(&report, |_| plan.text(args.dry_run))?;
    done()
}

async fn plan_of(args: &ImportConsulArgs) -> Result<Plan, Failure> {
    let mut source = Source::default();
    for from in &args.from {
        if from.starts_with("http://") || from.starts_with("https://") {
            source.ask(from, args.consul_token_file.as_deref()).await?;
        } else {
            source.read_file(from)?;
        }
    }
    if let Some(default) = &args.consul_default {
        source.default_policy = Some(default.clone());
    }
    Ok(Plan::of(&source))
}

/// Settings first, since intentions with permissions need services that speak HTTP; then who may call whom; then keys.
async fn carry(plan: &Plan) -> Result<(), Failure> {
    let mut client = Client::find().await?;
    if !plan.settings.is_empty() {
        let file = TrafficFile { services: plan.settings.clone(), jwt_providers: Vec::new() };
        let request = ApplyServiceConfigRequest {
            file,
            replace: false,
            dry_run: false,
            expected_revision: None,
            reason: Some(REASON.into()),
            wait_ms: 0,
        };
        let _: AppliedServiceConfig = client.call(Method::PUT, "/v1/service-config", Some(&request), STEP).await?;
    }
    if !plan.intentions.is_empty() {
        let request = ApplyRequest {
            intentions: plan.intentions.clone(),
            merge: true,
            reason: Some(REASON.into()),
            ..ApplyRequest::default()
        };
        let _: Applied = client.call(Method::PUT, "/v1/intentions", Some(&request), STEP).await?;
    }
    for batch in batches(&plan.keys) {
        let _: Value = client.call(Method::PUT, "/v1/txn", Some(&batch), STEP).await?;
    }
    for registration in &plan.services {
        let _: Value = client.call(Method::PUT, "/v1/catalog/register", Some(registration), STEP).await?;
    }
    Ok(())
}

fn batches(keys: &[plan::Key]) -> Vec<Vec<Value>> {
    let mut batches: Vec<Vec<Value>> = Vec::new();
    let mut bytes = 0;
    for key in keys {
        let is_full = batches.last().is_none_or(|batch| batch.len() >= KEYS_AT_ONCE || bytes + key.value.len() > BYTES_AT_ONCE);
        if is_full {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += key.value.len();
        let op = json!({ "KV": { "Verb": "set", "Key": key.key, "Value": key.value, "Flags": key.flags } });
        if let Some(batch) = batches.last_mut() {
            batch.push(op);
        }
    }
    batches
}
