//! A key and its value, as the API and as files write it.

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::outcome::Failure;

/// As the API writes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pair {
    /// The key.
    pub key: String,
    flags: u64,
    value: Option<String>,
    lock_index: u64,
    session: Option<String>,
    create_index: u64,
    modify_index: u64,
}

/// As `-o json` and `-o yaml` show it.
#[derive(Debug, Serialize)]
pub struct Shown {
    key: String,
    /// As text, where it is that.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// In base64, where it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    flags: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    lock_index: u64,
    create_index: u64,
    modify_index: u64,
}

/// As a file of `export` has it: Consul's form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exported {
    /// The key.
    pub key: String,
    /// Its flags.
    #[serde(default)]
    pub flags: u64,
    /// In base64.
    #[serde(default)]
    pub value: String,
}

impl Pair {
    /// The value.
    pub fn value(&self) -> Result<Vec<u8>, Failure> {
        let text = self.value.as_deref().unwrap_or_default();
        BASE64.decode(text.as_bytes()).map_err(|error| Failure::new(format!("the value of {} is not base64: {error}", self.key)))
    }

    /// The pair for people and scripts.
    pub fn shown(&self) -> Result<Shown, Failure> {
        let (value, value_base64) = match String::from_utf8(self.value()?) {
            Ok(text) => (Some(text), None),
            Err(_) => (None, self.value.clone()),
        };
        Ok(Shown {
            key: self.key.clone(),
            value,
            value_base64,
            flags: self.flags,
            session: self.session.clone(),
            lock_index: self.lock_index,
            create_index: self.create_index,
            modify_index: self.modify_index,
        })
    }

    /// The pair for a file.
    pub fn exported(self) -> Exported {
        Exported { key: self.key, flags: self.flags, value: self.value.unwrap_or_default() }
    }
}
