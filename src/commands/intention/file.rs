//! The intentions file: `apply`, `plan`, `validate`, `export`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use postern_api::http::{Applied, ApplyRequest};
use postern_intentions::file::{IntentionFile, parse, render};
use postern_intentions::plan::{self, Plan};
use postern_intentions::{Intention, Shadowed, shadowed};

use super::watch::Watch;
use super::{change, current, effects};
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
pub const LARGE_PATIENCE: Duration = Duration::from_secs(120);

/// What `apply` was asked.
pub struct Apply {
    /// The file.
    pub file: PathBuf,
    /// Keep what is not in it.
    pub merge: bool,
    /// Do not ask.
    pub yes: bool,
    /// Refuse where something was changed after this revision.
    pub if_revision: Option<u64>,
    /// How far to look back for calls to judge.
    pub since: Option<Duration>,
    /// How long to watch for new denials.
    pub watch: Option<Duration>,
    /// How.
    pub change: ChangeArgs,
}

/// Reads and checks a file; every error of it is shown on stderr, and the failure counts them.
pub fn read(path: &Path) -> Result<IntentionFile, Failure> {
    let (text, name) = input_file::text_of(path, FILE_LIMIT)?;
    parse(&text, &name).map_err(|errors| input_file::failure(&name, &errors))
}

/// Checks a file without a control plane, and says what in it decides nothing: with `strict` the answer is no then.
pub fn validate(path: &Path, strict: bool) -> Outcome {
    let file = read(path)?;
    let default = file.default.map_or_else(|| "the default stays".to_owned(), |default| format!("default: {default}"));
    terminal::print(&format!("valid: {} intentions, {default}\n", file.intentions.len()))?;
    let shadowed = shadowed(&file.intentions, &file.intentions, &BTreeSet::new());
    note_without_effect(&shadowed, &[]);
    Ok(if strict && !shadowed.is_empty() { Answer::No } else { Answer::Yes })
}

/// What an apply of a file would change where another one is in force, without a control plane: the answer is no when
/// that is something.
pub fn compare(output: &Output, path: &Path, against: &Path, merge: bool) -> Outcome {
    if path == Path::new("-") && against == Path::new("-") {
        return Err(Failure::new("--file and --against cannot both be stdin").cure("write one of them to a file"));
    }
    let (wanted, current) = (read(path)?, read(against)?);
    let Plan { added, changed, removed, default } = plan::difference(&current, &wanted, merge);
    let after = plan::merged(&current, &wanted, merge);
    let shadowed = shadowed(&wanted.intentions, &after, &BTreeSet::new());
    let applied = Applied {
        added,
        changed,
        removed,
        default,
        base_revision: 0,
        not_understood_by: Vec::new(),
        shadowed,
        never_matched: Vec::new(),
        effects: None,
        written: None,
    };
    show_plan(output, &applied)
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

fn request(file: IntentionFile, merge: bool, since: Option<Duration>) -> Result<ApplyRequest, Failure> {
    Ok(ApplyRequest {
        default: file.default,
        intentions: file.intentions,
        merge,
        dry_run: true,
        since_s: since.map(since_s).transpose()?,
        ..ApplyRequest::default()
    })
}

/// A time to look back, as the API takes it.
pub fn since_s(since: Duration) -> Result<u64, Failure> {
    match since.as_secs() {
        0 => Err(Failure::new("--since is shorter than a second").cure("give a time such as 24h")),
        seconds => Ok(seconds),
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

/// The difference, and what it does to the calls that were seen.
fn difference(output: &Output, applied: &Applied) -> String {
    let effects = applied.effects.as_ref().map(|effects| effects::text(output, effects)).unwrap_or_default();
    format!("{}{effects}", plan_of(applied))
}

pub fn plan_of(applied: &Applied) -> Plan {
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

/// What of a file has no effect.
fn note_without_effect(shadowed: &[Shadowed], never_matched: &[String]) {
    let never = never_matched.iter().map(|pair| format!("never matched: {pair} names a service that nobody knows"));
    let lines: Vec<String> = shadowed.iter().map(|one| format!("shadowed: {one}")).chain(never).collect();
    for line in shortened(lines) {
        terminal::note(&line);
    }
}

/// The first of many lines, and how many more there are.
fn shortened(mut lines: Vec<String>) -> Vec<String> {
    let shown = 20;
    if let Some(more) = lines.len().checked_sub(shown).filter(|more| *more > 0) {
        lines.truncate(shown);
        lines.push(format!("and {more} more; -o json tells all"));
    }
    lines
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
pub async fn plan(output: &Output, path: &Path, merge: bool, since: Option<Duration>) -> Outcome {
    let request = request(read(path)?, merge, since)?;
    let applied = send(&mut Client::find().await?, &request, Duration::ZERO).await?;
    show_plan(output, &applied)
}

fn show_plan(output: &Output, applied: &Applied) -> Outcome {
    let is_empty = plan_of(applied).is_empty();
    output.show(applied, |output| if is_empty { "nothing would change\n".into() } else { difference(output, applied) })?;
    note_not_understood(applied);
    note_without_effect(&applied.shadowed, &applied.never_matched);
    Ok(if is_empty { Answer::Yes } else { Answer::No })
}

/// Shows a difference and asks. False: it was declined.
///
/// # Errors
/// There is nobody to ask.
pub fn asked(output: &Output, planned: &Applied, reads_stdin: bool, question: &str) -> Result<bool, Failure> {
    terminal::note(difference(output, planned).trim_end());
    if reads_stdin || !terminal::can_ask() {
        return Err(
            Failure::new("nothing was changed: there is no terminal to ask on").cure("give --yes to apply this difference")
        );
    }
    let agreed = terminal::ask(question)?;
    if !agreed {
        terminal::note("nothing was changed");
    }
    Ok(agreed)
}

/// Shows the difference, asks, and makes the store equal to the file.
pub async fn apply(output: &Output, args: Apply) -> Outcome {
    let Apply { file, merge, yes, if_revision, since, watch, change } = args;
    let reads_stdin = file == Path::new("-");
    let mut request = request(read(&file)?, merge, since)?;
    request.expected_revision = if_revision;
    let mut client = Client::find().await?;
    let planned = send(&mut client, &request, Duration::ZERO).await?;
    note_not_understood(&planned);
    note_without_effect(&planned.shadowed, &planned.never_matched);
    if plan_of(&planned).is_empty() {
        output.show(&planned, |_| "nothing to change\n".into())?;
        return done();
    }
    if !yes && !asked(output, &planned, reads_stdin, "Apply?")? {
        return Ok(Answer::No);
    }
    request.dry_run = false;
    request.expected_revision = Some(planned.base_revision);
    request.reason = change.reason;
    request.wait_ms = change::milliseconds(change.wait);
    let watch = Watch::begin(&mut client, watch).await?;
    let applied = send(&mut client, &request, change.wait).await?;
    output.show(&applied, |_| applied_text(&applied, yes, change.wait))?;
    finish(&mut client, watch, &applied).await
}

/// Watches a change that was told, and answers: yes where it is in force and denies nothing new.
pub async fn finish(client: &mut Client, watch: Watch, applied: &Applied) -> Outcome {
    let undo = format!("meshctl intention rollback {} --yes", applied.base_revision);
    let watched = watch.follow(client, applied.written.as_ref(), &undo).await?;
    let in_force = applied.written.as_ref().map_or(Answer::Yes, change::answer);
    Ok(if in_force == Answer::Yes { watched } else { in_force })
}

/// What was changed and where it is in force, and how it is undone.
pub fn applied_text(applied: &Applied, shows_difference: bool, wait: Duration) -> String {
    let mut text = if shows_difference { plan_of(applied).to_string() } else { String::new() };
    if let Some(written) = &applied.written {
        let what = format!("{} added, {} changed, {} removed", applied.added.len(), applied.changed.len(), applied.removed.len());
        text.push_str(&change::text(written, &what, wait));
        text.push_str(&format!("to undo it: meshctl intention rollback {}\n", applied.base_revision));
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
        assert!(validate(Path::new("/nowhere/x.yaml"), false).unwrap_err().what.contains("/nowhere/x.yaml"));
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
            shadowed: Vec::new(),
            never_matched: Vec::new(),
            effects: None,
            written: None,
        };
        let text = not_understood_text(&planned);
        assert!(text.contains("  api-1 (version 0.1.0): web -> api needs jwt\n"), "{text}");
        assert!(text.ends_with("and 2 more"), "{text}");
    }

    #[test]
    fn a_good_file_is_valid() {
        let good = file("intentions:\n  - {source: web, destination: api, action: allow}\n");
        assert_eq!(validate(good.path(), true).unwrap(), Answer::Yes);
    }

    #[test]
    fn a_file_with_something_that_decides_nothing_is_valid_and_not_strictly() {
        let repeats = file(
            "intentions:\n  - {source: web, destination: api, action: allow}\n  - {source: '*', destination: api, action: allow}\n",
        );
        assert_eq!(validate(repeats.path(), false).unwrap(), Answer::Yes);
        assert_eq!(validate(repeats.path(), true).unwrap(), Answer::No);
    }

    #[test]
    fn two_files_are_compared_without_a_control_plane() {
        let output = Output::new(Format::Table);
        let old = file("intentions:\n  - {source: web, destination: api, action: allow}\n");
        let new = file("default: allow\nintentions:\n  - {source: web, destination: api, action: deny}\n");
        assert_eq!(compare(&output, old.path(), old.path(), false).unwrap(), Answer::Yes);
        assert_eq!(compare(&output, new.path(), old.path(), false).unwrap(), Answer::No);
        assert!(compare(&output, Path::new("-"), Path::new("-"), false).unwrap_err().what.contains("stdin"));
    }
}
