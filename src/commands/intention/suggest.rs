//! `meshctl intention suggest`: a file that allows what was seen.

use hyper::Method;
use postern_api::http::{SuggestRequest, Suggestion};
use std::time::Duration;

use super::file::since_s;
use crate::cli::Format;
use crate::cli::intention::SuggestArgs;
use crate::client::Client;
use crate::commands::done;
use crate::outcome::Outcome;
use crate::output::Output;
use crate::terminal;

/// How much longer than any other the answer may take: thousands of requests are judged.
const PATIENCE: Duration = Duration::from_secs(60);

/// Prints the file; with `-o json` also what each intention is needed for.
pub async fn suggest(output: &Output, args: SuggestArgs) -> Outcome {
    let request = SuggestRequest { since_s: Some(since_s(args.since)?), l7: args.l7, service: args.service };
    let suggestion: Suggestion = Client::find().await?.call(Method::POST, "/v1/suggest", Some(&request), PATIENCE).await?;
    match output.format() {
        Format::Json => output.show(&suggestion, |_| String::new())?,
        Format::Table | Format::Yaml => terminal::print(&suggestion.file)?,
    }
    done()
}
