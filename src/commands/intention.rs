//! `meshctl intention`: who may call whom.

mod audited;
pub mod change;
mod effects;
mod file;
mod history;
mod judge;
mod suggest;
mod watch;

use postern_api::http::{Intentions, StoredIntention};
use postern_intentions::{Action, Intention, Party, Rule};
use postern_names::ServiceName;

use super::done;
use crate::cli::intention::{IntentionArgs, IntentionCommand, PairArgs};
use crate::client::{Client, encode};
use crate::outcome::{Failure, Outcome};
use crate::output::{Output, Tone, ToneText, plain};
use postern_api::http::SetVerb;

/// Does what `meshctl intention …` says.
pub async fn intention(args: IntentionArgs) -> Outcome {
    let output = Output::new(args.output.output);
    match args.command {
        IntentionCommand::Allow(set) => change::set(&output, SetVerb::Allow, set).await,
        IntentionCommand::Deny(set) => change::set(&output, SetVerb::Deny, set).await,
        IntentionCommand::Audit(set) => change::set(&output, SetVerb::Audit, set).await,
        IntentionCommand::Audited(args) => audited::audited(&output, args).await,
        IntentionCommand::Delete { pair, temporary, change } => change::delete(&output, pair, temporary, change).await,
        IntentionCommand::Default { policy, change } => change::default(&output, policy.into(), change).await,
        IntentionCommand::List => list(&output).await,
        IntentionCommand::Get(pair) => get(&output, &pair).await,
        IntentionCommand::Match { name, source } => matching(&output, &name, source).await,
        IntentionCommand::Check(call) => judge::check(&output, call).await,
        IntentionCommand::Explain(call) => judge::explain(&output, call).await,
        IntentionCommand::Apply { file, merge, yes, if_revision, since, watch, change } => {
            file::apply(&output, file::Apply { file, merge, yes, if_revision, since, watch, change }).await
        }
        IntentionCommand::Plan { file, merge, since, against: None } => file::plan(&output, &file, merge, since).await,
        IntentionCommand::Plan { file, merge, against: Some(against), .. } => file::compare(&output, &file, &against, merge),
        IntentionCommand::Validate { file, strict } => file::validate(&file.positional.or(file.file).unwrap_or_default(), strict),
        IntentionCommand::Export => file::export(&output).await,
        IntentionCommand::Suggest(args) => suggest::suggest(&output, args).await,
        IntentionCommand::History(args) => history::history(&output, args).await,
        IntentionCommand::Rollback(args) => history::rollback(&output, args).await,
    }
}

/// The path of a pair in the API.
fn path_of(source: &Party, destination: &Party) -> String {
    format!("/v1/intentions/{}/{}", encode(&source.to_string()), encode(&destination.to_string()))
}

async fn list(output: &Output) -> Outcome {
    let all: Intentions = Client::find().await?.get("/v1/intentions").await?;
    output.show(&all, |output| {
        let table = if all.intentions.is_empty() { String::new() } else { intentions_table(output, &all.intentions) + "\n" };
        format!("{table}default: {}\n", all.default)
    })?;
    done()
}

async fn get(output: &Output, pair: &PairArgs) -> Outcome {
    let path = path_of(&pair.source, &pair.destination);
    let stored: Vec<StoredIntention> = Client::find().await?.get_if_there(&path).await?.unwrap_or_default();
    if stored.is_empty() {
        return Err(Failure::new(format!("there is no intention {} -> {}", pair.source, pair.destination))
            .cure("`meshctl intention list` shows those that are"));
    }
    output.show(&stored, |output| intentions_table(output, &stored))?;
    done()
}

async fn matching(output: &Output, name: &ServiceName, as_source: bool) -> Outcome {
    let all: Intentions = Client::find().await?.get("/v1/intentions").await?;
    let matches = |stored: &StoredIntention| {
        let side = if as_source { &stored.intention.source } else { &stored.intention.destination };
        match side {
            Party::Any => true,
            Party::Service(service) => service == name,
        }
    };
    let found: Vec<StoredIntention> = all.intentions.into_iter().filter(matches).collect();
    output.show(&found, |output| {
        let table = if found.is_empty() { String::new() } else { intentions_table(output, &found) + "\n" };
        format!("{table}default: {}\n", all.default)
    })?;
    done()
}

/// Intentions, one a row.
pub fn intentions_table(output: &Output, intentions: &[StoredIntention]) -> String {
    if intentions.is_empty() {
        return "no intentions\n".into();
    }
    let rows = intentions.iter().map(|stored| {
        vec![
            plain(&stored.intention.source),
            plain(&stored.intention.destination),
            says(&stored.intention),
            plain(until(&stored.intention)),
            plain(stored.precedence),
            plain(stored.revision),
            plain(&stored.created_by),
            plain(stored.reason.as_deref().unwrap_or(&stored.intention.description)),
        ]
    });
    output.table(&["source", "destination", "says", "until", "precedence", "revision", "by", "reason"], rows.collect())
}

fn says(intention: &Intention) -> ToneText {
    let word = match &intention.rule {
        Rule::Action(action) => action.to_string(),
        Rule::Permissions { permissions, otherwise } => format!("{} permissions, otherwise {otherwise}", permissions.len()),
    };
    let tone = match &intention.rule {
        _ if intention.mode == postern_intentions::Mode::Audit => Tone::Doubtful,
        Rule::Action(Action::Allow) => Tone::Good,
        Rule::Action(Action::Deny) => Tone::Bad,
        Rule::Permissions { .. } => Tone::Plain,
    };
    let audit = if intention.mode == postern_intentions::Mode::Audit { ", audit" } else { "" };
    (word + audit, tone)
}

fn until(intention: &Intention) -> String {
    intention.expires_at.map_or_else(|| "-".to_owned(), |end| humantime::format_rfc3339_seconds(end).to_string())
}

/// Asks for what the store says now, as a file.
async fn current(client: &mut Client) -> Result<Intentions, Failure> {
    client.get("/v1/intentions").await
}
