//! What a policy says: rules, and their levels.

use serde::{Deserialize, Serialize};

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Keys of the key-value store.
    Key,
    /// Services, their instances, checks and settings.
    Service,
    /// Nodes and their checks.
    Node,
    /// Sessions, by their node.
    Session,
    /// Intentions, by their destination.
    Intentions,
    /// User events.
    Event,
    /// Prepared queries.
    Query,
    /// What an agent says of itself, by its name.
    Agent,
    /// The control plane itself; has no name.
    Operator,
    /// Tokens, policies and roles of this kind; has no name.
    Acl,
}

impl Kind {
    /// Kinds whose rules have a name.
    pub const NAMED: [(&'static str, Self); 8] = [
        ("key", Self::Key),
        ("service", Self::Service),
        ("node", Self::Node),
        ("session", Self::Session),
        ("intentions", Self::Intentions),
        ("event", Self::Event),
        ("query", Self::Query),
        ("agent", Self::Agent),
    ];
    /// Kinds whose rules have none.
    pub const NAMELESS: [(&'static str, Self); 2] = [("operator", Self::Operator), ("acl", Self::Acl)];
}

/// Which names a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reach {
    /// This one.
    Exact,
    /// All that begin so.
    Prefix,
}

/// What a rule grants. Each level but the first grants what those before it grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// Nothing, whatever else would.
    Deny,
    /// To read.
    Read,
    /// To list, for keys.
    List,
    /// To change.
    Write,
}

/// One rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// What it is about.
    pub kind: Kind,
    /// Which names.
    pub reach: Reach,
    /// The name, or how it begins; empty for a kind without names.
    pub name: String,
    /// What it grants.
    pub level: Level,
}

impl Rule {
    /// A rule for one name.
    pub fn exact(kind: Kind, name: &str, level: Level) -> Self {
        Self { kind, reach: Reach::Exact, name: name.to_owned(), level }
    }

    /// A rule for all names that begin so.
    pub fn prefix(kind: Kind, name: &str, level: Level) -> Self {
        Self { kind, reach: Reach::Prefix, name: name.to_owned(), level }
    }
}

/// The rules of whoever may do everything.
pub fn of_management() -> Vec<Rule> {
    let named = Kind::NAMED.into_iter().map(|(_, kind)| Rule::prefix(kind, "", Level::Write));
    named.chain(Kind::NAMELESS.into_iter().map(|(_, kind)| Rule::exact(kind, "", Level::Write))).collect()
}

/// Stands for the rules that a service needs to register itself and to find others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceIdentity {
    /// The service.
    pub service: String,
}

impl ServiceIdentity {
    /// As Consul spells them out.
    pub fn rules(&self) -> Vec<Rule> {
        let sidecar = format!("{}-sidecar-proxy", self.service);
        vec![
            Rule::exact(Kind::Service, &self.service, Level::Write),
            Rule::exact(Kind::Service, &sidecar, Level::Write),
            Rule::exact(Kind::Intentions, &self.service, Level::Read),
            Rule::prefix(Kind::Service, "", Level::Read),
            Rule::prefix(Kind::Node, "", Level::Read),
        ]
    }
}

/// Stands for the rules that an agent on a node needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// The node.
    pub node: String,
    /// Its datacenter: elsewhere it grants nothing.
    pub datacenter: String,
}

impl NodeIdentity {
    /// As Consul spells them out.
    pub fn rules(&self) -> Vec<Rule> {
        vec![Rule::exact(Kind::Node, &self.node, Level::Write), Rule::prefix(Kind::Service, "", Level::Read)]
    }
}
