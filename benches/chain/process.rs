//! A child process, and what it has used.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// A child and its own children; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    /// Kept open, so that a late line does not end the process.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts it with all its output in the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = open_log(log)?;
        command.stdout(file.try_clone()?).stderr(file);
        Self::spawn(command, log)
    }

    /// Starts it with its errors in the file `log`, and reads the line that it prints when it is ready.
    pub fn start_announcing(command: &mut Command, log: &Path) -> anyhow::Result<(Self, serde_json::Value)> {
        command.stdout(Stdio::piped()).stderr(open_log(log)?);
        let mut process = Self::spawn(command, log)?;
        let mut stdout = BufReader::new(process.child.stdout.take().context("it has no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        process.stdout = Some(stdout);
        let announced = serde_json::from_str(&line)
            .with_context(|| format!("{:?} did not announce itself; its log:\n{}", command.get_program(), process.log()))?;
        Ok((process, announced))
    }

    fn spawn(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        Ok(Self { child, log: log.to_owned(), stdout: None })
    }

    /// The last of what it has logged.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// # Errors
    /// If it has ended, with what it said.
    pub fn check_running(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it ended with {status}; its log:\n{}", self.log());
        }
        Ok(())
    }

    /// User and system time of all its threads, and of its children.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        self.tree().into_iter().map(cpu_of).sum()
    }

    /// The time that its threads have had a processor, as the scheduler counts it: to the nanosecond, of threads that live.
    #[allow(dead_code)] // what only another benchmark needs
    pub fn scheduled(&self) -> anyhow::Result<Duration> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id()))?;
        let nanoseconds = threads.map(|thread| {
            let path = thread?.path().join("schedstat");
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let first = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
            first.with_context(|| format!("{} has another form than expected", path.display()))
        });
        Ok(Duration::from_nanos(nanoseconds.sum::<anyhow::Result<u64>>()?))
    }

    /// Proportional set size of it and of its children, in KiB.
    pub fn pss_kib(&self) -> anyhow::Result<u64> {
        self.tree().into_iter().map(|id| memory_of(id, "Pss:")).sum()
    }

    /// What of it is no part of a file, in KiB: the rest is the program, as far as the kernel has mapped it.
    pub fn anonymous_kib(&self) -> anyhow::Result<u64> {
        self.tree().into_iter().map(|id| memory_of(id, "Pss_Anon:")).sum()
    }

    fn tree(&self) -> Vec<u32> {
        let mut tree = vec![self.child.id()];
        let mut next = 0;
        while let Some(&id) = tree.get(next) {
            tree.extend(children_of(id));
            next += 1;
        }
        tree
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for id in self.tree() {
            // One that has ended meanwhile needs no signal.
            let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

fn open_log(log: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("cannot write {}", log.display()))
}

fn children_of(id: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Fields 14 and 15 of `proc_pid_stat(5)`; the second field, the name, may hold spaces.
fn cpu_of(id: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{id}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = |index: usize| -> Option<u64> { fields.split_whitespace().nth(index)?.parse().ok() };
    let (user, system) = ticks(11).zip(ticks(12)).with_context(|| format!("{path} has another form than expected"))?;
    let second = sysconf(SysconfVar::CLK_TCK)?.and_then(|ticks| u32::try_from(ticks).ok()).unwrap_or(100);
    Ok(Duration::from_secs(user + system) / second)
}

/// A line of `proc_pid_smaps_rollup`, in KiB.
fn memory_of(id: u32, name: &str) -> anyhow::Result<u64> {
    let path = format!("/proc/{id}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace()
        .next()
        .and_then(|kib| kib.parse().ok())
        .with_context(|| format!("{path} has another form than expected"))
}
