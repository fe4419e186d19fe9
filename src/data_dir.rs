//! The data directory: `POSTERN_DATA_DIR`, else `/var/lib/postern` for root and `$XDG_STATE_HOME/postern` for anyone else.

use std::path::{Path, PathBuf};

use crate::outcome::Failure;

/// Looks up a variable of the environment; a parameter, so that tests need none.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process. A value that is not UTF-8 counts as absent.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The data directory of this user.
pub fn find(environment: Environment<'_>) -> Result<PathBuf, Failure> {
    find_for(environment, nix::unistd::geteuid().is_root())
}

fn find_for(environment: Environment<'_>, is_root: bool) -> Result<PathBuf, Failure> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    if let Some(directory) = set("POSTERN_DATA_DIR") {
        return absolute(Path::new(&directory));
    }
    if is_root {
        return Ok(PathBuf::from("/var/lib/postern"));
    }
    if let Some(state) = set("XDG_STATE_HOME") {
        return Ok(Path::new(&state).join("postern"));
    }
    match set("HOME") {
        Some(home) => Ok(Path::new(&home).join(".local/state/postern")),
        None => {
            Err(Failure::new("there is no data directory: neither HOME nor XDG_STATE_HOME is set").cure("set POSTERN_DATA_DIR"))
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::new(format!("cannot resolve {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_with(variables: &[(&str, &str)], is_root: bool) -> PathBuf {
        let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
        find_for(&lookup, is_root).unwrap()
    }

    #[test]
    fn the_variable_wins_then_the_place_of_the_user() {
        assert_eq!(find_with(&[("POSTERN_DATA_DIR", "/d")], true), Path::new("/d"));
        assert_eq!(find_with(&[("HOME", "/h")], true), Path::new("/var/lib/postern"));
        assert_eq!(find_with(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")], false), Path::new("/s/postern"));
        assert_eq!(find_with(&[("HOME", "/h")], false), Path::new("/h/.local/state/postern"));
    }

    #[test]
    fn without_a_home_the_cure_is_named() {
        let failure = find_for(&|_| None, false).unwrap_err();
        assert!(failure.to_string().contains("POSTERN_DATA_DIR"));
    }
}
