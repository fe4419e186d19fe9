//! Names and values of headers, cookies and parameters that settings give.

use postern_intentions::checks::{check_header_name, check_text};

use super::super::HeaderEdits;
use super::faults::{Checker, shown};

/// Bytes of a value.
const VALUE_LIMIT: usize = 8192;

/// Headers of one hop (RFC 9110 §7.6.1), those that say where a message ends, and those that name the service. Whoever may
/// change them can make two ends disagree on what a request is.
const RESERVED: [&str; 14] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
    "http2-settings",
];

/// Headers that the mesh alone writes.
const OWN_PREFIX: &str = "x-postern-";

/// Whether no setting may name this header in an edit; the name is lower case.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with(OWN_PREFIX)
}

impl HeaderEdits {
    pub(super) fn check(&self, checker: &mut Checker) {
        checker.at_most("edits of headers", self.remove.len() + self.set.len() + self.add.len());
        checker.within("remove", |checker| checker.each(&self.remove, |checker, name| check_edited(checker, name)));
        for (key, edits) in [("set", &self.set), ("add", &self.add)] {
            checker.within(key, |checker| {
                for (name, value) in edits {
                    checker.within(name, |checker| {
                        check_edited(checker, name);
                        check_value(checker, value);
                    });
                }
            });
        }
    }
}

fn check_edited(checker: &mut Checker, name: &str) {
    if is_reserved(name) {
        let what = format!("header {:?} cannot be changed", shown(name));
        return checker.note(what, "the mesh and the connection need it as it is; leave it out");
    }
    check_name(checker, name);
}

/// A header name, in lower case as it is looked up.
pub(super) fn check_name(checker: &mut Checker, name: &str) {
    if check_header_name(name).is_ok() {
        return;
    }
    let lower = name.to_ascii_lowercase();
    let cure = if check_header_name(&lower).is_ok() { format!("write {lower:?}") } else { "use a token such as x-team".into() };
    checker.note(format!("header name {:?} is not valid", shown(name)), cure);
}

/// A value that no receiver can take for more than one line (RFC 9110 §5.5).
fn check_value(checker: &mut Checker, value: &str) {
    let is_valid = value.len() <= VALUE_LIMIT && value.bytes().all(|b| (b' '..=b'~').contains(&b) || b == b'\t');
    if !is_valid || value.trim() != value {
        checker.note("the value is not valid", "use at most 8192 printable ASCII characters, without spaces at the ends");
    }
}

/// The name of a cookie (RFC 6265 §4.1.1): a token.
pub(super) fn check_cookie(checker: &mut Checker, name: &str) {
    if check_header_name(&name.to_ascii_lowercase()).is_err() {
        checker.note(format!("cookie name {:?} is not valid", shown(name)), "use letters, digits, - and _");
    }
}

/// The name of a parameter of the query.
pub(super) fn check_parameter(checker: &mut Checker, name: &str) {
    if let Err(error) = check_text("the name of a query parameter", name, 1024) {
        checker.error(error);
    }
}
