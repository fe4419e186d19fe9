//! Conversations of two machines, one behaviour each; properties are in [`properties`].

mod hostile;
mod limits;
mod model;
mod pair;
mod properties;

use std::time::{Duration, Instant};

use super::frame;
use super::*;
use pair::{Pair, id, main_port};

#[test]
fn a_stream_is_opened_accepted_used_both_ways_and_forgotten() {
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    pair.dialler.send(stream, b"question");
    pair.dialler.machine.finish(stream);
    pair.settle();
    assert_eq!(pair.acceptor.read(stream), b"question");
    assert!(pair.acceptor.events.contains(&Event::Finished { id: stream }));
    pair.acceptor.send(stream, b"answer");
    pair.acceptor.machine.finish(stream);
    pair.settle();
    assert_eq!(pair.dialler.read(stream), b"answer");
    assert_eq!((pair.dialler.machine.open_streams(), pair.acceptor.machine.open_streams()), (0, 0));
}

#[test]
fn an_open_says_port_and_trace() {
    let mut pair = Pair::new();
    let port: PortName = "grpc".parse().expect("port");
    let stream = pair.dialler.machine.open(&port, Some("00-4bf9-01")).expect("open");
    pair.settle();
    let expected = Event::Opened { id: stream, port, trace: Some("00-4bf9-01".into()) };
    assert_eq!(pair.acceptor.events, [expected]);
}

#[test]
fn a_trace_that_no_frame_can_carry_is_left_out() {
    let mut pair = Pair::new();
    for trace in ["x".repeat(256), "two\nlines".into(), "ü".into()] {
        pair.dialler.machine.open(&main_port(), Some(&trace)).expect("open");
    }
    pair.settle();
    assert_eq!(pair.acceptor.events.len(), 3);
    assert!(pair.acceptor.events.iter().all(|event| matches!(event, Event::Opened { trace: None, .. })));
}

#[test]
fn before_it_is_accepted_a_stream_carries_16_kib_and_then_64() {
    let mut pair = Pair::new();
    let stream = pair.dialler.machine.open(&main_port(), None).expect("open");
    pair.settle();
    assert_eq!(pair.dialler.machine.may_send(stream), 16 * 1024);
    assert_eq!(pair.acceptor.machine.may_send(stream), 0, "the acceptor may not send before it accepts");
    pair.dialler.send(stream, &[7; 16 * 1024]);
    assert_eq!(pair.dialler.machine.may_send(stream), 0);
    pair.settle();
    pair.acceptor.machine.accept(stream);
    pair.settle();
    assert_eq!(pair.dialler.events, [Event::Accepted { id: stream }]);
    assert_eq!(pair.dialler.machine.may_send(stream), 48 * 1024);
    assert_eq!(pair.acceptor.machine.may_send(stream), 64 * 1024);
}

#[test]
fn a_reader_that_takes_nothing_stops_only_its_own_stream() {
    let mut pair = Pair::new();
    let (stalled, other) = (pair.open_accepted(), pair.open_accepted());
    pair.dialler.send(stalled, &[1; 64 * 1024]);
    pair.settle();
    assert_eq!(pair.dialler.machine.may_send(stalled), 0);
    for _ in 0..100 {
        pair.dialler.send(other, &[2; 16 * 1024]);
        pair.settle();
        assert_eq!(pair.acceptor.read(other).len(), 16 * 1024);
        pair.settle();
    }
    assert_eq!(pair.acceptor.machine.unread(), 64 * 1024);
    assert_eq!(pair.acceptor.read(stalled).len(), 64 * 1024);
    pair.settle();
    assert!(pair.dialler.events.contains(&Event::Writable { id: stalled }));
}

#[test]
fn credit_grows_to_1_mib_for_a_reader_that_keeps_up() {
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    let mut most = 0;
    for _ in 0..10 {
        let granted = pair.dialler.machine.may_send(stream);
        most = most.max(granted);
        pair.dialler.send(stream, &vec![0; granted]);
        pair.settle();
        pair.acceptor.read(stream);
        pair.settle();
    }
    assert_eq!(most, 1024 * 1024);
}

/// Sends all that it may to a reader that takes all at once, over a way of `round_trip`, for `rounds` of them; the most that
/// was granted at once.
fn most_granted(pair: &mut Pair, round_trip: Duration, rounds: u32) -> usize {
    let stream = pair.open_accepted();
    let mut most = 0;
    for _ in 0..rounds {
        let granted = pair.dialler.machine.may_send(stream);
        most = most.max(granted);
        pair.dialler.send(stream, &vec![0; granted - 1]);
        pair.now += round_trip / 2;
        pair.settle_one_way();
        pair.acceptor.read(stream);
        pair.acceptor.take_control();
        pair.now += round_trip / 2;
        pair.settle_back();
    }
    most
}

#[test]
fn over_a_distance_credit_grows_for_a_reader_that_is_never_seen_to_wait() {
    let mut pair = Pair::new();
    let most = most_granted(&mut pair, Duration::from_millis(20), 40);
    assert!(most > 1000 * 1024 && most <= 1024 * 1024, "{most}");
    assert_eq!(pair.acceptor.machine.over(), 0);
}

#[test]
fn over_a_distance_credit_grows_to_8_mib_where_there_is_room_for_it() {
    let mut pair = Pair::new();
    pair.acceptor.machine.set_most_over(64 * 1024 * 1024);
    let most = most_granted(&mut pair, Duration::from_millis(20), 40);
    assert!(most > 8000 * 1024 && most <= 8 * 1024 * 1024, "{most}");
    assert_eq!(pair.acceptor.machine.over(), 7 * 1024 * 1024);
    pair.acceptor.machine.reset(id(1), Reason::Cancelled);
    assert_eq!(pair.acceptor.machine.over(), 0);
}

#[test]
fn large_windows_share_the_room_that_there_is_for_them() {
    let mut pair = Pair::new();
    pair.acceptor.machine.set_most_over(3 * 1024 * 1024);
    most_granted(&mut pair, Duration::from_millis(20), 40);
    let second = most_granted(&mut pair, Duration::from_millis(20), 40);
    assert_eq!(pair.acceptor.machine.over(), 3 * 1024 * 1024);
    assert!(second <= 1024 * 1024, "{second}");
}

#[test]
fn the_round_trip_is_asked_for_only_while_much_is_read_and_stays_far_below_the_limit_of_pings() {
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    pair.dialler.send(stream, &[0; 1024]);
    pair.settle();
    pair.acceptor.read(stream);
    assert!(!pair.acceptor.machine.has_control(), "a kilobyte is no reason");
    let (begun, mut pings) = (pair.now, 0);
    while pair.now - begun < Duration::from_secs(3) {
        pair.dialler.send(stream, &vec![0; pair.dialler.machine.may_send(stream)]);
        pair.settle_one_way();
        pair.acceptor.read(stream);
        pair.acceptor.take_control();
        pings += usize::from(pair.acceptor.out.windows(4).any(|bytes| bytes == [0, 0, 9, 0]));
        pair.now += Duration::from_millis(20);
        pair.settle_back();
    }
    assert!((1..=6).contains(&pings), "{pings} questions in 3 s");
}

#[test]
fn a_frozen_end_accepts_without_credit_and_grants_it_when_it_thaws() {
    let mut pair = Pair::new();
    pair.dialler.machine.set_frozen(true);
    pair.acceptor.machine.set_frozen(true);
    let stream = pair.open_accepted();
    assert!(pair.dialler.events.contains(&Event::Accepted { id: stream }));
    assert_eq!((pair.dialler.machine.may_send(stream), pair.acceptor.machine.may_send(stream)), (16 * 1024, 0));
    pair.dialler.send(stream, &[0; 16 * 1024]);
    pair.settle();
    assert_eq!(pair.acceptor.read(stream).len(), 16 * 1024);
    pair.settle();
    assert_eq!(pair.dialler.machine.may_send(stream), 0, "no credit while frozen");
    pair.dialler.machine.set_frozen(false);
    pair.acceptor.machine.set_frozen(false);
    pair.settle();
    assert_eq!((pair.dialler.machine.may_send(stream), pair.acceptor.machine.may_send(stream)), (64 * 1024, 64 * 1024));
}

#[test]
fn an_open_that_was_sent_frozen_gets_its_credit_when_it_is_accepted_after_the_thaw() {
    let mut pair = Pair::new();
    pair.dialler.machine.set_frozen(true);
    let stream = pair.dialler.machine.open(&main_port(), None).expect("open");
    pair.settle();
    pair.dialler.machine.set_frozen(false);
    pair.acceptor.machine.accept(stream);
    pair.settle();
    assert_eq!(pair.acceptor.machine.may_send(stream), 64 * 1024);
}

#[test]
fn a_reset_is_told_once_with_its_reason_and_gives_back_what_was_unread() {
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    pair.acceptor.send(stream, b"unread");
    pair.settle();
    assert_eq!(pair.dialler.machine.unread(), 6);
    pair.acceptor.machine.reset(stream, Reason::Draining);
    pair.settle();
    let resets = pair.dialler.events.iter().filter(|event| matches!(event, Event::Reset { .. }));
    assert_eq!(resets.collect::<Vec<_>>(), [&Event::Reset { id: stream, reason: Reason::Draining }]);
    assert_eq!((pair.dialler.machine.unread(), pair.dialler.machine.open_streams()), (0, 0));
    assert_eq!(pair.acceptor.events.iter().filter(|event| matches!(event, Event::Reset { .. })).count(), 0);
}

#[test]
fn a_stream_that_is_reset_before_its_open_was_sent_leaves_no_frame() {
    let mut pair = Pair::new();
    let stream = pair.dialler.machine.open(&main_port(), None).expect("open");
    pair.dialler.machine.reset(stream, Reason::Cancelled);
    let next = pair.open_accepted();
    assert_eq!((stream, next), (id(1), id(2)));
    assert_eq!(pair.acceptor.machine.open_streams(), 1);
}

#[test]
fn a_stream_may_be_finished_before_its_open_was_sent() {
    let mut pair = Pair::new();
    let stream = pair.dialler.machine.open(&main_port(), None).expect("open");
    pair.dialler.machine.finish(stream);
    pair.settle();
    let opened = Event::Opened { id: stream, port: main_port(), trace: None };
    assert_eq!(pair.acceptor.events, [opened, Event::Finished { id: stream }]);
}

#[test]
fn frames_that_cross_a_reset_on_the_way_are_ignored() {
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    pair.dialler.send(stream, &[3; 64 * 1024]);
    pair.dialler.machine.finish(stream);
    pair.acceptor.machine.reset(stream, Reason::DialFailed);
    pair.settle();
    assert_eq!(pair.acceptor.machine.unread(), 0);
    assert!(pair.dialler.events.contains(&Event::Reset { id: stream, reason: Reason::DialFailed }));
}

#[test]
fn a_stream_stays_until_its_reader_took_everything() {
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    pair.dialler.send(stream, b"late reader");
    pair.dialler.machine.finish(stream);
    pair.acceptor.machine.finish(stream);
    pair.settle();
    assert_eq!((pair.dialler.machine.open_streams(), pair.acceptor.machine.open_streams()), (0, 1));
    assert_eq!(pair.acceptor.read(stream), b"late reader");
    assert_eq!(pair.acceptor.machine.open_streams(), 0);
}

#[test]
fn a_challenge_and_its_proof_arrive_as_they_were_sent() {
    let mut pair = Pair::new();
    pair.acceptor.machine.challenge([9; 32]);
    pair.dialler.machine.prove(vec![5; MOST_PROOF]);
    pair.settle();
    assert_eq!(pair.dialler.events, [Event::Challenge([9; 32])]);
    assert_eq!(pair.acceptor.events, [Event::Proof(vec![5; MOST_PROOF])]);
}

#[test]
fn control_frames_are_given_whole_and_within_the_bound() {
    let mut pair = Pair::new();
    pair.dialler.machine.prove(vec![5; MOST_PROOF]);
    pair.dialler.machine.challenge([1; 32]);
    for _ in 0..200 {
        pair.dialler.machine.open(&main_port(), Some(&"t".repeat(200))).expect("open");
    }
    let mut out = Vec::new();
    let mut turns = 0;
    while pair.dialler.machine.take_control(MOST_CONTROL, &mut out) {
        assert!(out.len() <= MOST_CONTROL);
        pair.acceptor.receive(&out);
        out.clear();
        turns += 1;
    }
    assert!(turns > 1);
    assert_eq!(pair.acceptor.events.len(), 202);
    assert!(!pair.dialler.machine.has_control());
}

#[test]
fn kinds_of_a_later_version_are_skipped_wherever_they_are_cut() {
    for cut in 0..20 {
        let mut pair = Pair::new();
        let mut bytes = vec![0, 0, 12, 0xff, 0xff, 0xff, 0xff, 128];
        bytes.extend_from_slice(&[0xaa; 12]);
        frame::encode_open(&mut bytes, id(1), 10, &main_port(), None);
        pair.acceptor.receive(&bytes[..cut]);
        pair.acceptor.receive(&bytes[cut..]);
        assert_eq!(pair.acceptor.events.len(), 1, "cut at {cut}");
    }
}

#[test]
fn an_unknown_reason_is_some_other_reason() {
    let codes: Vec<Reason> = (0..=255).map(Reason::from_code).collect();
    assert!(codes.iter().enumerate().all(|(code, reason)| *reason == Reason::Other || reason.code() as usize == code));
    assert_eq!(codes.iter().filter(|reason| **reason != Reason::Other).count(), 9);
}

#[test]
fn silence_is_asked_about_after_10_s_and_the_end_5_s_later() {
    let begun = Instant::now();
    let mut pair = Pair::new();
    pair.dialler.machine = Machine::new(Role::Dialler, TunnelLimits::default(), begun);
    let machine = &mut pair.dialler.machine;
    assert_eq!(machine.next_timeout(), begun + Duration::from_secs(10));
    assert_eq!(machine.on_timeout(begun + Duration::from_secs(9)), Ok(()));
    assert!(!machine.has_control());
    assert_eq!(machine.on_timeout(begun + Duration::from_secs(10)), Ok(()));
    assert!(machine.has_control());
    assert_eq!(machine.next_timeout(), begun + Duration::from_secs(15));
    assert_eq!(machine.on_timeout(begun + Duration::from_secs(15)), Err(Violation::Silent));
}

#[test]
fn the_answer_to_a_ping_keeps_the_tunnel_alive() {
    let begun = Instant::now();
    let later = |seconds| begun + Duration::from_secs(seconds);
    let mut pair = Pair::new();
    pair.dialler.machine = Machine::new(Role::Dialler, TunnelLimits::default(), begun);
    pair.dialler.machine.on_timeout(later(10)).expect("alive");
    pair.now = later(11);
    pair.settle();
    assert_eq!(pair.dialler.machine.on_timeout(later(15)), Ok(()));
    assert_eq!(pair.dialler.machine.next_timeout(), later(21));
}

#[test]
fn a_stream_that_moves_over_4_mib_in_a_second_makes_the_tunnel_busy_until_a_second_after() {
    let mut pair = Pair::new();
    let begun = pair.now;
    let stream = pair.open_accepted();
    pair.pump(stream, 4 * 1024 * 1024);
    assert!(!pair.dialler.machine.is_busy(begun) && !pair.acceptor.machine.is_busy(begun));
    pair.pump(stream, 16 * 1024);
    let almost = begun + Duration::from_millis(999);
    assert!(pair.dialler.machine.is_busy(almost) && pair.acceptor.machine.is_busy(almost));
    assert!(!pair.dialler.machine.is_busy(begun + Duration::from_secs(1)));
}

#[test]
fn a_stream_that_moves_4_mib_in_a_long_time_makes_no_tunnel_busy() {
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    for _ in 0..16 {
        pair.pump(stream, 1024 * 1024);
        pair.now += Duration::from_millis(500);
        assert!(!pair.dialler.machine.is_busy(pair.now) && !pair.acceptor.machine.is_busy(pair.now));
    }
}

#[test]
fn a_long_transfer_over_a_slow_link_makes_the_tunnel_busy_at_both_ends() {
    let mut pair = Pair::new();
    let stream = pair.open_accepted();
    for _ in 0..500 {
        pair.pump(stream, 1024);
        pair.now += Duration::from_millis(2);
    }
    assert!(pair.dialler.machine.is_busy(pair.now) && pair.acceptor.machine.is_busy(pair.now));
    pair.now += Duration::from_secs(1);
    assert!(!pair.dialler.machine.is_busy(pair.now) && !pair.acceptor.machine.is_busy(pair.now));
}

#[test]
fn many_streams_that_move_little_make_no_tunnel_busy() {
    let mut pair = Pair::new();
    for _ in 0..100 {
        let stream = pair.open_accepted();
        pair.pump(stream, 64 * 1024);
    }
    assert!(!pair.dialler.machine.is_busy(pair.now) && !pair.acceptor.machine.is_busy(pair.now));
}

#[test]
fn an_abandoned_tunnel_ends_every_stream_that_was_not_over() {
    let mut pair = Pair::new();
    let (open, half, over) = (pair.open_accepted(), pair.open_accepted(), pair.open_accepted());
    pair.dialler.machine.finish(half);
    pair.dialler.send(over, b"unread");
    pair.dialler.machine.finish(over);
    pair.acceptor.machine.finish(over);
    pair.settle();
    let mut events = Vec::new();
    pair.acceptor.machine.abandon(&mut events);
    events.sort_by_key(|event| format!("{event:?}"));
    assert_eq!(events, [open, half].map(|id| Event::Reset { id, reason: Reason::TunnelEnded }));
    assert_eq!((pair.acceptor.machine.open_streams(), pair.acceptor.machine.unread()), (0, 0));
}
