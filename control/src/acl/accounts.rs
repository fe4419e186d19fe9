//! Changes of tokens, policies and roles.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use postern_names::ServiceName;
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::policy::{NodeIdentity, ServiceIdentity};
use super::syntax::{SyntaxError, parse};
use crate::audit::AuditEntry;
use crate::mirror::{ANONYMOUS, AccessView, Mirror};
use crate::policy::Author;
use crate::records::{self, AccessPolicyRecord, AccessRoleRecord, AccessTokenRecord, Links, RecordKey};
use crate::store::{Op, Store, StoreError, Txn};

/// The policy that grants everything; it is not stored.
pub const MANAGEMENT: &str = "00000000-0000-0000-0000-000000000001";
/// Its name.
pub const GLOBAL_MANAGEMENT: &str = "global-management";
/// The token that stands for requests without one.
pub const ANONYMOUS_ACCESSOR: &str = "00000000-0000-0000-0000-000000000002";

const MAX_NAME: usize = 128;
const MAX_DESCRIPTION: usize = 1024;
const MAX_LINKS: usize = 256;
/// Tokens, policies and roles each.
const MAX_RECORDS: usize = 10_000;
const LONGEST_TTL: Duration = Duration::from_secs(365 * 24 * 3600);
const SHORTEST_TTL: Duration = Duration::from_secs(60);

/// The secret of a token, shown when it is made and never again.
pub type Secret = Zeroizing<String>;

/// Why a change was refused.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// There is no such token, policy or role.
    #[error("ACL not found: there is no {0}")]
    NotFound(String),
    /// What was given cannot be.
    #[error("{0}")]
    Invalid(String),
    /// The rules of a policy cannot be read.
    #[error(transparent)]
    Rules(#[from] SyntaxError),
    /// There is a management token already.
    #[error("ACL bootstrap no longer allowed: it was done before; the operator token makes further tokens")]
    Bootstrapped,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record cannot be written as JSON.
    #[error("the record cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
}

/// A policy or role by id, or by name where the id is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// A UUID, or empty.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// What a token or a role is to be made of.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewLinks {
    /// Policies.
    pub policies: Vec<Named>,
    /// Roles.
    pub roles: Vec<Named>,
    /// Services that it stands for.
    pub service_identities: Vec<ServiceIdentity>,
    /// Nodes that it stands for.
    pub node_identities: Vec<NodeIdentity>,
}

/// A token to be.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// A UUID; made where there is none.
    pub accessor: Option<String>,
    /// A UUID; made where there is none.
    pub secret: Option<Secret>,
    /// For people.
    pub description: String,
    /// What it grants.
    pub links: NewLinks,
    /// Told back.
    pub local: bool,
    /// When it ends; never where there is none.
    pub ttl: Option<Duration>,
}

/// A policy to be.
#[derive(Debug, Clone, Default)]
pub struct NewPolicy {
    /// Unique.
    pub name: String,
    /// For people.
    pub description: String,
    /// In Consul's syntax.
    pub rules: String,
}

/// A role to be.
#[derive(Debug, Clone, Default)]
pub struct NewRole {
    /// Unique.
    pub name: String,
    /// For people.
    pub description: String,
    /// What it grants.
    pub links: NewLinks,
    /// Whose sidecars may read that, for their service.
    pub services: BTreeSet<ServiceName>,
}

/// The one place that changes who may do what.
pub struct Accounts {
    store: Arc<dyn Store>,
    mirror: Arc<Mirror>,
    /// One change after the other: names stay unique.
    turn: tokio::sync::Mutex<()>,
}

/// The hash under which a secret is kept.
pub fn hash_of(secret: &str) -> String {
    HEXLOWER.encode(digest(&SHA256, secret.as_bytes()).as_ref())
}

impl Accounts {
    /// Over this store.
    pub fn new(store: Arc<dyn Store>, mirror: Arc<Mirror>) -> Self {
        Self { store, mirror, turn: tokio::sync::Mutex::new(()) }
    }

    /// Makes the first management token, once.
    ///
    /// # Errors
    /// [`AccountError::Bootstrapped`].
    pub async fn bootstrap(&self, author: &Author) -> Result<(String, Secret), AccountError> {
        let management = Named { id: MANAGEMENT.into(), name: String::new() };
        let is_done = self.mirror.read(|view| view.access.tokens().any(|(_, (token, _))| token.description == BOOTSTRAP));
        if is_done {
            return Err(AccountError::Bootstrapped);
        }
        let links = NewLinks { policies: vec![management], ..NewLinks::default() };
        self.create_token(NewToken { description: BOOTSTRAP.into(), links, ..NewToken::default() }, author).await
    }

    /// Makes a token, and gives its name and its secret.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn create_token(&self, new: NewToken, author: &Author) -> Result<(String, Secret), AccountError> {
        let _turn = self.turn.lock().await;
        let accessor = uuid_or_new("AccessorID", new.accessor.as_deref())?;
        let secret: Secret = uuid_or_new("SecretID", new.secret.as_ref().map(|secret| secret.as_str()))?.into();
        let hash = hash_of(&secret);
        check_description(&new.description)?;
        let expires_at = new.ttl.map(end_of).transpose()?;
        let links = self.mirror.read(|view| {
            if view.access.token(&accessor).is_some() || accessor == ANONYMOUS_ACCESSOR {
                return Err(AccountError::Invalid("Invalid Token: AccessorID is already in use".into()));
            }
            if view.access.tokens().any(|(known, _)| *known == hash) {
                return Err(AccountError::Invalid("Invalid Token: SecretID is already in use".into()));
            }
            check_count("tokens", view.access.tokens().count())?;
            resolve(&view.access, &new.links)
        })?;
        let record = AccessTokenRecord {
            accessor: accessor.clone(),
            description: new.description,
            links,
            local: new.local,
            expires_at,
            created_at: SystemTime::now(),
            created_by: author.who.clone(),
            created_in: None,
        };
        let op = Op::put(RecordKey::AccessToken(hash).to_bytes(), records::encode(&record)?);
        self.write(op, "acl.token.create", json!({ "accessor": accessor }), author).await?;
        Ok((accessor, secret))
    }

    /// Changes what a token grants; its secret and its end stay.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn update_token(
        &self,
        accessor: &str,
        description: String,
        links: NewLinks,
        author: &Author,
    ) -> Result<(), AccountError> {
        let _turn = self.turn.lock().await;
        check_description(&description)?;
        let (hash, before, links) = self.mirror.read(|view| {
            let links = resolve(&view.access, &links)?;
            let known =
                view.access.token(accessor).map(|(hash, (record, revision))| (hash.clone(), Some((record.clone(), *revision))));
            let (hash, before) = match known {
                Some(known) => known,
                None if accessor == ANONYMOUS_ACCESSOR => (ANONYMOUS.to_owned(), None),
                None => return Err(AccountError::NotFound(format!("token {accessor}"))),
            };
            Ok((hash, before, links))
        })?;
        let (before, created_in) = match before {
            Some((record, revision)) => {
                let created_in = record.created_in.or(Some(revision));
                (record, created_in)
            }
            None => (anonymous(), None),
        };
        let record = AccessTokenRecord { description, links, created_in, ..before };
        let op = Op::put(RecordKey::AccessToken(hash).to_bytes(), records::encode(&record)?);
        self.write(op, "acl.token.update", json!({ "accessor": accessor }), author).await
    }

    /// Ends a token, at once.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn delete_token(&self, accessor: &str, author: &Author) -> Result<(), AccountError> {
        let _turn = self.turn.lock().await;
        if accessor == ANONYMOUS_ACCESSOR {
            return Err(AccountError::Invalid(
                "Delete operation not permitted on the anonymous token; take its policies away".into(),
            ));
        }
        let hash = self.mirror.read(|view| view.access.token(accessor).map(|(hash, _)| hash.clone()));
        let hash = hash.ok_or_else(|| AccountError::NotFound(format!("token {accessor}")))?;
        let op = Op::delete(RecordKey::AccessToken(hash).to_bytes());
        self.write(op, "acl.token.delete", json!({ "accessor": accessor }), author).await
    }

    /// Makes a policy, or changes the one with this id; gives its id.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn set_policy(&self, id: Option<&str>, new: NewPolicy, author: &Author) -> Result<String, AccountError> {
        let _turn = self.turn.lock().await;
        if id == Some(MANAGEMENT) {
            return Err(AccountError::Invalid(
                "Changing the rules of the builtin global-management policy is not permitted".into(),
            ));
        }
        check_name("Policy", &new.name)?;
        check_description(&new.description)?;
        parse(&new.rules)?;
        let created_in = self.mirror.read(|view| {
            let access = &view.access;
            let is_taken = access.policies().any(|(other, _)| other.name == new.name && Some(other.id.as_str()) != id);
            if is_taken || new.name == GLOBAL_MANAGEMENT {
                return Err(AccountError::Invalid(format!("Invalid Policy: A Policy with Name {:?} already exists", new.name)));
            }
            match id {
                None => check_count("policies", access.policies().count()).map(|()| None),
                Some(id) => match access.policy(id) {
                    Some((before, revision)) => Ok(before.created_in.or(Some(*revision))),
                    None => Err(AccountError::NotFound(format!("policy {id}"))),
                },
            }
        })?;
        let made = uuid_or_new("ID", id)?;
        let record =
            AccessPolicyRecord { id: made.clone(), name: new.name, description: new.description, rules: new.rules, created_in };
        let op = Op::put(RecordKey::AccessPolicy(made.clone()).to_bytes(), records::encode(&record)?);
        let what = if id.is_some() { "acl.policy.update" } else { "acl.policy.create" };
        self.write(op, what, json!({ "id": made, "name": record.name }), author).await?;
        Ok(made)
    }

    /// Deletes a policy: tokens and roles with it have one less.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn delete_policy(&self, id: &str, author: &Author) -> Result<(), AccountError> {
        let _turn = self.turn.lock().await;
        if id == MANAGEMENT {
            return Err(AccountError::Invalid("Delete operation not permitted on the builtin global-management policy".into()));
        }
        let name = self.mirror.read(|view| view.access.policy(id).map(|(record, _)| record.name.clone()));
        let name = name.ok_or_else(|| AccountError::NotFound(format!("policy {id}")))?;
        let op = Op::delete(RecordKey::AccessPolicy(id.to_owned()).to_bytes());
        self.write(op, "acl.policy.delete", json!({ "id": id, "name": name }), author).await
    }

    /// Makes a role, or changes the one with this id; gives its id.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn set_role(&self, id: Option<&str>, new: NewRole, author: &Author) -> Result<String, AccountError> {
        let _turn = self.turn.lock().await;
        check_name("Role", &new.name)?;
        check_description(&new.description)?;
        let (created_in, links) = self.mirror.read(|view| {
            let access = &view.access;
            if !new.links.roles.is_empty() {
                return Err(AccountError::Invalid("Invalid Role: a role has policies, not roles".into()));
            }
            if new.services.len() > MAX_LINKS {
                return Err(AccountError::Invalid(format!("Invalid Role: at most {MAX_LINKS} services are allowed")));
            }
            if access.roles().any(|(other, _)| other.name == new.name && Some(other.id.as_str()) != id) {
                return Err(AccountError::Invalid(format!("Invalid Role: A Role with Name {:?} already exists", new.name)));
            }
            let created_in = match id {
                None => check_count("roles", access.roles().count()).map(|()| None)?,
                Some(id) => match access.role(id) {
                    Some((before, revision)) => before.created_in.or(Some(*revision)),
                    None => return Err(AccountError::NotFound(format!("role {id}"))),
                },
            };
            Ok((created_in, resolve(access, &new.links)?))
        })?;
        let made = uuid_or_new("ID", id)?;
        let record = AccessRoleRecord {
            id: made.clone(),
            name: new.name,
            description: new.description,
            links,
            services: new.services,
            created_in,
        };
        let op = Op::put(RecordKey::AccessRole(made.clone()).to_bytes(), records::encode(&record)?);
        let what = if id.is_some() { "acl.role.update" } else { "acl.role.create" };
        self.write(op, what, json!({ "id": made, "name": record.name }), author).await?;
        Ok(made)
    }

    /// Deletes a role: tokens with it have one less.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn delete_role(&self, id: &str, author: &Author) -> Result<(), AccountError> {
        let _turn = self.turn.lock().await;
        let name = self.mirror.read(|view| view.access.role(id).map(|(record, _)| record.name.clone()));
        let name = name.ok_or_else(|| AccountError::NotFound(format!("role {id}")))?;
        let op = Op::delete(RecordKey::AccessRole(id.to_owned()).to_bytes());
        self.write(op, "acl.role.delete", json!({ "id": id, "name": name }), author).await
    }

    /// Deletes tokens that have ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sweep(&self, now: SystemTime) -> Result<(), AccountError> {
        let ended: Vec<String> = self.mirror.read(|view| {
            let ended = view.access.tokens().filter(|(_, (token, _))| token.expires_at.is_some_and(|end| end <= now));
            ended.map(|(_, (token, _))| token.accessor.clone()).collect()
        });
        let author = Author { who: "control-plane".into(), from: "local".into() };
        for accessor in ended {
            match self.delete_token(&accessor, &author).await {
                Ok(()) | Err(AccountError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn write(&self, op: Op, what: &str, details: Value, author: &Author) -> Result<(), AccountError> {
        let entry = AuditEntry {
            at: SystemTime::now(),
            who: author.who.clone(),
            from: author.from.clone(),
            what: what.into(),
            details,
            reason: None,
        };
        let written = self.store.txn(Txn::new().then(op).then(entry.op())).await?;
        self.mirror.reached(written.revision).await;
        Ok(())
    }
}

const BOOTSTRAP: &str = "Bootstrap Token (Global Management)";

/// The anonymous token before anybody changed it.
pub fn anonymous() -> AccessTokenRecord {
    AccessTokenRecord {
        accessor: ANONYMOUS_ACCESSOR.into(),
        description: "Anonymous Token".into(),
        links: Links::default(),
        local: false,
        expires_at: None,
        created_at: SystemTime::UNIX_EPOCH,
        created_by: String::new(),
        created_in: None,
    }
}

fn resolve(access: &AccessView, new: &NewLinks) -> Result<Links, AccountError> {
    let count = new.policies.len() + new.roles.len() + new.service_identities.len() + new.node_identities.len();
    if count > MAX_LINKS {
        return Err(AccountError::Invalid(format!(
            "{count} policies, roles and identities are given; at most {MAX_LINKS} are allowed"
        )));
    }
    let policy = |named: &Named| {
        let by_name = || access.policies().find(|(policy, _)| policy.name == named.name).map(|(policy, _)| policy.id.clone());
        let found = match named {
            Named { id, name } if id == MANAGEMENT || (id.is_empty() && name == GLOBAL_MANAGEMENT) => Some(MANAGEMENT.to_owned()),
            Named { id, .. } if id.is_empty() => by_name(),
            Named { id, .. } => access.policy(id).map(|(policy, _)| policy.id.clone()),
        };
        found.ok_or_else(|| AccountError::Invalid(format!("No such ACL policy: {}", named.shown())))
    };
    let role = |named: &Named| {
        let found =
            access.roles().find(|(role, _)| if named.id.is_empty() { role.name == named.name } else { role.id == named.id });
        let found = found.map(|(role, _)| role.id.clone());
        found.ok_or_else(|| AccountError::Invalid(format!("No such ACL role: {}", named.shown())))
    };
    for identity in &new.service_identities {
        check_identity("ServiceName", &identity.service)?;
    }
    for identity in &new.node_identities {
        check_identity("NodeName", &identity.node)?;
        check_identity("Datacenter", &identity.datacenter)?;
    }
    Ok(Links {
        policies: new.policies.iter().map(policy).collect::<Result<_, _>>()?,
        roles: new.roles.iter().map(role).collect::<Result<_, _>>()?,
        service_identities: new.service_identities.clone(),
        node_identities: new.node_identities.clone(),
    })
}

impl Named {
    fn shown(&self) -> String {
        let text = if self.id.is_empty() { &self.name } else { &self.id };
        format!("{:?}", text.chars().take(80).collect::<String>())
    }
}

fn uuid_or_new(what: &str, given: Option<&str>) -> Result<String, AccountError> {
    match given.filter(|text| !text.is_empty()) {
        None => Ok(Uuid::new_v4().to_string()),
        Some(text) => match Uuid::try_parse(text) {
            // One spelling of each, and none that anybody could guess.
            Ok(uuid) if uuid.to_string() == text && !uuid.is_nil() => Ok(text.to_owned()),
            // What was given may be a secret.
            _ => Err(AccountError::Invalid(format!("Invalid Token: {what} is not a UUID in lower case"))),
        },
    }
}

fn end_of(ttl: Duration) -> Result<SystemTime, AccountError> {
    if ttl < SHORTEST_TTL || ttl > LONGEST_TTL {
        return Err(AccountError::Invalid(format!("ExpirationTTL {}s is out of range; give 1m to 1 year", ttl.as_secs())));
    }
    Ok(SystemTime::now() + ttl)
}

fn check_name(what: &str, name: &str) -> Result<(), AccountError> {
    let is_valid =
        (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if is_valid {
        return Ok(());
    }
    Err(AccountError::Invalid(format!(
        "Invalid {what}: invalid Name. Only alphanumeric characters, '-' and '_' are allowed, 1 to {MAX_NAME} of them"
    )))
}

fn check_identity(what: &str, name: &str) -> Result<(), AccountError> {
    let is_valid =
        (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if is_valid { Ok(()) } else { Err(AccountError::Invalid(format!("{what} of an identity is empty, too long or no name"))) }
}

fn check_description(text: &str) -> Result<(), AccountError> {
    if text.len() <= MAX_DESCRIPTION {
        return Ok(());
    }
    Err(AccountError::Invalid(format!("the description is longer than {MAX_DESCRIPTION} bytes")))
}

fn check_count(what: &str, count: usize) -> Result<(), AccountError> {
    if count < MAX_RECORDS {
        Ok(())
    } else {
        Err(AccountError::Invalid(format!("there are {MAX_RECORDS} {what}; delete some first")))
    }
}
