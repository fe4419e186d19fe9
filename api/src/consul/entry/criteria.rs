//! What routes ask of a request.

use postern_intentions::{HeaderCriterion, QueryCriterion, TextMatch};
use postern_traffic::settings::RequestMatch;
use serde_json::{Value, json};

use super::super::NotCarried;
use super::super::intentions::{prefix_of_pattern, prefix_pattern};
use super::reader::Reader;

/// What a prefix of letters is replaced by, where it is.
pub(super) fn read(http: &mut Reader<'_>) -> Result<RequestMatch, NotCarried> {
    if http.flag("CaseInsensitive")? {
        let place = http.place_of("CaseInsensitive");
        return Err(NotCarried(format!("{place} has no counterpart: write PathRegex that begins (?i)")));
    }
    let (exact, prefix, regex) = (http.text("PathExact")?, http.text("PathPrefix")?, http.text("PathRegex")?);
    let given = [exact, prefix, regex].into_iter().filter(|path| !path.is_empty()).count();
    if given > 1 {
        return Err(NotCarried(format!("{} has two criteria for one path: keep one", http.place_of("PathExact"))));
    }
    let mut matches = RequestMatch { methods: methods(http)?, ..RequestMatch::default() };
    let owned = |text: &str| Some(text).filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    matches.path_exact = owned(exact);
    matches.path_regex = owned(regex);
    // Consul's prefix is of letters, ours of whole segments: they are the same where it ends with a slash.
    match prefix {
        "" => {}
        prefix if prefix.ends_with('/') => matches.path_prefix = owned(prefix),
        prefix => matches.path_regex = Some(prefix_pattern(prefix)),
    }
    for mut header in http.objects("Header")? {
        matches.headers.push(header_of(&mut header)?);
        header.finish()?;
    }
    for mut param in http.objects("QueryParam")? {
        let name = param.text("Name")?.to_owned();
        let criterion = criterion(&mut param, &["Exact", "Regex"])?;
        matches.query.push(QueryCriterion { name, matches: criterion });
        param.finish()?;
    }
    Ok(matches)
}

fn methods(http: &mut Reader<'_>) -> Result<Vec<String>, NotCarried> {
    Ok(http.texts("Methods")?.into_iter().map(|method| method.to_ascii_uppercase()).collect())
}

fn header_of(header: &mut Reader<'_>) -> Result<HeaderCriterion, NotCarried> {
    if header.flag("IgnoreCase")? {
        let place = header.place_of("IgnoreCase");
        return Err(NotCarried(format!("{place} has no counterpart: write Regex that begins (?i)")));
    }
    let name = header.text("Name")?.to_ascii_lowercase();
    let matches = criterion(header, &["Exact", "Prefix", "Suffix", "Contains", "Regex"])?;
    Ok(HeaderCriterion { name, matches, invert: header.flag("Invert")? })
}

fn criterion(reader: &mut Reader<'_>, words: &[&str]) -> Result<TextMatch, NotCarried> {
    let mut found = Vec::new();
    for word in words {
        let text = reader.text(word)?;
        if !text.is_empty() {
            let text = text.to_owned();
            found.push(match *word {
                "Exact" => TextMatch::Exact(text),
                "Prefix" => TextMatch::Prefix(text),
                "Suffix" => TextMatch::Suffix(text),
                "Contains" => TextMatch::Contains(text),
                _ => TextMatch::Regex(text),
            });
        }
    }
    if reader.flag("Present")? {
        found.push(TextMatch::Present);
    }
    match <[TextMatch; 1]>::try_from(found) {
        Ok([matches]) => Ok(matches),
        Err(_) => Err(NotCarried(format!(
            "{} has no criterion, or two: give one of Present, {}",
            reader.place_of("Name"),
            words.join(", ")
        ))),
    }
}

/// The criteria as Consul's `HTTP`, and what it has no word for.
pub(super) fn write(matches: &RequestMatch, place: &str, unsaid: &mut Vec<String>) -> Value {
    let mut http = json!({});
    if let Some(path) = &matches.path_exact {
        http["PathExact"] = path.as_str().into();
    }
    if let Some(path) = &matches.path_prefix {
        http["PathPrefix"] = path.as_str().into();
        if !path.ends_with('/') {
            unsaid.push(format!("{place}: PathPrefix is of whole segments"));
        }
    }
    if let Some(pattern) = &matches.path_regex {
        match prefix_of_pattern(pattern).filter(|prefix| !prefix.ends_with('/')) {
            Some(prefix) => http["PathPrefix"] = prefix.into(),
            None => http["PathRegex"] = pattern.as_str().into(),
        }
    }
    if !matches.methods.is_empty() {
        http["Methods"] = matches.methods.clone().into();
    }
    if !matches.headers.is_empty() {
        http["Header"] = matches.headers.iter().map(super::super::intentions::write_header).collect();
    }
    if !matches.query.is_empty() {
        let one = |criterion: &QueryCriterion| match &criterion.matches {
            TextMatch::Present => json!({ "Name": criterion.name, "Present": true }),
            TextMatch::Exact(text) => json!({ "Name": criterion.name, "Exact": text }),
            TextMatch::Prefix(text) | TextMatch::Suffix(text) | TextMatch::Contains(text) | TextMatch::Regex(text) => {
                json!({ "Name": criterion.name, "Regex": text })
            }
        };
        http["QueryParam"] = matches.query.iter().map(one).collect();
    }
    http
}
