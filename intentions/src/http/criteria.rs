//! Criteria on requests where no verdict hangs on them: which route a request takes, which limit counts it.

use http::HeaderMap;
use postern_names::PortName;

use super::VerifiedTokens;
use super::permissions::{CompiledPermission, Facts};
use crate::error::IntentionError;
use crate::{Action, HeaderCriterion, PathCriterion, Permission, QueryCriterion};

/// Criteria on requests, ready to match as those of a permission that allows: all must hold, each for all values of its
/// name, and what is not understood does not match.
#[derive(Debug)]
pub struct RequestCriteria {
    permission: CompiledPermission,
    port: PortName,
}

impl RequestCriteria {
    /// Methods in upper case, none: every method; no path: every path.
    ///
    /// # Errors
    /// The first criterion that is not valid, as for a permission.
    pub fn compile(
        methods: Vec<String>,
        path: Option<PathCriterion>,
        headers: Vec<HeaderCriterion>,
        query: Vec<QueryCriterion>,
    ) -> Result<Self, IntentionError> {
        let (ports, jwt) = (Vec::new(), Vec::new());
        let permission = Permission { action: Action::Allow, methods, path, headers, query, ports, jwt };
        permission.validate()?;
        Ok(Self { permission: CompiledPermission::compile(&permission)?, port: PortName::main() })
    }

    /// Whether all criteria hold of a request. The path is compared as it is given.
    pub fn hold(&self, method: &str, path: &str, query: Option<&str>, headers: &HeaderMap) -> bool {
        const NO_TOKENS: &VerifiedTokens = &VerifiedTokens::none();
        let facts = Facts { method, path, query, port: &self.port, headers, tokens: NO_TOKENS };
        self.permission.first_failure(&facts).is_none()
    }
}
