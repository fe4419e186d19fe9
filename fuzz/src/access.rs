//! The rules of a policy of access control.

use postern_control::acl::{Access, Grants, Resource, parse};

/// HCL or JSON. The order of rules says nothing, and nobody may write what it may not read.
pub fn access_policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut rules = match parse(text) {
        Ok(rules) => rules,
        Err(error) => return assert!(error.line > 0 && !error.why.is_empty()),
    };
    let grants = Grants::of(rules.clone());
    rules.reverse();
    assert_eq!(Grants::of(rules.clone()), grants);
    for rule in &rules {
        let resource = Resource::Key(rule.name.as_bytes());
        assert!(!grants.may(Access::Write, resource) || grants.may(Access::Read, resource));
        let below = Resource::KeyPrefix(rule.name.as_bytes());
        assert!(!grants.may(Access::Write, below) || grants.may(Access::List, below));
    }
}
