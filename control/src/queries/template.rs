//! Templates: a query for every name that begins alike, whose texts are made from the name.
//!
//! `${name.full}` is the name, `${name.prefix}` and `${name.suffix}` are the template's own name and the rest, `${match(N)}`
//! is group N of the regular expression, and `$${` stands for `${`.

use std::collections::BTreeMap;

use regex::{Captures, Regex, RegexBuilder};

use crate::records::{QueriedService, QueryRecord, QueryTemplate};

/// Bytes of a compiled expression.
const PATTERN_LIMIT: usize = 256 << 10;

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The regular expression is none.
    #[error("Bad Regexp: {0}")]
    Regexp(String),
    /// `${…}` names nothing.
    #[error(
        "Bad format '{0}': there are ${{name.full}}, ${{name.prefix}}, ${{name.suffix}}, ${{match(N)}} and ${{agent.segment}}"
    )]
    Unknown(String),
    /// It does not end.
    #[error("Bad format '{0}': a ${{ does not end; write $${{ for the letters")]
    Open(String),
}

struct Scene<'a> {
    name: &'a str,
    prefix: &'a str,
    groups: Option<Captures<'a>>,
}

/// The query that a template makes of a name. A query that is no template stays as it is.
///
/// # Errors
/// [`TemplateError`].
pub fn rendered(query: &QueryRecord, name: &str) -> Result<QueryRecord, TemplateError> {
    let Some(template) = &query.template else { return Ok(query.clone()) };
    let pattern = pattern_of(template)?;
    let scene = Scene { name, prefix: &query.name, groups: pattern.as_ref().and_then(|pattern| pattern.captures(name)) };
    let QueriedService { service, ignore_check_ids, near, tags, node_meta, service_meta, datacenters, .. } = &query.service;
    let all = |texts: &[String]| texts.iter().map(|text| scene.filled(text)).collect::<Result<Vec<_>, _>>();
    let mut tags = all(tags)?;
    if template.remove_empty_tags {
        tags.retain(|tag| !tag.is_empty() && tag != "!");
    }
    let service = QueriedService {
        service: scene.filled(service)?,
        ignore_check_ids: all(ignore_check_ids)?,
        near: scene.filled(near)?,
        tags,
        node_meta: scene.filled_labels(node_meta)?,
        service_meta: scene.filled_labels(service_meta)?,
        datacenters: all(datacenters)?,
        ..query.service.clone()
    };
    Ok(QueryRecord { service, ..query.clone() })
}

fn pattern_of(template: &QueryTemplate) -> Result<Option<Regex>, TemplateError> {
    if template.regexp.is_empty() {
        return Ok(None);
    }
    let compiled = RegexBuilder::new(&template.regexp).size_limit(PATTERN_LIMIT).build();
    compiled.map(Some).map_err(|error| TemplateError::Regexp(error.to_string()))
}

impl Scene<'_> {
    fn filled_labels(&self, labels: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, TemplateError> {
        labels.iter().map(|(key, value)| Ok((key.clone(), self.filled(value)?))).collect()
    }

    fn filled(&self, text: &str) -> Result<String, TemplateError> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if let Some(before) = before.strip_suffix('$') {
                filled.push_str(before);
                filled.push_str("${");
                rest = after;
                continue;
            }
            filled.push_str(before);
            let (word, after) = after.split_once('}').ok_or_else(|| TemplateError::Open(text.to_owned()))?;
            filled.push_str(self.value(word.trim()).ok_or_else(|| TemplateError::Unknown(text.to_owned()))?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, word: &str) -> Option<&str> {
        match word {
            "name.full" => Some(self.name),
            "name.prefix" => Some(self.prefix),
            // The name begins with the prefix, in some case.
            "name.suffix" => Some(self.name.get(self.prefix.len()..).unwrap_or_default()),
            "agent.segment" => Some(""),
            word => {
                let number = word.strip_prefix("match(")?.strip_suffix(')')?.trim().parse::<usize>().ok()?;
                Some(self.groups.as_ref().and_then(|groups| groups.get(number)).map_or("", |group| group.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(service: &str, tags: &[&str], regexp: &str) -> QueryRecord {
        QueryRecord {
            name: "geo-".into(),
            template: Some(QueryTemplate { regexp: regexp.into(), remove_empty_tags: true }),
            service: QueriedService {
                service: service.into(),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                ..QueriedService::default()
            },
            ..QueryRecord::default()
        }
    }

    #[test]
    fn texts_are_made_from_the_name() {
        let query =
            template("${match(1)}", &["${match(2)}", "!${match(3)}", "${name.suffix}", "a$${x"], "^geo-(.*?)-([^-]+?)(-z)?$");
        let made = rendered(&query, "geo-db-master").unwrap().service;
        assert_eq!(made.service, "db");
        assert_eq!(made.tags, ["master", "db-master", "a${x"]);
        let other = rendered(&query, "geo-x").unwrap().service;
        assert_eq!((other.service.as_str(), other.tags), ("", vec!["x".to_owned(), "a${x".to_owned()]), "no match is empty");
        assert_eq!(rendered(&template("${name.full}-${ name.prefix }", &[], ""), "geo-a").unwrap().service.service, "geo-a-geo-");
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for service in ["${x}", "${match(a)}", "${name.full", "${}"] {
            assert!(rendered(&template(service, &[], ""), "geo-a").is_err(), "{service}");
        }
        assert!(matches!(rendered(&template("a", &[], "("), "geo-a"), Err(TemplateError::Regexp(_))));
    }
}
