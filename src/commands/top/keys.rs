//! Keys as they come from a terminal in raw mode.

use std::collections::VecDeque;
use std::io::{self, Read};

use tokio::sync::mpsc;

/// A key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// One that writes something.
    Character(char),
    /// Return.
    Enter,
    /// Escape.
    Escape,
    /// Ctrl-C.
    Interrupt,
    /// Backspace.
    Erase,
    /// The arrow.
    Up,
    /// The arrow.
    Down,
}

/// The keyboard.
pub struct Keys {
    read: mpsc::Receiver<Vec<u8>>,
    pressed: VecDeque<Key>,
}

impl Keys {
    /// Reads stdin, which is a terminal, on a thread. It ends with the process: a read of a terminal cannot be taken back.
    pub fn open() -> io::Result<Self> {
        let (send, read) = mpsc::channel(16);
        std::thread::Builder::new().name("keys".into()).spawn(move || {
            let mut bytes = [0; 64];
            while let Ok(length @ 1..) = io::stdin().lock().read(&mut bytes) {
                if send.blocking_send(bytes.get(..length).unwrap_or_default().to_vec()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { read, pressed: VecDeque::new() })
    }

    /// The next key; nothing where the terminal is gone. It can be given up and asked again.
    pub async fn next(&mut self) -> Option<Key> {
        loop {
            if let Some(key) = self.pressed.pop_front() {
                return Some(key);
            }
            self.pressed.extend(keys_in(&self.read.recv().await?));
        }
    }
}

/// The keys in what was read at once: an arrow comes whole.
fn keys_in(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
    let mut rest: &str = &text;
    let mut keys = Vec::new();
    while let Some(first) = rest.chars().next() {
        let (key, length) = match first {
            '\u{1b}' if rest.starts_with("\u{1b}[A") || rest.starts_with("\u{1b}OA") => (Some(Key::Up), 3),
            '\u{1b}' if rest.starts_with("\u{1b}[B") || rest.starts_with("\u{1b}OB") => (Some(Key::Down), 3),
            // Keys that mean nothing here.
            '\u{1b}' if rest.starts_with("\u{1b}[") => {
                let end = rest.get(2..).and_then(|rest| rest.find(|c: char| c.is_ascii_alphabetic() || c == '~'));
                (None, end.map_or(rest.len(), |end| 3 + end))
            }
            '\u{1b}' => (Some(Key::Escape), 1),
            '\u{3}' => (Some(Key::Interrupt), 1),
            '\r' | '\n' => (Some(Key::Enter), 1),
            '\u{7f}' | '\u{8}' => (Some(Key::Erase), 1),
            c if c.is_control() => (None, 1),
            c => (Some(Key::Character(c)), c.len_utf8()),
        };
        keys.extend(key);
        rest = rest.get(length..).unwrap_or_default();
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_apart() {
        use Key::{Character, Down, Enter, Erase, Escape, Interrupt, Up};
        for (bytes, keys) in [
            ("qs", vec![Character('q'), Character('s')]),
            ("\u{1b}", vec![Escape]),
            ("\u{1b}[A\u{1b}OBx", vec![Up, Down, Character('x')]),
            ("\u{1b}[5~j", vec![Character('j')]),
            ("\u{1b}[", vec![]),
            ("\u{3}\r\u{7f}\u{1}", vec![Interrupt, Enter, Erase]),
            ("ä", vec![Character('ä')]),
        ] {
            assert_eq!(keys_in(bytes.as_bytes()), keys, "{bytes:?}");
        }
        assert_eq!(keys_in(b"\xff"), [Character('\u{fffd}')]);
    }
}
