//! How answers look: a table on a terminal, the same text without colour elsewhere, or JSON and YAML.

use comfy_table::{Cell, Color, Table, presets};
use serde::Serialize;

use crate::cli::Format;
use crate::outcome::Failure;
use crate::terminal;

/// Prints answers in the form that was asked for.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    format: Format,
    colours: bool,
}

/// What a cell says of its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    Plain,
    /// All is well, allowed.
    Good,
    /// Worth a look.
    Doubtful,
    /// Denied, broken.
    Bad,
}

/// The text of a cell and what it says.
pub type ToneText = (String, Tone);

/// A plain cell.
pub fn plain(text: impl ToString) -> ToneText {
    (text.to_string(), Tone::Plain)
}

impl Output {
    /// For this process' stdout.
    pub fn new(format: Format) -> Self {
        Self { format, colours: terminal::stdout_has_colours() }
    }

    /// The form that was asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Prints `value`; `text` is its form for people.
    pub fn show<T: Serialize>(&self, value: &T, text: impl FnOnce(&Self) -> String) -> Result<(), Failure> {
        let printed = match self.format {
            Format::Table => text(self),
            Format::Json => {
                serde_json::to_string_pretty(value).map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?
            }
            Format::Yaml => serde_yaml::to_string(value).map_err(|error| Failure::new(format!("cannot write YAML: {error}")))?,
        };
        terminal::print(&(printed.trim_end().to_owned() + "\n"))
    }

    /// A table without borders: a header, and a row for each item.
    pub fn table(&self, header: &[&str], rows: Vec<Vec<ToneText>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        match self.colours {
            true => table.enforce_styling(),
            false => table.force_no_tty(),
        };
        table.set_header(header.iter().map(|title| title.to_uppercase()));
        for row in rows {
            table.add_row(row.into_iter().map(cell));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// Names and values, one pair a line.
    pub fn pairs(&self, pairs: &[(&str, String)]) -> String {
        let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        pairs.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
    }

    /// A word with its colour.
    pub fn paint(&self, (text, tone): ToneText) -> String {
        use owo_colors::OwoColorize;
        match tone {
            _ if !self.colours => text,
            Tone::Plain => text,
            Tone::Good => text.green().to_string(),
            Tone::Doubtful => text.yellow().to_string(),
            Tone::Bad => text.red().to_string(),
        }
    }
}

fn cell((text, tone): ToneText) -> Cell {
    let cell = Cell::new(text);
    match tone {
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Doubtful => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output { format: Format::Table, colours: false };

    #[test]
    fn a_table_has_no_borders_and_no_trailing_space() {
        let table = PLAIN
            .table(&["name", "state"], vec![vec![plain("web"), plain("ok")], vec![plain("billing"), ("bad".into(), Tone::Bad)]]);
        assert_eq!(table, "NAME     STATE\nweb      ok\nbilling  bad\n");
    }

    #[test]
    fn colours_stand_only_where_they_are_wanted() {
        let rows = || vec![vec![("no".to_owned(), Tone::Bad)]];
        assert!(!PLAIN.table(&["x"], rows()).contains('\u{1b}'));
        let coloured = Output { format: Format::Table, colours: true };
        assert!(coloured.table(&["x"], rows()).contains('\u{1b}'));
        assert_eq!(PLAIN.paint(("no".into(), Tone::Bad)), "no");
    }

    #[test]
    fn pairs_are_aligned() {
        assert_eq!(PLAIN.pairs(&[("id", "a".into()), ("expires", "b".into())]), "id       a\nexpires  b\n");
    }
}
