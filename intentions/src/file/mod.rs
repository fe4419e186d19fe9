//! The intentions file: YAML or JSON.

use std::cmp::Ordering;
use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use crate::yaml::{self, FileKind};
use crate::{DefaultPolicy, Intention};

mod read;
mod render;

pub use crate::yaml::FileError;
pub use render::{Comments, render, render_commented};

/// Bytes of a file.
const SIZE_LIMIT: usize = 32 << 20;

/// What messages about an intentions file say.
pub(crate) const KIND: FileKind = FileKind {
    name: "an intentions file",
    depth: 7,
    empty: "the file is empty: write intentions: with a list, or intentions: [] for none",
    alias: "a bare * begins a YAML alias: write \"*\" for every service",
    one_document: "put all intentions into one list",
};

/// What an intentions file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentionFile {
    /// The default policy; none: it stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<DefaultPolicy>,
    /// Permanent intentions.
    pub intentions: Vec<Intention>,
}

/// Highest precedence first, then by source and destination.
pub(crate) fn in_order(a: &Intention, b: &Intention) -> Ordering {
    let key = |intention: &Intention| Reverse(intention.precedence());
    key(a).cmp(&key(b)).then_with(|| (&a.source, &a.destination, a.expires_at).cmp(&(&b.source, &b.destination, b.expires_at)))
}

/// The intentions in a text, YAML or JSON. `file_name` is for messages, and one that ends in `.json` is read as JSON.
///
/// # Errors
/// Everything that is wrong in it, by line; where the text is no YAML at all, the first thing.
pub fn parse(text: &str, file_name: &str) -> Result<IntentionFile, Vec<FileError>> {
    let error = |line, column, message| vec![FileError { file: file_name.to_owned(), line, column, message }];
    if text.len() > SIZE_LIMIT {
        return Err(error(1, 1, "the file is larger than 32 MiB: split it, and apply the parts with --merge".to_owned()));
    }
    let text = yaml::prepared(text, file_name);
    let root = yaml::parse(&text, &KIND).map_err(|syntax| error(syntax.line, syntax.column, syntax.message))?;
    let (file, problems) = read::read(&root);
    if problems.is_empty() { Ok(file) } else { Err(yaml::located(&text, file_name, problems)) }
}
