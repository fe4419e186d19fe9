//! Payloads that show by themselves whether a byte was lost, came twice or came out of order.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::PATIENCE;

/// Words that are written at once.
const AT_ONCE: u64 = 4096;
const WORD: usize = 8;

/// How a sequence ended for who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every word that was announced came, and then the end.
    Complete,
    /// The connection failed before that.
    Cut(io::ErrorKind),
    /// The connection ended in order, before every word had come.
    Short,
}

/// Sends how many words follow, the words, each its own number, and then the end of this direction. Stops quietly when the
/// connection fails: its reader says how.
pub fn send(mut stream: &TcpStream, words: u64) -> io::Result<()> {
    stream.write_all(&words.to_be_bytes())?;
    let mut bytes = Vec::with_capacity(AT_ONCE as usize * WORD);
    for first in (0..words).step_by(AT_ONCE as usize) {
        bytes.clear();
        (first..words.min(first + AT_ONCE)).for_each(|word| bytes.extend(word.to_be_bytes()));
        stream.write_all(&bytes)?;
    }
    stream.shutdown(Shutdown::Write)
}

/// Sends a sequence and reads one, at once; gives how the one that is read ended, or that the sent one
/// failed. A stream that hangs fails the test.
#[track_caller]
pub fn converse(stream: &TcpStream, words: u64) -> Ended {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| send(stream, words));
        let ended = receive(stream);
        match (ended, sending.join().unwrap()) {
            (Ended::Complete, Err(error)) => Ended::Cut(error.kind()),
            // The kernel tells of a reset once, to whoever asks first; after an end in order it would have been a broken pipe.
            (Ended::Short, Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ended::Cut(error.kind()),
            (ended, _) => ended,
        }
    })
}

/// Reads a sequence to its end. A word that is not the next one fails the test at once.
#[track_caller]
pub fn receive(mut stream: &TcpStream) -> Ended {
    let mut buffer = vec![0; 128 * 1024];
    let mut held = 0;
    let mut announced = None;
    let mut next = 0u64;
    loop {
        match stream.read(&mut buffer[held..]) {
            Ok(0) if held == 0 && announced == Some(next) => return Ended::Complete,
            Ok(0) => return Ended::Short,
            Ok(read) => held += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                panic!("nothing came after {next} words of {announced:?}, and no end either")
            }
            Err(error) => return Ended::Cut(error.kind()),
        }
        let whole = held - held % WORD;
        for word in buffer[..whole].chunks_exact(WORD) {
            let word = u64::from_be_bytes(word.try_into().unwrap());
            match announced {
                None => announced = Some(word),
                Some(_) => {
                    assert_eq!(word, next, "a word came twice, late or not at all");
                    next += 1;
                }
            }
        }
        buffer.copy_within(whole..held, 0);
        held -= whole;
    }
}
