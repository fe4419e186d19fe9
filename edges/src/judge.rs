//! How the one evaluator judges what was seen.

use std::time::SystemTime;

use http::HeaderMap;
use postern_intentions::{Call, Decision, PathSettings, Protocol, Request, RuleSet, VerifiedTokens, decide, judge_request};

use crate::Sighting;

/// What decides how calls of a service are judged, beside the intentions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Called {
    /// What it speaks now.
    pub protocol: Protocol,
    /// What its settings say of unusual paths.
    pub paths: PathSettings,
}

/// How calls like those that were seen are judged at `now`. Headers, queries and tokens are not counted, so they are judged
/// as if they had none.
pub fn judge(rules: &RuleSet, seen: &Sighting, called: Called, now: SystemTime) -> Decision {
    let edge = &seen.edge;
    let (source, destination, port) = (&edge.source, &edge.destination, &edge.port);
    let call = Call { source, destination, port, protocol: called.protocol, request: None };
    let path = seen.path().filter(|_| called.protocol != Protocol::Tcp);
    let (Some(path), Some(part)) = (path, &edge.http) else { return decide(rules, &call, now) };
    let (headers, tokens) = (HeaderMap::new(), VerifiedTokens::none());
    let request = Request {
        method: part.method.as_str(),
        target: &path,
        host: None,
        headers: &headers,
        tokens: &tokens,
        paths: called.paths,
    };
    judge_request(rules, &call, &request, now).decision
}
