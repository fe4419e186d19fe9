//! The frames of a tunnel.

use std::hint::black_box;
use std::time::Instant;

use postern_proxy::transport::bare::{End, TunnelEnd};

const HEADER: usize = 8;

/// Both ends of a tunnel with one accepted stream.
struct Tunnel {
    dialler: TunnelEnd,
    acceptor: TunnelEnd,
    stream: u32,
    now: Instant,
}

impl Tunnel {
    fn new() -> Self {
        let now = Instant::now();
        let (mut dialler, mut acceptor) = (TunnelEnd::new(End::Dialler, 8, now), TunnelEnd::new(End::Acceptor, 8, now));
        let stream = dialler.open().expect("a stream");
        let mut control = Vec::new();
        dialler.take_control(&mut control);
        acceptor.receive(&control, now, drop).expect("an OPEN");
        acceptor.accept(stream);
        control.clear();
        acceptor.take_control(&mut control);
        dialler.receive(&control, now, drop).expect("an acceptance");
        Self { dialler, acceptor, stream, now }
    }

    fn frame(&mut self, size: usize) -> Vec<u8> {
        let mut frame = self.dialler.data_header(self.stream, size).expect("an open stream").to_vec();
        frame.resize(HEADER + size, 0);
        frame
    }
}

/// The header of a DATA frame, and the credit for it now and then.
pub fn header(size: usize, times: u32) {
    let mut tunnel = Tunnel::new();
    let credit = [0, 0, 4, 0, 0, 0, 1, 4, 0, 1, 0, 0];
    for _ in 0..times {
        if tunnel.dialler.may_send(tunnel.stream) < size {
            tunnel.dialler.receive(&credit, tunnel.now, drop).expect("a CREDIT");
        }
        black_box(tunnel.dialler.data_header(tunnel.stream, black_box(size)));
    }
}

/// A DATA frame that is read at once, and the CREDIT that is due now and then.
pub fn receive(size: usize, times: u32) {
    let mut tunnel = Tunnel::new();
    let frame = tunnel.frame(size);
    let mut control = Vec::new();
    for _ in 0..times {
        tunnel.acceptor.receive(black_box(&frame), tunnel.now, |told| drop(black_box(told))).expect("a DATA frame");
        tunnel.acceptor.consumed(tunnel.stream, size);
        control.clear();
        tunnel.acceptor.take_control(&mut control);
    }
}
