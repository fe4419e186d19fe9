//! From the tree to intentions, gathering everything that is wrong.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::str::FromStr;

use postern_names::PortName;

use super::{IntentionFile, KIND};
use crate::error::IntentionError;
use crate::intention::{check_description, check_meta};
use crate::permission::{check_header_name, check_method, check_provider, check_text};
use crate::yaml::{Kind, Node, NodeId, Problem, nearest};
use crate::{
    ClaimCriterion, ClaimMatch, DefaultPolicy, HeaderCriterion, Intention, JwtCriterion, Mode, PairKey, PathCriterion,
    Permission, QueryCriterion, TextMatch, UnknownWord, form,
};

const FILE_KEYS: &[&str] = &["default", "intentions"];
const INTENTION_KEYS: &[&str] = &["source", "destination", "action", "permissions", "otherwise", "mode", "description", "meta"];
const PERMISSION_KEYS: &[&str] =
    &["action", "methods", "path_exact", "path_prefix", "path_regex", "headers", "query", "ports", "jwt"];
const HEADER_KEYS: &[&str] = &["name", "present", "exact", "prefix", "suffix", "contains", "regex", "invert"];
const QUERY_KEYS: &[&str] = &["name", "present", "exact", "regex"];
const JWT_KEYS: &[&str] = &["provider", "claims"];
const CLAIM_KEYS: &[&str] = &["path", "equals", "contains"];

/// The intentions in the tree, as far as they are without fault, and everything that is wrong.
pub(super) fn read(root: &Node) -> (IntentionFile, Vec<Problem>) {
    let mut reader = Reader { problems: Vec::new() };
    let file = reader.file(root).unwrap_or_default();
    (file, reader.problems)
}

/// The map of one thing: values by key, each key once.
struct Fields<'n> {
    node: &'n Node,
    values: HashMap<&'n str, &'n Node>,
}

impl<'n> Fields<'n> {
    fn get(&self, key: &str) -> Option<&'n Node> {
        self.values.get(key).copied()
    }
}

struct Reader {
    problems: Vec<Problem>,
}

/// A value, or none because a problem was noted.
type Noted<T> = Option<T>;

impl Reader {
    fn note(&mut self, at: &Node, what: impl Into<String>, cure: impl Into<String>) {
        self.problems.push(Problem { at: at.id, what: what.into(), first: None, cure: Some(cure.into()) });
    }

    /// Notes an error whose text says what was expected.
    fn note_error(&mut self, at: &Node, error: impl Display) {
        self.problems.push(Problem { at: at.id, what: error.to_string(), first: None, cure: None });
    }

    fn checked<T, E: Display>(&mut self, at: &Node, result: Result<T, E>) -> Noted<T> {
        result.map_err(|error| self.note_error(at, error)).ok()
    }

    fn file(&mut self, root: &Node) -> Noted<IntentionFile> {
        if matches!(root.kind, Kind::Null) {
            self.note_error(root, KIND.empty);
            return None;
        }
        let fields = self.fields(root, "the file", FILE_KEYS)?;
        let default = fields.get("default").and_then(|node| self.word::<DefaultPolicy>(node, "default"));
        let Some(list) = fields.get("intentions") else {
            self.note(root, "intentions is missing", "write intentions: with a list, or intentions: [] for none");
            return None;
        };
        let items = self.list(list, "intentions")?;
        let mut first_of: HashMap<PairKey, NodeId> = HashMap::with_capacity(items.len());
        let mut intentions = Vec::with_capacity(items.len());
        for item in items {
            let Some(fields) = self.fields(item, "an intention", INTENTION_KEYS) else { continue };
            let key = self.pair(&fields);
            if let Some(key) = &key {
                self.once(&mut first_of, key, item);
            }
            intentions.extend(self.intention(&fields, key));
        }
        Some(IntentionFile { default, intentions })
    }

    fn pair(&mut self, fields: &Fields<'_>) -> Noted<PairKey> {
        let source = self.required(fields, "source", "a service name or \"*\"").and_then(|node| self.parsed(node, "source"));
        let destination =
            self.required(fields, "destination", "a service name or \"*\"").and_then(|node| self.parsed(node, "destination"));
        Some(PairKey { source: source?, destination: destination?, temporary: false })
    }

    fn once(&mut self, first_of: &mut HashMap<PairKey, NodeId>, key: &PairKey, item: &Node) {
        if let Some(first) = first_of.get(key) {
            self.problems.push(Problem {
                at: item.id,
                what: format!("{key} is given twice"),
                first: Some(*first),
                cure: Some("a pair has one intention; keep one of the two".to_owned()),
            });
        } else {
            first_of.insert(key.clone(), item.id);
        }
    }

    fn intention(&mut self, fields: &Fields<'_>, key: Option<PairKey>) -> Noted<Intention> {
        let before = self.problems.len();
        let action = fields.get("action").and_then(|node| self.word(node, "action"));
        let otherwise = fields.get("otherwise").and_then(|node| self.word(node, "otherwise"));
        let mode = fields.get("mode").and_then(|node| self.word::<Mode>(node, "mode"));
        let description = fields.get("description").and_then(|node| self.description(node));
        let meta = fields.get("meta").and_then(|node| self.meta(node));
        let permissions = fields.get("permissions").and_then(|node| self.permissions(node));
        // What goes together with what can be judged only when each is right in itself.
        let rule = if self.problems.len() == before {
            self.checked(fields.node, form::rule(action, permissions, otherwise))
        } else {
            None
        };
        let key = key?;
        let intention = Intention {
            source: key.source,
            destination: key.destination,
            rule: rule?,
            mode: mode.unwrap_or_default(),
            expires_at: None,
            description: description.unwrap_or_default(),
            meta: meta.unwrap_or_default(),
        };
        self.checked(fields.node, intention.validate()).map(|()| intention)
    }

    fn description(&mut self, node: &Node) -> Noted<String> {
        let text = self.text(node, "description")?;
        self.checked(node, check_description(text)).map(|()| text.to_owned())
    }

    fn meta(&mut self, node: &Node) -> Noted<BTreeMap<String, String>> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong_kind(node, "meta", "a map of texts");
            return None;
        };
        let mut first_of: HashMap<&str, NodeId> = HashMap::new();
        let mut meta = BTreeMap::new();
        for (key, value) in entries {
            let Some(name) = self.text(key, "a key of meta") else { continue };
            self.key_once(&mut first_of, name, key);
            let Some(text) = self.text(value, &format!("meta {name:?}")) else { continue };
            if self.checked(value, check_meta(name, text)).is_some() {
                meta.insert(name.to_owned(), text.to_owned());
            }
        }
        Some(meta)
    }

    fn permissions(&mut self, node: &Node) -> Noted<Vec<Permission>> {
        let items = self.list(node, "permissions")?;
        if items.is_empty() {
            self.note_error(node, IntentionError::NoPermissions);
        }
        Some(items.iter().filter_map(|item| self.permission(item)).collect())
    }

    fn permission(&mut self, node: &Node) -> Noted<Permission> {
        let fields = self.fields(node, "a permission", PERMISSION_KEYS)?;
        let action = self.required(&fields, "action", "allow or deny").and_then(|node| self.word(node, "action"));
        let methods = self.each(&fields, "methods", |reader, item| {
            let text = reader.text(item, "a method")?;
            reader.checked(item, check_method(text)).map(|()| text.to_owned())
        });
        let path = self.path(&fields);
        let headers = self.each(&fields, "headers", Self::header);
        let query = self.each(&fields, "query", Self::query);
        let ports = self.each(&fields, "ports", |reader, item| reader.parsed::<PortName>(item, "a port"));
        let jwt = self.each(&fields, "jwt", Self::jwt);
        Some(Permission { action: action?, methods, path, headers, query, ports, jwt })
    }

    fn path(&mut self, fields: &Fields<'_>) -> Noted<PathCriterion> {
        let mut given = Vec::new();
        for key in ["path_exact", "path_prefix", "path_regex"] {
            let Some(node) = fields.get(key) else { continue };
            let Some(text) = self.text(node, key).map(str::to_owned) else { continue };
            let criterion = match key {
                "path_exact" => PathCriterion::Exact(text),
                "path_prefix" => PathCriterion::Prefix(text),
                _ => PathCriterion::Regex(text),
            };
            if self.checked(node, criterion.validate()).is_some() {
                given.push((node, criterion));
            }
        }
        if let Some((second, _)) = given.get(1) {
            self.note_error(second, IntentionError::PathCriteria);
        }
        given.into_iter().next().map(|(_, criterion)| criterion)
    }

    fn header(&mut self, node: &Node) -> Noted<HeaderCriterion> {
        let fields = self.fields(node, "a header criterion", HEADER_KEYS)?;
        let name_node = self.required(&fields, "name", "a header name");
        let name = name_node.and_then(|node| {
            let name = self.text(node, "name")?.to_ascii_lowercase();
            self.checked(node, check_header_name(&name)).map(|()| name)
        });
        let matches = self.text_match(&fields, "header", HEADER_KEYS);
        let invert = match fields.get("invert") {
            None => Some(false),
            Some(node) => self.boolean(node, "invert"),
        };
        Some(HeaderCriterion { name: name?, matches: matches?, invert: invert? })
    }

    fn query(&mut self, node: &Node) -> Noted<QueryCriterion> {
        let fields = self.fields(node, "a query criterion", QUERY_KEYS)?;
        let name_node = self.required(&fields, "name", "the name of a parameter");
        let name = name_node.and_then(|node| self.short_text(node, "the name of a query criterion"));
        let matches = self.text_match(&fields, "query", QUERY_KEYS);
        Some(QueryCriterion { name: name?, matches: matches? })
    }

    /// The one way of matching that is given. The ways are the keys between `name` and `invert`.
    fn text_match(&mut self, fields: &Fields<'_>, of: &str, keys: &[&'static str]) -> Noted<TextMatch> {
        let ways: Vec<&str> = keys.iter().copied().filter(|key| *key != "name" && *key != "invert").collect();
        let given: Vec<(&str, &Node)> = ways.iter().filter_map(|way| Some((*way, fields.get(way)?))).collect();
        let [(way, node)] = given.as_slice() else {
            let at = given.get(1).map_or(fields.node, |(_, node)| node);
            self.one_way(at, of, &ways, given.len());
            return None;
        };
        if *way == "present" {
            if !self.boolean(node, "present")? {
                self.note_error(node, IntentionError::NotPresent);
                return None;
            }
            return Some(TextMatch::Present);
        }
        let text = self.text(node, way)?.to_owned();
        let matches = match *way {
            "exact" => TextMatch::Exact(text),
            "prefix" => TextMatch::Prefix(text),
            "suffix" => TextMatch::Suffix(text),
            "contains" => TextMatch::Contains(text),
            _ => TextMatch::Regex(text),
        };
        self.checked(node, matches.validate()).map(|()| matches)
    }

    fn one_way(&mut self, at: &Node, of: &str, ways: &[&str], given: usize) {
        let what = if given == 0 {
            format!("the {of} criterion says nothing of the value")
        } else {
            format!("the {of} criterion matches in more than one way")
        };
        self.note(at, what, format!("give exactly one of {}", joined(ways)));
    }

    fn jwt(&mut self, node: &Node) -> Noted<JwtCriterion> {
        let fields = self.fields(node, "a jwt criterion", JWT_KEYS)?;
        let provider_node = self.required(&fields, "provider", "the name of a provider");
        let provider = provider_node.and_then(|node| {
            let text = self.text(node, "provider")?;
            self.checked(node, check_provider(text)).map(|()| text.to_owned())
        });
        let claims = self.each(&fields, "claims", Self::claim);
        Some(JwtCriterion { provider: provider?, claims })
    }

    fn claim(&mut self, node: &Node) -> Noted<ClaimCriterion> {
        let fields = self.fields(node, "a claim criterion", CLAIM_KEYS)?;
        let path_node = self.required(&fields, "path", "the names of the claim, with dots between them");
        let path = path_node.and_then(|node| self.short_text(node, "the path of a claim"));
        let matches = match (fields.get("equals"), fields.get("contains")) {
            (Some(node), None) => self.short_text(node, "a value to match").map(ClaimMatch::Equals),
            (None, Some(node)) => self.short_text(node, "a value to match").map(ClaimMatch::Contains),
            (Some(_), Some(second)) => {
                self.one_way(second, "claim", &["equals", "contains"], 2);
                None
            }
            (None, None) => {
                self.one_way(node, "claim", &["equals", "contains"], 0);
                None
            }
        };
        Some(ClaimCriterion { path: path?, matches: matches? })
    }

    fn fields<'n>(&mut self, node: &'n Node, of: &str, known: &[&'static str]) -> Noted<Fields<'n>> {
        let Kind::Map(entries) = &node.kind else {
            self.wrong_kind(node, of, &format!("a map with {}", joined(known)));
            return None;
        };
        let mut first_of: HashMap<&str, NodeId> = HashMap::new();
        let mut values = HashMap::new();
        for (key, value) in entries {
            let Some(name) = self.text(key, "a key") else { continue };
            self.key_once(&mut first_of, name, key);
            if known.contains(&name) {
                values.entry(name).or_insert(value);
            } else {
                self.unknown_key(key, name, of, known);
            }
        }
        Some(Fields { node, values })
    }

    fn key_once<'n>(&mut self, first_of: &mut HashMap<&'n str, NodeId>, name: &'n str, key: &Node) {
        if let Some(first) = first_of.get(name) {
            self.problems.push(Problem {
                at: key.id,
                what: format!("key {name:?} is given twice"),
                first: Some(*first),
                cure: Some("keep one of the two".to_owned()),
            });
        } else {
            first_of.insert(name, key.id);
        }
    }

    fn unknown_key(&mut self, key: &Node, name: &str, of: &str, known: &[&'static str]) {
        if name == "expires_at" && known == INTENTION_KEYS {
            let cure = "use meshctl intention allow SOURCE DESTINATION --for 2h";
            return self.note(key, "expires_at is given, and a file holds no temporary intentions", cure);
        }
        let shown: String = name.chars().take(80).collect();
        let cure = match nearest(name, known) {
            Some(word) => format!("did you mean {word:?}?"),
            None => format!("{of} has {}", joined(known)),
        };
        self.note(key, format!("unknown key {shown:?}"), cure);
    }

    fn required<'n>(&mut self, fields: &Fields<'n>, key: &str, expected: &str) -> Noted<&'n Node> {
        let found = fields.get(key);
        if found.is_none() {
            self.note(fields.node, format!("{key} is missing"), format!("give {expected}"));
        }
        found
    }

    fn each<T>(&mut self, fields: &Fields<'_>, key: &str, mut read: impl FnMut(&mut Self, &Node) -> Noted<T>) -> Vec<T> {
        let Some(node) = fields.get(key) else { return Vec::new() };
        let Some(items) = self.list(node, key) else { return Vec::new() };
        items.iter().filter_map(|item| read(self, item)).collect()
    }

    fn list<'n>(&mut self, node: &'n Node, of: &str) -> Noted<&'n [Node]> {
        match &node.kind {
            Kind::List(items) => Some(items),
            _ => {
                self.wrong_kind(node, of, "a list");
                None
            }
        }
    }

    fn text<'n>(&mut self, node: &'n Node, of: &str) -> Noted<&'n str> {
        match &node.kind {
            Kind::Text(text) => Some(text),
            Kind::Number(_) | Kind::Bool(_) => {
                self.wrong_kind(node, of, "a text; put it in quotes");
                None
            }
            _ => {
                self.wrong_kind(node, of, "a text");
                None
            }
        }
    }

    fn short_text(&mut self, node: &Node, of: &'static str) -> Noted<String> {
        let text = self.text(node, of)?;
        self.checked(node, check_text(of, text, 8192)).map(|()| text.to_owned())
    }

    fn boolean(&mut self, node: &Node, of: &str) -> Noted<bool> {
        if let Kind::Bool(value) = node.kind {
            return Some(value);
        }
        self.wrong_kind(node, of, "true or false");
        None
    }

    fn wrong_kind(&mut self, node: &Node, of: &str, expected: &str) {
        self.note(node, format!("{of} is {}", node.kind.name()), format!("expected {expected}"));
    }

    /// One of a few words, with the one that was probably meant.
    fn word<T: FromStr<Err = UnknownWord>>(&mut self, node: &Node, of: &str) -> Noted<T> {
        let text = self.text(node, of)?;
        let error = match text.parse() {
            Ok(word) => return Some(word),
            Err(error) => error,
        };
        let words: Vec<&str> = error.expected.split([',', ' ']).filter(|word| !matches!(*word, "" | "or")).collect();
        let meant = nearest(text, &words).map(|word| format!("; did you mean {word:?}?")).unwrap_or_default();
        self.note(node, format!("{of} {:?} is not known", error.given), format!("use {}{meant}", error.expected));
        None
    }

    fn parsed<T: FromStr>(&mut self, node: &Node, of: &str) -> Noted<T>
    where
        T::Err: Display,
    {
        let text = self.text(node, of)?;
        self.checked(node, text.parse())
    }
}

/// `a, b and c`
fn joined(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}
