//! Child processes whose output is kept and shown when the test fails.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PATIENCE;

/// The binary under test.
pub fn meshctl_binary() -> &'static str {
    env!("CARGO_BIN_EXE_meshctl")
}

/// Asks again until there is an answer; fails with `what` after [`PATIENCE`].
#[track_caller]
#[allow(clippy::disallowed_methods)] // the pause between two looks at a condition
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = look() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A port for a server that cannot bind port 0: each is given once, and from below those that the kernel gives
/// to others (32,768 and up), so nobody takes it before the server does.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 20_000).unwrap();
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports = std::iter::repeat_with(|| 12_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000);
    ports.take(20_000).find(is_free).expect("no port is free")
}

/// A child process; killed when dropped, its log printed when the test failed.
pub struct Process {
    child: Child,
    log: PathBuf,
    first_line: Option<mpsc::Receiver<String>>,
}

impl Process {
    /// Starts it with its output in `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.into(), first_line: None }
    }

    /// Starts it and keeps the first line that it prints on stdout.
    pub fn start_announcing(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self { child, log: log.into(), first_line: Some(receive) }
    }

    /// The next line that it prints on stdout.
    #[track_caller]
    pub fn line(&self) -> String {
        let lines = self.first_line.as_ref().expect("started to announce");
        lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("printed no line; its log:\n{}", self.log()))
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill_hard(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn exit(&mut self) -> ExitStatus {
        let log = self.log.clone();
        let child = &mut self.child;
        eventually(&format!("the process of {} ends", log.display()), || child.try_wait().unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_hard();
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), self.log());
        }
    }
}
