//! The words as a tree: `or` of `and` of `not` of matches.

use postern_api::consul::words::Word;
use regex::RegexBuilder;

use super::{Expression, FilterError, Selector, Test};

/// Parentheses and `not` inside each other.
const DEPTH_LIMIT: usize = 64;
/// Bytes of a compiled pattern.
const PATTERN_LIMIT: usize = 256 << 10;

struct Parser<'a> {
    words: &'a [Word],
    depth: usize,
}

pub(super) fn parse(words: &[Word]) -> Result<Expression, FilterError> {
    let mut parser = Parser { words, depth: 0 };
    let expression = parser.or()?;
    match parser.words {
        [] => Ok(expression),
        [word, ..] => Err(unexpected(Some(word))),
    }
}

fn unexpected(word: Option<&Word>) -> FilterError {
    FilterError::Syntax(match word {
        None => "it ends too early".into(),
        Some(Word::Sign(sign)) => format!("unexpected {sign:?}"),
        Some(Word::Bare(text) | Word::Quoted(text)) => format!("unexpected {:?}", text.chars().take(60).collect::<String>()),
    })
}

impl Parser<'_> {
    fn takes(&mut self, keywords: &[&str]) -> bool {
        let is_there = keywords.iter().enumerate().all(|(at, keyword)| match self.words.get(at) {
            Some(Word::Bare(text)) => text == keyword,
            Some(Word::Sign(sign)) => sign == keyword,
            _ => false,
        });
        if is_there {
            self.words = self.words.get(keywords.len()..).unwrap_or_default();
        }
        is_there
    }

    fn next(&mut self) -> Result<Word, FilterError> {
        let (first, rest) = self.words.split_first().ok_or_else(|| unexpected(None))?;
        self.words = rest;
        Ok(first.clone())
    }

    fn or(&mut self) -> Result<Expression, FilterError> {
        let mut left = self.and()?;
        while self.takes(&["or"]) {
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Expression, FilterError> {
        let mut left = self.not()?;
        while self.takes(&["and"]) {
            left = Expression::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Expression, FilterError> {
        self.depth += 1;
        if self.depth > DEPTH_LIMIT {
            return Err(FilterError::Syntax("it is nested too deeply".into()));
        }
        let expression = if self.takes(&["not"]) {
            Expression::Not(Box::new(self.not()?))
        } else if self.takes(&["("]) {
            let inner = self.or()?;
            if !self.takes(&[")"]) {
                return Err(unexpected(self.words.first()));
            }
            inner
        } else {
            self.matching()?
        };
        self.depth -= 1;
        Ok(expression)
    }

    /// `SELECTOR == VALUE`, …, or `VALUE in SELECTOR`.
    fn matching(&mut self) -> Result<Expression, FilterError> {
        // What stands before `in` is a value, whatever it looks like.
        let is_in = |words: &[Word]| {
            let keyword = |at: usize, word: &str| matches!(words.get(at), Some(Word::Bare(text)) if text == word);
            keyword(1, "in") || (keyword(1, "not") && keyword(2, "in"))
        };
        if is_in(self.words) {
            let value = self.value()?;
            let is_negated = self.takes(&["not"]);
            self.takes(&["in"]);
            let selector = self.selector()?;
            return Ok(negated(Expression::Match(selector, Test::Contains(value)), is_negated));
        }
        let selector = self.selector()?;
        let (test, is_negated) = if self.takes(&["=="]) {
            (Test::Equals(self.value()?), false)
        } else if self.takes(&["!="]) {
            (Test::Equals(self.value()?), true)
        } else if self.takes(&["is", "empty"]) {
            (Test::IsEmpty, false)
        } else if self.takes(&["is", "not", "empty"]) {
            (Test::IsEmpty, true)
        } else {
            let is_negated = self.takes(&["not"]);
            if self.takes(&["contains"]) {
                (Test::Contains(self.value()?), is_negated)
            } else if self.takes(&["matches"]) {
                (Test::Matches(self.pattern()?), is_negated)
            } else {
                return Err(unexpected(self.words.first()));
            }
        };
        Ok(negated(Expression::Match(selector, test), is_negated))
    }

    fn pattern(&mut self) -> Result<regex::Regex, FilterError> {
        let text = self.value()?;
        RegexBuilder::new(&text)
            .size_limit(PATTERN_LIMIT)
            .build()
            .map_err(|error| FilterError::Syntax(format!("{text:?} is no pattern: {error}")))
    }

    /// A quoted text, or a bare word with what dots join to it, such as 10.0.0.1.
    fn value(&mut self) -> Result<String, FilterError> {
        let mut value = match self.next()? {
            Word::Quoted(text) => return Ok(text),
            Word::Bare(text) => text,
            word @ Word::Sign(_) => return Err(unexpected(Some(&word))),
        };
        while let [Word::Sign("."), Word::Bare(part), rest @ ..] = self.words {
            value = format!("{value}.{part}");
            self.words = rest;
        }
        Ok(value)
    }

    /// `Node.Meta.env`, `Meta["a.b"]` or `"/Node/Meta/env"`.
    fn selector(&mut self) -> Result<Selector, FilterError> {
        let mut segments = match self.next()? {
            Word::Bare(first) => vec![first],
            Word::Quoted(pointer) if pointer.starts_with('/') => {
                let unescaped = |segment: &str| segment.replace("~1", "/").replace("~0", "~");
                return Ok(Selector(pointer.split('/').skip(1).map(unescaped).collect()));
            }
            word => return Err(unexpected(Some(&word))),
        };
        loop {
            match self.words {
                [Word::Sign("."), Word::Bare(part), rest @ ..] => {
                    segments.push(part.clone());
                    self.words = rest;
                }
                [Word::Sign("["), Word::Quoted(part), Word::Sign("]"), rest @ ..] => {
                    segments.push(part.clone());
                    self.words = rest;
                }
                _ => return Ok(Selector(segments)),
            }
        }
    }
}

fn negated(expression: Expression, is_negated: bool) -> Expression {
    if is_negated { Expression::Not(Box::new(expression)) } else { expression }
}
