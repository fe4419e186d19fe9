//! Intentions in Consul's form, and back.
//!
//! Nothing is carried by halves: an intention with something in it that would mean another thing here, or nothing, is not
//! carried at all, and the reason says what.

use postern_intentions::{Action, HeaderCriterion, Intention, Mode, Party, PathCriterion, Permission, Rule, TextMatch};
use serde_json::{Map, Value, json};

/// Why an intention of Consul's is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotCarried(pub String);

/// An intention in the form of Consul's list. `otherwise` is Consul's default policy, to which it sends requests that no
/// permission matches.
///
/// # Errors
/// [`NotCarried`] names what cannot be said here.
pub fn read(value: &Value, otherwise: Action) -> Result<Intention, NotCarried> {
    let object = value.as_object().ok_or_else(|| not_carried("it is no object"))?;
    for (name, what) in [
        ("SourceNS", "a namespace"),
        ("DestinationNS", "a namespace"),
        ("SourcePartition", "an admin partition"),
        ("DestinationPartition", "an admin partition"),
    ] {
        if !matches!(text(object, name)?, "" | "default") {
            return Err(not_carried(format!("{name} is in {what}, and there is one here")));
        }
    }
    for (name, what) in [("SourcePeer", "a peer"), ("SourceSamenessGroup", "a sameness group")] {
        if !text(object, name)?.is_empty() {
            return Err(not_carried(format!("it is from {what}, and there are none here")));
        }
    }
    if !matches!(text(object, "SourceType")?, "" | "consul") {
        return Err(not_carried("its source is not a service"));
    }
    if field(object, "JWT").is_some_and(|jwt| !is_empty(jwt)) {
        return Err(not_carried(
            "it asks for a token (JWT); write that as a permission with jwt, and its provider with `meshctl service config`",
        ));
    }
    let party = |name: &str| -> Result<Party, NotCarried> {
        let written = text(object, name)?;
        written.parse().map_err(|error| not_carried(format!("{name}: {error}")))
    };
    let mut intention = Intention::new(party("SourceName")?, party("DestinationName")?, Action::Deny);
    let permissions = field(object, "Permissions").and_then(Value::as_array).cloned().unwrap_or_default();
    intention.rule = if permissions.is_empty() {
        Rule::Action(action(text(object, "Action")?)?)
    } else {
        Rule::Permissions { permissions: permissions.iter().map(permission).collect::<Result<_, _>>()?, otherwise }
    };
    text(object, "Description")?.clone_into(&mut intention.description);
    if let Some(meta) = field(object, "Meta").and_then(Value::as_object) {
        let labels = meta.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        intention.meta = labels.collect();
    }
    intention.validate().map_err(|error| not_carried(error.to_string()))?;
    Ok(intention)
}

fn permission(value: &Value) -> Result<Permission, NotCarried> {
    let object = value.as_object().ok_or_else(|| not_carried("a permission is no object"))?;
    if field(object, "JWT").is_some_and(|jwt| !is_empty(jwt)) {
        return Err(not_carried("a permission asks for a token (JWT)"));
    }
    let none = Map::new();
    let http = field(object, "HTTP").and_then(Value::as_object).unwrap_or(&none);
    known(http, &["PathExact", "PathPrefix", "PathRegex", "Header", "Methods"])?;
    let action = action(text(object, "Action")?)?;
    let paths = ["PathExact", "PathPrefix", "PathRegex"].map(|name| Ok((name, text(http, name)?.to_owned())));
    let paths = paths.into_iter().collect::<Result<Vec<_>, NotCarried>>()?;
    let given: Vec<_> = paths.into_iter().filter(|(_, path)| !path.is_empty()).collect();
    let path = match given.as_slice() {
        [] => None,
        [(name, path)] => Some(match *name {
            "PathExact" => PathCriterion::Exact(path.clone()),
            "PathRegex" => PathCriterion::Regex(path.clone()),
            _ => prefix(path, action),
        }),
        _ => return Err(not_carried("a permission has two criteria for one path")),
    };
    let methods = field(http, "Methods").and_then(Value::as_array).cloned().unwrap_or_default();
    let headers = field(http, "Header").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(Permission {
        action,
        methods: methods.iter().filter_map(Value::as_str).map(str::to_ascii_uppercase).collect(),
        path,
        headers: headers.iter().map(header).collect::<Result<_, _>>()?,
        query: Vec::new(),
        ports: Vec::new(),
        jwt: Vec::new(),
    })
}

/// Consul's prefix is of letters: `/v1` is `/v1x` too. Allowed is what lies below, and denied all that begins so: neither
/// opens more than it did.
fn prefix(path: &str, action: Action) -> PathCriterion {
    match action {
        Action::Allow if path == "/" => PathCriterion::Regex("/.*".into()),
        Action::Allow => PathCriterion::Prefix(path.to_owned()),
        Action::Deny => PathCriterion::Regex(prefix_pattern(path)),
    }
}

/// What begins with these letters, as a pattern of a whole path.
pub(super) fn prefix_pattern(path: &str) -> String {
    format!("{}.*", escaped(path))
}

/// The letters that a pattern of [`prefix_pattern`] was made of.
pub(super) fn prefix_of_pattern(pattern: &str) -> Option<String> {
    let mut prefix = String::new();
    let mut chars = pattern.strip_suffix(".*")?.chars();
    while let Some(c) = chars.next() {
        prefix.push(if c == '\\' { chars.next()? } else { c });
    }
    (prefix.starts_with('/') && prefix_pattern(&prefix) == pattern).then_some(prefix)
}

/// A text as a regular expression for itself.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if r"\.+*?()|[]{}^$#&-~".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Makes a criterion of a text.
type Maker = fn(String) -> TextMatch;

fn header(value: &Value) -> Result<HeaderCriterion, NotCarried> {
    let object = value.as_object().ok_or_else(|| not_carried("a header is no object"))?;
    known(object, &["Name", "Present", "Exact", "Prefix", "Suffix", "Contains", "Regex", "Invert", "IgnoreCase"])?;
    if flag(object, "IgnoreCase") {
        return Err(not_carried("a header is compared without case"));
    }
    let name = text(object, "Name")?.to_ascii_lowercase();
    let makers: [(&str, Maker); 5] = [
        ("Exact", TextMatch::Exact),
        ("Prefix", TextMatch::Prefix),
        ("Suffix", TextMatch::Suffix),
        ("Contains", TextMatch::Contains),
        ("Regex", TextMatch::Regex),
    ];
    let mut matches = Vec::new();
    for (word, make) in makers {
        let given = text(object, word)?;
        if !given.is_empty() {
            matches.push(make(given.to_owned()));
        }
    }
    if flag(object, "Present") {
        matches.push(TextMatch::Present);
    }
    match <[TextMatch; 1]>::try_from(matches) {
        Ok([matches]) => Ok(HeaderCriterion { name, matches, invert: flag(object, "Invert") }),
        Err(_) => Err(not_carried(format!("header {name} has no criterion, or two"))),
    }
}

/// A criterion that is not known narrows what it stands in: without it more would match.
fn known(object: &Map<String, Value>, names: &[&str]) -> Result<(), NotCarried> {
    let strange = object.iter().find(|(key, value)| !is_empty(value) && !names.iter().any(|name| name.eq_ignore_ascii_case(key)));
    match strange {
        None => Ok(()),
        Some((key, _)) => Err(not_carried(format!("it has a criterion {key:?}, which has no counterpart"))),
    }
}

fn action(word: &str) -> Result<Action, NotCarried> {
    match word {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        other => Err(not_carried(format!("{other:?} is no action"))),
    }
}

fn not_carried(why: impl Into<String>) -> NotCarried {
    NotCarried(why.into())
}

fn field<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let exact = object.get(name);
    let found = exact.or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value));
    found.filter(|value| !value.is_null())
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, NotCarried> {
    match field(object, name) {
        None => Ok(""),
        Some(value) => value.as_str().ok_or_else(|| not_carried(format!("{name} is no text"))),
    }
}

fn flag(object: &Map<String, Value>, name: &str) -> bool {
    field(object, name).and_then(Value::as_bool).unwrap_or(false)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Number(_) => false,
    }
}

/// An intention as Consul's list shows it. What Consul has no word for is named in its `Meta`.
pub fn write(intention: &Intention, revision: u64) -> Value {
    let mut unsaid = Vec::new();
    if intention.mode == Mode::Audit {
        unsaid.push("it only audits: nothing is refused by it".to_owned());
    }
    let mut meta: Map<String, Value> = intention.meta.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
    let mut written = json!({
        "ID": id_of(&intention.source, &intention.destination),
        "Description": intention.description,
        "SourceNS": "default", "SourceName": intention.source.to_string(), "SourceType": "consul",
        "DestinationNS": "default", "DestinationName": intention.destination.to_string(),
        "Precedence": intention.precedence().value(),
        "CreateIndex": revision, "ModifyIndex": revision,
    });
    match &intention.rule {
        Rule::Action(action) => written["Action"] = word(*action).into(),
        Rule::Permissions { permissions, otherwise } => {
            let listed: Vec<Value> = permissions.iter().map(|permission| write_permission(permission, &mut unsaid)).collect();
            written["Permissions"] = Value::Array(listed);
            unsaid.push(format!("otherwise: {}", word(*otherwise)));
        }
    }
    if !unsaid.is_empty() {
        meta.insert("postern".into(), unsaid.join("; ").into());
    }
    if !meta.is_empty() {
        written["Meta"] = Value::Object(meta);
    }
    written
}

pub(super) fn write_permission(permission: &Permission, unsaid: &mut Vec<String>) -> Value {
    let mut http = Map::new();
    match &permission.path {
        None => {}
        Some(PathCriterion::Exact(path)) => drop(http.insert("PathExact".into(), path.as_str().into())),
        Some(PathCriterion::Prefix(path)) => drop(http.insert("PathPrefix".into(), path.as_str().into())),
        Some(PathCriterion::Regex(path)) => match prefix_of_pattern(path) {
            Some(prefix) => drop(http.insert("PathPrefix".into(), prefix.into())),
            None => drop(http.insert("PathRegex".into(), path.as_str().into())),
        },
    }
    if !permission.methods.is_empty() {
        http.insert("Methods".into(), permission.methods.clone().into());
    }
    if !permission.headers.is_empty() {
        http.insert("Header".into(), permission.headers.iter().map(write_header).collect());
    }
    for (what, is_there) in
        [("query", !permission.query.is_empty()), ("ports", !permission.ports.is_empty()), ("jwt", !permission.jwt.is_empty())]
    {
        if is_there {
            unsaid.push(format!("a permission has criteria on {what} that are not shown"));
        }
    }
    json!({ "Action": word(permission.action), "HTTP": http })
}

pub(super) fn write_header(header: &HeaderCriterion) -> Value {
    let (word, value) = match &header.matches {
        TextMatch::Present => ("Present", Value::Bool(true)),
        TextMatch::Exact(text) => ("Exact", text.as_str().into()),
        TextMatch::Prefix(text) => ("Prefix", text.as_str().into()),
        TextMatch::Suffix(text) => ("Suffix", text.as_str().into()),
        TextMatch::Contains(text) => ("Contains", text.as_str().into()),
        TextMatch::Regex(text) => ("Regex", text.as_str().into()),
    };
    let mut written = json!({ "Name": header.name });
    written[word] = value;
    if header.invert {
        written["Invert"] = true.into();
    }
    written
}

pub(super) fn word(action: Action) -> &'static str {
    match action {
        Action::Allow => "allow",
        Action::Deny => "deny",
    }
}

/// The id of a pair in the form of a UUID, always the same: nothing else would have to be kept. (FNV-1a, twice.)
pub fn id_of(source: &Party, destination: &Party) -> String {
    let hash = |seed: u64| {
        let bytes = format!("{source}\u{0}{destination}").into_bytes();
        bytes.iter().fold(seed, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let digits = format!("{:016x}{:016x}", hash(0xcbf2_9ce4_8422_2325), hash(0x6c62_272e_07bb_0142));
    let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default().to_owned();
    format!("{}-{}-5{}-8{}-{}", part(0..8), part(8..12), part(13..16), part(17..20), part(20..32))
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Entry, Kind, Surroundings};
    use super::*;

    fn of(value: Value) -> Result<Value, String> {
        let read = read(&value, Action::Allow).map_err(|error| error.0)?;
        Ok(serde_json::to_value(read).unwrap())
    }

    #[test]
    fn intentions_of_both_forms_are_read() {
        let listed = json!({
            "ID": "x", "SourceNS": "default", "SourceName": "web", "SourceType": "consul", "DestinationNS": "default",
            "DestinationName": "api", "Action": "allow", "Description": "d", "Meta": { "team": "a" }, "Precedence": 9, "CreateIndex": 7,
        });
        let expected =
            json!({ "source": "web", "destination": "api", "action": "allow", "description": "d", "meta": { "team": "a" } });
        assert_eq!(of(listed), Ok(expected));
        let entry = json!({
            "Kind": "service-intentions", "Name": "api", "Sources": [
                { "Name": "*", "Action": "deny", "Precedence": 8, "Type": "consul" },
                { "Name": "web", "Permissions": [
                    { "Action": "deny", "HTTP": { "PathPrefix": "/admin" } },
                    { "Action": "allow", "HTTP": { "PathPrefix": "/v1", "Methods": ["get"], "Header": [{ "Name": "X-Team", "Exact": "a", "Invert": true }] } },
                ] },
            ],
        });
        let surroundings = Surroundings { otherwise: Action::Allow, datacenter: None };
        let Ok(Entry::Intentions { intentions, .. }) = Entry::read(Kind::ServiceIntentions, &entry, surroundings) else {
            panic!("{entry}")
        };
        let read: Vec<Value> = intentions.iter().map(|one| serde_json::to_value(one).unwrap()).collect();
        assert_eq!(read[0], json!({ "source": "*", "destination": "api", "action": "deny" }));
        assert_eq!(read[1]["otherwise"], "allow", "Consul's default policy");
        assert_eq!(read[1]["permissions"][0]["path_regex"], "/admin.*");
        assert_eq!(
            read[1]["permissions"][1],
            json!({ "action": "allow", "methods": ["GET"], "path_prefix": "/v1", "headers": [{ "name": "x-team", "exact": "a", "invert": true }] })
        );
    }

    #[test]
    fn what_would_mean_another_thing_is_not_carried() {
        let with = |name: &str, value: Value| {
            let mut intention = json!({ "SourceName": "web", "DestinationName": "api", "Action": "allow" });
            intention[name] = value;
            of(intention).unwrap_err()
        };
        for (name, value, why) in [
            ("SourceNS", json!("team"), "namespace"),
            ("DestinationPartition", json!("eu"), "partition"),
            ("SourcePeer", json!("other"), "peer"),
            ("SourceSamenessGroup", json!("g"), "sameness"),
            ("SourceName", json!("Web_1"), "SourceName"),
            ("Action", json!("maybe"), "maybe"),
            ("JWT", json!({ "Providers": [{ "Name": "corp" }] }), "JWT"),
            ("Permissions", json!([{ "Action": "allow", "JWT": { "Providers": [{}, { "Name": "c" }] } }]), "JWT"),
            ("Permissions", json!([{ "Action": "allow", "HTTP": { "PathExact": "/a", "PathPrefix": "/b" } }]), "two criteria"),
            ("Permissions", json!([{ "Action": "allow", "HTTP": { "QueryParam": [{ "Name": "a" }] } }]), "QueryParam"),
            (
                "Permissions",
                json!([{ "Action": "allow", "HTTP": { "Header": [{ "Name": "a", "Exact": "b", "IgnoreCase": true }] } }]),
                "case",
            ),
            ("Permissions", json!([{ "Action": "allow", "HTTP": { "Header": [{ "Name": "a" }] } }]), "no criterion"),
        ] {
            let said = with(name, value);
            assert!(said.contains(why), "{name}: {said}");
        }
    }

    #[test]
    fn what_is_written_for_consul_reads_back() {
        let web: Party = "web".parse().unwrap();
        let mut intention = Intention::new(web.clone(), Party::Any, Action::Allow);
        intention.rule = Rule::Permissions {
            permissions: vec![Permission {
                action: Action::Allow,
                methods: vec!["GET".into()],
                path: Some(PathCriterion::Exact("/a".into())),
                headers: vec![HeaderCriterion { name: "x".into(), matches: TextMatch::Present, invert: false }],
                query: Vec::new(),
                ports: Vec::new(),
                jwt: Vec::new(),
            }],
            otherwise: Action::Deny,
        };
        let written = write(&intention, 9);
        assert_eq!((&written["Precedence"], &written["SourceNS"]), (&json!(6), &json!("default")));
        let mut again = read(&written, Action::Deny).unwrap();
        assert!(again.meta.remove("postern").unwrap().contains("otherwise: deny"));
        assert_eq!(again, intention);
        let id = id_of(&web, &Party::Any);
        assert_eq!(id.len(), 36);
        assert_ne!(id, id_of(&Party::Any, &web));
    }
}
