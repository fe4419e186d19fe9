//! What a peer may not do, each with the violation that it is.

use super::super::frame::{Frame, data_header, encode, encode_open};
use super::pair::{Pair, Side, id, main_port};
use super::*;

/// The machine of one end that hears `frames` after its first stream was opened, and accepted if `accepts`.
fn hears(role: Role, frames: &[u8]) -> Result<(), Violation> {
    let mut pair = Pair::new();
    pair.open_accepted();
    let side = match role {
        Role::Dialler => &mut pair.dialler,
        Role::Acceptor => &mut pair.acceptor,
    };
    let outcome = side.try_receive(frames);
    assert_eq!(side.try_receive(&[]), outcome, "an ended tunnel stays ended");
    outcome
}

fn frames(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| encode(&mut out, frame));
    out
}

fn open(number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    encode_open(&mut out, id(number), 65_536, &main_port(), None);
    out
}

fn data(number: u32, length: usize) -> Vec<u8> {
    [&data_header(id(number), length)[..], &vec![0; length]].concat()
}

fn raw(length: u32, stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    [&length.to_be_bytes()[1..], &stream.to_be_bytes(), &[kind], payload].concat()
}

#[test]
fn a_reused_id_ends_the_tunnel() {
    assert_eq!(hears(Role::Acceptor, &open(1)), Err(Violation::ReusedId(1)));
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    pair.dialler.machine.reset(stream, Reason::Cancelled);
    pair.settle();
    assert_eq!(pair.acceptor.try_receive(&open(1)), Err(Violation::ReusedId(1)));
    let mut acceptor = Pair::new().acceptor;
    acceptor.receive(&open(7));
    assert_eq!(acceptor.try_receive(&open(6)), Err(Violation::ReusedId(6)));
}

#[test]
fn data_beyond_the_credit_ends_the_tunnel_at_its_header() {
    let outcome = hears(Role::Acceptor, &data_header(id(1), 64 * 1024 + 1));
    assert_eq!(outcome, Err(Violation::NoCredit { id: 1, length: 65_537, credit: 65_536 }));
    assert_eq!(hears(Role::Acceptor, &data(1, 64 * 1024)), Ok(()));
}

#[test]
fn more_than_16_kib_before_the_acceptance_end_the_tunnel() {
    let mut acceptor = Pair::new().acceptor;
    acceptor.receive(&open(1));
    acceptor.receive(&data(1, 16 * 1024));
    assert_eq!(acceptor.try_receive(&data(1, 1)), Err(Violation::NoCredit { id: 1, length: 1, credit: 0 }));
}

#[test]
fn credit_that_overflows_ends_the_tunnel() {
    let credit = |increment| frames(&[Frame::Credit { id: id(1), increment }]);
    assert_eq!(hears(Role::Acceptor, &credit(u32::MAX)), Err(Violation::CreditOverflow(1)));
    assert_eq!(hears(Role::Dialler, &credit(StreamId::MOST - 64 * 1024 + 1)), Err(Violation::CreditOverflow(1)));
    assert_eq!(hears(Role::Dialler, &credit(StreamId::MOST - 64 * 1024)), Ok(()));
    assert_eq!(hears(Role::Acceptor, &credit(0)), Err(Violation::EmptyCredit(1)));
    let mut excessive = Vec::new();
    encode_open(&mut excessive, id(2), StreamId::MOST + 1, &main_port(), None);
    assert_eq!(hears(Role::Acceptor, &excessive), Err(Violation::CreditOverflow(2)));
}

#[test]
fn sending_after_fin_ends_the_tunnel() {
    let fin = frames(&[Frame::Fin { id: id(1) }]);
    for role in [Role::Dialler, Role::Acceptor] {
        assert_eq!(hears(role, &[&fin[..], &data(1, 1)].concat()), Err(Violation::AfterFin(1)));
        assert_eq!(hears(role, &[&fin[..], &fin].concat()), Err(Violation::AfterFin(1)));
    }
}

#[test]
fn only_the_dialler_opens() {
    assert_eq!(hears(Role::Dialler, &open(2)), Err(Violation::WrongRole));
    let mut acceptor = Pair::new().acceptor;
    assert_eq!(acceptor.machine.open(&main_port(), None), Err(OpenError::NotDialler));
}

#[test]
fn the_acceptor_accepts_before_it_sends() {
    let mut pair = Pair::new();
    for (number, frames) in [(1, data(1, 1)), (2, frames(&[Frame::Fin { id: id(2) }]))] {
        pair.dialler = Side::new(Role::Dialler, TunnelLimits::default(), pair.now);
        for _ in 0..number {
            pair.dialler.machine.open(&main_port(), None).expect("open");
        }
        pair.dialler.take_control();
        assert_eq!(pair.dialler.try_receive(&frames), Err(Violation::NotAccepted(number)));
    }
}

#[test]
fn frames_for_a_stream_that_was_never_opened_end_the_tunnel() {
    let of_9 = [
        data(9, 1),
        frames(&[Frame::Fin { id: id(9) }]),
        frames(&[Frame::Reset { id: id(9), reason: Reason::Other }]),
        frames(&[Frame::Credit { id: id(9), increment: 1 }]),
    ];
    for frame in of_9 {
        assert_eq!(hears(Role::Acceptor, &frame), Err(Violation::UnknownStream(9)));
        assert_eq!(hears(Role::Dialler, &frame), Err(Violation::UnknownStream(9)));
    }
}

#[test]
fn an_empty_data_frame_ends_the_tunnel() {
    assert_eq!(hears(Role::Acceptor, &raw(0, 1, 1, &[])), Err(Violation::EmptyData(1)));
}

#[test]
fn a_length_that_a_kind_does_not_allow_ends_the_tunnel_at_its_header() {
    let wrong = [(0, 5), (0, 517), (2, 1), (3, 0), (3, 2), (4, 3), (4, 5), (5, 8), (5, 10), (6, 31), (6, 33), (7, 0), (7, 8_193)];
    for (kind, length) in wrong {
        let stream = if kind < 5 { 1 } else { 0 };
        assert_eq!(hears(Role::Acceptor, &raw(length, stream, kind, &[])), Err(Violation::Length { kind, length }));
    }
}

#[test]
fn a_kind_below_128_that_is_unknown_ends_the_tunnel() {
    for kind in 8..128 {
        assert_eq!(hears(Role::Acceptor, &raw(0, 1, kind, &[])), Err(Violation::UnknownKind(kind)));
    }
}

#[test]
fn a_frame_where_it_has_no_meaning_ends_the_tunnel() {
    for kind in 0..8 {
        for id in if kind < 5 { [0, 1 << 31] } else { [1, u32::MAX] } {
            assert_eq!(hears(Role::Acceptor, &raw(1, id, kind, &[0])), Err(Violation::WrongStream { kind, id }));
        }
    }
}

#[test]
fn content_that_is_not_valid_ends_the_tunnel() {
    let opens: [&[u8]; 7] = [
        b"\0\0\0\x01\x04MAIN\0",
        b"\0\0\0\x01\0\0",
        b"\0\0\0\x01\x04main\x05abc",
        b"\0\0\0\x01\xffmain\0",
        b"\0\0\0\x01\x04main\0rest",
        b"\0\0\0\x01\x04main\x01\n",
        b"\0\0\0\x01\x04ma\xff\xfe\0",
    ];
    for payload in opens {
        assert_eq!(hears(Role::Acceptor, &raw(payload.len() as u32, 2, 0, payload)), Err(Violation::Malformed(0)), "{payload:?}");
    }
    assert_eq!(hears(Role::Acceptor, &raw(9, 0, 5, &[2; 9])), Err(Violation::Malformed(5)));
}

#[test]
fn words_of_violations_are_distinct() {
    let words: std::collections::HashSet<_> = [
        Violation::UnknownKind(9),
        Violation::Length { kind: 1, length: 0 },
        Violation::Malformed(0),
        Violation::WrongStream { kind: 0, id: 0 },
        Violation::UnknownStream(1),
        Violation::ReusedId(1),
        Violation::WrongRole,
        Violation::NotAccepted(1),
        Violation::NoCredit { id: 1, length: 1, credit: 0 },
        Violation::CreditOverflow(1),
        Violation::EmptyCredit(1),
        Violation::EmptyData(1),
        Violation::AfterFin(1),
        Violation::RefusedTooFast,
        Violation::PingsTooFast,
        Violation::Backlog,
        Violation::TooManyLate,
        Violation::Silent,
    ]
    .map(|violation| violation.word())
    .into();
    assert_eq!(words.len(), 18);
}
