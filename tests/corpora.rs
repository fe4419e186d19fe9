//! Gives every file of `fuzz/corpus/` to its parser, so that what fuzzing found stays found.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::path::{Path, PathBuf};

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_parser_stands_what_fuzzing_has_found() {
    for (target, parse) in fuzz::PARSERS {
        let files = corpus(target);
        assert!(!files.is_empty(), "{target} has no corpus");
        for file in files {
            let data = fs::read(&file).unwrap();
            // The name of the file is printed with the failure that follows.
            println!("{}", file.display());
            parse(&data);
        }
    }
}

#[test]
fn the_good_proof_of_the_corpus_is_good_and_the_others_are_not() {
    for file in corpus("proof") {
        let judged = fuzz::judge_proof(&fs::read(&file).unwrap());
        assert_eq!(judged.is_ok(), file.ends_with("renewed"), "{}: {judged:?}", file.display());
    }
}

#[test]
fn every_fuzz_target_is_replayed() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    for entry in fs::read_dir(targets).unwrap() {
        let path = entry.unwrap().path();
        let target = path.file_stem().unwrap().to_str().unwrap();
        assert!(fuzz::PARSERS.iter().any(|(name, _)| *name == target), "{target} is not in PARSERS");
    }
}
