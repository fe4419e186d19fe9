//! The intentions file: `apply`, `plan`, `validate`, `export`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use postern_api::http::{Applied, ApplyRequest};
use postern_intentions::Intention;
use postern_intentions::file::{IntentionFile, parse, render};
use postern_intentions::plan::Plan;

use super::{change, current};
use crate::cli::Format;
use crate::cli::intention::ChangeArgs;
use crate::client::Client;
use crate::commands::{done, input_file};
use crate::outcome::{Answer, Failure, Outcome};
use crate::output::Output;
use crate::terminal;

/// The largest file of intentions (security.md, Limits).
const FILE_LIMIT: u64 = 32 << 20;

/// From so many intentions on, an apply takes long enough to say that it goes on.
const LARGE: usize = 2000;
/// How much longer the answer to a large file may take.
const LARGE_PATIENCE: Duration = Duration::from_secs(120);

/// What `apply` was asked.
pub struct Apply {
    /// The file.
    pub file: PathBuf,
    /// Keep what is not in it.
    pub merge: bool,
    /// Do not ask.
    pub yes: bool,
    /// How.
    pub change: ChangeArgs,
}

/// Reads and checks a file; every error of it is shown on stderr, and the failure counts them.
pub fn read(path: &Path) -> Result<IntentionFile, Failure> {
    let (text, name) = input_file::text_of(path, FILE_LIMIT)?;
    parse(&text, &name).map_err(|errors| input_file::failure(&name, &errors))
}

/// Checks a file without a control plane.
pub fn validate(path: &Path) -> Outcome {
    let file = read(path)?;
    let default = file.default.map_or_else(|| "the default stays".to_owned(), |default| format!("default: {default}"));
    terminal::print(&format!("valid: {} intentions, {default}\n", file.intentions.len()))?;
    done()
}

/// The store as a file: permanent intentions and the default.
pub async fn export(output: &Output) -> Outcome {
    let now = current(&mut Client::find().await?).await?;
    let permanent: Vec<Intention> =
        now.intentions.into_iter().map(|stored| stored.intention).filter(|intention| !intention.is_temporary()).collect();
    let file = IntentionFile { default: Some(now.default), intentions: permanent };
    match output.format() {
        Format::Json => {
            let document = serde_json::json!({ "default": file.default, "intentions": file.intentions });
            output.show(&document, |_| String::new())?;
        }
        Format::Table | Format::Yaml => terminal::print(&render(&file))?,
    }
    done()
}

fn request(file: IntentionFile, merge: bool) -> ApplyRequest {
    ApplyRequest {
        default: file.default,
        intentions: file.intentions,
        merge,
        dry_run: true,
        expected_revision: None,
        reason: None,
        wait_ms: 0,
    }
}

/// A large file takes a while: a spinner says so where somebody looks.
async fn send(client: &mut Client, request: &ApplyRequest, wait: Duration) -> Result<Applied, Failure> {
    let count = request.intentions.len();
    if count < LARGE {
        return client.call(Method::PUT, "/v1/intentions", Some(request), wait).await;
    }
    let verb = if request.dry_run { "comparing" } else { "applying" };
    let spinner = indicatif::ProgressBar::new_spinner().with_message(format!("{verb} {count} intentions"));
    if spinner.is_hidden() {
        terminal::note(&format!("{verb} {count} intentions"));
    } else {
        spinner.set_style(
            indicatif::ProgressStyle::default_spinner()
                .template("{spinner} {msg} ({elapsed})")
                .unwrap_or_else(|_| indicatif::ProgressStyle::default_spinner()),
        );
        spinner.enable_steady_tick(Duration::from_millis(120));
    }
    let answer = client.call(Method::PUT, "/v1/intentions", Some(request), wait + LARGE_PATIENCE).await;
    spinner.finish_and_clear();
    answer
}

fn plan_of(applied: &Applied) -> Plan {
    Plan {
        added: applied.added.clone(),
        changed: applied.changed.clone(),
        removed: applied.removed.clone(),
        default: applied.default,
    }
}

/// Told before anything is written, also where nobody is asked.
fn note_not_understood(planned: &Applied) {
    if !planned.not_understood_by.is_empty() {
        terminal::note(&not_understood_text(planned));
    }
}

fn not_understood_text(planned: &Applied) -> String {
    let mut text =
        String::from("note: these sidecars would not understand all of it, and deny such pairs until they are upgraded:");
    let shown = 20;
    for sidecar in planned.not_understood_by.iter().take(shown) {
        text.push_str(&format!("\n  {sidecar}"));
    }
    if let Some(more) = planned.not_understood_by.len().checked_sub(shown).filter(|more| *more > 0) {
        text.push_str(&format!("\n  and {more} more"));
    }
    text
}

/// What an apply would change: the answer is no when that is something.
pub async fn plan(output: &Output, path: &Path, merge: bool) -> Outcome {
    let request = request(read(path)?, merge);
    let applied = send(&mut Client::find().await?, &request, Duration::ZERO).await?;
    let plan = plan_of(&applied);
    let is_empty = plan.is_empty();
    output.show(&applied, |_| if is_empty { "nothing would change\n".into() } else { plan.to_string() })?;
    note_not_understood(&applied);
    terminal::note("note: which live calls a change would cut is not told yet");
    Ok(if is_empty { Answer::Yes } else { Answer::No })
}

/// Shows the difference, asks, and makes the store equal to the file.
pub async fn apply(output: &Output, args: Apply) -> Outcome {
    let Apply { file, merge, yes, change } = args;
    let reads_stdin = file == Path::new("-");
    let mut request = request(read(&file)?, merge);
    let mut client = Client::find().await?;
    let planned = send(&mut client, &request, Duration::ZERO).await?;
    note_not_understood(&planned);
    let plan = plan_of(&planned);
    if plan.is_empty() {
        output.show(&planned, |_| "nothing to change\n".into())?;
        return done();
    }
    if !yes {
        terminal::note(plan.to_string().trim_end());
        if reads_stdin || !terminal::can_ask() {
            return Err(
                Failure::new("nothing was changed: there is no terminal to ask on").cure("give --yes to apply this difference")
            );
        }
        if !terminal::ask("Apply?")? {
            terminal::note("nothing was changed");
            return Ok(Answer::No);
        }
    }
    request.dry_run = false;
    request.expected_revision = Some(planned.base_revision);
    request.reason = change.reason;
    request.wait_ms = change::milliseconds(change.wait);
    let applied = send(&mut client, &request, change.wait).await?;
    output.show(&applied, |_| applied_text(&applied, yes, change.wait))?;
    Ok(applied.written.as_ref().map_or(Answer::Yes, change::answer))
}

fn applied_text(applied: &Applied, shows_difference: bool, wait: Duration) -> String {
    let mut text = if shows_difference { plan_of(applied).to_string() } else { String::new() };
    if let Some(written) = &applied.written {
        let what = format!("{} added, {} changed, {} removed", applied.added.len(), applied.changed.len(), applied.removed.len());
        text.push_str(&change::text(written, &what, wait));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        assert!(validate(Path::new("/nowhere/x.yaml")).unwrap_err().what.contains("/nowhere/x.yaml"));
    }

    #[test]
    fn every_error_of_a_file_is_counted() {
        let broken = file(
            "intentions:\n  - {source: web, destination: api, action: alow}\n  - {source: Web, destination: api, action: allow}\n",
        );
        let failure = read(broken.path()).unwrap_err();
        assert!(failure.what.contains("2 errors"), "{failure}");
    }

    #[test]
    fn sidecars_that_would_not_understand_are_named_with_the_reason() {
        let named = (1..=22).map(|n| format!("api-{n} (version 0.1.0): web -> api needs jwt")).collect();
        let planned = Applied {
            added: Vec::new(),
            changed: Vec::new(),
            removed: Vec::new(),
            default: None,
            base_revision: 1,
            not_understood_by: named,
            written: None,
        };
        let text = not_understood_text(&planned);
        assert!(text.contains("  api-1 (version 0.1.0): web -> api needs jwt\n"), "{text}");
        assert!(text.ends_with("and 2 more"), "{text}");
    }

    #[test]
    fn a_good_file_is_valid() {
        let good = file("intentions:\n  - {source: web, destination: api, action: allow}\n");
        assert_eq!(validate(good.path()).unwrap(), Answer::Yes);
    }
}
