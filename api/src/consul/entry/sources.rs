//! `service-intentions`: everything that is said of who may call a service.

use std::collections::BTreeMap;

use postern_intentions::{Action, Intention, Mode, Party, Permission, Rule};
use serde_json::{Value, json};

use super::super::{NotCarried, intentions};
use super::reader::Reader;
use super::{Entry, Kind, NOTE, Surroundings};

/// Fields of a source that Consul's servers write, or that earlier versions had.
const READ_ONLY: [&str; 5] = ["Precedence", "LegacyID", "LegacyMeta", "LegacyCreateTime", "LegacyUpdateTime"];

pub(super) fn read(name: &str, mut reader: Reader<'_>, surroundings: Surroundings<'_>) -> Result<Entry, NotCarried> {
    let destination: Party = name.parse().map_err(|error| NotCarried(format!("Name: {error}")))?;
    reader.refuse(
        "JWT",
        "write it as a permission with jwt, with `meshctl intention apply`, and its provider with `meshctl service config`",
    )?;
    let mut meta = reader.labels("Meta")?;
    meta.remove(NOTE);
    let sources = reader.list("Sources")?;
    if sources.is_empty() {
        return Err(NotCarried("Sources is empty: give a source, or delete the entry".into()));
    }
    let mut read: Vec<Intention> = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let place = format!("Sources[{number}]");
        check(&place, source)?;
        let flat = json!({
            "SourceName": field(source, "Name"), "SourceNS": field(source, "Namespace"), "SourcePeer": field(source, "Peer"),
            "SourcePartition": field(source, "Partition"), "SourceSamenessGroup": field(source, "SamenessGroup"),
            "SourceType": field(source, "Type"), "Description": field(source, "Description"), "Action": field(source, "Action"),
            "Permissions": field(source, "Permissions"), "DestinationName": name, "Meta": meta,
        });
        let intention = intentions::read(&flat, surroundings.otherwise);
        let intention = intention.map_err(|NotCarried(why)| NotCarried(format!("{place}: {why}")))?;
        if read.iter().any(|known| known.source == intention.source) {
            return Err(NotCarried(format!("{place}: {} is there twice: keep one of the two", intention.source)));
        }
        read.push(intention);
    }
    reader.finish()?;
    Ok(Entry::Intentions { destination, intentions: read })
}

/// Nothing of a source is passed over.
fn check(place: &str, source: &Value) -> Result<(), NotCarried> {
    let mut reader = Reader::of(place, source)?;
    reader.pass_over(&READ_ONLY);
    reader.pass_over(&["Name", "Namespace", "Partition", "Peer", "SamenessGroup", "Type", "Description", "Action"]);
    for mut permission in reader.objects("Permissions")? {
        permission.pass_over(&["Action", "HTTP", "JWT"]);
        permission.finish()?;
    }
    reader.finish()
}

fn field(source: &Value, name: &str) -> Value {
    Reader::of("", source).ok().and_then(|mut reader| reader.take(name)).cloned().unwrap_or(Value::Null)
}

/// The permanent intentions of a destination as one entry; none where there are none. `revision` is when they were last
/// changed, `otherwise` where Consul's clients expect requests to go that no permission matches.
pub fn write(destination: &Party, intentions: &[&Intention], otherwise: Action, revision: u64) -> Option<Value> {
    let mut sorted: Vec<&Intention> = intentions.to_vec();
    sorted.sort_by_key(|intention| (std::cmp::Reverse(intention.precedence().value()), intention.source.to_string()));
    let first = *sorted.first()?;
    let shared = |(key, value): (&String, &String)| {
        sorted.iter().all(|intention| intention.meta.get(key) == Some(value)).then(|| (key.clone(), value.clone()))
    };
    let mut meta: BTreeMap<String, String> = first.meta.iter().filter_map(shared).collect();
    let mut notes: Vec<String> = Vec::new();
    let mut sources = Vec::new();
    for intention in &sorted {
        let mut source = json!({
            "Name": intention.source.to_string(), "Precedence": intention.precedence().value(), "Type": "consul",
        });
        match &intention.rule {
            Rule::Action(action) => source["Action"] = intentions::word(*action).into(),
            Rule::Permissions { permissions, .. } => {
                let one = |permission: &Permission| intentions::write_permission(permission, &mut Vec::new());
                source["Permissions"] = permissions.iter().map(one).collect();
            }
        }
        if !intention.description.is_empty() {
            source["Description"] = intention.description.as_str().into();
        }
        if intention.meta.len() > meta.len() {
            notes.push(format!("{}: labels of its own are not shown", intention.source));
        }
        notes.extend(unsaid(intention).into_iter().map(|note| format!("{}: {note}", intention.source)));
        if let Rule::Permissions { otherwise: own, .. } = &intention.rule
            && *own != otherwise
        {
            notes.push(format!("{}: otherwise {}", intention.source, intentions::word(*own)));
        }
        sources.push(source);
    }
    if !notes.is_empty() {
        meta.insert(NOTE.to_owned(), notes.join("; "));
    }
    let mut entry = json!({ "Kind": Kind::ServiceIntentions.word(), "Name": destination.to_string(), "Sources": sources });
    if !meta.is_empty() {
        entry["Meta"] = json!(meta);
    }
    entry["CreateIndex"] = revision.into();
    entry["ModifyIndex"] = revision.into();
    Some(entry)
}

/// What an intention says and Consul has no word for: who writes the entry anew would lose it.
pub fn unsaid(intention: &Intention) -> Vec<String> {
    let mut unsaid = Vec::new();
    if intention.mode == Mode::Audit {
        unsaid.push("it only audits".to_owned());
    }
    if let Rule::Permissions { permissions, .. } = &intention.rule {
        for permission in permissions {
            intentions::write_permission(permission, &mut unsaid);
        }
    }
    unsaid
}
