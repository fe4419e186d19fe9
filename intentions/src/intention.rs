//! An intention: who may, or may not, call whom.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::IntentionError;
use crate::form::IntentionForm;
use crate::permission::{Permission, check_text};
use crate::{Action, Mode, PairKey, Party, Precedence, timestamp};

/// Bytes of a description.
const DESCRIPTION_LIMIT: usize = 1024;
/// Entries of the metadata.
const META_LIMIT: usize = 64;
/// Bytes of a key of the metadata.
const META_KEY_LIMIT: usize = 128;
/// Bytes of a value of the metadata.
const META_VALUE_LIMIT: usize = 512;
/// Permissions of an intention.
const PERMISSION_LIMIT: usize = 1024;
/// Seconds from the epoch to the year 9999.
const YEAR_9999: u64 = 253_370_764_800;

/// What is said of the calls from a source to a destination. Its serialised form is flat, as in the YAML file, and only
/// a valid one is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "IntentionForm", into = "IntentionForm")]
pub struct Intention {
    /// Who calls.
    pub source: Party,
    /// Who is called.
    pub destination: Party,
    /// What is said of these calls.
    pub rule: Rule,
    /// Whether a denial is carried out.
    pub mode: Mode,
    /// When it ends; none: it is permanent.
    pub expires_at: Option<SystemTime>,
    /// For people; at most 1,024 bytes.
    pub description: String,
    /// For tools; at most 64 entries.
    pub meta: BTreeMap<String, String>,
}

/// What an intention says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// Decides when a connection is opened, for every protocol.
    Action(Action),
    /// Decide on each HTTP request.
    Permissions {
        /// The first that matches decides; not empty.
        permissions: Vec<Permission>,
        /// Where none matches.
        otherwise: Action,
    },
}

impl Intention {
    /// An enforced, permanent intention with an action.
    pub fn new(source: Party, destination: Party, action: Action) -> Self {
        Self {
            source,
            destination,
            rule: Rule::Action(action),
            mode: Mode::Enforce,
            expires_at: None,
            description: String::new(),
            meta: BTreeMap::new(),
        }
    }

    /// Which of all that match governs: the one with the highest.
    pub fn precedence(&self) -> Precedence {
        Precedence::of(&self.source, &self.destination)
    }

    /// # Errors
    /// The first rule that it breaks.
    pub fn validate(&self) -> Result<(), IntentionError> {
        if let Some(end) = self.expires_at {
            check_expiry(end)?;
        }
        check_description(&self.description)?;
        if self.meta.len() > META_LIMIT {
            return Err(IntentionError::TooMany { what: "entries in meta", limit: META_LIMIT });
        }
        for (key, value) in &self.meta {
            check_meta(key, value)?;
        }
        match &self.rule {
            Rule::Action(_) => Ok(()),
            Rule::Permissions { permissions, .. } if permissions.is_empty() => Err(IntentionError::NoPermissions),
            Rule::Permissions { permissions, .. } if permissions.len() > PERMISSION_LIMIT => {
                Err(IntentionError::TooMany { what: "permissions", limit: PERMISSION_LIMIT })
            }
            Rule::Permissions { permissions, .. } => permissions.iter().try_for_each(Permission::validate),
        }
    }

    /// What it is stored under.
    pub fn key(&self) -> PairKey {
        PairKey { source: self.source.clone(), destination: self.destination.clone(), temporary: self.is_temporary() }
    }

    /// Whether it ends by itself.
    pub fn is_temporary(&self) -> bool {
        self.expires_at.is_some()
    }

    /// Whether it has not ended at `now`. At the very instant of its end it has.
    pub fn is_live(&self, now: SystemTime) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// `web -> api`
    pub fn pair(&self) -> String {
        format!("{} -> {}", self.source, self.destination)
    }

    /// What it says, in a few words: `allow`, `deny, audit`, `2 permissions, otherwise deny`, `allow, until 2026-03-01T12:00:00Z`.
    pub fn summary(&self) -> String {
        let mut words = match &self.rule {
            Rule::Action(action) => action.to_string(),
            Rule::Permissions { permissions, otherwise } => {
                let plural = if permissions.len() == 1 { "" } else { "s" };
                format!("{} permission{plural}, otherwise {otherwise}", permissions.len())
            }
        };
        if self.mode == Mode::Audit {
            words.push_str(", audit");
        }
        if let Some(end) = self.expires_at {
            words.push_str(", until ");
            words.push_str(&timestamp::to_the_second(end));
        }
        words
    }

    /// «this lets web reach db», for an intention in audit mode: it allows what it says it denies, and beats lower
    /// enforced denials.
    pub fn opens(&self) -> Option<String> {
        if self.mode != Mode::Audit || self.rule == Rule::Action(Action::Allow) {
            return None;
        }
        let side = |party: &Party| match party {
            Party::Any => "every service".to_owned(),
            Party::Service(name) => name.to_string(),
        };
        Some(format!("this lets {} reach {}", side(&self.source), side(&self.destination)))
    }
}

/// A time that survives the wire, where it is milliseconds since the epoch and 0 means permanent.
fn check_expiry(end: SystemTime) -> Result<(), IntentionError> {
    match end.duration_since(UNIX_EPOCH) {
        Ok(after) if after >= Duration::from_millis(1) && after <= Duration::from_secs(YEAR_9999) => Ok(()),
        _ => Err(IntentionError::ExpiresAt),
    }
}

/// May be empty, and may have several lines.
pub(crate) fn check_description(text: &str) -> Result<(), IntentionError> {
    let what = "description";
    if text.len() > DESCRIPTION_LIMIT {
        return Err(IntentionError::TooLong { what, limit: DESCRIPTION_LIMIT });
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        return Err(IntentionError::ControlCharacter { what });
    }
    Ok(())
}

pub(crate) fn check_meta(key: &str, value: &str) -> Result<(), IntentionError> {
    check_text("a key of meta", key, META_KEY_LIMIT)?;
    if value.is_empty() { Ok(()) } else { check_text("a value of meta", value, META_VALUE_LIMIT) }
}
