//! `meshctl tether`: becomes a command that the kernel ends when `meshctl run` is gone.
//!
//! `run` itself can be killed before it can tell anybody. Its COMMAND must not live on without a sidecar, and only the
//! process that becomes COMMAND can ask the kernel for that.

use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::cli::plain::TetherArgs;
use crate::outcome::{Answer, Outcome};
use crate::terminal;

/// Exit codes of env(1).
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

/// Ties this process to its parent, gives back the file limit that the sidecar had raised, and becomes the command.
pub fn tether(args: TetherArgs) -> Outcome {
    let Some((program, arguments)) = args.command.split_first() else { return Ok(Answer::Code(NOT_RUNNABLE)) };
    if let Err(why) = tie_to(args.parent) {
        terminal::note(&format!("meshctl: {why}"));
        return Ok(Answer::Code(NOT_RUNNABLE));
    }
    lower_file_limit(args.files);
    let error = Command::new(program).args(arguments).exec();
    terminal::note(&format!("meshctl: cannot start {}: {error}", program.to_string_lossy()));
    Ok(Answer::Code(if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUNNABLE }))
}

#[cfg(target_os = "linux")]
fn tie_to(parent: i32) -> Result<(), String> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)
        .map_err(|error| format!("cannot tie the command to its sidecar: {error}"))?;
    // A parent that had gone before sends no signal any more.
    if nix::unistd::getppid().as_raw() != parent {
        return Err("`meshctl run` has gone; the command was not started".into());
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn tie_to(_parent: i32) -> Result<(), String> {
    Ok(())
}

/// Many files are for the sidecar; programs that use select(2), or close every file that could be open, want few.
fn lower_file_limit(soft: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let lowered =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard));
    if let Err(error) = lowered {
        terminal::note(&format!("meshctl: the file limit of the command stays raised: {error}"));
    }
}
