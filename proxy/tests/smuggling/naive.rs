//! A reader of requests that is slow, obvious and given everything at once.

use hyper::Uri;

/// A request that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
}

/// The whole requests at the beginning of bytes that are known to be well-formed, and the bytes that are left.
pub fn requests(mut bytes: &[u8]) -> (Vec<Request>, &[u8]) {
    let mut requests = Vec::new();
    while let Some((request, rest)) = request(bytes) {
        requests.push(request);
        bytes = rest;
    }
    (requests, bytes)
}

fn request(bytes: &[u8]) -> Option<(Request, &[u8])> {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let (head, rest) = split(bytes, "\r\n\r\n")?;
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), as_server(words.next()?));
    let fields: Vec<(String, &str)> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_lowercase(), value.trim())).collect();
    let find = |wanted: &str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
    let (body, rest) = match (find("transfer-encoding"), find("content-length")) {
        (Some(_), _) => chunks(rest)?,
        (None, Some(length)) => rest.split_at_checked(length.parse().ok()?).map(|(body, rest)| (body.to_vec(), rest))?,
        (None, None) => (Vec::new(), rest),
    };
    Some((Request { method, target, body }, rest))
}

/// A target as the server spells it; nothing where it is beyond ASCII, which the server may spell in another way.
pub fn as_server(target: &str) -> String {
    target.parse::<Uri>().map(|uri| uri.to_string()).ok().filter(|target| target.is_ascii()).unwrap_or_default()
}

fn chunks(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (line, rest) = split(bytes, "\r\n")?;
        let size = std::str::from_utf8(line).ok()?.split(';').next()?;
        let size = usize::try_from(u64::from_str_radix(size, 16).ok()?).ok()?;
        if size == 0 {
            // The CRLF of the last chunk's line is also where an empty list of trailers would begin.
            let (_trailers, rest) = split(&bytes[line.len()..], "\r\n\r\n")?;
            return Some((body, rest));
        }
        let (data, rest) = rest.split_at_checked(size)?;
        body.extend(data);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
}

fn split<'b>(bytes: &'b [u8], at: &str) -> Option<(&'b [u8], &'b [u8])> {
    let found = bytes.windows(at.len()).position(|window| window == at.as_bytes())?;
    Some((&bytes[..found], &bytes[found + at.len()..]))
}
