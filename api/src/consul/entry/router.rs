//! `service-router`: which requests of a service go where.

use postern_names::ServiceName;
use postern_traffic::settings::{HeaderEdits, RequestMatch, Retries, RetryOn, Route, RouteAction};
use postern_traffic::{Period, ServiceSettings};
use serde_json::{Value, json};

use super::super::{NotCarried, duration};
use super::criteria;
use super::reader::Reader;
use super::splitter::{other_service, put_target, subset};

/// Consul's words for what is tried again; `per-try-timeout` is ours alone.
const RETRY_ON: [(&str, RetryOn); 9] = [
    ("connect-failure", RetryOn::ConnectFailure),
    ("reset", RetryOn::Reset),
    ("gateway-error", RetryOn::GatewayError),
    ("5xx", RetryOn::ServerError),
    ("unavailable", RetryOn::Unavailable),
    ("resource-exhausted", RetryOn::ResourceExhausted),
    ("cancelled", RetryOn::Cancelled),
    ("deadline-exceeded", RetryOn::DeadlineExceeded),
    ("internal", RetryOn::Internal),
];

pub(super) fn read(own: &ServiceName, reader: &mut Reader<'_>) -> Result<Vec<Route>, NotCarried> {
    let routes = reader.objects("Routes")?;
    if routes.is_empty() {
        return Err(NotCarried("Routes is empty: give a route, or delete the entry".into()));
    }
    routes.into_iter().map(|route| one(own, route)).collect()
}

fn one(own: &ServiceName, mut route: Reader<'_>) -> Result<Route, NotCarried> {
    let mut matches = RequestMatch::default();
    let mut prefix = "";
    if let Some(mut of) = route.object("Match")? {
        if let Some(mut http) = of.object("HTTP")? {
            prefix = http.peek_text("PathPrefix");
            matches = criteria::read(&mut http)?;
            http.finish()?;
        }
        of.finish()?;
    }
    let mut to = RouteAction::default();
    if let Some(mut destination) = route.object("Destination")? {
        to = action(own, &mut destination, prefix)?;
        destination.finish()?;
    }
    route.finish()?;
    Ok(Route { matches, to })
}

fn action(own: &ServiceName, reader: &mut Reader<'_>, prefix: &str) -> Result<RouteAction, NotCarried> {
    reader.refuse_scopes()?;
    reader.refuse("IdleTimeout", "set timeouts.idle of the service with `meshctl service config`")?;
    let place = reader.place_of("PrefixRewrite");
    let rewrite = Some(reader.text("PrefixRewrite")?).filter(|path| !path.is_empty());
    if let Some(rewrite) = rewrite
        && !prefix.is_empty()
        && !(prefix.ends_with('/') && rewrite.ends_with('/'))
    {
        return Err(NotCarried(format!(
            "{place} of PathPrefix {prefix:?} has no counterpart: end both with a slash, as in /v1/ and /"
        )));
    }
    let timeout = reader.duration("RequestTimeout")?;
    Ok(RouteAction {
        service: other_service(own, reader, "Service")?,
        subset: subset(reader, "ServiceSubset")?,
        rewrite: rewrite.map(ToOwned::to_owned),
        request_headers: edits(reader, "RequestHeaders")?,
        response_headers: edits(reader, "ResponseHeaders")?,
        timeout: (!timeout.is_zero()).then(|| period(timeout)),
        retries: retries(reader)?,
        mirror: None,
    })
}

/// Whole milliseconds, rounded up.
pub(super) fn period(duration: std::time::Duration) -> Period {
    Period::millis(u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

fn edits(reader: &mut Reader<'_>, name: &str) -> Result<HeaderEdits, NotCarried> {
    let Some(mut edits) = reader.object(name)? else { return Ok(HeaderEdits::default()) };
    let lower = |labels: std::collections::BTreeMap<String, String>| {
        labels.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect()
    };
    let read = HeaderEdits {
        remove: edits.texts("Remove")?.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
        set: lower(edits.labels("Set")?),
        add: lower(edits.labels("Add")?),
    };
    edits.finish()?;
    Ok(read)
}

/// None where the entry says nothing of retries: then those of the service hold.
fn retries(reader: &mut Reader<'_>) -> Result<Option<Retries>, NotCarried> {
    let (place, statuses_place) = (reader.place_of("RetryOn"), reader.place_of("RetryOnStatusCodes"));
    let attempts = reader.number("NumRetries")?;
    let mut on = Vec::new();
    if reader.flag("RetryOnConnectFailure")? {
        on.push(RetryOn::ConnectFailure);
    }
    for word in reader.texts("RetryOn")? {
        let found = RETRY_ON.iter().find(|(known, _)| *known == word).map(|(_, condition)| *condition);
        let condition = found.ok_or_else(|| {
            let known: Vec<&str> = RETRY_ON.iter().map(|(word, _)| *word).collect();
            NotCarried(format!("{place} {word:?} has no counterpart: write some of {}, or RetryOnStatusCodes", known.join(", ")))
        })?;
        if !on.contains(&condition) {
            on.push(condition);
        }
    }
    let statuses = reader.list("RetryOnStatusCodes")?.iter();
    let status = |value: &Value| value.as_u64().and_then(|status| u16::try_from(status).ok());
    let statuses: Option<Vec<u16>> = statuses.map(status).collect();
    let statuses = statuses.ok_or_else(|| NotCarried(format!("{statuses_place} is not a list of statuses")))?;
    if attempts == 0 && on.is_empty() && statuses.is_empty() {
        return Ok(None);
    }
    // Envoy tries once more where nobody says how often.
    let attempts = u32::try_from(attempts.max(1)).unwrap_or(u32::MAX);
    Ok(Some(Retries { attempts, on, statuses, ..Retries::default() }))
}

pub(super) fn write(settings: &ServiceSettings, unsaid: &mut Vec<String>) -> Value {
    let routes = settings.routes.iter().enumerate();
    routes.map(|(number, route)| write_one(route, &format!("Routes[{number}]"), unsaid)).collect()
}

fn write_one(route: &Route, place: &str, unsaid: &mut Vec<String>) -> Value {
    let mut written = json!({});
    if route.matches != RequestMatch::default() {
        written["Match"]["HTTP"] = criteria::write(&route.matches, place, unsaid);
    }
    let to = &route.to;
    let mut destination = json!({});
    put_target(&mut destination, to.service.as_ref(), to.subset.as_ref());
    if let Some(rewrite) = &to.rewrite {
        destination["PrefixRewrite"] = rewrite.as_str().into();
        if route.matches.path_prefix.is_some() && !rewrite.ends_with('/') {
            unsaid.push(format!("{place}: one slash joins PrefixRewrite and the rest"));
        }
    }
    match to.timeout {
        None => {}
        Some(timeout) if timeout.is_zero() => unsaid.push(format!("{place}: its requests have no time-out")),
        Some(timeout) => destination["RequestTimeout"] = duration::format(timeout.duration()).into(),
    }
    for (name, edits) in [("RequestHeaders", &to.request_headers), ("ResponseHeaders", &to.response_headers)] {
        if *edits != HeaderEdits::default() {
            destination[name] = write_edits(edits);
        }
    }
    if let Some(retries) = &to.retries {
        write_retries(retries, &mut destination, place, unsaid);
    }
    if to.mirror.is_some() {
        unsaid.push(format!("{place}: a mirror is not shown"));
    }
    if destination != json!({}) {
        written["Destination"] = destination;
    }
    written
}

fn write_edits(edits: &HeaderEdits) -> Value {
    let mut written = json!({});
    if !edits.remove.is_empty() {
        written["Remove"] = edits.remove.clone().into();
    }
    for (name, labels) in [("Set", &edits.set), ("Add", &edits.add)] {
        if !labels.is_empty() {
            written[name] = json!(labels);
        }
    }
    written
}

fn write_retries(retries: &Retries, destination: &mut Value, place: &str, unsaid: &mut Vec<String>) {
    let words =
        Retries { attempts: retries.attempts, on: retries.on.clone(), statuses: retries.statuses.clone(), ..Retries::default() };
    if retries.attempts == 0 || *retries != words {
        unsaid.push(format!("{place}: its retries are not shown whole"));
    }
    destination["NumRetries"] = retries.attempts.into();
    let word = |condition: &RetryOn| RETRY_ON.iter().find(|(_, known)| known == condition).map(|(word, _)| *word);
    let mut on = Vec::new();
    for condition in &retries.on {
        match word(condition) {
            // Consul has a field of its own for the first.
            Some("connect-failure") => destination["RetryOnConnectFailure"] = true.into(),
            Some(word) => on.push(word),
            None => unsaid.push(format!("{place}: a retry condition is not shown")),
        }
    }
    if !on.is_empty() {
        destination["RetryOn"] = json!(on);
    }
    if !retries.statuses.is_empty() {
        destination["RetryOnStatusCodes"] = json!(retries.statuses);
    }
}
