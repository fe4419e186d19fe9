//! The file of settings: YAML or JSON, read with the line of everything that is wrong, and written.

use std::collections::BTreeSet;

use postern_intentions::yaml::{self, Decoded, FileError, FileKind, Kind, Node, NodeId, Problem};

use super::{Fault, Step, TrafficFile};

/// Bytes of a file.
pub const FILE_LIMIT: usize = 1 << 20;

const KIND: FileKind = FileKind {
    name: "a file of settings",
    depth: 9,
    empty: "the file is empty: write services: with a list, or services: [] for none",
    alias: "a bare * begins a YAML alias: settings name one service each, and a text with * is quoted",
    one_document: "put all services into one list",
};

/// The settings in a text, YAML or JSON. `file_name` is for messages, and one that ends in `.json` is read as JSON.
///
/// # Errors
/// Everything that is wrong in it, by line; where the text is no YAML at all, the first thing.
pub fn parse(text: &str, file_name: &str) -> Result<TrafficFile, Vec<FileError>> {
    let error = |line, column, message| vec![FileError { file: file_name.to_owned(), line, column, message }];
    if text.len() > FILE_LIMIT {
        return Err(error(1, 1, "the file is larger than 1 MiB: split it, and apply the parts one after the other".to_owned()));
    }
    let text = yaml::prepared(text, file_name);
    let root = yaml::parse(&text, &KIND).map_err(|syntax| error(syntax.line, syntax.column, syntax.message))?;
    if matches!(root.kind, Kind::Null) {
        return Err(error(1, 1, KIND.empty.to_owned()));
    }
    let Decoded { value, mut problems, tree, damaged } = yaml::decode::<TrafficFile>(root);
    let faults = value.as_ref().and_then(|file| file.validate().err()).unwrap_or_default();
    problems.extend(
        faults.iter().filter(|fault| is_about_what_is_written(&tree, &damaged, fault)).map(|fault| problem(&tree, fault)),
    );
    match value {
        Some(file) if problems.is_empty() => Ok(file),
        _ => Err(yaml::located(&text, file_name, problems)),
    }
}

/// The file as YAML; [`parse`] gives the same back.
///
/// # Errors
/// Where something in it cannot be written; what was validated can.
pub fn render(file: &TrafficFile) -> Result<String, serde_yaml::Error> {
    use serde::ser::Error;

    if file.services.is_empty() && file.jwt_providers.is_empty() {
        return Ok("services: []\n".to_owned());
    }
    // By way of JSON, which writes `{header: x}` where YAML's writer has `!header x`.
    let value = serde_json::to_value(file).map_err(serde_yaml::Error::custom)?;
    serde_yaml::to_string(&value)
}

/// What is left of an entry after a fault was taken out of it may not be what was meant.
fn is_about_what_is_written(tree: &Node, damaged: &BTreeSet<NodeId>, fault: &Fault) -> bool {
    const ENTRY: usize = 2;
    !way(tree, fault.at.steps()).take(ENTRY + 1).skip(ENTRY).any(|node| damaged.contains(&node.id))
}

fn problem(tree: &Node, fault: &Fault) -> Problem {
    Problem {
        at: place(tree, fault.at.steps()),
        what: fault.what.clone(),
        first: fault.first.as_ref().map(|first| place(tree, first.steps())),
        cure: fault.cure.clone(),
    }
}

/// The nodes from the root on, as far as there are any.
fn way<'t>(tree: &'t Node, steps: &'t [Step]) -> impl Iterator<Item = &'t Node> {
    let mut steps = steps.iter();
    std::iter::successors(Some(tree), move |node| value(node, steps.next()?).map(|(_, value)| value))
}

/// The key of the innermost value that is there, or the item.
fn place(tree: &Node, steps: &[Step]) -> NodeId {
    let mut node = tree;
    let mut id = tree.id;
    for step in steps {
        let Some((place, next)) = value(node, step) else { break };
        (id, node) = (place, next);
    }
    id
}

fn value<'t>(node: &'t Node, step: &Step) -> Option<(NodeId, &'t Node)> {
    match (&node.kind, step) {
        (Kind::List(items), Step::Item(number)) => items.get(*number).map(|item| (item.id, item)),
        (Kind::Map(entries), Step::Key(name)) => {
            let entry = entries.iter().find(|(key, _)| matches!(&key.kind, Kind::Text(text) if text == name));
            entry.map(|(key, value)| (key.id, value))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        parse(text, "s.yaml").unwrap_err().iter().map(ToString::to_string).collect()
    }

    const EVERYTHING: &str = include_str!("../../tests/everything.yaml");

    #[test]
    fn everything_that_can_be_set_is_read_and_written_again() {
        let file = parse(EVERYTHING, "everything.yaml").unwrap();
        let written = render(&file).unwrap();
        assert_eq!(parse(&written, "written.yaml").unwrap(), file, "{written}");
        let json = serde_json::to_string(&file).unwrap();
        assert_eq!(parse(&json, "written.json").unwrap(), file);
        assert_eq!(render(&TrafficFile::default()).unwrap(), "services: []\n");
        assert_eq!(parse("services: []", "x").unwrap(), TrafficFile::default());
    }

    #[test]
    fn each_fault_is_told_with_its_line_and_what_to_do() {
        let text = "\
services:
  - service: api
    timeouts: {request: 5, per_tyr: 1s}
    balancer: {policy: roundrobin}
  - service: web
    split:
      - {weight: 60}
      - {weight: 30, subset: v2}
    resolver:
      subsets: {v1: {meta: {version: \"1\"}}}
  - service: Web
  - service: web
jwt_providers:
  - name: corp
    issuer: \"\"
    jwks: {inline: '{\"keys\":[{\"kty\":\"oct\"}]}'}
extra: 1
";
        assert_eq!(
            faults(text),
            [
                "s.yaml:3:25: request is a number: expected a duration such as 250ms, 15s or 5m",
                "s.yaml:3:28: unknown key \"per_tyr\": did you mean \"per_try\"?",
                "s.yaml:4:24: policy \"roundrobin\" is not known: did you mean \"round_robin\"?",
                "s.yaml:6:5: the weights add up to 90.00: make them add up to 100",
                "s.yaml:8:22: web has no subset \"v2\": did you mean \"v1\"?",
                "s.yaml:11:14: service name \"Web\" is not valid: use only a-z (lower case), 0-9 and -",
                "s.yaml:12:5: web is given twice, first on line 5: a service has one entry; keep one of the two",
                "s.yaml:15:5: issuer is empty: give what `iss` must be",
                "s.yaml:16:12: key 0 is symmetric (oct): whoever verifies with it can also sign; use a public key",
                "s.yaml:17:1: unknown key \"extra\": known here are services and jwt_providers",
            ]
        );
    }

    #[test]
    fn a_service_that_is_there_twice_names_both_lines() {
        let told = faults("services:\n  - service: web\n  - service: api\n  - {service: web}\n");
        assert_eq!(told, ["s.yaml:4:6: web is given twice, first on line 2: a service has one entry; keep one of the two"]);
    }

    #[test]
    fn a_file_that_is_too_large_too_deep_or_empty_says_so() {
        assert!(faults(&" ".repeat(FILE_LIMIT + 1))[0].contains("1 MiB"));
        let deep = format!("services: {}{}", "[".repeat(65), "]".repeat(65));
        assert!(faults(&deep)[0].contains("nested deeper than 64"));
        assert!(faults("")[0].contains("the file is empty"));
        assert!(faults("# nothing\n")[0].contains("the file is empty"));
        assert!(faults("services: *\n")[0].contains("a bare * begins a YAML alias"));
    }
}
