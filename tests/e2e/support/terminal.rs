//! A pseudo-terminal with a program in front of it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

use parking_lot::Mutex;

use super::process::eventually;

/// A program that has a terminal of its own, as if somebody sat there.
pub struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<String>>,
    child: Child,
}

impl Terminal {
    /// Runs `command` on a new terminal; Ctrl-C there reaches it.
    pub fn start(command: &Command) -> Self {
        let pty = nix::pty::openpty(None, None).unwrap();
        let stdio = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args()).env_clear();
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "xterm");
        session.current_dir(command.get_current_dir().unwrap());
        session.stdin(stdio(&pty.slave)).stdout(stdio(&pty.slave)).stderr(stdio(&pty.slave));
        let child = session.spawn().unwrap();
        drop((session, pty.slave));
        let keyboard = File::from(pty.master);
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut reader, shown) = (keyboard.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                shown.lock().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Self { keyboard, screen, child }
    }

    /// Waits until the screen has shown `text`.
    #[track_caller]
    pub fn until(&self, text: &str) {
        eventually(&format!("the terminal shows {text:?}"), || self.screen().contains(text).then_some(()));
    }

    /// What the screen has shown so far.
    pub fn screen(&self) -> String {
        self.screen.lock().clone()
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn exit(&mut self) -> ExitStatus {
        let child = &mut self.child;
        eventually("the program on the terminal ends", || child.try_wait().unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- terminal\n{}", self.screen());
        }
    }
}
