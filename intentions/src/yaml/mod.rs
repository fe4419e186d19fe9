//! Files that people write: YAML or JSON as a tree in which every value has a place, so that a message can name the line.
//!
//! | module | what it holds |
//! |---|---|
//! | `node` | the text as a tree, with keys given twice |
//! | `position` | where a node is in the text |
//! | `decode` | from the tree to types, gathering everything that is wrong |
//! | `nearest` | the known word that was probably meant |

mod decode;
mod nearest;
mod node;
mod position;

pub use decode::{Decoded, decode};
pub use nearest::nearest;
pub use node::{Kind, Node, NodeId, Number, SyntaxError, parse, prepared};
pub use position::located;

/// Lists and maps inside each other.
const DEPTH_LIMIT: usize = 64;

/// What messages about one kind of file say.
#[derive(Debug, Clone, Copy)]
pub struct FileKind {
    /// With its article: `an intentions file`.
    pub name: &'static str,
    /// How many lists and maps inside each other it needs.
    pub depth: usize,
    /// What is said of a file that holds nothing.
    pub empty: &'static str,
    /// What is said of a bare `*`.
    pub alias: &'static str,
    /// What to do in place of several documents.
    pub one_document: &'static str,
}

/// Something wrong in a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct FileError {
    /// Name of the file, as it was given.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong, and what was expected.
    pub message: String,
}

/// Something that is wrong, and the node that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Which node.
    pub at: NodeId,
    /// What is wrong.
    pub what: String,
    /// The earlier one of two, whose line is named after that.
    pub first: Option<NodeId>,
    /// What was expected, where `what` does not say so.
    pub cure: Option<String>,
}
