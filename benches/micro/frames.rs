//! The frames of a tunnel: what one DATA frame costs its sender and its receiver beside the record that carries it.

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, Throughput};
use postern_proxy::transport::bare::{End, MOST_DATA, TunnelEnd};

/// Small, and as much as fills one record.
const SIZES: [usize; 2] = [200, MOST_DATA];

/// A tunnel with one accepted stream.
pub struct Tunnel {
    dialler: TunnelEnd,
    acceptor: TunnelEnd,
    stream: u32,
    now: Instant,
    control: Vec<u8>,
}

impl Tunnel {
    pub fn new() -> Self {
        let now = Instant::now();
        let (mut dialler, acceptor) = (TunnelEnd::new(End::Dialler, 8, now), TunnelEnd::new(End::Acceptor, 8, now));
        let stream = dialler.open().expect("a stream");
        let mut tunnel = Self { dialler, acceptor, stream, now, control: Vec::new() };
        tunnel.dialler.take_control(&mut tunnel.control);
        tunnel.acceptor.receive(&tunnel.control, now, drop).expect("an OPEN");
        tunnel.acceptor.accept(stream);
        tunnel.give_credit();
        tunnel
    }

    /// The header of a DATA frame.
    pub fn header(&mut self, length: usize) -> [u8; 8] {
        if self.dialler.may_send(self.stream) < length {
            let credit = [0, 0, 4, 0, 0, 0, 1, 4, 0x40, 0, 0, 0];
            self.dialler.receive(&credit, self.now, drop).expect("a CREDIT");
        }
        self.dialler.data_header(self.stream, length).expect("an open stream")
    }

    /// Takes a DATA frame whose payload is read at once, and makes the CREDIT that is due now and then.
    pub fn receive(&mut self, frame: &[u8]) {
        let Self { acceptor, stream, now, control, .. } = self;
        acceptor.receive(frame, *now, drop).expect("a DATA frame");
        acceptor.consumed(*stream, frame.len() - 8);
        control.clear();
        acceptor.take_control(control);
    }

    fn give_credit(&mut self) {
        self.control.clear();
        self.acceptor.take_control(&mut self.control);
        self.dialler.receive(&self.control, self.now, drop).expect("an acceptance");
    }
}

pub fn bench(criterion: &mut Criterion) {
    let mut tunnel = Tunnel::new();
    let mut group = criterion.benchmark_group("frames");
    group.bench_function("header", |bencher| bencher.iter(|| tunnel.header(black_box(200))));
    for size in SIZES {
        let mut frame = tunnel.header(size).to_vec();
        frame.resize(8 + size, 0);
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("receive {size} bytes"), |bencher| bencher.iter(|| tunnel.receive(black_box(&frame))));
    }
    group.finish();
}
