//! The first bytes of a connection.

use postern_proxy::transport::bare::{Arrival, arrival};
use rustls::server::Acceptor;

/// A ClientHello, judged by its first bytes: what is said of them stays said when more come, and who is let on has sent
/// enough for the TLS library to say yes or no.
pub fn client_hello(data: &[u8]) {
    let told = arrival(data);
    let step = data.len() / 64 + 1;
    for cut in (0..data.len()).step_by(step) {
        let earlier = arrival(&data[..cut]);
        assert!(earlier == Arrival::Part || earlier == told, "{earlier:?} after {cut} bytes, {told:?} in the end");
    }
    if told == Arrival::Ready {
        assert!(is_decided(data), "a place is given to what is not whole");
    }
}

/// Whether the TLS library waits for no more bytes.
fn is_decided(mut data: &[u8]) -> bool {
    let mut acceptor = Acceptor::default();
    while !data.is_empty() {
        // What it does not want to read it has decided about.
        if acceptor.read_tls(&mut data).is_err() || !matches!(acceptor.accept(), Ok(None)) {
            return true;
        }
    }
    false
}
