//! `meshctl service config`: settings of services and JWT providers.

mod difference;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Method;
use postern_api::http::{
    AppliedServiceConfig, ApplyServiceConfigRequest, ServiceConfig, StoredProvider, StoredSettings, Written,
};
use postern_names::ServiceName;
use postern_traffic::settings::TrafficFile;
use postern_traffic::settings::file::{FILE_LIMIT, parse, render};

use self::difference::difference_text;
use crate::cli::Format;
use crate::cli::intention::ChangeArgs;
use crate::cli::service_config::ServiceConfigCommand;
use crate::client::{Client, encode};
use crate::commands::intention::change;
use crate::commands::{done, input_file};
use crate::outcome::{Answer, Failure, Outcome};
use crate::output::{Output, Tone, plain};
use crate::terminal;

const ROUTE: &str = "/v1/service-config";

/// Does what `meshctl service config …` says.
pub async fn config(output: &Output, command: ServiceConfigCommand) -> Outcome {
    match command {
        ServiceConfigCommand::Apply { file, replace, yes, change } => apply(output, Apply { file, replace, yes, change }).await,
        ServiceConfigCommand::Plan { file, replace } => plan(output, &file, replace).await,
        ServiceConfigCommand::Validate { file } => validate(&file),
        ServiceConfigCommand::Show { name: Some(name) } => show_one(output, &name).await,
        ServiceConfigCommand::Show { name: None } => show_all(output).await,
        ServiceConfigCommand::Export => export(output).await,
        ServiceConfigCommand::Delete { name, jwt, change } => delete(output, &name, jwt, change).await,
    }
}

/// What `apply` was asked.
struct Apply {
    file: PathBuf,
    replace: bool,
    yes: bool,
    change: ChangeArgs,
}

/// A file of settings.
///
/// # Errors
/// It cannot be read, or something in it is wrong: all of that is told.
pub fn read(path: &Path) -> Result<TrafficFile, Failure> {
    let (text, name) = input_file::text_of(path, FILE_LIMIT as u64)?;
    parse(&text, &name).map_err(|errors| input_file::failure(&name, &errors))
}

fn validate(path: &Path) -> Outcome {
    let file = read(path)?;
    terminal::print(&format!("valid: {} services, {} JWT providers\n", file.services.len(), file.jwt_providers.len()))?;
    done()
}

fn request(file: TrafficFile, replace: bool) -> ApplyServiceConfigRequest {
    ApplyServiceConfigRequest { file, replace, dry_run: true, ..ApplyServiceConfigRequest::default() }
}

async fn send(client: &mut Client, request: &ApplyServiceConfigRequest, wait: Duration) -> Result<AppliedServiceConfig, Failure> {
    client.call(Method::PUT, ROUTE, Some(request), wait).await
}

/// Told before anything is written, also where nobody is asked.
fn note(planned: &AppliedServiceConfig) {
    for text in &planned.notes {
        terminal::note(&format!("note: {text}"));
    }
    if !planned.not_understood_by.is_empty() {
        terminal::note("note: these sidecars take the defaults until they are upgraded:");
        for sidecar in &planned.not_understood_by {
            terminal::note(&format!("  {sidecar}"));
        }
    }
}

async fn plan(output: &Output, path: &Path, replace: bool) -> Outcome {
    let request = request(read(path)?, replace);
    let planned = send(&mut Client::find().await?, &request, Duration::ZERO).await?;
    let is_empty = planned.is_empty();
    output.show(&planned, |_| if is_empty { "nothing would change\n".into() } else { difference_text(&planned) })?;
    note(&planned);
    Ok(if is_empty { Answer::Yes } else { Answer::No })
}

/// Shows the difference, asks, and sets what the file says.
async fn apply(output: &Output, args: Apply) -> Outcome {
    let Apply { file, replace, yes, change } = args;
    let reads_stdin = file == Path::new("-");
    let mut request = request(read(&file)?, replace);
    let mut client = Client::find().await?;
    let planned = send(&mut client, &request, Duration::ZERO).await?;
    note(&planned);
    if planned.is_empty() {
        output.show(&planned, |_| "nothing to change\n".into())?;
        return done();
    }
    if !yes {
        terminal::note(difference_text(&planned).trim_end());
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
    output.show(&applied, |_| {
        let difference = if yes { difference_text(&applied) } else { String::new() };
        let counts = difference::counts(&applied);
        let written = applied.written.as_ref().map(|written| change::text(written, &counts, change.wait));
        difference + &written.unwrap_or_default()
    })?;
    Ok(applied.written.as_ref().map_or(Answer::Yes, change::answer))
}

async fn delete(output: &Output, name: &ServiceName, jwt: bool, change: ChangeArgs) -> Outcome {
    let route = if jwt { "/v1/jwt-providers" } else { ROUTE };
    let mut path = format!("{route}/{}?wait_ms={}", encode(name.as_str()), change::milliseconds(change.wait));
    if let Some(reason) = &change.reason {
        path.push_str(&format!("&reason={}", encode(reason)));
    }
    let written: Written = Client::find().await?.call(Method::DELETE, &path, None::<&()>, change.wait).await?;
    let what = if jwt { format!("JWT provider {name} deleted") } else { format!("settings of {name} deleted") };
    output.show(&written, |_| change::text(&written, &what, change.wait))?;
    Ok(change::answer(&written))
}

async fn all() -> Result<ServiceConfig, Failure> {
    Client::find().await?.get(ROUTE).await
}

fn file_of(config: &ServiceConfig) -> TrafficFile {
    TrafficFile {
        services: config.services.iter().map(|stored| stored.settings.clone()).collect(),
        jwt_providers: config.jwt_providers.iter().map(|stored| stored.provider.clone()).collect(),
    }
}

fn yaml(file: &TrafficFile) -> Result<String, Failure> {
    render(file).map_err(|error| Failure::new(format!("cannot write YAML: {error}")))
}

async fn export(output: &Output) -> Outcome {
    let file = file_of(&all().await?);
    match output.format() {
        Format::Json => output.show(&file, |_| String::new())?,
        Format::Table | Format::Yaml => terminal::print(&yaml(&file)?)?,
    }
    done()
}

async fn show_one(output: &Output, name: &ServiceName) -> Outcome {
    let path = format!("{ROUTE}/{}", encode(name.as_str()));
    let stored: Option<StoredSettings> = Client::find().await?.get_if_there(&path).await?;
    let Some(stored) = stored else {
        return Err(Failure::new(format!("{name} has no settings: the defaults hold"))
            .cure("`meshctl service config show` shows those that there are"));
    };
    let said = yaml(&TrafficFile { services: vec![stored.settings.clone()], jwt_providers: Vec::new() })?;
    output.show(&stored, |_| {
        format!("# revision {}, by {}, at {}\n{said}", stored.revision, stored.created_by, stored.created_at)
    })?;
    done()
}

async fn show_all(output: &Output) -> Outcome {
    let all = all().await?;
    output.show(&all, |output| {
        if all.services.is_empty() && all.jwt_providers.is_empty() {
            return "no settings: the defaults hold for every service\n".into();
        }
        let mut text = services_table(output, &all.services);
        if !all.jwt_providers.is_empty() {
            let gap = if text.is_empty() { "" } else { "\n" };
            text = format!("{text}{gap}{}", providers_table(output, &all.jwt_providers));
        }
        text
    })?;
    done()
}

fn services_table(output: &Output, services: &[StoredSettings]) -> String {
    if services.is_empty() {
        return String::new();
    }
    let rows = services.iter().map(|stored| {
        vec![
            plain(&stored.settings.service),
            plain(difference::keys_of(&stored.settings).join(", ")),
            plain(stored.revision),
            plain(&stored.created_by),
            plain(stored.reason.as_deref().unwrap_or("")),
        ]
    });
    output.table(&["service", "sets", "revision", "by", "reason"], rows.collect())
}

fn providers_table(output: &Output, providers: &[StoredProvider]) -> String {
    let rows = providers.iter().map(|stored| {
        let keys = &stored.keys;
        let state = match (&keys.problem, keys.count) {
            (Some(problem), _) => (problem.clone(), Tone::Bad),
            (None, 0) => ("none were read yet".to_owned(), Tone::Doubtful),
            (None, _) => (keys.read_at.as_ref().map_or_else(|| "inline".to_owned(), |at| format!("read at {at}")), Tone::Good),
        };
        vec![plain(&stored.provider.name), plain(&stored.provider.issuer), plain(keys.count), state, plain(stored.revision)]
    });
    output.table(&["jwt provider", "issuer", "keys", "state", "revision"], rows.collect())
}

/// What `service show` says of settings.
pub fn summary(stored: Option<&StoredSettings>) -> String {
    match stored {
        None => "the defaults".to_owned(),
        Some(stored) => {
            format!("{} (revision {})", difference::keys_of(&stored.settings).join(", "), stored.revision)
        }
    }
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
    fn a_good_file_is_valid_and_each_error_of_a_bad_one_is_counted() {
        let good = file("services:\n  - {service: api, timeouts: {request: 3s}}\n");
        assert_eq!(validate(good.path()).unwrap(), Answer::Yes);
        let bad = file("services:\n  - {service: api, timeouts: {request: 3}}\n  - {service: Api}\n");
        assert!(validate(bad.path()).unwrap_err().what.contains("2 errors"));
        assert!(validate(Path::new("/nowhere/x.yaml")).unwrap_err().what.contains("/nowhere/x.yaml"));
    }
}
