//! A command line that could not be read: told in one line, with what to do.

use std::collections::BTreeSet;
use std::ffi::OsString;

use crate::outcome::Failure;

/// Turns clap's error into one line. A `*` that the shell replaced by file names is recognised and told.
pub fn failure(error: &clap::Error, arguments: &[OsString]) -> Failure {
    expanded_star(arguments, &names_here()).unwrap_or_else(|| one_line(error, arguments))
}

fn one_line(error: &clap::Error, arguments: &[OsString]) -> Failure {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let what = paragraphs.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let mut cures: Vec<String> = paragraphs
        .flat_map(|paragraph| paragraph.lines())
        .filter_map(|line| line.trim_start().strip_prefix("tip: ").map(str::to_owned))
        .collect();
    cures.push(format!("see `{} --help`", command_path(arguments)));
    Failure::new(what).cure(cures.join("; "))
}

/// `meshctl intention allow`: the words that name a command.
fn command_path(arguments: &[OsString]) -> String {
    let mut path = "meshctl".to_owned();
    let tree = <crate::cli::Cli as clap::CommandFactory>::command();
    let mut command = &tree;
    for word in arguments.iter().skip(1).filter_map(|word| word.to_str()) {
        let Some(next) = command.find_subcommand(word) else { break };
        path = format!("{path} {word}");
        command = next;
    }
    path
}

/// What the shell puts in place of a bare `*`: every name here that does not begin with a dot.
fn names_here() -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(".") else { return BTreeSet::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| !name.starts_with('.')).collect()
}

fn expanded_star(arguments: &[OsString], names: &BTreeSet<String>) -> Option<Failure> {
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let ["intention", verb, rest @ ..] = words.get(1..)? else { return None };
    if names.is_empty() || !names.iter().all(|name| rest.contains(&name.as_str())) {
        return None;
    }
    let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    let more = if names.len() > shown.len() { ", …" } else { "" };
    Some(
        Failure::new(format!("the shell replaced * by the names of the files here ({}{more})", shown.join(", ")))
            .cure(format!("put it in quotes: meshctl intention {verb} … '*'")),
    )
}

/// A note for the one case that reads as correct: the only file here is named like a service.
pub fn doubtful_star(destination_or_source: &str) -> Option<String> {
    let names = names_here();
    (names.len() == 1 && names.contains(destination_or_source)).then(|| {
        format!(
            "note: {destination_or_source} is also the only file here; if you meant every service, put the star in quotes: '*'"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn parse_failure(line: &str) -> Failure {
        let error = <crate::cli::Cli as clap::Parser>::try_parse_from(words(line)).unwrap_err();
        one_line(&error, &words(line))
    }

    #[test]
    fn a_star_that_the_shell_expanded_is_told() {
        let names: BTreeSet<String> = ["Cargo.toml", "src"].map(String::from).into();
        let failure = expanded_star(&words("meshctl intention allow web Cargo.toml src"), &names).unwrap();
        assert!(failure.to_string().contains("'*'"), "{failure}");
        assert!(expanded_star(&words("meshctl intention allow web api extra"), &names).is_none());
        assert!(expanded_star(&words("meshctl intention allow web api"), &BTreeSet::new()).is_none());
    }

    #[test]
    fn a_wrong_flag_is_one_line_with_the_nearest_and_the_help() {
        let failure = parse_failure("meshctl token create --servic web");
        let line = failure.to_string();
        assert!(
            line.contains("--servic") && line.contains("--service") && line.contains("`meshctl token create --help`"),
            "{line}"
        );
        assert!(!line.contains('\n'));
    }

    #[test]
    fn a_missing_argument_is_named_in_the_line() {
        let line = parse_failure("meshctl intention allow web").to_string();
        assert!(line.contains("<DST>"), "{line}");
    }
}
