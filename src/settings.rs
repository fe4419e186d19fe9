//! Settings of `control`, `proxy` and `run`: the flag, then the environment, then the YAML file of `--config`, then the
//! default. All four end in the same parser, so a value means the same wherever it stands.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches};

use crate::cli::Cli;
use crate::data_dir::Environment;
use crate::outcome::Failure;

/// Commands whose flags can also stand in the environment and in a file.
pub const LAYERED: [&str; 3] = ["control", "proxy", "run"];
/// Flags that say the same thing in two ways: a higher layer that gives one silences the other below it.
const ALTERNATIVES: [[&str; 2]; 2] = [["token", "token-file"], ["seal-key-file", "seal-in-memory"]];
/// A settings file is small (security.md, Limits).
const FILE_LIMIT: u64 = 1 << 20;

/// A command line with every layer applied.
#[derive(Debug)]
pub struct Loaded {
    /// The command with its values.
    pub cli: Cli,
    /// Every flag with the text of its values, to compare after a change.
    pub values: BTreeMap<String, Vec<String>>,
}

/// Why a command line could not be loaded.
#[derive(Debug)]
pub enum LoadError {
    /// The command line itself, a request for help included.
    Usage(clap::Error),
    /// The environment or the file.
    Layer(Failure),
}

impl From<Failure> for LoadError {
    fn from(failure: Failure) -> Self {
        Self::Layer(failure)
    }
}

impl From<clap::Error> for LoadError {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

/// Where a value below the command line was found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Variable(String),
    File(PathBuf),
}

impl Place {
    fn describe(&self, flag: &str) -> String {
        match self {
            Place::Variable(name) => name.clone(),
            Place::File(path) => format!("{}, key {flag}", path.display()),
        }
    }
}

struct Layered {
    values: Vec<String>,
    place: Place,
}

/// The variable of a flag: `POSTERN_PROXY_TOKEN_FILE` for `--token-file` of `proxy`.
pub fn variable(command: &str, flag: &str) -> String {
    format!("POSTERN_{command}_{flag}").to_ascii_uppercase().replace('-', "_")
}

/// Reads a command line and the layers below it.
pub fn load(arguments: &[OsString], environment: Environment<'_>) -> Result<Loaded, LoadError> {
    let Some(name) = layered_command(arguments) else {
        let matches = Cli::command().try_get_matches_from(arguments)?;
        return Ok(Loaded { cli: Cli::from_arg_matches(&matches)?, values: BTreeMap::new() });
    };
    let given = relaxed(name).try_get_matches_from(arguments)?;
    let Some((_, given)) = given.subcommand() else {
        return Ok(Loaded { cli: Cli::from_arg_matches(&given)?, values: BTreeMap::new() });
    };
    let layers = gather(name, given, environment)?;
    let matches = with_layers(name, &layers).try_get_matches_from(arguments).map_err(|error| name_the_place(error, &layers))?;
    let values = matches.subcommand().map(|(_, matches)| effective(name, matches)).unwrap_or_default();
    Ok(Loaded { cli: Cli::from_arg_matches(&matches)?, values })
}

fn layered_command(arguments: &[OsString]) -> Option<&'static str> {
    let word = arguments.get(1)?;
    LAYERED.into_iter().find(|name| word == name)
}

/// The command tree with no flag of `name` required: it may yet come from below.
fn relaxed(name: &str) -> clap::Command {
    Cli::command()
        .mut_subcommand(name, |command| command.mut_args(|arg| if arg.get_long().is_some() { arg.required(false) } else { arg }))
}

fn with_layers(name: &str, layers: &BTreeMap<String, Layered>) -> clap::Command {
    Cli::command().mut_subcommand(name, |command| {
        command.mut_args(|arg| match arg.get_long().and_then(|long| layers.get(long)) {
            Some(layered) => arg.required(false).default_values(layered.values.clone()),
            None => arg,
        })
    })
}

fn flags_of(name: &str) -> Vec<clap::Arg> {
    let tree = Cli::command();
    let Some(command) = tree.find_subcommand(name) else { return Vec::new() };
    command
        .get_arguments()
        .filter(|arg| arg.get_long().is_some_and(|long| long != "help" && long != "version"))
        .cloned()
        .collect()
}

fn gather(name: &str, given: &ArgMatches, environment: Environment<'_>) -> Result<BTreeMap<String, Layered>, Failure> {
    let flags = flags_of(name);
    let on_the_line = |flag: &str| {
        flags
            .iter()
            .find(|arg| arg.get_long() == Some(flag))
            .is_some_and(|arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine))
    };
    let mut layers = BTreeMap::new();
    for arg in &flags {
        let Some(flag) = arg.get_long().filter(|flag| !on_the_line(flag)) else { continue };
        if let Some(found) = from_environment(name, flag, arg, environment) {
            layers.insert(flag.to_owned(), found);
        }
    }
    let config = if on_the_line("config") {
        given.get_one::<PathBuf>("config").cloned()
    } else {
        layers.get("config").and_then(|layered| layered.values.first()).map(PathBuf::from)
    };
    if let Some(path) = config {
        for (key, values) in read_file(&path, name, &flags)? {
            if !on_the_line(&key) {
                layers.entry(key).or_insert(Layered { values, place: Place::File(path.clone()) });
            }
        }
    }
    silence_alternatives(&mut layers, on_the_line)?;
    Ok(layers)
}

fn from_environment(name: &str, flag: &str, arg: &clap::Arg, environment: Environment<'_>) -> Option<Layered> {
    let mut variables = vec![variable(name, flag)];
    if flag == "data-dir" {
        variables.push("POSTERN_DATA_DIR".into());
    }
    let (variable, text) = variables.into_iter().find_map(|variable| {
        let value = environment(&variable).filter(|value| !value.is_empty())?;
        Some((variable, value))
    })?;
    let values = match arg.get_action() {
        ArgAction::Append => text.split(',').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect(),
        ArgAction::SetTrue => vec![truth(&text)],
        _ => vec![text],
    };
    Some(Layered { values, place: Place::Variable(variable) })
}

/// 1 and 0, yes and no, as people write them in the environment.
fn truth(text: &str) -> String {
    match text {
        "1" | "yes" | "on" => "true",
        "0" | "no" | "off" => "false",
        other => other,
    }
    .to_owned()
}

fn silence_alternatives(layers: &mut BTreeMap<String, Layered>, on_the_line: impl Fn(&str) -> bool) -> Result<(), Failure> {
    for [one, other] in ALTERNATIVES {
        if on_the_line(one) || on_the_line(other) {
            layers.remove(one);
            layers.remove(other);
            continue;
        }
        let (Some(first), Some(second)) = (layers.get(one), layers.get(other)) else { continue };
        match (&first.place, &second.place) {
            (Place::Variable(_), Place::File(_)) => drop(layers.remove(other)),
            (Place::File(_), Place::Variable(_)) => drop(layers.remove(one)),
            (first, second) => {
                return Err(Failure::new(format!("{} and {} are both given", first.describe(one), second.describe(other)))
                    .cure("give one of them"));
            }
        }
    }
    Ok(())
}

fn read_file(path: &Path, name: &str, flags: &[clap::Arg]) -> Result<Vec<(String, Vec<String>)>, Failure> {
    let refuse = |why: String| Failure::new(format!("--config {}: {why}", path.display()));
    let size = std::fs::metadata(path).map_err(|error| refuse(error.to_string()))?.len();
    if size > FILE_LIMIT {
        return Err(refuse("it is larger than 1 MiB".into()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| refuse(error.to_string()))?;
    let document: serde_yaml::Value = serde_yaml::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    let mapping = match document {
        serde_yaml::Value::Null => return Ok(Vec::new()),
        serde_yaml::Value::Mapping(mapping) => mapping,
        _ => return Err(refuse("it is not a mapping of settings".into()).cure("write one `flag: value` a line")),
    };
    let mut settings = Vec::new();
    for (key, value) in mapping {
        let key = key.as_str().ok_or_else(|| refuse("a key is not text".into()))?.to_owned();
        let arg = flags
            .iter()
            .find(|arg| arg.get_long() == Some(key.as_str()) && key != "config")
            .ok_or_else(|| unknown_key(&refuse, &key, name, flags))?;
        let values =
            values_of(&value, arg).ok_or_else(|| refuse(format!("the value of {key} does not have the form of --{key}")))?;
        settings.push((key, values));
    }
    Ok(settings)
}

fn unknown_key(refuse: &impl Fn(String) -> Failure, key: &str, name: &str, flags: &[clap::Arg]) -> Failure {
    let known = flags.iter().filter(|arg| !arg.is_hide_set()).filter_map(|arg| arg.get_long()).filter(|flag| *flag != "config");
    let nearest = known.min_by_key(|flag| distance(key, flag)).unwrap_or_default();
    refuse(format!("{key:?} is not a setting of {name}"))
        .cure(format!("the nearest is {nearest:?}; the keys are the flag names of `meshctl {name} --help`"))
}

/// A scalar, a list for a flag that can be repeated, or a mapping for one whose values are NAME=VALUE.
fn values_of(value: &serde_yaml::Value, arg: &clap::Arg) -> Option<Vec<String>> {
    let repeated = matches!(arg.get_action(), ArgAction::Append);
    match value {
        serde_yaml::Value::Sequence(items) if repeated => items.iter().map(scalar).collect(),
        serde_yaml::Value::Mapping(entries) if repeated => {
            entries.iter().map(|(key, value)| Some(format!("{}={}", scalar(key)?, scalar(value)?))).collect()
        }
        other => scalar(other).map(|text| vec![text]),
    }
}

fn scalar(value: &serde_yaml::Value) -> Option<String> {
    match value {
        serde_yaml::Value::String(text) => Some(text.clone()),
        serde_yaml::Value::Number(number) => Some(number.to_string()),
        serde_yaml::Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// A value from below that the parser refuses is told with the place where it stands.
fn name_the_place(error: clap::Error, layers: &BTreeMap<String, Layered>) -> LoadError {
    use clap::error::{ContextKind, ContextValue};
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(arg)) => arg.trim_start_matches("--").split([' ', '=']).next().unwrap_or_default().to_owned(),
        _ => return LoadError::Usage(error),
    };
    let Some(layered) = layers.get(&flag) else { return LoadError::Usage(error) };
    let text = error.render().to_string();
    let what = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    LoadError::Layer(Failure::new(format!("{}: {what}", layered.place.describe(&flag))))
}

fn effective(name: &str, matches: &ArgMatches) -> BTreeMap<String, Vec<String>> {
    let mut values = BTreeMap::new();
    for arg in flags_of(name) {
        let Some(flag) = arg.get_long() else { continue };
        let texts = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
        let texts = texts.map(|raw| raw.map(|value| value.to_string_lossy().into_owned()).collect()).unwrap_or_default();
        values.insert(flag.to_owned(), texts);
    }
    values
}

/// Levenshtein's distance.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests;
