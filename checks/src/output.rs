//! What a check said.

/// Bytes of output that are kept.
pub const OUTPUT_LIMIT: usize = 4096;

/// The text, cut to [`OUTPUT_LIMIT`] bytes at a character; what is no UTF-8 is replaced.
pub fn shortened(output: &[u8]) -> String {
    // A character that was cut in two would become three bytes longer.
    let mut text = String::from_utf8_lossy(output.get(..OUTPUT_LIMIT).unwrap_or(output)).into_owned();
    let mut end = text.len().min(OUTPUT_LIMIT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_cut_at_a_character_and_never_longer_than_the_limit() {
        assert_eq!(shortened(b"ok"), "ok");
        assert_eq!(shortened(&vec![b'x'; 10_000]).len(), OUTPUT_LIMIT);
        for text in ["ä".repeat(4096), format!("x{}", "ä".repeat(4096))] {
            let cut = shortened(text.as_bytes());
            assert!(cut.len() <= OUTPUT_LIMIT && cut.len() > OUTPUT_LIMIT - 4, "{}", cut.len());
        }
        assert!(shortened(&vec![0xff; 10_000]).len() <= OUTPUT_LIMIT);
    }
}
