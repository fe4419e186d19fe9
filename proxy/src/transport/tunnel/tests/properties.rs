//! Properties of the machine under schedules that nobody would think of.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::*;
use super::model::{Model, Step};
use super::pair::{Side, id};

fn step() -> impl Strategy<Value = Step> {
    let side = || 0..2_u8;
    let length = || prop_oneof![3 => 1..100_u16, 2 => 1..20_000_u16];
    prop_oneof![
        3 => Just(Step::Open),
        4 => any::<u8>().prop_map(Step::Accept),
        1 => any::<u8>().prop_map(Step::Refuse),
        8 => (side(), any::<u8>(), length()).prop_map(|(side, number, length)| Step::Send(side, number, length)),
        1 => (side(), any::<u8>()).prop_map(|(side, number)| Step::Finish(side, number)),
        1 => (side(), any::<u8>()).prop_map(|(side, number)| Step::Reset(side, number)),
        4 => (side(), any::<u8>(), any::<u16>()).prop_map(|(side, number, most)| Step::Read(side, number, most)),
        3 => side().prop_map(Step::TakeControl),
        9 => (side(), prop_oneof![1..12_u16, any::<u16>()]).prop_map(|(side, most)| Step::Carry(side, most)),
        1 => side().prop_map(Step::Freeze),
        2 => side().prop_map(Step::Thaw),
        1 => any::<u16>().prop_map(Step::Wait),
        1 => (side(), any::<u16>()).prop_map(|(side, kib)| Step::Over(side, kib)),
        2 => (side(), any::<u8>(), 0..60_u8).prop_map(|(side, number, ms)| Step::Stream(side, number, ms)),
    ]
}

fn limits() -> impl Strategy<Value = TunnelLimits> {
    let credit = prop_oneof![Just((16, 16)), Just((16, 64)), Just((64, 1024))];
    (credit, prop_oneof![Just(3), Just(2_048)]).prop_map(|((initial, most), streams)| TunnelLimits {
        initial_credit: initial * 1024,
        most_credit: most * 1024,
        largest_credit: most * 1024 * 4,
        streams,
        ..TunnelLimits::default()
    })
}

/// Frames with plausible headers, of which some break the rules.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![4 => 0..8_u8, 1 => any::<u8>()];
    let length = prop_oneof![Just(0_usize), Just(1), Just(4), Just(9), Just(32), 0..600_usize];
    (kind, 0..6_u32, length, any::<u8>()).prop_map(|(kind, stream, length, fill)| match kind {
        0 => [&[0, 0, 10], &stream.to_be_bytes()[..], &[0, 0, 0, 0, fill, 4], b"main", &[0]].concat(),
        _ => [&(length as u32).to_be_bytes()[1..], &stream.to_be_bytes(), &[kind], &vec![fill & 1; length]].concat(),
    })
}

/// A machine of either role with two streams, one of them accepted.
fn listening(role: Role) -> Side {
    let mut side = Side::new(role, TunnelLimits::default(), std::time::Instant::now());
    if role == Role::Dialler {
        for _ in 0..2 {
            side.machine.open(&PortName::main(), None).expect("open");
        }
        side.take_control();
        side.receive(&[0, 0, 4, 0, 0, 0, 1, 4, 0, 1, 0, 0]);
    }
    side
}

/// Feeds `bytes` in pieces to a machine that accepts and reads, and checks that it neither panics nor grows.
fn endures(role: Role, bytes: &[u8], piece: usize) {
    let mut side = listening(role);
    for piece in bytes.chunks(piece.max(1)) {
        let outcome = side.try_receive(piece);
        assert!(side.events.len() <= bytes.len());
        assert!(side.machine.holds() <= 16 * 1024, "{}", side.machine.holds());
        assert!(side.machine.unread() <= side.machine.open_streams() * 1024 * 1024);
        if let Err(violation) = outcome {
            assert_eq!(side.try_receive(piece), Err(violation));
            break;
        }
        for number in 1..4 {
            side.machine.accept(id(number));
            side.read(id(number));
        }
    }
    side.take_control();
    side.machine.abandon(&mut side.events);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_once_and_in_order_and_everything_ends(limits in limits(), steps in vec(step(), 1..60)) {
        let mut model = Model::new(limits);
        model.run(&steps);
        model.finish_all();
    }

    #[test]
    fn a_kill_at_any_byte_ends_every_stream(limits in limits(), steps in vec(step(), 1..60), most in any::<[u16; 2]>()) {
        let mut model = Model::new(limits);
        model.run(&steps);
        model.kill(most);
    }

    #[test]
    fn random_bytes_neither_panic_nor_grow(bytes in vec(any::<u8>(), 0..300), piece in 1..64_usize) {
        endures(Role::Acceptor, &bytes, piece);
        endures(Role::Dialler, &bytes, piece);
    }

    #[test]
    fn plausible_frames_neither_panic_nor_grow(frames in vec(frame(), 0..24), piece in 1..400_usize) {
        endures(Role::Acceptor, &frames.concat(), piece);
        endures(Role::Dialler, &frames.concat(), piece);
    }

    #[test]
    fn a_mutated_conversation_neither_panics_nor_grows(
        steps in vec(step(), 1..40),
        mutations in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..4),
        piece in 1..5_000_usize,
    ) {
        let mut model = Model::new(TunnelLimits::default());
        model.run(&steps.into_iter().filter(|step| !matches!(step, Step::Carry(0, _))).collect::<Vec<_>>());
        let mut bytes = model.dialled_bytes();
        for (index, byte, how) in mutations.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let place = index.index(bytes.len());
            match how {
                0 => bytes[place] ^= byte | 1,
                1 => bytes.insert(place, byte),
                _ => bytes.truncate(place + 1),
            }
        }
        endures(Role::Acceptor, &bytes, piece);
    }
}
