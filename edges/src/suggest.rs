//! Intentions that allow what was seen, and nothing else.
//!
//! Least privilege first: exact pairs, never `*`; with [`Detail::Requests`] the methods and paths that were seen. A path
//! in which `{id}` stands becomes a prefix of what is before it, and never `/`: a path such as `/{id}` becomes a pattern.
//! Whatever is suggested was asked of the evaluator: a pair of which a single request would be refused is allowed whole.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use postern_intentions::{
    Action, Because, DefaultPolicy, Entry, EntryContent, Intention, JudgedPath, Party, PathCriterion, Permission, Protocol,
    RequestTarget, Rule, RuleSet,
};
use postern_names::{PortName, ServiceName};

use crate::{Called, Method, REST, Shape, Sighting, judge};

/// The most permissions that are suggested for a pair; one that needs more is allowed whole.
const MOST_PERMISSIONS: usize = 200;
/// What a segment of an id is in a pattern.
const ANY_SEGMENT: &str = "[^/]+";

/// How finely it is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Who calls whom.
    Pairs,
    /// Also the methods and paths of HTTP requests.
    Requests,
}

/// What is suggested.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Suggestion {
    /// By destination, then by source.
    pub intentions: Vec<Suggested>,
    /// What to know before it is applied.
    pub notes: Vec<String>,
}

/// One intention, with what it is needed for.
#[derive(Debug, Clone, PartialEq)]
pub struct Suggested {
    /// What it says.
    pub intention: Intention,
    /// Places in what was given of the edges that it allows.
    pub needed_for: Vec<usize>,
    /// For each permission, those of them that it is the first to allow.
    pub by_permission: Vec<Vec<usize>>,
}

/// Intentions that allow each of `seen` that went through; with the default `deny` they allow nothing else of what was
/// seen. `called` says how a destination judges.
pub fn suggest(seen: &[Sighting], detail: Detail, called: impl Fn(&ServiceName) -> Called, now: SystemTime) -> Suggestion {
    let mut pairs: BTreeMap<(&ServiceName, &ServiceName), Vec<usize>> = BTreeMap::new();
    for (at, sighting) in seen.iter().enumerate().filter(|(_, sighting)| sighting.edge.verdict.went_through()) {
        pairs.entry((&sighting.edge.destination, &sighting.edge.source)).or_default().push(at);
    }
    let mut suggestion = Suggestion::default();
    for ((destination, source), needed_for) in pairs {
        let pair = Pair { source, destination, seen, needed_for, called: called(destination), now };
        suggestion.intentions.push(match detail {
            Detail::Pairs => pair.whole(),
            Detail::Requests => {
                pair.by_requests().inspect(|made| suggestion.notes.extend(every_path(&made.intention))).unwrap_or_else(|why| {
                    suggestion.notes.extend(why.map(|why| format!("{source} -> {destination} is allowed whole: {why}")));
                    pair.whole()
                })
            }
        });
    }
    suggestion
}

/// Whether a permission stands for paths that were too many to tell apart, or too long: the only one without a path.
pub fn allows_every_path(permission: &Permission) -> bool {
    permission.path.is_none()
}

/// Two services, and what one was seen to call of the other.
struct Pair<'a> {
    source: &'a ServiceName,
    destination: &'a ServiceName,
    seen: &'a [Sighting],
    needed_for: Vec<usize>,
    called: Called,
    now: SystemTime,
}

/// The smallest thing that can be allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Atom {
    path: PathRule,
    method: Option<Method>,
    port: PortName,
}

/// In the order of how much they allow, least first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum PathRule {
    Exact(String),
    /// A shape, segment by segment.
    Pattern(String),
    Prefix(String),
    Any,
}

impl Pair<'_> {
    fn intention(&self, rule: Rule) -> Intention {
        let side = |name: &ServiceName| Party::Service(name.clone());
        Intention { rule, ..Intention::new(side(self.source), side(self.destination), Action::Allow) }
    }

    fn whole(&self) -> Suggested {
        let intention = self.intention(Rule::Action(Action::Allow));
        Suggested { intention, needed_for: self.needed_for.clone(), by_permission: Vec::new() }
    }

    /// By the requests that were seen; without them, and with a reason where one would be refused, not at all.
    fn by_requests(&self) -> Result<Suggested, Option<String>> {
        if self.called.protocol == Protocol::Tcp || self.needed_for.iter().any(|at| self.seen[*at].edge.http.is_none()) {
            return Err(None);
        }
        let wanted: Vec<(usize, Atom, String)> =
            self.needed_for.iter().map(|at| self.atom(*at).map(|(atom, path)| (*at, atom, path))).collect::<Result<_, _>>()?;
        let permissions = grouped(&needed(&wanted));
        if permissions.len() > MOST_PERMISSIONS {
            return Err(Some(format!("{} paths were seen, and at most {MOST_PERMISSIONS} are told apart", permissions.len())));
        }
        let intention = self.intention(Rule::Permissions { permissions, otherwise: Action::Deny });
        if let Err(error) = intention.validate() {
            return Err(Some(error.to_string()));
        }
        let by_permission = self.held_against(&intention)?;
        Ok(Suggested { intention, needed_for: self.needed_for.clone(), by_permission })
    }

    /// What has to be allowed for one edge, and the path by which it is judged.
    fn atom(&self, at: usize) -> Result<(Atom, String), Option<String>> {
        let sighting = &self.seen[at];
        let (Some(part), Some(path)) = (&sighting.edge.http, sighting.path()) else { return Err(None) };
        let method = (part.method != Method::Other).then_some(part.method);
        let refused =
            |why: &dyn std::fmt::Display| Some(format!("{} {} cannot be judged by its path: {why}", part.method, part.shape));
        let target = RequestTarget::read(part.method.as_str(), &path, None).map_err(|why| refused(&why))?;
        let judged = JudgedPath::read(&target, self.called.paths).map_err(|why| refused(&why))?;
        let judged = judged.forwarded().to_owned();
        let path = if part.shape.is_open_ended() { open_ended(&part.shape) } else { path_rule(&judged) };
        Ok((Atom { path, method, port: sighting.edge.port.clone() }, judged))
    }

    /// Asks the evaluator of each edge: the permission that allows it, by edge.
    fn held_against(&self, intention: &Intention) -> Result<Vec<Vec<usize>>, Option<String>> {
        let Rule::Permissions { permissions, .. } = &intention.rule else { return Ok(Vec::new()) };
        let entry = Entry { revision: 0, content: EntryContent::Understood(intention.clone().into()) };
        let rules = RuleSet::compile(DefaultPolicy::Deny, [entry]);
        let mut allowed_by = vec![Vec::new(); permissions.len()];
        for at in &self.needed_for {
            let decision = judge(&rules, &self.seen[*at], self.called, self.now);
            match decision.because {
                Because::Intention { permission: Some(index), .. } if decision.allowed() => {
                    if let Some(edges) = allowed_by.get_mut(index) {
                        edges.push(*at);
                    }
                }
                because => {
                    let part = self.seen[*at].edge.http.as_ref();
                    let what = part.map(|part| format!("{} {}", part.method, part.shape)).unwrap_or_default();
                    return Err(Some(format!("{what} would be refused: {because}")));
                }
            }
        }
        Ok(allowed_by)
    }
}

/// What to know of an intention that allows every path.
fn every_path(intention: &Intention) -> Option<String> {
    let Rule::Permissions { permissions, .. } = &intention.rule else { return None };
    let methods: Vec<String> = permissions.iter().filter(|permission| allows_every_path(permission)).map(methods_of).collect();
    (!methods.is_empty()).then(|| {
        format!(
            "{} allows every path for {}: the paths seen were too many to tell apart",
            intention.pair(),
            methods.join(" and for ")
        )
    })
}

fn methods_of(permission: &Permission) -> String {
    if permission.methods.is_empty() { "every method".to_owned() } else { permission.methods.join(", ") }
}

/// The rule for a path in the form in which it is judged.
fn path_rule(path: &str) -> PathRule {
    let shape = Shape::of(path);
    let text = shape.as_str();
    match text.find("{id}") {
        None if shape.is_open_ended() => open_ended(&shape),
        None => PathRule::Exact(path.to_owned()),
        Some(1) => PathRule::Pattern(text.to_owned()),
        Some(at) => PathRule::Prefix(text[..at].to_owned()),
    }
}

/// Of a shape that stands for several: what is before `…`, or before the first id.
fn open_ended(shape: &Shape) -> PathRule {
    let before = shape.as_str().trim_end_matches(REST);
    match before.find("{id}").map_or(before, |at| &before[..at]) {
        "" | "/" => PathRule::Any,
        prefix => PathRule::Prefix(prefix.to_owned()),
    }
}

impl PathRule {
    fn allows(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Pattern(shape) => has_shape(path, shape),
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Self::Any => true,
        }
    }

    fn criterion(&self) -> Option<PathCriterion> {
        match self {
            Self::Exact(path) => Some(PathCriterion::Exact(path.clone())),
            Self::Prefix(prefix) => Some(PathCriterion::Prefix(prefix.clone())),
            Self::Pattern(shape) => Some(PathCriterion::Regex(pattern(shape))),
            Self::Any => None,
        }
    }
}

fn has_shape(path: &str, shape: &str) -> bool {
    let mut wanted = shape.split('/');
    let mut segments = path.split('/');
    loop {
        match (wanted.next(), segments.next()) {
            (None, None) => return true,
            (Some("{id}"), Some(segment)) if !segment.is_empty() => {}
            (Some(word), Some(segment)) if word == segment => {}
            _ => return false,
        }
    }
}

fn pattern(shape: &str) -> String {
    let escaped = |segment: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '~' | '%');
        segment.chars().flat_map(|c| (!is_plain(c)).then_some('\\').into_iter().chain([c])).collect::<String>()
    };
    let segments = shape.split('/').map(|segment| if segment == "{id}" { ANY_SEGMENT.to_owned() } else { escaped(segment) });
    segments.collect::<Vec<_>>().join("/")
}

impl Atom {
    fn allows(&self, other: &Self, path: &str) -> bool {
        self.port == other.port && (self.method.is_none() || self.method == other.method) && self.path.allows(path)
    }
}

/// The atoms that are needed: one that allows only what others allow too is not, and of two that allow the same the wider
/// one stays.
fn needed(wanted: &[(usize, Atom, String)]) -> BTreeSet<Atom> {
    let all: BTreeSet<&Atom> = wanted.iter().map(|(_, atom, _)| atom).collect();
    let mut kept: BTreeSet<&Atom> = all.clone();
    let allowed_by: Vec<Vec<&Atom>> = wanted
        .iter()
        .map(|(_, wants, path)| all.iter().copied().filter(|atom| *atom == wants || atom.allows(wants, path)).collect())
        .collect();
    // Least first, so that what a wider one covers goes.
    for atom in &all {
        let is_needed =
            allowed_by.iter().any(|by| by.contains(atom) && by.iter().filter(|other| kept.contains(*other)).count() == 1);
        if !is_needed {
            kept.remove(*atom);
        }
    }
    kept.into_iter().cloned().collect()
}

/// Atoms as permissions: methods of one path and port together, then ports of the same paths and methods.
fn grouped(atoms: &BTreeSet<Atom>) -> Vec<Permission> {
    let mut methods: BTreeMap<(&PathRule, &PortName), Option<BTreeSet<Method>>> = BTreeMap::new();
    for atom in atoms {
        let of = methods.entry((&atom.path, &atom.port)).or_insert_with(|| Some(BTreeSet::new()));
        match (atom.method, of.as_mut()) {
            (Some(method), Some(methods)) => drop(methods.insert(method)),
            // Every method.
            (None, _) => *of = None,
            (Some(_), None) => {}
        }
    }
    let mut ports: BTreeMap<(&PathRule, Option<BTreeSet<Method>>), Vec<PortName>> = BTreeMap::new();
    for ((path, port), methods) in methods {
        ports.entry((path, methods)).or_default().push(port.clone());
    }
    let is_main_alone = atoms.iter().all(|atom| atom.port == PortName::main());
    let permission = |((path, methods), ports): ((&PathRule, Option<BTreeSet<Method>>), Vec<PortName>)| Permission {
        action: Action::Allow,
        methods: methods.into_iter().flatten().map(|method| method.as_str().to_owned()).collect(),
        path: path.criterion(),
        headers: Vec::new(),
        query: Vec::new(),
        ports: if is_main_alone { Vec::new() } else { ports },
        jwt: Vec::new(),
    };
    ports.into_iter().map(permission).collect()
}

#[cfg(test)]
mod tests;
