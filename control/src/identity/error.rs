//! Why an identity cannot be given or taken.

use std::io;
use std::path::PathBuf;

use postern_ca::{AuthorityError, IssueError, TokenError};

use crate::records::UnreadableRecord;
use crate::seal::SealError;
use crate::store::StoreError;

/// Why an identity cannot be given or taken.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record of this or another version.
    #[error(transparent)]
    Unreadable(#[from] UnreadableRecord),
    /// A record that cannot be written.
    #[error("a record cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
    /// The authority's keys are sealed with another key. No new ones are made: every sidecar would be cut off.
    #[error("the authority's keys are in this store and cannot be opened, so the control plane does not start: {0}")]
    Sealed(#[from] SealError),
    /// The sealed record holds no keys.
    #[error("the authority's keys in the store are damaged: {0}; restore a snapshot")]
    Damaged(String),
    /// The authority cannot be made or used.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A certificate cannot be issued.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A key or an SVID of our own.
    #[error(transparent)]
    Own(#[from] postern_ca::IdentityError),
    /// A token cannot be made.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The CA that is brought cannot be used.
    #[error("cannot use --ca-cert {} with --ca-key {}: {source}", certificates.display(), key.display())]
    Brought {
        /// `--ca-cert`.
        certificates: PathBuf,
        /// `--ca-key`.
        key: PathBuf,
        /// Why.
        source: AuthorityError,
    },
    /// A file of the CA that is brought cannot be read.
    #[error("cannot read {}: {source}; --ca-cert and --ca-key name PEM files", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: io::Error,
    },
    /// The mesh was created under a CA that was brought.
    #[error(
        "this mesh was created under a CA of yours; start with the same --ca-cert and --ca-key, since its key is not stored here"
    )]
    CaMissing,
    /// The mesh has an authority of its own.
    #[error(
        "this mesh has an authority of its own, and another root would cut every sidecar off; leave --ca-cert and --ca-key out, or start with an empty data directory"
    )]
    CaNotExpected,
    /// No token has this id.
    #[error("there is no token {0}")]
    NoSuchToken(String),
    /// Others changed the same record again and again.
    #[error("{0} was changed by others at the same time, again and again; try again")]
    Contended(String),
}
