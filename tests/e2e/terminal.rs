//! What `apply` asks on a terminal, and what a terminal sees that a pipe does not.

use std::process::Command;

use crate::support::{Mesh, Terminal};

/// Writes a file that would add `web -> api`, and gives `apply -f` of it.
fn apply(mesh: &Mesh) -> Command {
    let file = mesh.path("wanted.yaml");
    std::fs::write(&file, "intentions:\n  - {source: web, destination: api, action: allow}\n").unwrap();
    let mut command = mesh.command("intention");
    command.args(["apply", "-f"]).arg(file);
    command
}

fn intentions(mesh: &Mesh) -> usize {
    mesh.json(&["intention", "list"])["intentions"].as_array().unwrap().len()
}

#[test]
fn apply_shows_the_difference_and_asks() {
    let mesh = Mesh::start();
    let command = apply(&mesh);
    for (keys, code) in [("n\r", 1), ("\r", 1), ("maybe\r", 1), ("\u{4}", 1)] {
        let mut terminal = Terminal::start(&command);
        terminal.until("web -> api");
        terminal.until("Apply? [y/N] ");
        terminal.press(keys);
        assert_eq!(terminal.exit().code(), Some(code), "{keys:?}");
        terminal.until("nothing was changed");
        assert_eq!(intentions(&mesh), 0, "{keys:?}");
    }
    let mut terminal = Terminal::start(&command);
    terminal.until("Apply? [y/N] ");
    terminal.press("y\r");
    assert_eq!(terminal.exit().code(), Some(0));
    terminal.until("1 added, 0 changed, 0 removed");
    assert_eq!(intentions(&mesh), 1);
    let mut terminal = Terminal::start(&command);
    terminal.until("nothing to change");
    assert_eq!(terminal.exit().code(), Some(0), "what is there already is not asked for");
}

#[test]
fn ctrl_c_at_the_question_changes_nothing() {
    let mesh = Mesh::start();
    let mut terminal = Terminal::start(&apply(&mesh));
    terminal.until("Apply? [y/N] ");
    terminal.press("\u{3}");
    assert!(!terminal.exit().success());
    assert_eq!(intentions(&mesh), 0);
}

#[test]
fn yes_asks_nothing_and_what_changed_meanwhile_is_refused() {
    let mesh = Mesh::start();
    let mut command = apply(&mesh);
    let mut terminal = Terminal::start(&command);
    terminal.until("Apply? [y/N] ");
    mesh.deny("web", "db");
    terminal.press("y\r");
    assert_eq!(terminal.exit().code(), Some(2), "the difference that was shown is not the one that would be made");
    assert_eq!(intentions(&mesh), 1, "the one that was made meanwhile");

    let mut terminal = Terminal::start(command.arg("--yes"));
    assert_eq!(terminal.exit().code(), Some(0));
    assert!(!terminal.screen().contains("Apply?"));
    assert_eq!(intentions(&mesh), 1);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let mesh = Mesh::start();
    mesh.deny("web", "api");
    let mut list = mesh.command("intention");
    list.arg("list");
    let shown = |command: &Command| {
        let mut terminal = Terminal::start(command);
        terminal.until("web");
        assert_eq!(terminal.exit().code(), Some(0));
        terminal.screen()
    };
    assert!(shown(&list).contains('\u{1b}'), "a terminal shows colours");
    list.env("NO_COLOR", "1");
    assert!(!shown(&list).contains('\u{1b}'), "NO_COLOR is heeded");
    list.env("NO_COLOR", "");
    assert!(shown(&list).contains('\u{1b}'), "an empty NO_COLOR does not count (no-color.org)");
    list.env_remove("NO_COLOR");
    let piped = list.output().unwrap();
    assert!(!String::from_utf8_lossy(&piped.stdout).contains('\u{1b}'), "a pipe gets none");
}
