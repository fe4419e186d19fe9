//! What can be read and written.

use std::fmt;

/// What a request wants to touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// One key of the key-value store.
    Key(&'a [u8]),
    /// All keys that begin so. To write them is to write each of them; to list them is to see those that may be read.
    KeyPrefix(&'a [u8]),
    /// A service, its instances and their checks. Empty: any.
    Service(&'a str),
    /// A node and its checks. Empty: any.
    Node(&'a str),
    /// The sessions of a node. Empty: any.
    Session(&'a str),
    /// The intentions of a destination. Empty: any.
    Intentions(&'a str),
    /// Every intention, of whatever destination.
    AllIntentions,
    /// Every service.
    AllServices,
    /// The control plane itself.
    Operator,
    /// Tokens, policies and roles.
    Acl,
    /// User events of a name. Empty: any.
    Event(&'a str),
    /// Prepared queries of a name. Empty: any.
    Query(&'a str),
    /// What an agent of this name says of itself.
    Agent(&'a str),
}

/// How it is touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Its content is read.
    Read,
    /// Names are listed; what may not be read is then left out one by one.
    List,
    /// It is made, changed or deleted.
    Write,
}

impl Resource<'_> {
    /// The word for it in policies and errors.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) | Self::KeyPrefix(_) => "key",
            Self::Service(_) | Self::AllServices => "service",
            Self::Node(_) => "node",
            Self::Session(_) => "session",
            Self::Intentions(_) | Self::AllIntentions => "intention",
            Self::Operator => "operator",
            Self::Acl => "acl",
            Self::Event(_) => "event",
            Self::Query(_) => "query",
            Self::Agent(_) => "agent",
        }
    }

    /// Its name, where it has one.
    pub fn name(&self) -> &[u8] {
        match self {
            Self::Key(name) | Self::KeyPrefix(name) => name,
            Self::Service(name)
            | Self::Node(name)
            | Self::Session(name)
            | Self::Intentions(name)
            | Self::Event(name)
            | Self::Query(name)
            | Self::Agent(name) => name.as_bytes(),
            Self::AllServices | Self::AllIntentions | Self::Operator | Self::Acl => b"",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Write => "write",
        })
    }
}
