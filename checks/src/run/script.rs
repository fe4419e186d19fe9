//! A program: exit code 0 is passing, 1 a warning, all else critical.

use std::process::Stdio;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::Answer;
use crate::{OUTPUT_LIMIT, Status, shortened};

pub(super) async fn ask(args: &[String]) -> Result<Answer, String> {
    let (program, rest) = args.split_first().ok_or("there is no program to run")?;
    let mut child = Command::new(program)
        .args(rest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot run {program}: {error}"))?;
    let _group = Group(child.id());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (status, out, err) = tokio::join!(child.wait(), kept(stdout), kept(stderr));
    let status = status.map_err(|error| format!("{program}: {error}"))?;
    let output = [out, err].concat();
    Ok(Answer {
        status: match status.code() {
            Some(0) => Status::Passing,
            Some(1) => Status::Warning,
            _ => Status::Critical,
        },
        output: if output.is_empty() { status.to_string() } else { shortened(&output) },
    })
}

/// The beginning of what is written; the rest is read and forgotten, so that the program is not held up.
async fn kept(stream: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    let Some(mut stream) = stream else { return kept };
    let mut buffer = [0; 1024];
    while let Ok(read) = stream.read(&mut buffer).await {
        if read == 0 {
            break;
        }
        let room = OUTPUT_LIMIT - kept.len();
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
    kept
}

/// The program and all that it started; killed when the answer is there or not waited for any more.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.and_then(|id| i32::try_from(id).ok()) {
            // It is gone, as a rule.
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}
