//! The path that is judged, and forwarded.

use std::borrow::Cow;

use super::spelling::{canonical_escapes, collapsed, is_plain, resolve, with_slashes, with_visible, without_parameters};
use super::{PathRefused, PathSettings, RequestTarget};
use crate::DoubleSlash;

/// The path of a request in the one form that is forwarded, with every other path that a service may read in it. A path
/// that is in that form already, and has one reading, is borrowed.
///
/// The form: escapes of unreserved characters are decoded (RFC 3986 §2.3), the others are in upper case, bytes that are
/// not ASCII are escaped, `//` is `/` and `.` and `..` are resolved. [`PathSettings`] keep `%2F` or `//`, and nothing else.
///
/// The other readings are what comes of the path by any of these, in any order: without `;…` in its segments; with escapes
/// of visible characters decoded (`%3A` as `:`); with a kept `%2F` as `/`; with `//` as `/`. They are looked for in what was
/// received and in what is forwarded: `/a/..;x/../;y/b` goes on as `/a/;y/b`, which a service may read as `/a/b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedPath<'a> {
    forwarded: Cow<'a, str>,
    others: Vec<String>,
}

impl<'a> JudgedPath<'a> {
    /// Reads the path of a target. `*` is its own only reading.
    ///
    /// # Errors
    /// [`PathRefused`]: answer 400.
    pub fn read(target: &RequestTarget<'a>, settings: PathSettings) -> Result<Self, PathRefused> {
        let path = target.path();
        if is_plain(path) {
            return Ok(Self { forwarded: Cow::Borrowed(path), others: Vec::new() });
        }
        let received = canonical_escapes(path, settings.encoded_slash)?;
        let forwarded = match (settings.double_slash, collapsed(&received)) {
            (DoubleSlash::Collapse, Some(collapsed)) => resolve(&collapsed)?,
            _ => resolve(&received)?,
        };
        let others = other_readings(&received, &forwarded)?;
        let forwarded = if forwarded == path { Cow::Borrowed(path) } else { Cow::Owned(forwarded) };
        Ok(Self { forwarded, others })
    }

    /// The path to forward.
    pub fn forwarded(&self) -> &str {
        &self.forwarded
    }

    /// Every path that has to be allowed: the forwarded one, then the others.
    pub fn readings(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.forwarded).chain(self.others.iter().map(String::as_str))
    }
}

/// Everything that the views make of both, and of what they made. It ends: each view takes something out for good.
fn other_readings(received: &str, forwarded: &str) -> Result<Vec<String>, PathRefused> {
    let mut others = Vec::new();
    add_views(received, forwarded, &mut others)?;
    add_views(forwarded, forwarded, &mut others)?;
    let mut next = 0;
    while let Some(reading) = others.get(next).cloned() {
        add_views(&reading, forwarded, &mut others)?;
        next += 1;
    }
    Ok(others)
}

fn add_views(path: &str, forwarded: &str, others: &mut Vec<String>) -> Result<(), PathRefused> {
    for view in [without_parameters, with_visible, with_slashes, collapsed] {
        let Some(viewed) = view(path) else { continue };
        let with_single_slashes = collapsed(&viewed);
        for viewed in [Some(viewed), with_single_slashes].into_iter().flatten() {
            let reading = resolve(&viewed)?;
            if reading != forwarded && !others.contains(&reading) {
                others.push(reading);
            }
        }
    }
    Ok(())
}
