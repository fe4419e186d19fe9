//! What a peer sends as HTTP/2.

use postern_proxy::http::frames::Frames;

/// Frames that say nothing and may come at once.
const MOST: u32 = 10;
const HEAD: usize = 9;

/// The first byte says in what pieces the others come, the second how many bytes come before the first frame.
pub fn http2_frames(data: &[u8]) {
    let [size, preface, bytes @ ..] = data else { return };
    let preface = usize::from(*preface);
    let pass = |size: usize| {
        let mut frames = Frames::new(preface, MOST);
        bytes.chunks(size).try_for_each(|piece| frames.pass(piece, &mut 0))
    };
    let whole = pass(usize::MAX);
    assert_eq!(whole, pass(usize::from(*size).max(1)), "what passes does not depend on how it came");
    let (empty, paying) = counted(bytes.get(preface..).unwrap_or_default());
    assert!(whole.is_err() || empty <= MOST as usize + paying, "{empty} frames that say nothing, {paying} with content");
    assert!(whole.is_ok() || empty > MOST as usize, "{empty} are not too many");
}

/// Frames that say nothing, and those with content, one whole head after the other.
fn counted(mut bytes: &[u8]) -> (usize, usize) {
    let (mut empty, mut paying) = (0, 0);
    while let Some([high, middle, low, kind, flags, ..]) = bytes.first_chunk::<HEAD>() {
        let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
        let is_padding = flags & 8 != 0 && length <= 256;
        match kind {
            0 if flags & 1 != 0 || (length > 0 && !is_padding) => paying += 1,
            1 => paying += 1,
            3 | 7 | 8 | 9 => {}
            _ => empty += 1,
        }
        bytes = bytes.get(HEAD + length..).unwrap_or_default();
    }
    (empty, paying)
}
