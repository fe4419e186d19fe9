//! Prepared queries: questions for instances that have a name, for Consul's API and for DNS.
//!
//! | module | what it holds |
//! |---|---|
//! | `view` | all queries at one revision, and which of them answers for a name |
//! | `template` | a query for every name that begins alike |
//! | `run` | which instances a query finds |

pub mod run;
pub mod template;
mod view;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

pub use self::view::QueriesView;
use crate::audit::AuditEntry;
use crate::mirror::{Mirror, View};
use crate::policy::Author;
use crate::records::{self, QueryRecord, RecordKey};
use crate::store::{Compare, Op, Store, StoreError, Txn};

/// The key that every change of queries puts, so that no two of them get one name. It is not mirrored.
const MARKER: &[u8] = b"queries/changed";
/// How often a change is tried again after another one came between.
const TRIES: usize = 16;
/// Queries of one mesh.
const LIMIT: usize = 4096;

/// Why a query was not written.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Another one has the name.
    #[error("name '{0}' aliases an existing query name")]
    NameTaken(String),
    /// There are too many.
    #[error("there are {LIMIT} prepared queries, and no more are kept; delete some")]
    TooMany,
    /// There is none of this id.
    #[error("Query not found")]
    NotFound,
    /// Other changes came between too often.
    #[error("other changes of queries came between {TRIES} times")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record cannot be written as JSON.
    #[error("the record cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// Changes prepared queries.
pub struct Queries {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
}

impl Queries {
    /// Changes go into `store` and are seen in `mirror`.
    pub fn new(store: Arc<dyn Store>, mirror: Arc<Mirror>) -> Self {
        Self { store, mirror }
    }

    /// Makes a query; gives its id.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn create(&self, mut query: QueryRecord, author: &Author) -> Result<String, QueryError> {
        let id = Uuid::new_v4().to_string();
        query.id.clone_from(&id);
        self.change("query.create", &id, author, |view| {
            if view.queries.len() >= LIMIT {
                return Err(QueryError::TooMany);
            }
            check_name(view, &query)?;
            Ok(Some(query.clone()))
        })
        .await?;
        Ok(id)
    }

    /// Puts another query in the place of the one with its id.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn set(&self, query: QueryRecord, author: &Author) -> Result<(), QueryError> {
        self.change("query.set", &query.id, author, |view| {
            let (before, revision) = view.queries.get(&query.id).ok_or(QueryError::NotFound)?;
            check_name(view, &query)?;
            Ok(Some(QueryRecord { created_in: Some(before.created_in.unwrap_or(*revision)), ..query.clone() }))
        })
        .await
    }

    /// Deletes a query.
    ///
    /// # Errors
    /// [`QueryError`].
    pub async fn delete(&self, id: &str, author: &Author) -> Result<(), QueryError> {
        self.change("query.delete", id, author, |view| {
            view.queries.get(id).ok_or(QueryError::NotFound)?;
            Ok(None)
        })
        .await
    }

    async fn change(
        &self,
        what: &str,
        id: &str,
        author: &Author,
        after: impl Fn(&View) -> Result<Option<QueryRecord>, QueryError>,
    ) -> Result<(), QueryError> {
        for _ in 0..TRIES {
            let marker = self.store.get(MARKER).await?.map_or(0, |kv| kv.mod_revision);
            self.mirror.reached(marker).await;
            let record = self.mirror.read(&after)?;
            let key = RecordKey::Query(id.to_owned()).to_bytes();
            let op = match &record {
                Some(record) => Op::put(key, records::encode(record)?),
                None => Op::delete(key),
            };
            let audit = AuditEntry {
                at: SystemTime::now(),
                who: author.who.clone(),
                from: author.from.clone(),
                what: what.into(),
                details: json!({ "id": id, "query": record }),
                reason: None,
            };
            let txn = Txn::new().when(Compare::unchanged(MARKER, marker)).then(Op::put(MARKER, Bytes::new()));
            let result = self.store.txn(txn.then(op).then(audit.op())).await?;
            self.mirror.reached(result.revision).await;
            if result.succeeded {
                return Ok(());
            }
        }
        Err(QueryError::Contended)
    }
}

fn check_name(view: &View, query: &QueryRecord) -> Result<(), QueryError> {
    if query.name.is_empty() && query.template.is_none() {
        return Ok(());
    }
    match view.queries.named(&query.name) {
        Some((other, _)) if other.id != query.id => Err(QueryError::NameTaken(query.name.clone())),
        _ => Ok(()),
    }
}
