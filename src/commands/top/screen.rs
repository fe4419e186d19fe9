//! The whole terminal, as long as it is ours.

use std::io::{self, Write};

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use crossterm::{execute, queue};

use super::board::Board;
use crate::cli::Format;
use crate::output::Output;

/// What a terminal has that does not tell.
const USUAL: (u16, u16) = (80, 24);

/// Gives the terminal back as it was when it is dropped.
pub struct Screen {
    output: Output,
}

impl Screen {
    /// Takes the terminal: keys come at once, and what was on it is kept.
    pub fn open() -> io::Result<Self> {
        enable_raw_mode()?;
        let screen = Self { output: Output::new(Format::Table) };
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// Draws everything anew, in one write.
    pub fn draw(&mut self, board: &Board) -> io::Result<()> {
        let (width, height) = size().ok().filter(|(width, height)| *width > 0 && *height > 0).unwrap_or(USUAL);
        let mut drawn = Vec::new();
        queue!(drawn, MoveTo(0, 0))?;
        for (at, line) in board.lines(&self.output, usize::from(width), usize::from(height)).into_iter().enumerate() {
            queue!(drawn, MoveTo(0, u16::try_from(at).unwrap_or(u16::MAX)))?;
            drawn.write_all(line.as_bytes())?;
            queue!(drawn, Clear(ClearType::UntilNewLine))?;
        }
        queue!(drawn, Clear(ClearType::FromCursorDown))?;
        let mut stdout = io::stdout().lock();
        stdout.write_all(&drawn)?;
        stdout.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone there is nothing to give back.
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}
