//! Who asks, and what it may.

use std::sync::Arc;

use super::grants::Grants;
use super::resource::{Access, Resource};

/// Who a request comes from, as far as access to resources goes. It travels with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    holder: Holder,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    /// The operator, by token or on the UNIX socket.
    Operator,
    /// Somebody with a token.
    Token {
        /// Which.
        accessor: String,
        /// What it may.
        grants: Arc<Grants>,
    },
    /// Somebody without a credential.
    Anonymous(Arc<Grants>),
}

/// A request may not do what it asks for. The words are Consul's, since clients look for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Permission denied: {holder} lacks permission '{kind}:{access}'{on}{hint}")]
pub struct Denied {
    holder: String,
    kind: &'static str,
    access: Access,
    on: String,
    hint: &'static str,
}

impl Authority {
    /// The operator: may do everything.
    pub fn operator() -> Self {
        Self { holder: Holder::Operator }
    }

    /// Somebody who showed no credential, and may nothing.
    pub fn anonymous() -> Self {
        Self::of_anonymous(Arc::default())
    }

    /// Somebody who showed no credential.
    pub fn of_anonymous(grants: Arc<Grants>) -> Self {
        Self { holder: Holder::Anonymous(grants) }
    }

    /// Somebody who showed the secret of a token.
    pub fn of_token(accessor: String, grants: Arc<Grants>) -> Self {
        Self { holder: Holder::Token { accessor, grants } }
    }

    /// The name of the token that was shown.
    pub fn accessor(&self) -> Option<&str> {
        match &self.holder {
            Holder::Token { accessor, .. } => Some(accessor),
            Holder::Operator | Holder::Anonymous(_) => None,
        }
    }

    /// Whether it is the operator, by token or on the UNIX socket.
    pub fn is_operator(&self) -> bool {
        matches!(self.holder, Holder::Operator)
    }

    /// Whether it showed no credential.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.holder, Holder::Anonymous(_))
    }

    /// Whether it may touch this resource so.
    pub fn may(&self, access: Access, resource: Resource<'_>) -> bool {
        match &self.holder {
            Holder::Operator => true,
            Holder::Token { grants, .. } | Holder::Anonymous(grants) => grants.may(access, resource),
        }
    }

    /// Whether it may touch this resource so, as a result.
    ///
    /// # Errors
    /// [`Denied`] names the permission that is missing.
    pub fn require(&self, access: Access, resource: Resource<'_>) -> Result<(), Denied> {
        if self.may(access, resource) {
            return Ok(());
        }
        let (holder, hint) = match &self.holder {
            Holder::Operator => ("the operator token".to_owned(), ""),
            Holder::Token { accessor, .. } => (format!("token with AccessorID '{accessor}'"), ""),
            Holder::Anonymous(_) => (
                "anonymous token".to_owned(),
                ". The anonymous token is used implicitly when a request does not specify a token.",
            ),
        };
        let name = resource.name();
        let on = if name.is_empty() { String::new() } else { format!(" on {:?}", shown(name)) };
        Err(Denied { holder, kind: resource.kind(), access, on, hint })
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_may_everything_and_nobody_else_anything() {
        for resource in [Resource::Key(b"a"), Resource::KeyPrefix(b""), Resource::Operator, Resource::Service("web")] {
            for access in [Access::Read, Access::List, Access::Write] {
                assert!(Authority::operator().may(access, resource));
                assert!(!Authority::anonymous().may(access, resource));
            }
        }
    }

    #[test]
    fn a_denial_names_the_permission_that_is_missing() {
        let denied = Authority::anonymous().require(Access::Write, Resource::Key(b"app/a")).unwrap_err().to_string();
        assert!(denied.starts_with("Permission denied: anonymous token lacks permission 'key:write' on \"app/a\""), "{denied}");
        let denied = Authority::anonymous().require(Access::Read, Resource::Operator).unwrap_err().to_string();
        assert!(denied.contains("'operator:read'."), "{denied}");
    }
}
