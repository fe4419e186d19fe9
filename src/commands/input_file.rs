//! Files that commands are given: read with a limit, and refused with every error of theirs.

use std::io::Read;
use std::path::Path;

use postern_intentions::yaml::FileError;

use crate::outcome::Failure;
use crate::terminal;

/// The text of a file of at most `limit` bytes, whole MiB, and its name for messages; `-` is stdin.
///
/// # Errors
/// It cannot be read, is larger, or is no text.
pub fn text_of(path: &Path, limit: u64) -> Result<(String, String), Failure> {
    let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    let refuse = |why: String| Failure::new(format!("cannot read {name}: {why}"));
    let mut bytes = Vec::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().lock().take(limit + 1).read_to_end(&mut bytes),
        false => std::fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)),
    };
    read.map_err(|error| refuse(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(refuse(format!("it is larger than {} MiB", limit >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|_| refuse("it is not UTF-8".into()))?;
    Ok((text, name))
}

/// Shows every error of a file on stderr; the failure counts them.
pub fn failure(name: &str, errors: &[FileError]) -> Failure {
    let mut lines = errors.iter().map(ToString::to_string);
    match (errors.len(), lines.next()) {
        (1, Some(line)) => Failure::new(line),
        (count, first) => {
            for line in first.into_iter().chain(lines) {
                terminal::note(&line);
            }
            Failure::new(format!("{name} has {count} errors")).cure("they are listed above")
        }
    }
}
