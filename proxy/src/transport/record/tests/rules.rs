//! Each rule of RFC 8446 that a record layer owns, broken by a peer that holds the right keys.

use super::*;

const UNEXPECTED_MESSAGE: u8 = 10;
const BAD_RECORD_MAC: u8 = 20;
const RECORD_OVERFLOW: u8 = 22;
const ILLEGAL_PARAMETER: u8 = 47;
const DECODE_ERROR: u8 = 50;

/// Runs a script against each implementation at each end.
fn each(script: impl Fn(End, RecordLayerKind, &mut dyn RecordLayer, &mut Hostile)) {
    for (end, kind) in ENDS.into_iter().flat_map(|end| KINDS.map(|kind| (end, kind))) {
        let (mut layer, mut peer) = against_hostile(end, kind, SUITES[0]);
        script(end, kind, &mut *layer, &mut peer);
    }
}

/// Both implementations refuse what `wire` makes, ours with this alert; nothing is opened or sealed after it.
fn refused(alert: u8, wire: impl Fn(End, &mut Hostile) -> Vec<u8>) {
    each(|end, kind, layer, peer| {
        let bytes = wire(end, peer);
        let error = heard(layer, &bytes).expect_err(&format!("{kind} at the {end:?}"));
        let told = layer.fatal_alert(&error);
        if kind == RecordLayerKind::InPlace {
            assert_eq!(peer.opened(&told), [(content::ALERT, vec![2, alert])], "{error}");
        }
        assert!(layer.seal(&mut [0; HEADER + 1 + TRAILER]).is_err(), "{kind} seals after {error}");
        let next = peer.data(b"more");
        assert!(heard(layer, &next).is_err(), "{kind} at the {end:?} goes on after {error}");
    });
}

/// Opened without an error.
fn fine(layer: &mut dyn RecordLayer, wire: &[u8]) -> Heard {
    heard(layer, wire).expect("a record that is allowed")
}

#[test]
fn the_length_of_a_record_is_told_from_its_header() {
    assert_eq!(record_length(&[23, 3, 3, 0]), Ok(None));
    assert_eq!(record_length(&[23, 3, 3, 1, 2, 9, 9]), Ok(Some(5 + 258)));
    assert_eq!(record_length(&[23, 3, 3, 0x41, 0]), Ok(Some(5 + 16_640)));
    assert_eq!(record_length(&[23, 3, 3, 0x41, 1]), Err(RecordError::Overflow));
    assert_eq!(record_length(&[23, 3, 1, 0, 20]), Err(RecordError::Version(3, 1)));
    for kind in [0, 20, 21, 22, 24, 71, 255] {
        assert_eq!(record_length(&[kind, 3, 3, 0, 20]), Err(RecordError::UnexpectedType(kind)));
    }
}

#[test]
fn a_tampered_record_is_refused_wherever_it_was_changed() {
    for index in [3, 4, 5, 9, 14, 20, 30] {
        each(|_, kind, layer, peer| {
            let mut wire = peer.data(b"0123456789");
            wire[index] ^= 1;
            let length = record_length(&wire).ok().flatten().unwrap_or(wire.len());
            wire.resize(length, 0);
            assert!(layer.open(&mut wire).is_err(), "{kind}, byte {index}");
        });
    }
    refused(BAD_RECORD_MAC, |_, peer| {
        let mut wire = peer.data(b"0123456789");
        wire[9] ^= 0x80;
        wire
    });
}

#[test]
fn nothing_is_opened_after_an_error() {
    each(|_, kind, layer, peer| {
        let (good, mut bad) = (peer.data(b"good"), peer.data(b"bad"));
        bad[9] ^= 1;
        let (before, mut again) = (bad.clone(), bad.clone());
        assert!(heard(layer, &before).is_err());
        assert_eq!(heard(layer, &good), Err(RecordError::Closed), "{kind}");
        again[9] ^= 1;
        assert_eq!(heard(layer, &again), Err(RecordError::Closed), "{kind}");
        assert_eq!(layer.urgent(), None, "{kind}");
    });
}

#[test]
fn a_record_too_short_for_a_tag_is_refused() {
    refused(BAD_RECORD_MAC, |_, _| vec![23, 3, 3, 0, 0]);
    refused(BAD_RECORD_MAC, |_, _| [&[23, 3, 3, 0, 15][..], &[7; 15]].concat());
}

#[test]
fn a_repeated_a_lost_and_a_reordered_record_are_refused() {
    refused(BAD_RECORD_MAC, |_, peer| {
        let record = peer.data(b"twice");
        [record.clone(), record].concat()
    });
    refused(BAD_RECORD_MAC, |_, peer| {
        let _lost = peer.data(b"lost");
        peer.data(b"next")
    });
    refused(BAD_RECORD_MAC, |_, peer| {
        let (first, second) = (peer.data(b"first"), peer.data(b"second"));
        [second, first].concat()
    });
}

#[test]
fn padding_is_taken_off() {
    each(|_, _, layer, peer| {
        for padding in [0, 1, 255, 16_000] {
            let wire = peer.inner(&[&b"content"[..], &[23], &vec![0; padding]].concat());
            assert_eq!(fine(layer, &wire).data, b"content");
        }
    });
}

#[test]
fn content_that_ends_in_zeroes_keeps_them() {
    each(|_, _, layer, peer| {
        let wire = peer.data(&[1, 0, 0, 0]);
        assert_eq!(fine(layer, &wire).data, [1, 0, 0, 0]);
    });
}

#[test]
fn an_inner_plaintext_of_zeroes_alone_is_refused() {
    for size in [0, 1, 2, 1_000] {
        refused(UNEXPECTED_MESSAGE, |_, peer| peer.inner(&vec![0; size]));
    }
}

#[test]
fn an_oversized_record_is_refused() {
    each(|_, _, layer, peer| {
        let wire = peer.data(&vec![7; MOST_PLAINTEXT]);
        assert_eq!(fine(layer, &wire).data.len(), MOST_PLAINTEXT);
    });
    refused(RECORD_OVERFLOW, |_, peer| peer.data(&vec![7; MOST_PLAINTEXT + 1]));
    refused(RECORD_OVERFLOW, |_, peer| peer.inner(&[&b"x"[..], &[23], &vec![0; MOST_PLAINTEXT]].concat()));
    refused(RECORD_OVERFLOW, |_, peer| peer.data(&vec![7; MOST_CIPHERTEXT + 1]));
}

#[test]
fn a_content_type_that_has_no_place_is_refused() {
    for kind in [20, 24, 25, 1, 255] {
        refused(UNEXPECTED_MESSAGE, |_, peer| peer.record(kind, &[1]));
    }
}

#[test]
fn records_without_protection_are_refused() {
    for record in [[20, 3, 3, 0, 1, 1], [22, 3, 3, 0, 1, 0], [21, 3, 3, 0, 1, 0]] {
        refused(UNEXPECTED_MESSAGE, |_, _| record.to_vec());
    }
}

#[test]
fn empty_records_are_suffered_but_not_for_long() {
    each(|_, kind, layer, peer| {
        for _ in 0..3 {
            for _ in 0..MOST_IN_A_ROW - 1 {
                let wire = peer.data(b"");
                assert_eq!(fine(layer, &wire), Heard::default(), "{kind}");
            }
            let wire = peer.data(b"x");
            fine(layer, &wire);
        }
    });
    // rustls lets one more pass than we do.
    refused(UNEXPECTED_MESSAGE, |_, peer| (0..=MOST_IN_A_ROW).flat_map(|_| peer.data(b"")).collect());
    let (mut layer, mut peer) = against_hostile(End::Server, RecordLayerKind::InPlace, SUITES[0]);
    let wire: Vec<u8> = (0..MOST_IN_A_ROW).flat_map(|_| peer.data(b"")).collect();
    assert_eq!(heard(&mut *layer, &wire), Err(RecordError::TooManyEmptyRecords));
}

const MOST_IN_A_ROW: usize = 32;

#[test]
fn an_empty_alert_is_refused() {
    refused(UNEXPECTED_MESSAGE, |_, peer| peer.record(content::ALERT, b""));
}

#[test]
fn an_empty_handshake_record_is_refused() {
    // rustls counts it as an empty record; RFC 8446 §5.4 wants it refused.
    let (mut layer, mut peer) = against_hostile(End::Client, RecordLayerKind::InPlace, SUITES[0]);
    let wire = peer.messages(b"");
    assert_eq!(heard(&mut *layer, &wire), Err(RecordError::EmptyMessage));
}

#[test]
fn a_key_update_changes_the_keys_of_the_peer() {
    for suite in SUITES {
        for (end, kind) in ENDS.into_iter().flat_map(|end| KINDS.map(|kind| (end, kind))) {
            let (mut layer, mut peer) = against_hostile(end, kind, suite);
            for _ in 0..100 {
                let wire = [peer.data(b"before"), peer.key_update(0), peer.data(b"after")].concat();
                assert_eq!(fine(&mut *layer, &wire).data, b"beforeafter");
                assert_eq!(layer.urgent(), None, "nothing was asked for");
            }
        }
    }
}

#[test]
fn a_key_update_that_asks_for_one_is_answered_once_before_the_next_record() {
    each(|_, kind, layer, peer| {
        let wire = [peer.key_update(1), peer.key_update(1), peer.key_update(0), peer.data(b"x")].concat();
        fine(layer, &wire);
        let wire = sent(layer, b"answer first");
        let records = peer.opened(&wire);
        assert_eq!(records.len(), 2, "{kind}");
        assert_eq!(records[0], (content::HANDSHAKE, vec![24, 0, 0, 1, 0]), "{kind}");
        assert_eq!(records[1], (content::APPLICATION_DATA, b"answer first".to_vec()));
        assert_eq!(layer.urgent(), None, "once");
        let wire = sent(layer, b"on and on");
        assert_eq!(peer.opened(&wire).len(), 1);
    });
}

#[test]
fn a_record_sealed_before_the_answer_is_asked_for_has_the_old_keys() {
    let (mut layer, mut peer) = against_hostile(End::Server, RecordLayerKind::InPlace, SUITES[0]);
    let wire = peer.key_update(1);
    fine(&mut *layer, &wire);
    let mut record = [0; HEADER + 1 + TRAILER];
    layer.seal(&mut record).expect("seal");
    assert_eq!(peer.opened(&record).len(), 1);
    assert!(layer.urgent().is_some());
}

#[test]
fn a_key_update_in_two_records_is_one() {
    each(|_, _, layer, peer| {
        let mut wire = peer.messages(&[24, 0]);
        wire.extend(peer.messages(&[0, 1, 0]));
        peer.change_keys();
        wire.extend(peer.data(b"new keys"));
        assert_eq!(fine(layer, &wire).data, b"new keys");
    });
}

#[test]
fn a_key_update_that_does_not_end_its_record_is_refused() {
    refused(UNEXPECTED_MESSAGE, |_, peer| peer.messages(&[24, 0, 0, 1, 0, 24]));
    refused(UNEXPECTED_MESSAGE, |_, peer| peer.messages(&[24, 0, 0, 1, 0, 24, 0, 0, 1, 0]));
}

#[test]
fn a_key_update_that_means_nothing_is_refused() {
    refused(ILLEGAL_PARAMETER, |_, peer| peer.messages(&[24, 0, 0, 1, 2]));
    refused(DECODE_ERROR, |_, peer| peer.messages(&[24, 0, 0, 0]));
    refused(DECODE_ERROR, |_, peer| peer.messages(&[24, 0, 0, 2, 0, 0]));
}

#[test]
fn key_updates_without_data_between_them_end_the_connection() {
    each(|_, _, layer, peer| {
        for _ in 0..3 {
            let wire: Vec<u8> = (0..MOST_IN_A_ROW - 1).flat_map(|_| peer.key_update(0)).collect();
            fine(layer, &wire);
            let wire = peer.data(b"x");
            fine(layer, &wire);
        }
    });
    // rustls lets one more pass than we do.
    refused(UNEXPECTED_MESSAGE, |_, peer| (0..=MOST_IN_A_ROW).flat_map(|_| peer.key_update(0)).collect());
    let (mut layer, mut peer) = against_hostile(End::Server, RecordLayerKind::InPlace, SUITES[0]);
    let wire: Vec<u8> = (0..MOST_IN_A_ROW).flat_map(|_| peer.key_update(1)).collect();
    assert_eq!(heard(&mut *layer, &wire), Err(RecordError::TooManyKeyUpdates));
}

/// A NewSessionTicket (RFC 8446 §4.6.1) with a ticket of this size.
pub(super) fn ticket(size: usize) -> Vec<u8> {
    let mut body = vec![0, 0, 1, 0, 1, 2, 3, 4, 1, 9];
    body.extend_from_slice(&u16::try_from(size).expect("size").to_be_bytes());
    body.resize(body.len() + size, 5);
    body.extend_from_slice(&[0, 0]);
    let length = u32::try_from(body.len()).expect("length").to_be_bytes();
    [&[4], &length[1..], &body[..]].concat()
}

#[test]
fn a_client_takes_tickets_whole_joined_and_split() {
    for kind in KINDS {
        let (mut layer, mut peer) = against_hostile(End::Client, kind, SUITES[0]);
        let both = [ticket(100), ticket(30_000)].concat();
        let wire = peer.messages(&[ticket(20), ticket(10)].concat());
        fine(&mut *layer, &wire);
        for part in both.chunks(7_001) {
            let wire = peer.messages(part);
            assert_eq!(fine(&mut *layer, &wire), Heard::default());
        }
        for byte in ticket(3) {
            let wire = peer.messages(&[byte]);
            fine(&mut *layer, &wire);
        }
        let mut wire = peer.messages(&[ticket(5), vec![24, 0, 0, 1, 0]].concat());
        peer.change_keys();
        wire.extend(peer.data(b"goes on"));
        assert_eq!(fine(&mut *layer, &wire).data, b"goes on");
    }
}

#[test]
fn a_ticket_that_cannot_be_is_refused() {
    refused_at(End::Client, DECODE_ERROR, |peer| peer.messages(&[4, 0, 0, 1, 0]));
    refused_at(End::Client, DECODE_ERROR, |peer| peer.messages(&[4, 1, 0, 0]));
}

#[test]
fn a_server_takes_no_ticket() {
    refused_at(End::Server, UNEXPECTED_MESSAGE, |peer| peer.messages(&ticket(10)));
}

fn refused_at(end: End, alert: u8, wire: impl Fn(&mut Hostile) -> Vec<u8>) {
    for kind in KINDS {
        let (mut layer, mut peer) = against_hostile(end, kind, SUITES[0]);
        let bytes = wire(&mut peer);
        let error = heard(&mut *layer, &bytes).expect_err("refused");
        let told = layer.fatal_alert(&error);
        if kind == RecordLayerKind::InPlace {
            assert_eq!(peer.opened(&told), [(content::ALERT, vec![2, alert])], "{error}");
        }
    }
}

#[test]
fn handshake_messages_of_the_handshake_are_refused_after_it() {
    for kind in [0, 1, 2, 8, 11, 13, 15, 20, 254] {
        refused(UNEXPECTED_MESSAGE, |_, peer| peer.messages(&[kind, 0, 0, 0]));
    }
}

#[test]
fn nothing_comes_between_the_parts_of_a_message() {
    refused(UNEXPECTED_MESSAGE, |_, peer| [peer.messages(&[24, 0]), peer.data(b"x")].concat());
    refused(UNEXPECTED_MESSAGE, |_, peer| [peer.messages(&[24, 0]), peer.data(b"")].concat());
    refused(UNEXPECTED_MESSAGE, |_, peer| [peer.messages(&[24, 0]), peer.alert(1, 0)].concat());
}

#[test]
fn alerts_end_a_connection_or_one_direction_of_it() {
    each(|_, _, layer, peer| {
        let wire = [peer.data(b"last"), peer.alert(1, 0)].concat();
        assert_eq!(fine(layer, &wire), Heard { data: b"last".to_vec(), closed: true });
        let wire = peer.data(b"ignored");
        assert_eq!(fine(layer, &wire).data, b"", "what follows a close_notify is ignored");
    });
    for (level, description) in [(2, 40), (2, 80), (2, 90)] {
        each(|_, kind, layer, peer| {
            let wire = peer.alert(level, description);
            let error = heard(layer, &wire).expect_err("a fatal alert");
            assert_eq!(error.word(), "alert", "{kind}: {error}");
            assert!(layer.fatal_alert(&error).is_empty(), "{kind}: an alert has no answer");
        });
    }
}

#[test]
fn an_alert_that_cannot_be_is_refused() {
    refused(ILLEGAL_PARAMETER, |_, peer| peer.alert(3, 40));
    refused(DECODE_ERROR, |_, peer| peer.record(content::ALERT, &[2]));
    refused(DECODE_ERROR, |_, peer| peer.record(content::ALERT, &[1, 0, 1, 0]));
}

#[test]
fn the_warning_that_means_nothing_is_suffered_but_not_for_ever() {
    each(|_, _, layer, peer| {
        for _ in 0..4 {
            let wire = peer.alert(1, 90);
            assert_eq!(fine(layer, &wire), Heard::default());
        }
    });
    refused(UNEXPECTED_MESSAGE, |_, peer| (0..5).flat_map(|_| peer.alert(1, 90)).collect());
}
