//! Config entries of Consul, as settings and intentions, and back.
//!
//! What an entry says is carried whole or the entry is refused, with the field and what to do. What is written as an entry
//! reads back as the same settings, unless [`unsaid`] names something that Consul has no word for. What equals a default is
//! not written.
//!
//! | module | what it holds |
//! |---|---|
//! | `reader` | fields of objects, none of which is passed over |
//! | `defaults`, `router`, `splitter`, `resolver` | the parts of the settings of a service |
//! | `criteria` | what routes and permissions ask of a request |
//! | `sources` | the intentions of a destination |
//! | `global` | `proxy-defaults` |

mod criteria;
mod defaults;
mod global;
mod reader;
mod resolver;
mod router;
mod sources;
mod splitter;
#[cfg(test)]
mod tests;

use std::fmt;

use postern_intentions::{Action, Intention, Party};
use postern_names::ServiceName;
use postern_traffic::ServiceSettings;
use serde_json::{Value, json};

pub use self::defaults::Defaults;
pub use self::global::{entry as proxy_defaults, protocol_of_all};
use self::reader::Reader;
pub use self::reader::says_something;
pub use self::resolver::ResolverPart;
pub use self::sources::{unsaid as unsaid_of_intention, write as write_intentions};
use super::NotCarried;
use postern_traffic::settings::{Route, Split};

/// The label of an entry's `Meta` that holds what Consul has no word for. It is read by people alone.
pub const NOTE: &str = "postern";

/// Kinds of entries that have a counterpart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// What a service speaks, and how much is let in.
    ServiceDefaults,
    /// Which requests go where.
    ServiceRouter,
    /// Shares of the requests.
    ServiceSplitter,
    /// Which instances are meant, and how one is chosen.
    ServiceResolver,
    /// Who may call a service.
    ServiceIntentions,
    /// What holds for every proxy.
    ProxyDefaults,
}

/// The settings of a service that an entry is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    /// `service-defaults`
    Defaults(Defaults),
    /// `service-router`
    Router(Vec<Route>),
    /// `service-splitter`
    Splitter(Vec<Split>),
    /// `service-resolver`
    Resolver(Box<ResolverPart>),
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// Of a service.
    Settings {
        /// Which service.
        service: ServiceName,
        /// A part of its settings; the others stay.
        part: Part,
    },
    /// All permanent intentions of a destination.
    Intentions {
        /// The destination.
        destination: Party,
        /// They.
        intentions: Vec<Intention>,
    },
    /// Of all proxies: nothing but what holds without it.
    ProxyDefaults,
}

/// What an entry cannot say by itself.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// Consul's default policy, to which it sends requests that no permission matches.
    pub otherwise: Action,
    /// The name of the one datacenter that an entry may name.
    pub datacenter: Option<&'a str>,
}

/// Why an entry has a kind that is not carried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// Consul has it, and here is nothing that it could mean.
    #[error("{0}")]
    Absent(&'static str),
    /// Consul has none of that name.
    #[error("invalid config entry kind: {0:?}")]
    Unknown(String),
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ServiceDefaults,
        Self::ServiceRouter,
        Self::ServiceSplitter,
        Self::ServiceResolver,
        Self::ServiceIntentions,
        Self::ProxyDefaults,
    ];

    /// As Consul writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::ServiceDefaults => "service-defaults",
            Self::ServiceRouter => "service-router",
            Self::ServiceSplitter => "service-splitter",
            Self::ServiceResolver => "service-resolver",
            Self::ServiceIntentions => "service-intentions",
            Self::ProxyDefaults => "proxy-defaults",
        }
    }

    /// Reads a kind.
    ///
    /// # Errors
    /// [`KindError`]: those of Consul that have no counterpart say why.
    pub fn parse(word: &str) -> Result<Self, KindError> {
        let known = Self::ALL.into_iter().find(|kind| kind.word() == word);
        known.ok_or_else(|| match ABSENT.iter().find(|(kinds, _)| kinds.contains(&word)) {
            Some((_, sentence)) => KindError::Absent(sentence),
            None => KindError::Unknown(word.chars().take(60).collect()),
        })
    }
}

const ABSENT: [(&[&str], &str); 5] = [
    (
        &[
            "ingress-gateway",
            "terminating-gateway",
            "api-gateway",
            "bound-api-gateway",
            "http-route",
            "tcp-route",
            "inline-certificate",
            "file-system-certificate",
        ],
        "There are no gateways.",
    ),
    (&["exported-services", "sameness-group"], "There is no peering with other clusters."),
    (&["mesh"], "There are no settings for the whole mesh; a sidecar has its flags, and a service its settings."),
    (&["jwt-provider"], "Providers of tokens are set with `meshctl service config apply`."),
    (&["control-plane-request-limit", "rate-limit"], "The limits of the control plane are fixed."),
];

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Part {
    /// The kind of entry that says it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Defaults(_) => Kind::ServiceDefaults,
            Self::Router(_) => Kind::ServiceRouter,
            Self::Splitter(_) => Kind::ServiceSplitter,
            Self::Resolver(_) => Kind::ServiceResolver,
        }
    }

    /// Puts it in the place of what the settings say of the same.
    pub fn set(self, settings: &mut ServiceSettings) {
        match self {
            Self::Defaults(defaults) => defaults.set(settings),
            Self::Router(routes) => settings.routes = routes,
            Self::Splitter(split) => settings.split = split,
            Self::Resolver(resolver) => resolver.set(settings),
        }
    }
}

impl Entry {
    /// Reads an entry. Whether the settings can be is judged with the whole of them.
    ///
    /// # Errors
    /// [`NotCarried`] names the field that has no counterpart, and what to do.
    pub fn read(kind: Kind, value: &Value, surroundings: Surroundings<'_>) -> Result<Self, NotCarried> {
        let mut reader = Reader::of("", value)?;
        reader.pass_over(&["Kind", "CreateIndex", "ModifyIndex", "Hash", "Status"]);
        let name = reader.text("Name")?;
        reader.refuse_scopes()?;
        let service = || name.parse::<ServiceName>().map_err(|error| NotCarried(format!("Name: {error}")));
        match kind {
            Kind::ServiceIntentions => return sources::read(name, reader, surroundings),
            Kind::ProxyDefaults => return global::read(name, reader).map(|()| Self::ProxyDefaults),
            _ => {}
        }
        let service = service()?;
        let mut meta = reader.labels("Meta")?;
        meta.remove(NOTE);
        if let Some((label, _)) = meta.first_key_value() {
            return Err(NotCarried(format!("Meta has no counterpart: leave out the label {label:?}; settings have no labels")));
        }
        let part = match kind {
            Kind::ServiceRouter => Part::Router(router::read(&service, &mut reader)?),
            Kind::ServiceSplitter => Part::Splitter(splitter::read(&service, &mut reader)?),
            Kind::ServiceResolver => Part::Resolver(Box::new(ResolverPart::read(&service, &mut reader, surroundings)?)),
            Kind::ServiceDefaults | Kind::ServiceIntentions | Kind::ProxyDefaults => Part::Defaults(Defaults::read(&mut reader)?),
        };
        reader.finish()?;
        Ok(Self::Settings { service, part })
    }
}

/// The settings of a service as an entry; none where they say nothing of its kind. `revision` is when they were last changed.
pub fn write(kind: Kind, settings: &ServiceSettings, revision: u64) -> Option<Value> {
    let is_blank = *settings == ServiceSettings::of(settings.service.clone());
    let says = match kind {
        Kind::ServiceDefaults => is_blank || Defaults::of(settings) != Defaults::default(),
        Kind::ServiceResolver => is_blank || ResolverPart::of(settings) != ResolverPart::default(),
        Kind::ServiceRouter => !settings.routes.is_empty(),
        Kind::ServiceSplitter => !settings.split.is_empty(),
        Kind::ServiceIntentions | Kind::ProxyDefaults => false,
    };
    if !says {
        return None;
    }
    let mut entry = json!({ "Kind": kind.word(), "Name": settings.service });
    let mut unsaid = Vec::new();
    match kind {
        Kind::ServiceRouter => entry["Routes"] = router::write(settings, &mut unsaid),
        Kind::ServiceSplitter => entry["Splits"] = splitter::write(settings),
        Kind::ServiceResolver => ResolverPart::of(settings).write(&mut entry, &mut unsaid),
        Kind::ServiceDefaults | Kind::ServiceIntentions | Kind::ProxyDefaults => {
            Defaults::of(settings).write(&mut entry, &mut unsaid);
        }
    }
    if !unsaid.is_empty() {
        entry["Meta"] = json!({ NOTE: unsaid.join("; ") });
    }
    entry["CreateIndex"] = revision.into();
    entry["ModifyIndex"] = revision.into();
    Some(entry)
}

/// What the settings say of the kind of entry, and Consul has no word for: who writes the entry anew would lose it.
pub fn unsaid(kind: Kind, settings: &ServiceSettings) -> Option<String> {
    let entry = write(kind, settings, 0)?;
    entry["Meta"][NOTE].as_str().map(ToOwned::to_owned)
}

/// Takes out of the settings what an entry of this kind says.
pub fn clear(kind: Kind, settings: &mut ServiceSettings) {
    match kind {
        Kind::ServiceDefaults => Defaults::default().set(settings),
        Kind::ServiceRouter => settings.routes.clear(),
        Kind::ServiceSplitter => settings.split.clear(),
        Kind::ServiceResolver => ResolverPart::default().set(settings),
        Kind::ServiceIntentions | Kind::ProxyDefaults => {}
    }
}
