//! The two implementations with each other.

use super::*;

fn both_ways(client: &mut dyn RecordLayer, server: &mut dyn RecordLayer, plaintext: &[u8]) {
    let wire = sent(client, plaintext);
    assert_eq!(heard(server, &wire).expect("the server hears").data, plaintext);
    let wire = sent(server, plaintext);
    assert_eq!(heard(client, &wire).expect("the client hears").data, plaintext);
}

#[test]
fn every_pair_of_layers_talks_with_every_suite_at_every_size() {
    for suite in SUITES {
        for (client, server) in KINDS.into_iter().flat_map(|one| KINDS.map(|other| (one, other))) {
            let (mut client, mut server) = layers(client, server, suite, KEY_UPDATE_AFTER);
            for size in [1, 2, 15, 16, 17, 200, 4_096, MOST_PLAINTEXT - 1, MOST_PLAINTEXT] {
                let plaintext: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
                both_ways(&mut *client, &mut *server, &plaintext);
            }
        }
    }
}

#[test]
fn keys_are_renewed_when_their_limit_is_reached() {
    for suite in SUITES {
        for (client, server) in KINDS.into_iter().flat_map(|one| KINDS.map(|other| (one, other))) {
            let (mut client, mut server) = layers(client, server, suite, 3);
            for number in 0..40_u8 {
                both_ways(&mut *client, &mut *server, &[number; 100]);
            }
        }
    }
}

#[test]
fn a_key_update_of_ours_comes_after_as_many_records_as_the_limit_says_and_asks_for_none() {
    let (client, server) = shaken(SUITES[0]);
    let (mut layer, mut peer) = (client_layer(client, RecordLayerKind::InPlace, 4), Hostile::new(kernel_of_server(server)));
    for _ in 0..3 {
        for _ in 0..4 {
            assert_eq!(layer.urgent(), None);
            let wire = sent(&mut *layer, b"x");
            assert_eq!(peer.opened(&wire), [(content::APPLICATION_DATA, b"x".to_vec())]);
        }
        let update = layer.urgent().expect("a key update");
        assert_eq!(peer.opened(&update), [(content::HANDSHAKE, vec![24, 0, 0, 1, 0])]);
    }
}

#[test]
fn keys_that_nobody_renews_stop_sealing() {
    let (mut client, _) = layers(RecordLayerKind::InPlace, RecordLayerKind::InPlace, SUITES[0], 4);
    let mut record = [0; HEADER + 1 + TRAILER];
    for _ in 0..16 {
        client.seal(&mut record).expect("seal");
    }
    assert_eq!(client.seal(&mut record), Err(RecordError::KeysUsedUp));
}

#[test]
fn close_notify_ends_one_direction_and_leaves_the_other() {
    for (client, server) in KINDS.into_iter().flat_map(|one| KINDS.map(|other| (one, other))) {
        let (mut client, mut server) = layers(client, server, SUITES[0], KEY_UPDATE_AFTER);
        let close = client.close_notify();
        assert_eq!(heard(&mut *server, &close), Ok(Heard { data: Vec::new(), closed: true }));
        let mut record = [0; HEADER + 1 + TRAILER];
        assert_eq!(client.seal(&mut record), Err(RecordError::Closed), "nothing follows a close_notify");
        assert_eq!(client.close_notify(), Vec::<u8>::new(), "it is sent once");
        assert_eq!(client.urgent(), None);
        let wire = sent(&mut *server, b"still here");
        assert_eq!(heard(&mut *client, &wire).expect("half closed").data, b"still here");
        let close = server.close_notify();
        assert!(heard(&mut *client, &close).expect("closed").closed);
    }
}

#[test]
fn the_alert_for_an_error_tells_the_peer_what_it_was() {
    for (client, server) in KINDS.into_iter().flat_map(|one| KINDS.map(|other| (one, other))) {
        let (mut client, mut server) = layers(client, server, SUITES[0], KEY_UPDATE_AFTER);
        let mut wire = sent(&mut *client, b"hello");
        wire[7] ^= 1;
        let error = heard(&mut *server, &wire).expect_err("tampered");
        assert_eq!(error.word(), "bad_record_mac");
        let alert = server.fatal_alert(&error);
        let told = heard(&mut *client, &alert).expect_err("an alert");
        assert_eq!(told.word(), "alert");
        assert!(told.to_string().to_lowercase().contains("badrecordmac"), "{told}");
        assert!(client.fatal_alert(&told).is_empty(), "an alert has no answer");
        assert!(server.fatal_alert(&error).is_empty(), "and is sent once");
        assert!(server.seal(&mut [0; HEADER + 1 + TRAILER]).is_err());
    }
}

#[test]
fn a_slot_of_the_wrong_size_is_refused_and_harms_nothing() {
    for kind in KINDS {
        let (mut client, mut server) = layers(kind, kind, SUITES[0], KEY_UPDATE_AFTER);
        for size in [0, HEADER, HEADER + TRAILER, HEADER + MOST_PLAINTEXT + 1 + TRAILER] {
            assert_eq!(client.seal(&mut vec![0; size]), Err(RecordError::Shape(size)));
        }
        both_ways(&mut *client, &mut *server, b"fine");
    }
}
