//! Names that are one label.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::NameError;

/// The rule of RFC 1123 labels in lower case (RFC 1123 §2.1, RFC 1035 §2.3.4).
fn check_label(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Err("it is empty; use 1 to 63 of a-z, 0-9 and -");
    }
    if bytes.len() > 63 {
        return Err("it is longer than 63 characters");
    }
    if !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-') {
        return Err("use only a-z (lower case), 0-9 and -");
    }
    if bytes[0] == b'-' || bytes[bytes.len() - 1] == b'-' {
        return Err("it may not begin or end with -");
    }
    Ok(())
}

/// The rule of instance ids: they appear in paths, logs and metrics, so no spaces, slashes or control characters.
fn check_instance_id(text: &str) -> Result<(), &'static str> {
    let bytes = text.as_bytes();
    if bytes.is_empty() || bytes.len() > 128 {
        return Err("use 1 to 128 characters");
    }
    if !bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err("use only a-z, A-Z, 0-9, -, _ and .");
    }
    if bytes[0] == b'.' {
        return Err("it may not begin with a dot");
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text).map_err(|why| NameError::new($kind, text, why))?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use name_type;

name_type!(
    /// The name of a service, such as `web`: an RFC 1123 label in lower case, 1–63 characters.
    ServiceName, "service name", check_label
);
name_type!(
    /// The name of a port of a service, such as `main` or `grpc`: an RFC 1123 label in lower case.
    PortName, "port name", check_label
);
name_type!(
    /// The name of a datacenter, `dc1` unless given: an RFC 1123 label in lower case.
    Datacenter, "datacenter", check_label
);
name_type!(
    /// The id of one running copy of a service, unique in the mesh: 1–128 of `a-z A-Z 0-9 - _ .`.
    InstanceId, "instance id", check_instance_id
);

impl PortName {
    /// The port that a service has unless it names others: `main`.
    pub fn main() -> Self {
        Self("main".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_is_a_lower_case_label() {
        for good in ["a", "web", "a-b", "9to5", &"x".repeat(63)] {
            assert_eq!(good.parse::<ServiceName>().unwrap().as_str(), good);
        }
        for bad in ["", "Web", "a_b", "-a", "a-", "a.b", "*", "a b", "ü", "a\n", &"x".repeat(64)] {
            let error = bad.parse::<ServiceName>().unwrap_err();
            assert_eq!(error.kind, "service name", "{bad:?}");
        }
    }

    #[test]
    fn an_instance_id_can_not_leave_its_folder() {
        for bad in ["", "..", ".", "a/b", "a b", "a\0"] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad:?}");
        }
        assert!("web-Host_1.example".parse::<InstanceId>().is_ok());
    }
}
