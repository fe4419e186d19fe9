//! Whether a ClientHello has arrived whole, seen without taking it from the socket.
//!
//! A place at work is given only for a whole ClientHello. Peers that send one slowly, or never send the rest, hold a
//! socket until their time is over, and keep nobody of their address from being served.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::HandshakeError;

/// Bytes of a ClientHello. A sidecar sends less than 2 KiB, a browser with post-quantum keys less than 4.
const LONGEST: usize = 16 * 1024;
/// Bytes that are looked at: a ClientHello may come in several records (RFC 8446 §5.1).
const LOOKED_AT: usize = LONGEST + 1024;
/// A record's type, version and length.
const RECORD_HEADER: usize = 5;
/// A handshake message's type and length.
const MESSAGE_HEADER: usize = 4;
const HANDSHAKE_RECORD: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// What can be told from the first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// More must come.
    Part,
    /// The ClientHello is here, with the whole of its last record: the TLS library waits for no more.
    Ready,
    /// It is none. The TLS library might wait for the rest of it, or for what follows.
    Other,
    /// It is or will be longer than anyone's.
    TooLong,
}

/// Waits until the ClientHello of a connection has arrived.
///
/// # Errors
/// [`HandshakeError::PeerClosed`] when the rest will not come, [`HandshakeError::NotTls`] when there is too much of it, or
/// something else came.
pub(crate) async fn arrive(socket: &TcpStream) -> Result<(), HandshakeError> {
    loop {
        let ready = socket.ready(Interest::READABLE).await.map_err(|_| HandshakeError::PeerClosed)?;
        match socket.try_io(Interest::READABLE, || look(socket)) {
            Ok(Arrival::TooLong) => return Err(not_tls(format!("its ClientHello is longer than {} KiB", LONGEST / 1024))),
            Ok(Arrival::Other) => return Err(not_tls("it does not begin with a ClientHello".to_owned())),
            Ok(_) => return Ok(()),
            // A closed socket stays ready for ever: to wait on would be to spin.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ready.is_read_closed() => {}
            Err(_) => return Err(HandshakeError::PeerClosed),
        }
    }
}

fn not_tls(why: String) -> HandshakeError {
    HandshakeError::NotTls(io::Error::new(io::ErrorKind::InvalidData, why))
}

/// «Would block» stands for «not whole yet» too, so that the runtime waits for more.
fn look(socket: &TcpStream) -> io::Result<Arrival> {
    let mut seen = [0; LOOKED_AT];
    let length = recv(socket.as_raw_fd(), &mut seen, MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
    match seen.get(..length) {
        None | Some([]) => Err(io::ErrorKind::UnexpectedEof.into()),
        Some(seen) => match arrival(seen) {
            Arrival::Part if length == LOOKED_AT => Ok(Arrival::TooLong),
            Arrival::Part => Err(io::ErrorKind::WouldBlock.into()),
            told => Ok(told),
        },
    }
}

/// What the first bytes of a connection tell.
pub fn arrival(mut records: &[u8]) -> Arrival {
    let mut header = [0; MESSAGE_HEADER];
    let mut arrived = 0;
    loop {
        let Some((&[kind, _, _, high, low], rest)) = records.split_first_chunk::<RECORD_HEADER>() else { return Arrival::Part };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE_RECORD || length == 0 {
            return Arrival::Other;
        }
        let body = &rest[..length.min(rest.len())];
        for (place, byte) in header.iter_mut().skip(arrived).zip(body) {
            *place = *byte;
        }
        arrived += body.len();
        if arrived >= 1 && header[0] != CLIENT_HELLO {
            return Arrival::Other;
        }
        let message = usize::from(header[1]) << 16 | usize::from(header[2]) << 8 | usize::from(header[3]);
        if arrived >= MESSAGE_HEADER && message > LONGEST {
            return Arrival::TooLong;
        }
        if rest.len() < length {
            return Arrival::Part;
        }
        if arrived >= MESSAGE_HEADER + message {
            return Arrival::Ready;
        }
        records = &rest[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ClientHello of this length in records of at most `record` bytes.
    fn hello(length: usize, record: usize) -> Vec<u8> {
        let mut message = vec![CLIENT_HELLO, (length >> 16) as u8, (length >> 8) as u8, length as u8];
        message.resize(MESSAGE_HEADER + length, 0xaa);
        let records = message.chunks(record).map(|part| {
            let header = [HANDSHAKE_RECORD, 3, 1, (part.len() >> 8) as u8, part.len() as u8];
            [&header, part].concat()
        });
        records.collect::<Vec<_>>().concat()
    }

    #[test]
    fn a_client_hello_is_ready_with_its_last_byte_however_it_is_cut() {
        for record in [1, 3, 100, 16_384] {
            let whole = hello(1_500, record);
            for cut in 0..whole.len() {
                assert_eq!(arrival(&whole[..cut]), Arrival::Part, "{cut} bytes in records of {record}");
            }
            assert_eq!(arrival(&whole), Arrival::Ready);
        }
    }

    #[test]
    fn one_that_is_too_long_is_known_by_its_header() {
        assert_eq!(arrival(&hello(LONGEST, 16_000)), Arrival::Ready);
        assert_eq!(arrival(&hello(LONGEST + 1, 16_000)[..9]), Arrival::TooLong);
    }

    #[test]
    fn what_is_no_client_hello_waits_for_nothing() {
        for other in [&b"GET / HTTP/1.1\r\n"[..], &[0; 9], &[22, 3, 1, 0, 0], &[22, 3, 1, 0, 4, 2], &[21, 3, 3, 0, 2]] {
            assert_eq!(arrival(other), Arrival::Other, "{other:?}");
        }
    }

    #[test]
    fn a_client_hello_is_not_whole_before_its_record_is() {
        let mut record = hello(100, 1_000);
        record[3..5].copy_from_slice(&1_000_u16.to_be_bytes());
        assert_eq!(arrival(&record), Arrival::Part);
        record.resize(5 + 1_000, 0);
        assert_eq!(arrival(&record), Arrival::Ready);
    }
}
