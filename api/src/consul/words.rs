//! Expressions of Consul's filters (go-bexpr), as words.

/// A word of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// `(`, `)`, `[`, `]`, `.`, `==`, `!=`
    Sign(&'static str),
    /// An identifier, a keyword or a number.
    Bare(String),
    /// Between quotes.
    Quoted(String),
}

const SIGNS: [&str; 7] = ["==", "!=", "(", ")", "[", "]", "."];

/// Why a text is no row of words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoWords(String);

/// The words of an expression.
///
/// # Errors
/// A sign that none begins with, and a quoted text that does not end.
pub fn words(text: &str) -> Result<Vec<Word>, NoWords> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let after;
        if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            words.push(Word::Sign(sign));
            after = rest.strip_prefix(sign).unwrap_or_default();
        } else if first == '"' || first == '`' {
            let (quoted, end) = quoted(rest, first)?;
            words.push(Word::Quoted(quoted));
            after = end;
        } else {
            let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | ':' | '+' | '%' | '*');
            let length = rest.find(|c: char| !is_part(c)).unwrap_or(rest.len());
            if length == 0 {
                return Err(NoWords(format!("unexpected {first:?}")));
            }
            let (bare, end) = rest.split_at(length);
            words.push(Word::Bare(bare.to_owned()));
            after = end;
        }
        rest = after.trim_start();
    }
    Ok(words)
}

/// `"…"` with the escapes `\"`, `\\`, `\n`, `\t`, or a raw text between backquotes.
fn quoted(text: &str, quote: char) -> Result<(String, &str), NoWords> {
    let mut quoted = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((quoted, text.get(at + c.len_utf8()..).unwrap_or_default())),
            '\\' if quote == '"' => match chars.next() {
                Some((_, 'n')) => quoted.push('\n'),
                Some((_, 't')) => quoted.push('\t'),
                Some((_, escaped @ ('"' | '\\'))) => quoted.push(escaped),
                Some((_, other)) => {
                    quoted.push('\\');
                    quoted.push(other);
                }
                None => break,
            },
            other => quoted.push(other),
        }
    }
    Err(NoWords("a quoted text does not end".into()))
}
