//! A stream of server-sent events (WHATWG HTML §9.2.6), as far as the control plane uses them.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::connection::Sender;
use crate::outcome::Failure;

/// The longest event.
const LONGEST: usize = 64 << 20;
/// The control plane says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// An event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub name: String,
    /// What it says.
    pub data: String,
}

/// Events as they come.
pub struct Events {
    body: Incoming,
    /// The connection ends with it.
    _sender: Sender,
    parser: Parser,
}

/// Lines become events.
#[derive(Debug, Default)]
struct Parser {
    bytes: Vec<u8>,
    event: Event,
}

impl Events {
    pub(super) fn new(sender: Sender, body: Incoming) -> Self {
        Self { body, _sender: sender, parser: Parser::default() }
    }

    /// The next event; nothing where the control plane ended the stream. It can be given up and asked again.
    ///
    /// # Errors
    /// The connection broke, or nothing was heard for 45 s.
    pub async fn next(&mut self) -> Result<Option<Event>, Failure> {
        let lost = |why: String| Failure::new(format!("the stream of events broke: {why}"));
        loop {
            if let Some(event) = self.parser.next() {
                return Ok(Some(event));
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            match frame.map_err(|_| lost(format!("nothing was heard for {}", crate::duration::text(SILENCE))))? {
                None => return Ok(None),
                Some(Err(error)) => return Err(lost(error.to_string())),
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.parser.bytes.extend_from_slice(bytes);
                    }
                    if self.parser.bytes.len() > LONGEST {
                        return Err(lost(format!("an event is longer than {} MiB", LONGEST >> 20)));
                    }
                }
            }
        }
    }
}

impl Parser {
    /// The next whole event.
    fn next(&mut self) -> Option<Event> {
        let mut begin = 0;
        let mut found = None;
        while let Some(length) = self.bytes.get(begin..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
            let line = String::from_utf8_lossy(self.bytes.get(begin..begin + length).unwrap_or_default()).into_owned();
            begin += length + 1;
            if self.take_line(line.trim_end_matches('\r')) {
                found = Some(std::mem::take(&mut self.event));
                break;
            }
        }
        self.bytes.drain(..begin);
        found
    }

    /// Whether an event is whole now. A line that begins with a colon says nothing.
    fn take_line(&mut self, line: &str) -> bool {
        if line.is_empty() {
            return !self.event.name.is_empty() || !self.event.data.is_empty();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let text = ":\n\nevent: a\ndata: {\"x\": 1}\n\n: quiet\r\n\r\ndata: one\ndata: two\nid: 7\n\nevent: half\n";
        let event = |name: &str, data: &str| Event { name: name.into(), data: data.into() };
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for bytes in text.as_bytes().chunks(size) {
                parser.bytes.extend_from_slice(bytes);
                events.extend(std::iter::from_fn(|| parser.next()));
            }
            assert_eq!(events, [event("a", "{\"x\": 1}"), event("", "one\ntwo")], "in pieces of {size}");
        }
    }
}
