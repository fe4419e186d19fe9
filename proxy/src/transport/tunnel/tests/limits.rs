//! The limits of a tunnel, each at its edge.

use super::super::frame::{Frame, data_header, encode, encode_open};
use super::pair::{Pair, Side, id, main_port};
use super::*;

fn acceptor() -> Side {
    Pair::new().acceptor
}

fn open(side: &mut Side, number: u32) -> Result<(), Violation> {
    let mut out = Vec::new();
    encode_open(&mut out, id(number), 65_536, &main_port(), None);
    side.try_receive(&out)
}

fn send(side: &mut Side, frame: &Frame) -> Result<(), Violation> {
    let mut out = Vec::new();
    encode(&mut out, frame);
    side.try_receive(&out)
}

#[test]
fn the_2049th_stream_of_a_tunnel_is_refused_and_the_others_go_on() {
    let mut acceptor = acceptor();
    for number in 1..=2_048 {
        open(&mut acceptor, number).expect("open");
        acceptor.machine.accept(id(number));
    }
    acceptor.take_control();
    acceptor.out.clear();
    open(&mut acceptor, 2_049).expect("refused, not ended");
    assert_eq!((acceptor.machine.open_streams(), acceptor.events.len()), (2_048, 2_048));
    let mut expected = Vec::new();
    encode(&mut expected, &Frame::Reset { id: id(2_049), reason: Reason::Limit });
    acceptor.take_control();
    assert_eq!(acceptor.out, expected);
}

#[test]
fn a_dialler_opens_no_more_streams_than_a_tunnel_carries() {
    let mut pair = Pair::new();
    for _ in 0..2_048 {
        pair.open_accepted();
    }
    assert_eq!(pair.dialler.machine.open(&main_port(), None), Err(OpenError::Full));
}

#[test]
fn the_501st_refused_open_of_a_second_ends_the_tunnel() {
    let mut acceptor = acceptor();
    for number in 1..=500 {
        open(&mut acceptor, number).expect("open");
        acceptor.machine.refuse(id(number), Reason::Denied);
    }
    open(&mut acceptor, 501).expect("open");
    acceptor.machine.refuse(id(501), Reason::Denied);
    assert_eq!(acceptor.try_receive(&[]), Err(Violation::RefusedTooFast));
}

#[test]
fn the_501st_open_of_a_second_that_is_reset_ends_the_tunnel() {
    let mut acceptor = acceptor();
    for number in 1..=501 {
        open(&mut acceptor, number).expect("open");
        let outcome = send(&mut acceptor, &Frame::Reset { id: id(number), reason: Reason::Cancelled });
        assert_eq!(outcome, if number <= 500 { Ok(()) } else { Err(Violation::RefusedTooFast) });
    }
}

#[test]
fn refusals_at_a_lower_rate_go_on_for_ever() {
    let mut acceptor = acceptor();
    for number in 1..=5_000 {
        open(&mut acceptor, number).expect("open");
        acceptor.machine.refuse(id(number), Reason::Denied);
        acceptor.now += Duration::from_millis(2);
        acceptor.take_control();
    }
    assert_eq!(acceptor.machine.open_streams(), 0);
}

#[test]
fn streams_that_were_accepted_may_be_reset_at_any_rate() {
    let mut pair = Pair::new();
    for _ in 0..2_000 {
        let stream = pair.open_accepted();
        pair.dialler.machine.reset(stream, Reason::Cancelled);
        pair.settle();
    }
}

#[test]
fn a_dialler_whose_streams_are_refused_holds_back_before_the_tunnel_ends() {
    let mut pair = Pair::new();
    let (mut opened, mut held_back) = (0, 0);
    for _ in 0..20_000 {
        pair.now += Duration::from_micros(500);
        pair.dialler.machine.advance(pair.now);
        match pair.dialler.machine.open(&main_port(), None) {
            Ok(_) => opened += 1,
            Err(OpenError::TooManyUnanswered) => held_back += 1,
            Err(error) => panic!("{error}"),
        }
        pair.settle();
        for event in std::mem::take(&mut pair.acceptor.events) {
            if let Event::Opened { id, .. } = event {
                pair.acceptor.machine.refuse(id, Reason::Denied);
            }
        }
        pair.settle();
    }
    assert!(opened > 1_000 && held_back > 1_000, "{opened} {held_back}");
}

#[test]
fn the_11th_ping_of_a_second_ends_the_tunnel() {
    for is_answer in [false, true] {
        let mut acceptor = acceptor();
        let ping = Frame::Ping { is_answer, opaque: [1; 8] };
        for _ in 0..10 {
            send(&mut acceptor, &ping).expect("ping");
        }
        assert_eq!(send(&mut acceptor, &ping), Err(Violation::PingsTooFast));
    }
}

#[test]
fn every_ping_that_is_read_is_answered() {
    let mut acceptor = acceptor();
    for turn in 0..3 {
        send(&mut acceptor, &Frame::Ping { is_answer: false, opaque: [turn; 8] }).expect("ping");
        acceptor.take_control();
    }
    assert_eq!(acceptor.out.len(), 3 * (FRAME_HEADER + 9));
}

#[test]
fn pings_that_are_not_read_wait_as_one_answer() {
    let mut acceptor = acceptor();
    for turn in 0..1_000 {
        send(&mut acceptor, &Frame::Ping { is_answer: false, opaque: [turn as u8; 8] }).expect("ping");
        acceptor.now += Duration::from_millis(200);
    }
    acceptor.take_control();
    let mut expected = Vec::new();
    encode(&mut expected, &Frame::Ping { is_answer: true, opaque: [(999_u32 & 0xff) as u8; 8] });
    assert_eq!(acceptor.out, expected);
}

#[test]
fn a_peer_that_opens_and_does_not_read_ends_the_tunnel() {
    let mut acceptor = acceptor();
    let outcome = (1..1_000_000).try_for_each(|number| {
        open(&mut acceptor, number)?;
        acceptor.machine.accept(id(number));
        acceptor.machine.reset(id(number), Reason::DialFailed);
        acceptor.now += Duration::from_millis(3);
        Ok(())
    });
    assert_eq!(outcome, Err(Violation::Backlog));
    acceptor.take_control();
    assert!(acceptor.out.len() < 128 * 1024, "{}", acceptor.out.len());
}

#[test]
fn credits_that_are_not_read_wait_as_one_frame() {
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    for _ in 0..60 {
        let mut bytes = data_header(stream, 1024).to_vec();
        bytes.resize(bytes.len() + 1024, 0);
        pair.acceptor.receive(&bytes);
        pair.acceptor.read(stream);
    }
    assert_eq!(pair.acceptor.machine.holds(), 2, "the CREDIT, and a PING for the round trip");
    pair.acceptor.take_control();
    assert_eq!(pair.acceptor.out.len(), FRAME_HEADER + 4 + FRAME_HEADER + 9);
}

#[test]
fn late_frames_end_the_tunnel_when_they_cannot_have_crossed() {
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    pair.acceptor.machine.reset(stream, Reason::Draining);
    for _ in 0..64 {
        send(&mut pair.acceptor, &Frame::Credit { id: stream, increment: 1 }).expect("late");
    }
    assert_eq!(send(&mut pair.acceptor, &Frame::Fin { id: stream }), Err(Violation::TooManyLate));
}

#[test]
fn late_data_end_the_tunnel_beyond_the_credit_that_was_granted() {
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    pair.acceptor.machine.reset(stream, Reason::Draining);
    let late = |length: usize| [&data_header(stream, length)[..], &vec![0; length]].concat();
    pair.acceptor.receive(&late(64 * 1024 - 1));
    pair.acceptor.receive(&late(1));
    assert_eq!(pair.acceptor.try_receive(&late(1)), Err(Violation::NoCredit { id: 1, length: 1, credit: 0 }));
}

#[test]
fn ids_come_to_an_end() {
    let mut acceptor = acceptor();
    open(&mut acceptor, StreamId::MOST).expect("the highest id");
    assert_eq!(StreamId::new(StreamId::MOST + 1), None);
}
