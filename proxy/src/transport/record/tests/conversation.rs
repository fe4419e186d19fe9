//! The same conversations through both implementations: the same plaintext, the same verdicts.

use proptest::collection::vec;
use proptest::prelude::*;

use super::rules::ticket;
use super::*;

/// What a peer that holds the keys does, or a network that does not.
#[derive(Debug, Clone)]
enum Act {
    Data {
        content: Vec<u8>,
        padding: usize,
    },
    KeyUpdate {
        request: u8,
        cut: usize,
    },
    Misaligned,
    Ticket {
        size: usize,
        cut: usize,
    },
    Alert {
        level: u8,
        description: u8,
    },
    Inner(Vec<u8>),
    Unprotected {
        kind: u8,
        content: Vec<u8>,
    },
    Header {
        index: usize,
        bit: u32,
    },
    Tampered {
        at: usize,
        bit: u32,
    },
    Truncated {
        by: usize,
    },
    Repeated,
    Lost,
    Reordered,
    /// The layer under test sends.
    Answer(Vec<u8>),
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 1..64), 1 => (1..most).prop_map(|size| vec![0xa5; size])]
}

/// What an honest peer may do.
fn honest() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (bytes(MOST_PLAINTEXT), 0_usize..300).prop_map(|(mut content, padding)| {
            content.truncate(MOST_PLAINTEXT - padding);
            Act::Data { content, padding }
        }),
        1 => (0_usize..300).prop_map(|padding| Act::Data { content: Vec::new(), padding }),
        4 => (0_u8..2, 0_usize..5).prop_map(|(request, cut)| Act::KeyUpdate { request, cut }),
        1 => (1_usize..500, 0_usize..520).prop_map(|(size, cut)| Act::Ticket { size, cut }),
        6 => bytes(MOST_PLAINTEXT).prop_map(Act::Answer),
    ]
}

/// What none does.
fn hostile() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Misaligned),
        (0_u8..4, any::<u8>()).prop_map(|(level, description)| Act::Alert { level, description }),
        // rustls takes a handshake record without a message, which RFC 8446 §5.4 forbids; `rules` has that ours does not.
        vec(any::<u8>(), 0..40).prop_filter("no empty message", |inner| !is_empty_message(inner)).prop_map(Act::Inner),
        (18_u8..26, vec(any::<u8>(), 1..40)).prop_map(|(kind, content)| Act::Unprotected { kind, content }),
        (0_usize..5, 0_u32..8).prop_map(|(index, bit)| Act::Header { index, bit }),
        (0_usize..1_000, 0_u32..8).prop_map(|(at, bit)| Act::Tampered { at, bit }),
        (1_usize..40).prop_map(|by| Act::Truncated { by }),
        Just(Act::Repeated),
        Just(Act::Lost),
        Just(Act::Reordered),
    ]
}

fn is_empty_message(inner: &[u8]) -> bool {
    matches!(inner.iter().rposition(|byte| *byte != 0), Some(0)) && inner.first() == Some(&22)
}

fn split(peer: &mut Hostile, message: &[u8], cut: usize) -> Vec<u8> {
    match message.split_at_checked(cut) {
        Some((first, second)) if !first.is_empty() && !second.is_empty() => {
            [peer.messages(first), peer.messages(second)].concat()
        }
        _ => peer.messages(message),
    }
}

fn wire_of(act: &Act, peer: &mut Hostile) -> Vec<u8> {
    match act {
        Act::Data { content, padding } => peer.inner(&[content, &[23][..], &vec![0; *padding]].concat()),
        Act::KeyUpdate { request, cut } => {
            let wire = split(peer, &[24, 0, 0, 1, *request], *cut);
            peer.change_keys();
            wire
        }
        Act::Misaligned => peer.messages(&[24, 0, 0, 1, 0, 24, 0]),
        Act::Ticket { size, cut } => split(peer, &ticket(*size), *cut),
        Act::Alert { level, description } => peer.alert(*level, *description),
        Act::Inner(inner) => peer.inner(inner),
        Act::Unprotected { kind, content } => {
            let length = u16::try_from(content.len()).expect("length").to_be_bytes();
            [&[*kind, 3, 3], &length[..], content].concat()
        }
        Act::Header { index, bit } => {
            let mut wire = peer.data(b"a header that was changed");
            wire[*index] ^= 1 << bit;
            wire
        }
        Act::Tampered { at, bit } => {
            let mut wire = peer.data(&[9; 700]);
            let length = wire.len() - HEADER;
            wire[HEADER + at % length] ^= 1 << bit;
            wire
        }
        Act::Truncated { by } => {
            let mut wire = peer.data(b"a record that was cut short, and whose header tells it");
            wire.truncate(wire.len() - by);
            let length = u16::try_from(wire.len() - HEADER).expect("length").to_be_bytes();
            wire[3..5].copy_from_slice(&length);
            wire
        }
        Act::Repeated => {
            let record = peer.data(b"again");
            [record.clone(), record].concat()
        }
        Act::Lost => {
            peer.data(b"lost");
            peer.data(b"found")
        }
        Act::Reordered => {
            let first = peer.data(b"first");
            [peer.data(b"second"), first].concat()
        }
        Act::Answer(_) => Vec::new(),
    }
}

/// What one implementation made of an act.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Heard(Heard),
    Refused,
    Sent(Vec<(u8, Vec<u8>)>),
    CannotSend,
}

/// Like `heard`, but with what no record is.
fn open(layer: &mut dyn RecordLayer, wire: &[u8]) -> Verdict {
    let mut rest = wire;
    let mut all = Heard::default();
    while !rest.is_empty() {
        // A header that promises more than there is: the end waits for ever. Give it what it wants.
        let Ok(Some(length)) = record_length(rest) else { return Verdict::Refused };
        let mut record = rest[..length.min(rest.len())].to_vec();
        record.resize(length, 0);
        match heard(layer, &record) {
            Ok(heard) => {
                all.data.extend(heard.data);
                all.closed |= heard.closed;
            }
            Err(_) => return Verdict::Refused,
        }
        rest = &rest[length.min(rest.len())..];
    }
    Verdict::Heard(all)
}

fn answer(layer: &mut dyn RecordLayer, peer: &mut Hostile, plaintext: &[u8]) -> Verdict {
    let mut wire = layer.urgent().unwrap_or_default();
    let mut record = vec![0; HEADER + plaintext.len() + TRAILER];
    record[HEADER..HEADER + plaintext.len()].copy_from_slice(plaintext);
    match layer.seal(&mut record) {
        Ok(()) => {
            wire.extend_from_slice(&record);
            Verdict::Sent(peer.opened(&wire))
        }
        Err(_) => Verdict::CannotSend,
    }
}

fn play(end: End, kind: RecordLayerKind, suite: SupportedCipherSuite, acts: &[Act]) -> Vec<Verdict> {
    let (mut layer, mut peer) = against_hostile(end, kind, suite);
    let mut verdicts = Vec::new();
    let mut key_updates = 0;
    for act in acts {
        match act {
            // The implementations differ by one in how many they suffer in a row; `rules` has both limits.
            Act::KeyUpdate { .. } if key_updates >= 30 => continue,
            Act::KeyUpdate { .. } => key_updates += 1,
            Act::Data { content, .. } if !content.is_empty() => key_updates = 0,
            _ => {}
        }
        let verdict = match act {
            Act::Answer(plaintext) => answer(&mut *layer, &mut peer, plaintext),
            act => open(&mut *layer, &wire_of(act, &mut peer)),
        };
        // What comes after the end is not read (RFC 8446 §6.1).
        let ended = matches!(&verdict, Verdict::Refused | Verdict::Heard(Heard { closed: true, .. }));
        verdicts.push(verdict);
        if ended {
            break;
        }
    }
    verdicts
}

fn suite() -> impl Strategy<Value = SupportedCipherSuite> {
    (0..SUITES.len()).prop_map(|index| SUITES[index])
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Client), Just(End::Server)]
}

/// A server refuses a ticket: in an honest conversation there is none.
fn allowed(end: End, acts: Vec<Act>) -> Vec<Act> {
    acts.into_iter().filter(|act| end == End::Client || !matches!(act, Act::Ticket { .. })).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn both_hear_what_an_honest_peer_says(end in end(), suite in suite(), acts in vec(honest(), 1..60)) {
        let acts = allowed(end, acts);
        let ours = play(end, RecordLayerKind::InPlace, suite, &acts);
        prop_assert!(!ours.contains(&Verdict::Refused) && !ours.contains(&Verdict::CannotSend), "{ours:?}");
        prop_assert_eq!(ours, play(end, RecordLayerKind::Rustls, suite, &acts));
    }

    #[test]
    fn both_refuse_the_same(
        end in end(),
        suite in suite(),
        mut acts in vec(honest(), 0..12),
        worse in vec(prop_oneof![3 => hostile(), 1 => honest()], 1..6),
    ) {
        acts.extend(worse);
        prop_assert_eq!(play(end, RecordLayerKind::InPlace, suite, &acts), play(end, RecordLayerKind::Rustls, suite, &acts));
    }

    #[test]
    fn a_stream_arrives_whole_through_every_pair(
        suite in suite(),
        limit in 2_u64..20,
        writes in vec((any::<bool>(), bytes(MOST_PLAINTEXT)), 1..60),
    ) {
        for (client, server) in KINDS.into_iter().flat_map(|one| KINDS.map(|other| (one, other))) {
            let (mut client, mut server) = layers(client, server, suite, limit);
            for (upwards, plaintext) in &writes {
                let (from, to) = if *upwards { (&mut client, &mut server) } else { (&mut server, &mut client) };
                let wire = sent(&mut **from, plaintext);
                prop_assert_eq!(&heard(&mut **to, &wire).expect("heard").data, plaintext);
            }
            let close = client.close_notify();
            prop_assert!(heard(&mut *server, &close).expect("close").closed);
        }
    }
}
