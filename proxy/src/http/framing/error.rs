//! Why a request's framing is refused.

use thiserror::Error;

/// Why a request is refused before HTTP is understood: its beginning, its end or its length could be read in two ways,
/// or it is larger than allowed. The connection ends after it, since nobody knows where a next request would begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FramingError {
    /// The head has no end within the limit (RFC 9110 §5.4).
    #[error("the head of the request is longer than {limit} bytes")]
    HeadTooLarge {
        /// Most bytes.
        limit: usize,
    },
    /// More fields than allowed, in a head or after a body.
    #[error("the request has more than {limit} header fields")]
    TooManyFields {
        /// Most fields.
        limit: usize,
    },
    /// The head began and did not end in time.
    #[error("the head of the request did not arrive in time")]
    HeadTooSlow,
    /// A line ends with LF alone. RFC 9112 §2.2 lets a recipient take it; one that does not would see another request.
    #[error("a line ends with LF instead of CRLF")]
    BareLineFeed,
    /// A CR that no LF follows (RFC 9112 §2.2).
    #[error("a CR stands where no line ends")]
    BareCarriageReturn,
    /// A control byte in a head or a trailer (RFC 9110 §5.5).
    #[error("a control byte is in the head or the trailers of the request")]
    ControlByte,
    /// Not `method SP target SP version` (RFC 9112 §3).
    #[error("the request line is not METHOD, one space, target, one space, HTTP/1.1")]
    RequestLine,
    /// Neither HTTP/1.1 nor HTTP/1.0, or none as in HTTP/0.9.
    #[error("the version of the request is neither HTTP/1.1 nor HTTP/1.0")]
    Version,
    /// CONNECT: what follows it would be no HTTP (RFC 9110 §9.3.6).
    #[error("CONNECT is not served")]
    Connect,
    /// A line that continues the one before it (RFC 9112 §5.2).
    #[error("a header field is continued on a second line")]
    FoldedLine,
    /// A field without a name, with a bad byte in it, with space before the colon, or without a colon (RFC 9112 §5.1).
    #[error("a header line does not begin with a name and a colon right after it")]
    FieldName,
    /// `Content_Length`: some services read `_` in a name as `-`.
    #[error("a header field is named like a framing field, with _ for -")]
    AmbiguousName,
    /// HTTP/1.1 without Host (RFC 9112 §3.2).
    #[error("the request has no Host")]
    NoHost,
    /// More than one Host (RFC 9112 §3.2).
    #[error("the request has more than one Host")]
    TwoHosts,
    /// Host is not a host with an optional port.
    #[error("the Host of the request is not a host and a port")]
    Host,
    /// Content-Length is not 1 to 19 digits (RFC 9110 §8.6).
    #[error("the Content-Length of the request is not a decimal number of bytes")]
    ContentLength,
    /// Content-Length stands there twice, even if with the same value.
    #[error("the request has more than one Content-Length")]
    TwoContentLengths,
    /// Transfer-Encoding is not exactly `chunked`, or stands there twice (RFC 9112 §6.1).
    #[error("the Transfer-Encoding of the request is not exactly: chunked")]
    TransferEncoding,
    /// Both are there (RFC 9112 §6.1).
    #[error("the request has a Content-Length and a Transfer-Encoding")]
    TwoLengths,
    /// Transfer-Encoding in HTTP/1.0 (RFC 9112 §6.1).
    #[error("the request has a Transfer-Encoding in HTTP/1.0")]
    OldTransferEncoding,
    /// `Connection` calls a framing field hop-by-hop: who removes it would change the message (RFC 9110 §7.6.1).
    #[error("the Connection of the request names a framing field")]
    ConnectionOption,
    /// A chunk size that is not 1 to 16 hexadecimal digits and nothing else (RFC 9112 §7.1).
    #[error("a chunk size is not a plain hexadecimal number")]
    ChunkSize,
    /// A chunk extension outside its grammar or over its limit (RFC 9112 §7.1.1).
    #[error("a chunk extension is malformed or too long")]
    ChunkExtension,
    /// The data of a chunk does not end with CRLF (RFC 9112 §7.1).
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
    /// Trailers over the limit.
    #[error("the trailers of the request are longer than {limit} bytes")]
    TrailersTooLarge {
        /// Most bytes.
        limit: usize,
    },
    /// A trailer that would change what was judged before it came (RFC 9110 §6.5.1).
    #[error("a trailer may not carry framing, routing, credentials or identity")]
    ForbiddenTrailer,
    /// The protocol changed before the request that asked for it was whole, or the peer went on before the answer.
    #[error("bytes followed a request for Upgrade before it was answered")]
    PrematureUpgrade,
}

impl FramingError {
    /// The reason as one word, for metrics and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::HeadTooLarge { .. } => "head_too_large",
            Self::TooManyFields { .. } => "too_many_fields",
            Self::HeadTooSlow => "head_too_slow",
            Self::BareLineFeed => "bare_line_feed",
            Self::BareCarriageReturn => "bare_carriage_return",
            Self::ControlByte => "control_byte",
            Self::RequestLine => "request_line",
            Self::Version => "version",
            Self::Connect => "connect",
            Self::FoldedLine => "folded_line",
            Self::FieldName => "field_name",
            Self::AmbiguousName => "ambiguous_name",
            Self::NoHost => "no_host",
            Self::TwoHosts => "two_hosts",
            Self::Host => "host",
            Self::ContentLength => "content_length",
            Self::TwoContentLengths => "two_content_lengths",
            Self::TransferEncoding => "transfer_encoding",
            Self::TwoLengths => "two_lengths",
            Self::OldTransferEncoding => "old_transfer_encoding",
            Self::ConnectionOption => "connection_option",
            Self::ChunkSize => "chunk_size",
            Self::ChunkExtension => "chunk_extension",
            Self::ChunkEnd => "chunk_end",
            Self::TrailersTooLarge { .. } => "trailers_too_large",
            Self::ForbiddenTrailer => "forbidden_trailer",
            Self::PrematureUpgrade => "premature_upgrade",
        }
    }

    /// The status line's code and phrase: 400, or 408 and 431 where they say it better (RFC 9110 §15.5.9, RFC 6585 §5).
    pub fn status(&self) -> &'static str {
        match self {
            Self::HeadTooLarge { .. } | Self::TooManyFields { .. } | Self::TrailersTooLarge { .. } => {
                "431 Request Header Fields Too Large"
            }
            Self::HeadTooSlow => "408 Request Timeout",
            _ => "400 Bad Request",
        }
    }

    /// The whole answer, written to the socket as it is. Its texts are ours alone: nothing of the request is in it.
    pub fn answer(&self) -> String {
        let body = format!(r#"{{"error":"bad_request","because":"{self}"}}"#);
        let (status, length) = (self.status(), body.len());
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
    }
}
