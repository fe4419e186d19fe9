//! Where spans are sent.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::Scheme;

/// `http://HOST[:PORT][/PATH]`; without a path that of OTLP (OTLP 1.x, «OTLP/HTTP Request»).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtlpUrl(Uri);

/// A text that is no [`OtlpUrl`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OtlpUrlError {
    /// No URL at all.
    #[error("it is not a URL; write http://HOST:4318")]
    Malformed,
    /// Another scheme.
    #[error("spans are sent by http only; send them to a collector on this host or network, such as http://127.0.0.1:4318")]
    NotHttp,
    /// A name, a password or a query.
    #[error("it may have a host, a port and a path, and nothing else")]
    TooMuch,
}

impl OtlpUrl {
    /// With the path.
    pub fn uri(&self) -> &Uri {
        &self.0
    }
}

impl FromStr for OtlpUrl {
    type Err = OtlpUrlError;

    fn from_str(text: &str) -> Result<Self, OtlpUrlError> {
        let uri: Uri = text.parse().map_err(|_| OtlpUrlError::Malformed)?;
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(OtlpUrlError::Malformed)?;
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => {}
            Some(_) => return Err(OtlpUrlError::NotHttp),
            None => return Err(OtlpUrlError::Malformed),
        }
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err(OtlpUrlError::TooMuch);
        }
        let path = if uri.path() == "/" { "/v1/traces" } else { uri.path() };
        let whole = Uri::builder().scheme("http").authority(authority.clone()).path_and_query(path);
        whole.build().map(Self).map_err(|_| OtlpUrlError::Malformed)
    }
}

impl fmt::Display for OtlpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_a_path_gets_the_one_of_otlp() {
        for (text, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://[::1]:4318/", "http://[::1]:4318/v1/traces"),
            ("http://collector/otlp", "http://collector/otlp"),
        ] {
            assert_eq!(text.parse::<OtlpUrl>().expect("a URL").to_string(), url);
        }
    }

    #[test]
    fn what_would_not_be_sent_as_meant_is_refused() {
        for (text, error) in [
            ("https://collector:4318", OtlpUrlError::NotHttp),
            ("collector:4318", OtlpUrlError::Malformed),
            ("/v1/traces", OtlpUrlError::Malformed),
            ("http://me:secret@collector", OtlpUrlError::TooMuch),
            ("http://collector/?token=secret", OtlpUrlError::TooMuch),
        ] {
            assert_eq!(text.parse::<OtlpUrl>(), Err(error), "{text}");
        }
    }
}
