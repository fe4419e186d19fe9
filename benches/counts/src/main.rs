//! `counts SUBJECT TIMES` runs a hot path TIMES times and does nothing else that depends on TIMES. `benches/counts/run`
//! runs it twice under valgrind: the difference is what the path costs, in instructions.

mod decide;
mod frames;
mod records;
mod requests;
mod traffic;

use std::process::ExitCode;

use postern_traffic::settings::Policy;

/// Runs a path a number of times.
type Run = fn(u32);

/// What can be counted.
const SUBJECTS: &[(&str, Run)] = &[
    ("decide/10/pair", |times| decide::pair(10, times)),
    ("decide/1000/pair", |times| decide::pair(1_000, times)),
    ("decide/1000/wildcard", |times| decide::wildcard(1_000, times)),
    ("decide/1000/default", |times| decide::nothing(1_000, times)),
    ("decide/1000/temporary", |times| decide::temporary(1_000, times)),
    ("decide/request/permission", requests::permission_alone),
    ("decide/request/tenth", requests::tenth),
    ("decide/request/regex", requests::regex),
    ("decide/request/untouched", requests::untouched),
    ("path/plain", |times| requests::path("/v1/invoices/2026/0001/lines?page=2", times)),
    ("path/escapes", |times| requests::path("/v1/%69nvoices/../r%C3%A9sum%c3%a9", times)),
    ("path/parameters", |times| requests::path("/v1/invoices;a=b/..;/admin", times)),
    ("compile/1000", |times| decide::compile(1_000, times)),
    ("frame/header/200", |times| frames::header(200, times)),
    ("frame/receive/200", |times| frames::receive(200, times)),
    ("frame/receive/16376", |times| frames::receive(16_376, times)),
    ("record/seal/200", |times| records::seal(200, times)),
    ("record/seal/16384", |times| records::seal(16_384, times)),
    ("record/open/200", |times| records::open(200, times, 20_000)),
    ("record/open/16384", |times| records::open(16_384, times, 1_200)),
    ("route/100", |times| traffic::route(100, times)),
    ("pick/least_request/100", |times| traffic::pick(Policy::LeastRequest, 100, times)),
    ("pick/round_robin/100", |times| traffic::pick(Policy::RoundRobin, 100, times)),
    ("pick/ring_hash/100", |times| traffic::pick(Policy::RingHash, 100, times)),
    ("pick/maglev/100", |times| traffic::pick(Policy::Maglev, 100, times)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => {
            SUBJECTS.iter().for_each(|(name, _)| println!("{name}"));
            ExitCode::SUCCESS
        }
        [name, times] => {
            let subject = SUBJECTS.iter().find(|(known, _)| *known == name);
            match (subject, times.parse()) {
                (Some((_, run)), Ok(times)) => {
                    run(times);
                    ExitCode::SUCCESS
                }
                _ => usage(),
            }
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: counts SUBJECT TIMES, or counts --list");
    ExitCode::FAILURE
}
