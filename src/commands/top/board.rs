//! What is on the screen of `top`, and what keys do to it.

use std::cmp::Ordering;

use super::super::seen::{PairRow, milliseconds, rate};
use super::keys::Key;
use crate::cli::seen::TopColumn;
use crate::outcome::Failure;
use crate::output::{Output, Tone, ToneText, plain};

const HEADER: [&str; 11] =
    ["source", "destination", "rate", "errors", "p50", "p99", "denied", "audited", "open", "calls", "last seen"];
/// The order in which a key goes through the columns.
const COLUMNS: [TopColumn; 5] = [TopColumn::Rate, TopColumn::Errors, TopColumn::P99, TopColumn::Denied, TopColumn::Name];
const KEYS: &str = "q quit  s sort  r reverse  / filter  arrows scroll";
/// Characters of a filter.
const LONGEST_FILTER: usize = 64;

/// What follows a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It goes on.
    On,
    /// The end.
    Quit,
}

/// The rows, and how they are looked at.
pub struct Board {
    place: String,
    rows: Vec<PairRow>,
    problem: Option<String>,
    sort: TopColumn,
    reversed: bool,
    filter: String,
    is_typing: bool,
    first: usize,
}

impl Board {
    /// Nothing yet; `place` is where the control plane is.
    pub fn new(sort: TopColumn, place: String) -> Self {
        Self { place, rows: Vec::new(), problem: None, sort, reversed: false, filter: String::new(), is_typing: false, first: 0 }
    }

    /// Shows these from now on.
    pub fn show(&mut self, rows: Vec<PairRow>) {
        self.rows = rows;
        self.problem = None;
        self.sort_rows();
    }

    /// Keeps what is shown, and says why it is old.
    pub fn fail(&mut self, failure: &Failure) {
        self.problem = Some(failure.to_string());
    }

    fn sort_rows(&mut self) {
        let sort = self.sort;
        let most_first = |a: f64, b: f64| b.total_cmp(&a);
        self.rows.sort_by(|a, b| {
            let order = match sort {
                TopColumn::Rate => most_first(a.rate, b.rate).then(b.count.cmp(&a.count)),
                TopColumn::Errors => b.errors.cmp(&a.errors),
                TopColumn::P99 => most_first(a.p99_ms.unwrap_or(-1.0), b.p99_ms.unwrap_or(-1.0)),
                TopColumn::Denied => b.denied.cmp(&a.denied).then(b.audited.cmp(&a.audited)),
                TopColumn::Name => Ordering::Equal,
            };
            order.then_with(|| (&a.destination, &a.source, &a.port).cmp(&(&b.destination, &b.source, &b.port)))
        });
        if self.reversed {
            self.rows.reverse();
        }
    }

    /// The rows that the filter lets through.
    pub fn rows(&self) -> impl Iterator<Item = &PairRow> {
        let filter = self.filter.as_str();
        self.rows.iter().filter(move |row| row.source.as_str().contains(filter) || row.called().contains(filter))
    }

    /// Does what a key says.
    pub fn press(&mut self, key: Key) -> Next {
        match key {
            Key::Interrupt => return Next::Quit,
            Key::Up => self.first = self.first.saturating_sub(1),
            Key::Down => self.first += 1,
            key if self.is_typing => self.type_filter(key),
            Key::Character('q') | Key::Escape => return Next::Quit,
            Key::Character('s') => {
                let at = COLUMNS.iter().position(|column| *column == self.sort).unwrap_or(0);
                self.sort = COLUMNS.iter().copied().cycle().nth(at + 1).unwrap_or_default();
                self.sort_rows();
            }
            Key::Character('r') => {
                self.reversed = !self.reversed;
                self.sort_rows();
            }
            Key::Character('k') => self.first = self.first.saturating_sub(1),
            Key::Character('j') => self.first += 1,
            Key::Character('/') => self.is_typing = true,
            Key::Character(_) | Key::Enter | Key::Erase => {}
        }
        Next::On
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Character(c) if self.filter.len() < LONGEST_FILTER => self.filter.push(c),
            Key::Erase => drop(self.filter.pop()),
            Key::Enter => self.is_typing = false,
            Key::Escape => {
                self.filter.clear();
                self.is_typing = false;
            }
            _ => {}
        }
        self.first = 0;
    }

    /// All rows.
    pub fn table(&self, output: &Output) -> String {
        let rows: Vec<Vec<ToneText>> = self.rows().map(cells).collect();
        if rows.is_empty() {
            return "no calls\n".into();
        }
        output.table(&HEADER, rows)
    }

    /// The screen, at most `height` lines of `width` columns.
    pub fn lines(&self, output: &Output, width: usize, height: usize) -> Vec<String> {
        let order = if self.reversed { ", reversed" } else { "" };
        let shown = self.rows().count();
        let head = format!(
            "{shown} of {all} pairs at {place}, by {sort}{order}",
            all = self.rows.len(),
            place = self.place,
            sort = word(self.sort)
        );
        let second = match (&self.problem, self.is_typing, self.filter.is_empty()) {
            (Some(problem), ..) => output.paint((cut(problem, width), Tone::Bad)),
            (None, true, _) => cut(&format!("filter: {}_  (Enter keeps it, Esc clears it)", self.filter), width),
            (None, false, false) => cut(&format!("filter: {}    {KEYS}", self.filter), width),
            (None, false, true) => cut(KEYS, width),
        };
        let room = height.saturating_sub(4);
        let first = self.first.min(shown.saturating_sub(room.max(1)));
        let rows: Vec<Vec<ToneText>> = self.rows().skip(first).take(room).map(cells).collect();
        let mut lines = vec![cut(&head, width), second, String::new()];
        if rows.is_empty() {
            lines.push("no calls".into());
        } else {
            lines.extend(output.table(&HEADER, rows).lines().map(|line| cut_painted(line, width)));
        }
        lines.truncate(height.max(1));
        lines
    }
}

fn word(sort: TopColumn) -> &'static str {
    match sort {
        TopColumn::Rate => "rate",
        TopColumn::Errors => "errors",
        TopColumn::P99 => "p99",
        TopColumn::Denied => "denied",
        TopColumn::Name => "name",
    }
}

fn cells(row: &PairRow) -> Vec<ToneText> {
    let number = |number: u64, tone: Tone| match number {
        0 => plain("-"),
        number => (number.to_string(), tone),
    };
    vec![
        plain(&row.source),
        plain(row.called()),
        plain(rate(row.rate)),
        number(row.errors, Tone::Doubtful),
        plain(milliseconds(row.p50_ms)),
        plain(milliseconds(row.p99_ms)),
        number(row.denied, Tone::Bad),
        number(row.audited, Tone::Doubtful),
        number(row.open, Tone::Plain),
        plain(row.count),
        plain(&row.last_seen),
    ]
}

fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}

/// Cuts a line that has colours in it: what sets them takes no room.
fn cut_painted(line: &str, width: usize) -> String {
    let mut cut = String::with_capacity(line.len());
    let mut left = width;
    let mut characters = line.chars();
    while let Some(c) = characters.next() {
        if c == '\u{1b}' {
            cut.push(c);
            for c in characters.by_ref() {
                cut.push(c);
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
        } else if left > 0 {
            cut.push(c);
            left -= 1;
        }
    }
    cut
}

#[cfg(test)]
mod tests {
    use postern_edges::Verdict;

    use super::super::super::seen::{pairs, samples::row};
    use super::*;
    use crate::cli::Format;

    fn board() -> Board {
        let rows =
            [row("web", "api", Verdict::Allow, 30), row("web", "db", Verdict::Deny, 3), row("job", "api", Verdict::Allow, 300)];
        let mut board = Board::new(TopColumn::Rate, "http://127.0.0.1:8500".into());
        board.show(pairs(&rows));
        board
    }

    fn names(board: &Board) -> Vec<String> {
        board.rows().map(|row| format!("{}-{}", row.source, row.destination)).collect()
    }

    fn press(board: &mut Board, keys: &str) {
        for key in keys.chars() {
            assert_eq!(board.press(Key::Character(key)), Next::On);
        }
    }

    #[test]
    fn keys_sort_and_filter() {
        let mut board = board();
        assert_eq!(names(&board), ["job-api", "web-api", "web-db"]);
        press(&mut board, "r");
        assert_eq!(names(&board), ["web-db", "web-api", "job-api"]);
        press(&mut board, "rsss");
        assert_eq!(names(&board)[0], "web-db", "by denials");
        press(&mut board, "/web");
        assert_eq!(names(&board), ["web-db", "web-api"]);
        press(&mut board, "q");
        assert!(names(&board).is_empty(), "a letter of the filter, no command");
        board.press(Key::Erase);
        board.press(Key::Enter);
        assert_eq!(names(&board).len(), 2);
        assert_eq!(board.press(Key::Character('q')), Next::Quit);
        press(&mut board, "/");
        assert_eq!(board.press(Key::Escape), Next::On);
        assert_eq!(names(&board).len(), 3);
        assert_eq!(board.press(Key::Escape), Next::Quit);
        assert_eq!(board.press(Key::Interrupt), Next::Quit);
    }

    #[test]
    fn the_screen_is_never_left_at_its_edges() {
        let output = Output::new(Format::Table);
        let mut board = board();
        for (width, height) in [(120, 30), (80, 5), (20, 6), (1, 1), (0, 0), (10, 3)] {
            for _ in 0..5 {
                board.press(Key::Down);
            }
            let lines = board.lines(&output, width, height);
            assert!(lines.len() <= height.max(1), "{lines:?}");
            assert!(lines.iter().all(|line| line.chars().count() <= width.max(8)), "{lines:?}");
        }
        let lines = board.lines(&output, 200, 5);
        assert!(lines[0].contains("3 of 3 pairs") && lines[3].starts_with("SOURCE") && lines[4].starts_with("web"), "{lines:?}");
    }

    #[test]
    fn a_control_plane_that_does_not_answer_is_told_above_the_last_rows() {
        let mut board = board();
        board.fail(&Failure::new("no answer"));
        let lines = board.lines(&Output::new(Format::Table), 100, 20);
        assert!(lines[1].contains("no answer") && lines.len() == 7, "{lines:?}");
        board.show(Vec::new());
        assert!(board.lines(&Output::new(Format::Table), 100, 20).concat().contains("no calls"));
    }

    #[test]
    fn colours_take_no_room() {
        assert_eq!(cut_painted("\u{1b}[31mdenied\u{1b}[0m more", 3), "\u{1b}[31mden\u{1b}[0m");
    }
}
