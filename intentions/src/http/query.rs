//! The query: `name=value` pairs with `&` between them, as forms write it (WHATWG URL §5.1).

use std::borrow::Cow;

/// The values of the parameter `name`, in order. `+` is a space, escapes are decoded; a parameter without `=` is empty.
/// `None` for a value that is not understood: a bad escape, or bytes that are not UTF-8. A parameter whose name is not
/// understood could be any, and so is a value of every name.
pub(super) fn values<'q>(query: Option<&'q str>, name: &str) -> impl Iterator<Item = Option<Cow<'q, str>>> {
    query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).filter_map(move |pair| {
        let (given, value) = pair.split_once('=').unwrap_or((pair, ""));
        match decoded(given) {
            None => Some(None),
            Some(given) if given == name => Some(decoded(value)),
            Some(_) => None,
        }
    })
}

fn decoded(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || rest.next().and_then(|digit| char::from(*digit).to_digit(16));
                (digit()? * 16 + digit()?) as u8
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}
