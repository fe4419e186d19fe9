//! `service-resolver`: which instances of a service are meant, and how one of them is chosen.

use std::collections::BTreeMap;

use postern_names::ServiceName;
use postern_traffic::settings::{
    Balancer, HashOn, LocalityPreference, Policy, Redirect, Resolver, SourceAddress, Subset, SubsetRef, Timeouts,
};
use postern_traffic::{Period, ServiceSettings};
use serde_json::{Value, json};

use super::super::words::{self, Word};
use super::super::{NotCarried, duration};
use super::Surroundings;
use super::reader::Reader;
use super::router::period;
use super::splitter::{other_service, put_target, subset};

const POLICIES: [(&str, Policy); 5] = [
    ("least_request", Policy::LeastRequest),
    ("round_robin", Policy::RoundRobin),
    ("random", Policy::Random),
    ("ring_hash", Policy::RingHash),
    ("maglev", Policy::Maglev),
];

/// What `service-resolver` says of a service.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolverPart {
    /// Which instances.
    pub resolver: Resolver,
    /// To reach an instance.
    pub connect: Period,
    /// For a whole request.
    pub request: Period,
    /// Which instance of them.
    pub balancer: Balancer,
}

impl Default for ResolverPart {
    fn default() -> Self {
        let Timeouts { connect, request, .. } = Timeouts::default();
        Self { resolver: Resolver::default(), connect, request, balancer: Balancer::default() }
    }
}

impl ResolverPart {
    pub(super) fn of(settings: &ServiceSettings) -> Self {
        let Timeouts { connect, request, .. } = settings.timeouts;
        Self { resolver: settings.resolver.clone(), connect, request, balancer: settings.balancer.clone() }
    }

    pub(super) fn set(self, settings: &mut ServiceSettings) {
        settings.resolver = self.resolver;
        settings.timeouts.connect = self.connect;
        settings.timeouts.request = self.request;
        settings.balancer = self.balancer;
    }

    pub(super) fn read(own: &ServiceName, reader: &mut Reader<'_>, surroundings: Surroundings<'_>) -> Result<Self, NotCarried> {
        let mut part = Self::default();
        let resolver = &mut part.resolver;
        for (name, mut of) in reader.map("Subsets")? {
            resolver.subsets.insert(name.to_owned(), subset_of(&mut of)?);
            of.finish()?;
        }
        resolver.default_subset = subset(reader, "DefaultSubset")?;
        if let Some(mut redirect) = reader.object("Redirect")? {
            resolver.redirect = redirect_of(own, &mut redirect, surroundings)?;
            redirect.finish()?;
        }
        for (of, mut failover) in reader.map("Failover")? {
            if of != "*" {
                return Err(NotCarried(format!(
                    "Failover of subset {of:?} has no counterpart: write it for \"*\", all of the service"
                )));
            }
            resolver.failover = targets(own, &mut failover, surroundings)?;
            failover.finish()?;
        }
        let (connect, request) = (reader.duration("ConnectTimeout")?, reader.duration("RequestTimeout")?);
        if !connect.is_zero() {
            part.connect = period(connect);
        }
        if !request.is_zero() {
            part.request = period(request);
        }
        if let Some(mut balancer) = reader.object("LoadBalancer")? {
            part.balancer = balancer_of(&mut balancer)?;
            balancer.finish()?;
        }
        if let Some(mut locality) = reader.object("PrioritizeByLocality")? {
            let place = locality.place_of("Mode");
            part.balancer.locality = match locality.text("Mode")? {
                "" | "failover" => LocalityPreference::Prefer,
                "none" => LocalityPreference::Ignore,
                other => return Err(NotCarried(format!("{place} {other:?} has no counterpart: write failover or none"))),
            };
            locality.finish()?;
        }
        Ok(part)
    }

    pub(super) fn write(self, entry: &mut Value, unsaid: &mut Vec<String>) {
        let Self { resolver, connect, request, balancer } = self;
        let default = Self::default();
        if let Some(subset) = &resolver.default_subset {
            entry["DefaultSubset"] = subset.as_str().into();
        }
        for (name, subset) in &resolver.subsets {
            entry["Subsets"][name] = json!({ "Filter": filter(subset) });
        }
        if let Some(redirect) = &resolver.redirect {
            entry["Redirect"] = json!({});
            put_target(&mut entry["Redirect"], redirect.service.as_ref(), redirect.subset.as_ref());
            if redirect.port.is_some() {
                unsaid.push("Redirect: its port is not shown".into());
            }
        }
        match resolver.failover.as_slice() {
            [] => {}
            [one] => {
                entry["Failover"]["*"] = json!({});
                put_target(&mut entry["Failover"]["*"], one.service.as_ref(), one.subset.as_ref());
            }
            several => entry["Failover"]["*"] = json!({ "Targets": several.iter().map(target).collect::<Vec<_>>() }),
        }
        for (name, own, default) in [("ConnectTimeout", connect, default.connect), ("RequestTimeout", request, default.request)] {
            match own {
                own if own == default => {}
                own if own.is_zero() => unsaid.push(format!("{name}: there is no limit")),
                own => entry[name] = duration::format(own.duration()).into(),
            }
        }
        write_balancer(&balancer, entry);
    }
}

/// Instances by their labels; Consul has expressions, of which these are the equal ones.
fn subset_of(reader: &mut Reader<'_>) -> Result<Subset, NotCarried> {
    let place = reader.place_of("Filter");
    if reader.flag("OnlyPassing")? {
        let place = reader.place_of("OnlyPassing");
        return Err(NotCarried(format!(
            "{place} has no counterpart: instances whose checks warn are called; let a check fail for those that are not to be"
        )));
    }
    let text = reader.text("Filter")?;
    let refuse = |why: &str| {
        NotCarried(format!(
            "{place} {text:?} {why}: write Service.Meta.KEY == VALUE, several with `and`; instances are told apart by their labels (--meta K=V)"
        ))
    };
    let words = words::words(text).map_err(|error| refuse(&error.to_string()))?;
    if words.is_empty() {
        return Err(refuse("names no label"));
    }
    let mut meta = BTreeMap::new();
    let is_and = |word: &Word| matches!(word, Word::Bare(text) if text == "and");
    for equation in words.split(is_and) {
        let (key, value) = equality(equation).ok_or_else(|| refuse("has no counterpart"))?;
        if meta.insert(key, value.clone()).is_some_and(|before| before != value) {
            return Err(refuse("means no instance"));
        }
    }
    Ok(Subset { meta })
}

/// `Service.Meta.KEY == VALUE` or `Service.Meta["KEY"] == VALUE`.
fn equality(words: &[Word]) -> Option<(String, String)> {
    let bare = |word: &Word, text: &str| matches!(word, Word::Bare(known) if known == text);
    let [service, Word::Sign("."), meta, rest @ ..] = words else { return None };
    if !bare(service, "Service") || !bare(meta, "Meta") {
        return None;
    }
    let (key, value) = match rest {
        [Word::Sign("."), Word::Bare(key), Word::Sign("=="), value @ ..] => (key, value),
        [Word::Sign("["), Word::Quoted(key), Word::Sign("]"), Word::Sign("=="), value @ ..] => (key, value),
        _ => return None,
    };
    match value {
        [Word::Quoted(value)] => Some((key.clone(), value.clone())),
        // 1.2 is three words.
        [Word::Bare(first), parts @ ..] => {
            let mut value = first.clone();
            for part in parts.chunks(2) {
                let [Word::Sign("."), Word::Bare(part)] = part else { return None };
                value = format!("{value}.{part}");
            }
            Some((key.clone(), value))
        }
        _ => None,
    }
}

fn filter(subset: &Subset) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let equality = |(key, value): (&String, &String)| {
        let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let selector = if is_bare { format!("Service.Meta.{key}") } else { format!("Service.Meta[{}]", quoted(key)) };
        format!("{selector} == {}", quoted(value))
    };
    subset.meta.iter().map(equality).collect::<Vec<_>>().join(" and ")
}

/// Other datacenters and clusters, which there are none of.
fn refuse_elsewhere(reader: &mut Reader<'_>, surroundings: Surroundings<'_>) -> Result<(), NotCarried> {
    reader.refuse_scopes()?;
    let own: Vec<&str> = surroundings.datacenter.into_iter().collect();
    reader.refuse_but("Datacenter", &own, "there is one datacenter; leave it out")?;
    reader.refuse("Peer", "there is no peering with other clusters; leave it out")?;
    reader.refuse("SamenessGroup", "there is no peering with other clusters; leave it out")
}

fn redirect_of(
    own: &ServiceName,
    reader: &mut Reader<'_>,
    surroundings: Surroundings<'_>,
) -> Result<Option<Redirect>, NotCarried> {
    refuse_elsewhere(reader, surroundings)?;
    let redirect =
        Redirect { service: other_service(own, reader, "Service")?, subset: subset(reader, "ServiceSubset")?, port: None };
    Ok(Some(redirect).filter(|redirect| *redirect != Redirect::default()))
}

fn targets(own: &ServiceName, reader: &mut Reader<'_>, surroundings: Surroundings<'_>) -> Result<Vec<SubsetRef>, NotCarried> {
    refuse_elsewhere(reader, surroundings)?;
    let place = reader.place_of("Datacenters");
    let datacenters = reader.texts("Datacenters")?;
    if datacenters.iter().any(|name| surroundings.datacenter != Some(name)) {
        return Err(NotCarried(format!("{place} has no counterpart: there is one datacenter; write Targets with services")));
    }
    if let Some(mut policy) = reader.object("Policy")? {
        policy.refuse_but("Mode", &["sequential"], "targets are taken in their order; sort them so")?;
        policy.refuse("Regions", "targets are taken in their order; sort them so")?;
        policy.finish()?;
    }
    let single = SubsetRef { service: other_service(own, reader, "Service")?, subset: subset(reader, "ServiceSubset")? };
    let listed = reader.objects("Targets")?;
    if single != SubsetRef::default() {
        return if listed.is_empty() {
            Ok(vec![single])
        } else {
            Err(NotCarried(format!("{} and Service are both given: keep one", reader.place_of("Targets"))))
        };
    }
    let one = |mut target: Reader<'_>| {
        refuse_elsewhere(&mut target, surroundings)?;
        let read =
            SubsetRef { service: other_service(own, &mut target, "Service")?, subset: subset(&mut target, "ServiceSubset")? };
        target.finish()?;
        Ok(read)
    };
    let targets = listed.into_iter().map(one).collect::<Result<Vec<_>, NotCarried>>()?;
    if targets.is_empty() {
        return Err(NotCarried(format!(
            "{} names no other place: give Service, ServiceSubset or Targets",
            reader.place_of("Targets")
        )));
    }
    Ok(targets)
}

fn target(target: &SubsetRef) -> Value {
    let mut written = json!({});
    put_target(&mut written, target.service.as_ref(), target.subset.as_ref());
    written
}

fn balancer_of(reader: &mut Reader<'_>) -> Result<Balancer, NotCarried> {
    let cure = "the sizes are fixed; leave it out";
    reader.refuse("RingHashConfig", cure)?;
    reader.refuse("LeastRequestConfig", "two instances are compared; leave it out")?;
    let place = reader.place_of("Policy");
    let policy = match reader.text("Policy")? {
        "" => Policy::default(),
        word => POLICIES.iter().find(|(known, _)| *known == word).map(|(_, policy)| *policy).ok_or_else(|| {
            NotCarried(format!(
                "{place} {word:?} is none of least_request, round_robin, random, ring_hash, maglev: write one of them"
            ))
        })?,
    };
    let policies = reader.objects("HashPolicies")?;
    let last = policies.len().saturating_sub(1);
    let mut hash_on = Vec::new();
    for (number, mut of) in policies.into_iter().enumerate() {
        hash_on.push(hash_policy(&mut of)?);
        let terminal = of.place_of("Terminal");
        if !of.flag("Terminal")? && number < last {
            return Err(NotCarried(format!(
                "{terminal} is false, and what follows would be hashed too: set it; the first that a request has decides"
            )));
        }
        of.finish()?;
    }
    Ok(Balancer { policy, hash_on, locality: LocalityPreference::default() })
}

fn hash_policy(reader: &mut Reader<'_>) -> Result<HashOn, NotCarried> {
    reader.refuse("CookieConfig", "cookies are read and never set; let the service set it")?;
    if reader.flag("SourceIP")? {
        return Ok(HashOn::Source(SourceAddress::Address));
    }
    let place = reader.place_of("Field");
    let value = reader.text("FieldValue")?.to_owned();
    match reader.text("Field")? {
        "header" => Ok(HashOn::Header(value.to_ascii_lowercase())),
        "cookie" => Ok(HashOn::Cookie(value)),
        "query_parameter" => Ok(HashOn::Query(value)),
        other => Err(NotCarried(format!("{place} {other:?} is none of header, cookie, query_parameter: write one, or SourceIP"))),
    }
}

fn write_balancer(balancer: &Balancer, entry: &mut Value) {
    if balancer.locality == LocalityPreference::Ignore {
        entry["PrioritizeByLocality"] = json!({ "Mode": "none" });
    }
    if balancer.policy == Policy::default() && balancer.hash_on.is_empty() {
        return;
    }
    let word = POLICIES.iter().find(|(_, policy)| *policy == balancer.policy).map(|(word, _)| *word);
    entry["LoadBalancer"] = json!({ "Policy": word });
    let last = balancer.hash_on.len().saturating_sub(1);
    let one = |(number, on): (usize, &HashOn)| {
        let mut written = match on {
            HashOn::Header(name) => json!({ "Field": "header", "FieldValue": name }),
            HashOn::Cookie(name) => json!({ "Field": "cookie", "FieldValue": name }),
            HashOn::Query(name) => json!({ "Field": "query_parameter", "FieldValue": name }),
            HashOn::Source(SourceAddress::Address) => json!({ "SourceIP": true }),
        };
        if number < last {
            written["Terminal"] = true.into();
        }
        written
    };
    if !balancer.hash_on.is_empty() {
        entry["LoadBalancer"]["HashPolicies"] = balancer.hash_on.iter().enumerate().map(one).collect();
    }
}
