//! Intentions as YAML, one line each where they are short, as people write them.

use std::fmt::Write;

use super::{IntentionFile, in_order};
use crate::{
    Action, ClaimCriterion, ClaimMatch, HeaderCriterion, Intention, JwtCriterion, Mode, PathCriterion, Permission,
    QueryCriterion, Rule, TextMatch,
};

/// The file as YAML, highest precedence first, then by source and destination; [`parse`](super::parse) gives the same back. Temporary
/// intentions are left out, for a file holds none.
pub fn render(file: &IntentionFile) -> String {
    render_commented(file, &Comments { head: &[], of: &|_, _| Vec::new() })
}

/// What is said beside the intentions of a file.
pub struct Comments<'a> {
    /// Lines before all.
    pub head: &'a [String],
    /// Lines above an intention, or above one of its permissions, by its place from 0.
    pub of: &'a dyn Fn(&Intention, Option<usize>) -> Vec<String>,
}

/// As [`render`], with comments.
pub fn render_commented(file: &IntentionFile, comments: &Comments<'_>) -> String {
    let mut intentions: Vec<&Intention> = file.intentions.iter().filter(|intention| !intention.is_temporary()).collect();
    intentions.sort_by(|a, b| in_order(a, b));
    let mut text = comment_lines("", comments.head);
    text.push_str(&file.default.map(|policy| format!("default: {policy}\n")).unwrap_or_default());
    if intentions.is_empty() {
        text.push_str("intentions: []\n");
        return text;
    }
    text.push_str("intentions:\n");
    for intention in intentions {
        text.push_str(&comment_lines("  ", &(comments.of)(intention, None)));
        text.push_str(&match &intention.rule {
            Rule::Action(action) if intention.description.is_empty() && intention.meta.is_empty() => short(intention, *action),
            _ => long(intention, comments),
        });
    }
    text
}

fn comment_lines(indent: &str, lines: &[String]) -> String {
    // A line break would end the comment.
    lines
        .iter()
        .map(|line| format!("{indent}# {}\n", line.replace(|c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}', "_")))
        .collect()
}

fn short(intention: &Intention, action: Action) -> String {
    let mut map = Flow::default();
    map.text("source", &intention.source.to_string());
    map.text("destination", &intention.destination.to_string());
    map.plain("action", action);
    if intention.mode == Mode::Audit {
        map.plain("mode", intention.mode);
    }
    format!("  - {}\n", map.finish())
}

fn long(intention: &Intention, comments: &Comments<'_>) -> String {
    let mut lines = vec![
        format!("source: {}", scalar(&intention.source.to_string())),
        format!("destination: {}", scalar(&intention.destination.to_string())),
    ];
    if !intention.description.is_empty() {
        lines.push(format!("description: {}", scalar(&intention.description)));
    }
    if !intention.meta.is_empty() {
        let mut map = Flow::default();
        for (key, value) in &intention.meta {
            map.text(key, value);
        }
        lines.push(format!("meta: {}", map.finish()));
    }
    match &intention.rule {
        Rule::Action(action) => lines.push(format!("action: {action}")),
        Rule::Permissions { permissions, otherwise } => {
            lines.push("permissions:".to_owned());
            for (at, permission) in permissions.iter().enumerate() {
                lines.extend(
                    (comments.of)(intention, Some(at))
                        .iter()
                        .map(|line| comment_lines("  ", std::slice::from_ref(line)).trim_end().to_owned()),
                );
                lines.push(format!("  - {}", flow_permission(permission)));
            }
            lines.push(format!("otherwise: {otherwise}"));
        }
    }
    if intention.mode == Mode::Audit {
        lines.push(format!("mode: {}", intention.mode));
    }
    format!("  - {}\n", lines.join("\n    "))
}

fn flow_permission(permission: &Permission) -> String {
    let mut map = Flow::default();
    map.plain("action", permission.action);
    map.list("methods", permission.methods.iter().map(|method| scalar(method)));
    match &permission.path {
        None => {}
        Some(PathCriterion::Exact(path)) => map.text("path_exact", path),
        Some(PathCriterion::Prefix(path)) => map.text("path_prefix", path),
        Some(PathCriterion::Regex(pattern)) => map.text("path_regex", pattern),
    }
    map.list("headers", permission.headers.iter().map(flow_header));
    map.list("query", permission.query.iter().map(flow_query));
    map.list("ports", permission.ports.iter().map(|port| scalar(port.as_str())));
    map.list("jwt", permission.jwt.iter().map(flow_jwt));
    map.finish()
}

fn flow_header(criterion: &HeaderCriterion) -> String {
    let mut map = Flow::default();
    map.text("name", &criterion.name);
    map.matches(&criterion.matches);
    if criterion.invert {
        map.plain("invert", true);
    }
    map.finish()
}

fn flow_query(criterion: &QueryCriterion) -> String {
    let mut map = Flow::default();
    map.text("name", &criterion.name);
    map.matches(&criterion.matches);
    map.finish()
}

fn flow_jwt(criterion: &JwtCriterion) -> String {
    let mut map = Flow::default();
    map.text("provider", &criterion.provider);
    map.list("claims", criterion.claims.iter().map(flow_claim));
    map.finish()
}

fn flow_claim(criterion: &ClaimCriterion) -> String {
    let mut map = Flow::default();
    map.text("path", &criterion.path);
    match &criterion.matches {
        ClaimMatch::Equals(text) => map.text("equals", text),
        ClaimMatch::Contains(text) => map.text("contains", text),
    }
    map.finish()
}

/// A map on one line.
#[derive(Default)]
struct Flow(Vec<String>);

impl Flow {
    fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        self.0.push(format!("{key}: {value}"));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.0.push(format!("{}: {}", scalar(key), scalar(value)));
    }

    fn list(&mut self, key: &str, items: impl Iterator<Item = String>) {
        let items: Vec<String> = items.collect();
        if !items.is_empty() {
            self.0.push(format!("{key}: [{}]", items.join(", ")));
        }
    }

    fn matches(&mut self, matches: &TextMatch) {
        match matches {
            TextMatch::Present => self.plain("present", true),
            TextMatch::Exact(text) => self.text("exact", text),
            TextMatch::Prefix(text) => self.text("prefix", text),
            TextMatch::Suffix(text) => self.text("suffix", text),
            TextMatch::Contains(text) => self.text("contains", text),
            TextMatch::Regex(text) => self.text("regex", text),
        }
    }

    fn finish(self) -> String {
        format!("{{{}}}", self.0.join(", "))
    }
}

/// A text as a YAML scalar that is valid in a block, in a list or map on one line, and as a key.
fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

/// Whether no YAML 1.1 or 1.2 parser can take the bare text for anything but a text.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.- ".contains(&b))
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// In double quotes (YAML 1.2 §7.3.1).
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '\n' => quoted.push_str("\\n"),
            ' '..='~' => quoted.push(c),
            c if c.is_alphanumeric() => quoted.push(c),
            // Writing to a string cannot fail.
            c => drop(write!(quoted, "\\U{:08X}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}
