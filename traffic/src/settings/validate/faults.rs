//! Faults, their places, and the gathering of them.

use std::collections::HashMap;
use std::fmt;

/// Something that cannot be, and where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}{}: {what}{}", first.as_ref().map(|first| format!(" (first at {first})")).unwrap_or_default(), cure.as_ref().map(|cure| format!("; {cure}")).unwrap_or_default())]
pub struct Fault {
    /// Where it is.
    pub at: Place,
    /// What is wrong.
    pub what: String,
    /// What to do, where `what` does not say so.
    pub cure: Option<String>,
    /// The earlier one of two.
    pub first: Option<Place>,
}

/// The way to a value from the outside in: `services[0].routes[2].to.rewrite`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Place(Vec<Step>);

/// One step of the way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// To the value of this key.
    Key(String),
    /// To this item, from 0.
    Item(usize),
}

impl Place {
    /// From the outside in.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// This place seen from further outside: `prefix` leads to where it begins.
    #[must_use]
    pub fn below(&self, prefix: impl IntoIterator<Item = Step>) -> Self {
        Self(prefix.into_iter().chain(self.0.iter().cloned()).collect())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if number == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Item(item) => write!(f, "[{item}]")?,
            }
        }
        if self.0.is_empty() { f.write_str("settings") } else { Ok(()) }
    }
}

/// At most 80 characters of what was given, for a message.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Items of one kind in the settings of a service.
const ITEMS: usize = 256;

/// Gathers faults, and knows where it is.
#[derive(Debug, Default)]
pub(super) struct Checker {
    at: Vec<Step>,
    faults: Vec<Fault>,
}

impl Checker {
    /// Checks the value of a key.
    pub(super) fn within(&mut self, key: &str, check: impl FnOnce(&mut Self)) {
        self.at.push(Step::Key(key.to_owned()));
        check(self);
        self.at.pop();
    }

    /// Checks every item of a list.
    pub(super) fn each<T>(&mut self, items: &[T], mut check: impl FnMut(&mut Self, &T)) {
        for (number, item) in items.iter().enumerate() {
            self.at.push(Step::Item(number));
            check(self, item);
            self.at.pop();
        }
    }

    /// Notes a fault of the value that is being checked.
    pub(super) fn note(&mut self, what: impl Into<String>, cure: impl Into<String>) {
        self.push(Place(self.at.clone()), what.into(), Some(cure.into()));
    }

    /// Notes a fault of a value in it.
    pub(super) fn note_at(&mut self, key: &str, what: impl Into<String>, cure: impl Into<String>) {
        let at = self.at.iter().cloned().chain([Step::Key(key.to_owned())]).collect();
        self.push(Place(at), what.into(), Some(cure.into()));
    }

    /// Notes the error of a check whose text says what to do.
    pub(super) fn check<E: fmt::Display>(&mut self, key: &str, result: Result<(), E>) {
        if let Err(error) = result {
            self.within(key, |checker| checker.error(error));
        }
    }

    /// Notes an error that says what to do, on the value that is being checked.
    pub(super) fn error(&mut self, error: impl fmt::Display) {
        self.push(Place(self.at.clone()), error.to_string(), None);
    }

    /// Notes the value of `key` unless `holds`.
    pub(super) fn holds(&mut self, key: &str, holds: bool, what: &str, cure: &str) {
        if !holds {
            self.note_at(key, what, cure);
        }
    }

    /// Lists are short.
    pub(super) fn at_most(&mut self, what: &str, number: usize) {
        if number > ITEMS {
            self.note(format!("there are {number} {what}"), format!("at most {ITEMS} are allowed; leave some out"));
        }
    }

    /// Notes items whose name an earlier one has.
    pub(super) fn once<'t, T>(&mut self, items: &'t [T], key: &str, name: impl Fn(&'t T) -> &'t str, rule: &str) {
        let mut first_of: HashMap<&str, usize> = HashMap::new();
        for (number, item) in items.iter().enumerate() {
            let name = name(item);
            let Some(first) = first_of.get(name) else {
                first_of.insert(name, number);
                continue;
            };
            let place = |item| Place(self.at.iter().cloned().chain([Step::Item(item), Step::Key(key.to_owned())]).collect());
            let (at, first) = (place(number), Some(place(*first)));
            let what = format!("{name} is given twice");
            self.faults.push(Fault { at, what, cure: Some(format!("{rule}; keep one of the two")), first });
        }
    }

    pub(super) fn finish(self) -> Result<(), Vec<Fault>> {
        if self.faults.is_empty() { Ok(()) } else { Err(self.faults) }
    }

    fn push(&mut self, at: Place, what: String, cure: Option<String>) {
        self.faults.push(Fault { at, what, cure, first: None });
    }
}
