//! Tokens, policies and roles of access control, as the view holds them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use parking_lot::Mutex;
use postern_names::ServiceName;

use crate::acl::{Grants, MANAGEMENT, Rule, ServiceIdentity, of_management, parse};
use crate::records::{AccessPolicyRecord, AccessRoleRecord, AccessTokenRecord, Links};

/// The key of the token that stands for requests without one.
pub const ANONYMOUS: &str = "anonymous";

/// Something that is stored: the record and the revision that last changed it, or the reason why it cannot be read.
type Stored<T> = Result<(T, u64), String>;

/// Tokens, policies and roles.
#[derive(Debug, Default)]
pub struct AccessView {
    /// By the hash of the secret.
    tokens: BTreeMap<String, (AccessTokenRecord, u64)>,
    policies: BTreeMap<String, Stored<AccessPolicyRecord>>,
    rules: HashMap<String, Vec<Rule>>,
    roles: BTreeMap<String, Stored<AccessRoleRecord>>,
    by_accessor: HashMap<String, String>,
    revision: u64,
    /// What each token that was shown grants, until anything here changes.
    grants: Mutex<HashMap<String, Arc<Grants>>>,
    /// What each service that was asked for may, until anything here changes.
    of_services: Mutex<HashMap<ServiceName, Arc<Grants>>>,
}

/// Who shows a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The name of the token.
    pub accessor: String,
    /// What it grants.
    pub grants: Arc<Grants>,
}

impl AccessView {
    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All tokens but the anonymous one's key: hash, record, revision.
    pub fn tokens(&self) -> impl Iterator<Item = (&String, &(AccessTokenRecord, u64))> {
        self.tokens.iter()
    }

    /// A token by its name, with the hash of its secret.
    pub fn token(&self, accessor: &str) -> Option<(&String, &(AccessTokenRecord, u64))> {
        self.tokens.get_key_value(self.by_accessor.get(accessor)?)
    }

    /// All policies that can be read.
    pub fn policies(&self) -> impl Iterator<Item = &(AccessPolicyRecord, u64)> {
        self.policies.values().filter_map(|stored| stored.as_ref().ok())
    }

    /// A policy.
    pub fn policy(&self, id: &str) -> Option<&(AccessPolicyRecord, u64)> {
        self.policies.get(id)?.as_ref().ok()
    }

    /// All roles that can be read.
    pub fn roles(&self) -> impl Iterator<Item = &(AccessRoleRecord, u64)> {
        self.roles.values().filter_map(|stored| stored.as_ref().ok())
    }

    /// A role.
    pub fn role(&self, id: &str) -> Option<&(AccessRoleRecord, u64)> {
        self.roles.get(id)?.as_ref().ok()
    }

    /// Who has this secret, by its hash; nobody where it is unknown or has ended.
    pub fn bearer(&self, hash: &str, now: SystemTime, datacenter: &str) -> Option<Bearer> {
        let (token, _) = self.tokens.get(hash)?;
        if token.expires_at.is_some_and(|end| end <= now) {
            return None;
        }
        let mut made = self.grants.lock();
        let grants = made.entry(hash.to_owned()).or_insert_with(|| Arc::new(self.grants_of(&token.links, datacenter)));
        Some(Bearer { accessor: token.accessor.clone(), grants: Arc::clone(grants) })
    }

    /// What a request without a secret may do.
    pub fn anonymous(&self, now: SystemTime, datacenter: &str) -> Arc<Grants> {
        self.bearer(ANONYMOUS, now, datacenter).map(|bearer| bearer.grants).unwrap_or_default()
    }

    /// What the sidecars of a service may for it: find every other, as a token of its service identity may, what the roles
    /// grant that name it, and what everybody may without a token. A role that cannot be read might name it and deny, so nothing is granted beside it.
    pub fn of_service(&self, service: &ServiceName, datacenter: &str) -> Arc<Grants> {
        let mut made = self.of_services.lock();
        let grants = made.entry(service.clone()).or_insert_with(|| {
            if self.roles.values().any(Result::is_err) {
                return Arc::default();
            }
            let names_it = |role: &&AccessRoleRecord| role.services.contains(service);
            let anonymous = self.tokens.get(ANONYMOUS).filter(|(token, _)| token.expires_at.is_none());
            let mut links = anonymous.map(|(token, _)| token.links.clone()).unwrap_or_default();
            links.roles.extend(self.roles().map(|(role, _)| role).filter(names_it).map(|role| role.id.clone()));
            links.service_identities.push(ServiceIdentity { service: service.to_string() });
            Arc::new(self.grants_of(&links, datacenter))
        });
        Arc::clone(grants)
    }

    /// All rules that the links lead to. What was deleted grants nothing; what cannot be read might deny, so nothing is
    /// granted beside it.
    fn grants_of(&self, links: &Links, datacenter: &str) -> Grants {
        let roles = links.roles.iter().filter_map(|id| self.roles.get(id));
        let mut parts = vec![links];
        for role in roles {
            match role {
                Ok((role, _)) => parts.push(&role.links),
                Err(_) => return Grants::default(),
            }
        }
        let mut rules = Vec::new();
        for links in parts {
            for id in &links.policies {
                match self.rules.get(id) {
                    Some(known) => rules.extend(known.iter().cloned()),
                    None if id == MANAGEMENT => rules.extend(of_management()),
                    None if self.policies.contains_key(id) => return Grants::default(),
                    None => {}
                }
            }
            rules.extend(links.service_identities.iter().flat_map(|identity| identity.rules()));
            let here = links.node_identities.iter().filter(|identity| identity.datacenter == datacenter);
            rules.extend(here.flat_map(|identity| identity.rules()));
        }
        Grants::of(rules)
    }

    pub(super) fn put_token(&mut self, hash: &str, record: Option<AccessTokenRecord>, revision: u64) {
        self.changed(revision);
        if let Some((before, _)) = self.tokens.remove(hash) {
            self.by_accessor.remove(&before.accessor);
        }
        if let Some(record) = record {
            self.by_accessor.insert(record.accessor.clone(), hash.to_owned());
            self.tokens.insert(hash.to_owned(), (record, revision));
        }
    }

    pub(super) fn put_policy(&mut self, id: &str, record: Option<Result<AccessPolicyRecord, String>>, revision: u64) {
        self.changed(revision);
        self.policies.remove(id);
        self.rules.remove(id);
        let Some(record) = record else { return };
        let read = record.and_then(|record| {
            let rules = parse(&record.rules).map_err(|error| error.to_string())?;
            Ok((record, rules))
        });
        match read {
            Ok((record, rules)) => {
                self.rules.insert(id.to_owned(), rules);
                self.policies.insert(id.to_owned(), Ok((record, revision)));
            }
            Err(why) => {
                tracing::error!(policy = id, why, "a policy cannot be read: tokens with it may do nothing");
                self.policies.insert(id.to_owned(), Err(why));
            }
        }
    }

    pub(super) fn put_role(&mut self, id: &str, record: Option<Result<AccessRoleRecord, String>>, revision: u64) {
        self.changed(revision);
        match record {
            None => self.roles.remove(id),
            Some(record) => {
                if let Err(why) = &record {
                    tracing::error!(role = id, why, "a role cannot be read: tokens with it may do nothing");
                }
                self.roles.insert(id.to_owned(), record.map(|record| (record, revision)))
            }
        };
    }

    /// Gives the anonymous token a policy.
    #[cfg(test)]
    pub(crate) fn let_everybody(&mut self, rules: &str) {
        let id = String::from("everybody");
        let policy = AccessPolicyRecord {
            id: id.clone(),
            name: id.clone(),
            description: String::new(),
            rules: rules.into(),
            created_in: None,
        };
        self.put_policy(&id, Some(Ok(policy)), 1);
        let links = Links { policies: vec![id], ..Links::default() };
        self.put_token(ANONYMOUS, Some(AccessTokenRecord { links, ..crate::acl::anonymous() }), 1);
    }

    fn changed(&mut self, revision: u64) {
        self.revision = revision;
        self.grants.get_mut().clear();
        self.of_services.get_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::acl::{Access, Resource};

    fn policy(id: &str, rules: &str) -> AccessPolicyRecord {
        AccessPolicyRecord { id: id.into(), name: id.into(), description: String::new(), rules: rules.into(), created_in: None }
    }

    fn token(policies: &[&str], roles: &[&str]) -> AccessTokenRecord {
        let own = |ids: &[&str]| ids.iter().map(ToString::to_string).collect();
        AccessTokenRecord {
            accessor: "a".into(),
            description: String::new(),
            links: Links { policies: own(policies), roles: own(roles), ..Links::default() },
            local: false,
            expires_at: None,
            created_at: SystemTime::UNIX_EPOCH,
            created_by: String::new(),
            created_in: None,
        }
    }

    fn may(view: &AccessView, access: Access, key: &str) -> bool {
        let bearer = view.bearer("hash", SystemTime::UNIX_EPOCH, "dc1");
        bearer.is_some_and(|bearer| bearer.grants.may(access, Resource::Key(key.as_bytes())))
    }

    #[test]
    fn a_token_may_what_its_policies_and_roles_grant_at_this_moment() {
        let mut view = AccessView::default();
        view.put_policy("read", Some(Ok(policy("read", "key_prefix \"\" { policy = \"read\" }"))), 1);
        view.put_policy("write", Some(Ok(policy("write", "key_prefix \"app/\" { policy = \"write\" }"))), 2);
        let role = AccessRoleRecord {
            id: "role".into(),
            name: "role".into(),
            description: String::new(),
            links: Links { policies: vec!["write".into()], ..Links::default() },
            services: BTreeSet::new(),
            created_in: None,
        };
        view.put_role("role", Some(Ok(role)), 3);
        view.put_token("hash", Some(token(&["read"], &["role"])), 4);
        assert!(may(&view, Access::Read, "x") && !may(&view, Access::Write, "x") && may(&view, Access::Write, "app/x"));
        view.put_policy("write", Some(Ok(policy("write", "key_prefix \"app/\" { policy = \"deny\" }"))), 5);
        assert!(may(&view, Access::Read, "x") && !may(&view, Access::Read, "app/x"), "a change holds at once");
        view.put_policy("write", None, 6);
        assert!(may(&view, Access::Read, "app/x"), "what was deleted says nothing");
        view.put_token("hash", None, 7);
        assert!(!may(&view, Access::Read, "x"));
        assert_eq!(view.revision(), 7);
    }

    #[test]
    fn a_service_may_what_the_roles_grant_that_name_it_and_find_every_other() {
        let mut view = AccessView::default();
        view.put_policy("app", Some(Ok(policy("app", "key_prefix \"app/\" { policy = \"read\" }"))), 1);
        view.put_policy("hide", Some(Ok(policy("hide", "service \"db\" { policy = \"deny\" }"))), 2);
        let web: ServiceName = "web".parse().unwrap();
        let role = |policy: &str, services: &[&ServiceName]| AccessRoleRecord {
            id: policy.into(),
            name: policy.into(),
            description: String::new(),
            links: Links { policies: vec![policy.into()], ..Links::default() },
            services: services.iter().map(|service| (*service).clone()).collect(),
            created_in: None,
        };
        let may = |view: &AccessView, service: &str, resource| {
            view.of_service(&service.parse().unwrap(), "dc1").may(Access::Read, resource)
        };
        let (key, db) = (Resource::Key(b"app/x"), Resource::Service("db"));
        view.put_role("app", Some(Ok(role("app", &[]))), 3);
        assert!(!may(&view, "web", key) && may(&view, "web", db), "a role that names nobody is for tokens");
        view.put_role("app", Some(Ok(role("app", &[&web]))), 4);
        assert!(may(&view, "web", key) && !may(&view, "api", key) && !may(&view, "web", Resource::Key(b"other")));
        view.put_role("hide", Some(Ok(role("hide", &[&web]))), 5);
        assert!(!may(&view, "web", db) && may(&view, "api", db));
        view.put_role("later", Some(Err("new".into())), 6);
        assert!(!may(&view, "web", key), "it might deny");
        view.put_role("later", None, 7);
        assert!(may(&view, "web", key));
    }

    #[test]
    fn what_cannot_be_read_grants_nothing_beside_it() {
        let mut view = AccessView::default();
        view.put_policy("read", Some(Ok(policy("read", "key_prefix \"\" { policy = \"read\" }"))), 1);
        view.put_policy("later", Some(Ok(policy("later", "key_suffix \"x\" { policy = \"deny\" }"))), 2);
        view.put_token("hash", Some(token(&["read", "later"], &[])), 3);
        assert!(!may(&view, Access::Read, "x"));
    }

    #[test]
    fn a_token_that_has_ended_is_nobody() {
        let mut view = AccessView::default();
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        view.put_token("hash", Some(AccessTokenRecord { expires_at: Some(end), ..token(&[MANAGEMENT], &[]) }), 1);
        assert!(may(&view, Access::Write, "x"));
        assert_eq!(view.bearer("hash", end, "dc1"), None);
        assert_eq!(*view.anonymous(end, "dc1"), Grants::default());
    }
}
