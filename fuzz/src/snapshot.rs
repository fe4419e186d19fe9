//! A snapshot of the control plane's store.

use aws_lc_rs::digest::{SHA256, digest};
use postern_control::snapshot::{decode, encode};

/// As it is, and with a good checksum: what lies behind that is read too.
pub fn control_snapshot(data: &[u8]) {
    let _ = decode(data);
    let signed = [data, digest(&SHA256, data).as_ref()].concat();
    if let Ok(snapshot) = decode(&signed) {
        let again = encode(&snapshot.header, &snapshot.kvs).expect("what was read can be written");
        assert_eq!(decode(&again), Ok(snapshot));
    }
}
