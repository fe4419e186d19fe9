//! The two kinds of token, told apart before either is sent anywhere.

use std::fmt;
use std::path::Path;

use crate::outcome::Failure;

const OPERATOR: &str = "postern-op1.";
const ENROLMENT: &str = "postern1.";

/// A secret that never shows in a log or an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, to be sent to where it belongs.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Reads the token of an API client. `place` is where it was given, for the error.
pub fn operator(text: &str, place: &str) -> Result<Secret, Failure> {
    let text = text.trim();
    if text.starts_with(ENROLMENT) {
        return Err(Failure::new(format!(
            "{place} holds an enrolment token (postern1.…), which only turns a process into a service; it was not sent"
        ))
        .cure("give the operator token (postern-op1.…); enrolment tokens go to `meshctl proxy` and `meshctl run`"));
    }
    if is_uuid(text) {
        // A token of access control, made by `meshctl acl token create`.
        return Ok(Secret(text.into()));
    }
    if !text.starts_with(OPERATOR) {
        return Err(Failure::new(format!("{place} does not hold an operator token: it does not begin with postern-op1."))
            .cure("the control plane wrote one to operator.token in its data directory"));
    }
    text.parse::<postern_ca::OperatorToken>()
        .map_err(|error| Failure::new(format!("{place} does not hold an operator token: {error}")).cure("copy it whole"))?;
    Ok(Secret(text.into()))
}

/// Eight, four, four, four and twelve hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12]) && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads the token that a sidecar enrols with. `place` is where it was given, for the error.
pub fn enrolment(text: &str, place: &str) -> Result<postern_ca::EnrolmentToken, Failure> {
    let text = text.trim();
    if text.starts_with(OPERATOR) {
        return Err(Failure::new(format!(
            "{place} holds an operator token (postern-op1.…), which is for people and the API; it was not sent"
        ))
        .cure("make an enrolment token with `meshctl token create --service NAME`"));
    }
    text.parse().map_err(|error| {
        Failure::new(format!("{place} does not hold an enrolment token: {error}"))
            .cure("make one with `meshctl token create --service NAME`")
    })
}

/// Reads a file that holds one token.
pub fn read_file(path: &Path, place: &str) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read {} ({place}): {error}", path.display())))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enrolment_token_is_refused_where_an_operator_token_belongs() {
        let failure = operator("postern1.abc.def", "POSTERN_TOKEN").unwrap_err();
        assert!(failure.what.contains("enrolment token") && failure.what.contains("not sent"), "{failure}");
    }

    #[test]
    fn an_operator_token_is_refused_where_an_enrolment_token_belongs() {
        let failure = enrolment("postern-op1.abc", "--token").unwrap_err();
        assert!(failure.what.contains("operator token") && failure.what.contains("not sent"), "{failure}");
    }

    #[test]
    fn a_refusal_never_shows_the_token() {
        for text in ["postern1.s3cret", "postern-op1.s3cret", "s3cret"] {
            for failure in [operator(text, "POSTERN_TOKEN").err(), enrolment(text, "--token").err()].into_iter().flatten() {
                assert!(!failure.to_string().contains("s3cret"), "{failure}");
            }
        }
    }

    #[test]
    fn a_secret_prints_as_an_ellipsis() {
        assert_eq!(format!("{:?}", Secret("x".into())), "…");
    }
}
