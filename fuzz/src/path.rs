//! The target of a request, and the path in it.

use std::collections::HashSet;

use postern_intentions::{DoubleSlash, EncodedSlash, JudgedPath, PathSettings, RequestTarget};

/// A request target. The first byte says the method and what the service keeps.
pub fn path(data: &[u8]) {
    let Some((flags, target)) = data.split_first() else { return };
    let Ok(target) = std::str::from_utf8(target) else { return };
    let method = ["GET", "OPTIONS", "CONNECT", "PUT"][usize::from(flags & 3)];
    let paths = PathSettings {
        encoded_slash: if flags & 4 == 0 { EncodedSlash::Refuse } else { EncodedSlash::Keep },
        double_slash: if flags & 8 == 0 { DoubleSlash::Collapse } else { DoubleSlash::Keep },
    };
    let read = match RequestTarget::read(method, target, Some("api.example")) {
        Ok(read) => read,
        Err(refused) => return assert!(!refused.word().is_empty()),
    };
    assert!(read.path().starts_with('/') || (read.path() == "*" && method == "OPTIONS"));
    assert!(!read.path().contains(['?', '#']) && !read.query().unwrap_or_default().contains('#'));
    let Ok(judged) = JudgedPath::read(&read, paths) else { return };
    let forwarded = judged.forwarded();
    assert!(forwarded.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\'), "{forwarded:?}");
    let is_resolved = |path: &str| path.split('/').all(|segment| segment != "." && segment != "..");
    assert!(judged.readings().all(is_resolved), "{judged:?}");
    if paths.double_slash == DoubleSlash::Collapse {
        assert!(!forwarded.contains("//"), "{forwarded}");
    }
    if paths.encoded_slash == EncodedSlash::Refuse {
        assert!(!forwarded.contains("%2F") && !forwarded.contains("%2f"), "{forwarded}");
    }
    what_is_forwarded_holds_no_surprise(&judged, method, paths);
}

/// Whoever reads it again finds the same path, and nothing in it that was not judged.
fn what_is_forwarded_holds_no_surprise(judged: &JudgedPath<'_>, method: &str, paths: PathSettings) {
    let target = RequestTarget::read(method, judged.forwarded(), None).expect("what goes on is a target");
    let again = JudgedPath::read(&target, paths).expect("what goes on is not refused");
    assert_eq!(again.forwarded(), judged.forwarded());
    let was_judged: HashSet<&str> = judged.readings().collect();
    assert!(again.readings().all(|reading| was_judged.contains(reading)), "{judged:?} and then {again:?}");
}
