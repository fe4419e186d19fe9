//! Policies as Consul writes them: a subset of HCL, or the same as JSON.
//!
//! Both are read by one reader, which keeps a rule that is written twice twice: so a deny cannot be lost behind another.

use super::policy::{Kind, Level, Reach, Rule};

/// Bytes of the rules of a policy.
pub const MAX_BYTES: usize = 64 << 10;
const MAX_RULES: usize = 4096;
const MAX_DEPTH: usize = 8;

/// Rules of Consul about what is not here: they may be written, and grant nothing.
const WITHOUT_MEANING: [&str; 3] = ["keyring", "mesh", "peering"];

/// Why rules cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Invalid Policy rules: line {line}: {why}")]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// What is wrong, and what is right.
    pub why: String,
}

/// Reads rules.
///
/// # Errors
/// [`SyntaxError`] names the line.
pub fn parse(text: &str) -> Result<Vec<Rule>, SyntaxError> {
    if text.len() > MAX_BYTES {
        return Err(SyntaxError { line: 1, why: format!("the rules are longer than {} KiB", MAX_BYTES >> 10) });
    }
    let mut reader = Reader { tokens: tokens(text)?, at: 0 };
    let entries = reader.file()?;
    let mut rules = Vec::new();
    for entry in &entries {
        interpret(entry, &mut rules)?;
        if rules.len() > MAX_RULES {
            return Err(entry.error(format!("there are more than {MAX_RULES} rules")));
        }
    }
    Ok(rules)
}

/// `name = …` or `name "label" { … }`, which is the same as `name { label { … } }`.
#[derive(Debug)]
struct Entry {
    line: usize,
    name: String,
    value: Value,
}

#[derive(Debug)]
enum Value {
    Text(String),
    Block(Vec<Entry>),
}

impl Entry {
    fn error(&self, why: impl Into<String>) -> SyntaxError {
        SyntaxError { line: self.line, why: why.into() }
    }
}

fn interpret(entry: &Entry, rules: &mut Vec<Rule>) -> Result<(), SyntaxError> {
    let name = entry.name.as_str();
    if let Some((_, kind)) = Kind::NAMELESS.into_iter().find(|(word, _)| *word == name) {
        let Value::Text(word) = &entry.value else {
            return Err(entry.error(format!("{name} has no name; write {name} = \"read\" or {name} = \"write\"")));
        };
        rules.push(Rule::exact(kind, "", level(entry, kind, word)?));
        return Ok(());
    }
    if WITHOUT_MEANING.contains(&name) {
        return Ok(());
    }
    let (word, reach) = match name.strip_suffix("_prefix") {
        Some(word) => (word, Reach::Prefix),
        None => (name, Reach::Exact),
    };
    let Some((_, kind)) = Kind::NAMED.into_iter().find(|(known, _)| *known == word) else {
        let known: Vec<&str> = Kind::NAMED.iter().chain(&Kind::NAMELESS).map(|(word, _)| *word).collect();
        return Err(
            entry.error(format!("there are no rules of kind {name:?}; there are {} and most with _prefix", known.join(", ")))
        );
    };
    let Value::Block(named) = &entry.value else {
        return Err(entry.error(format!("{name} needs a name; write {name} \"NAME\" {{ policy = \"read\" }}")));
    };
    for one in named {
        of_name(one, kind, reach, rules)?;
    }
    Ok(())
}

fn of_name(entry: &Entry, kind: Kind, reach: Reach, rules: &mut Vec<Rule>) -> Result<(), SyntaxError> {
    let Value::Block(attributes) = &entry.value else {
        return Err(entry.error(format!("the rule for {:?} needs a block; write {{ policy = \"read\" }}", entry.name)));
    };
    let (mut policy, mut intentions) = (None, None);
    for attribute in attributes {
        let Value::Text(word) = &attribute.value else {
            return Err(attribute.error(format!("{:?} is not evaluated here; take it out", attribute.name)));
        };
        match attribute.name.as_str() {
            "policy" => set_once(&mut policy, level(attribute, kind, word)?, attribute)?,
            "intentions" if kind == Kind::Service => {
                set_once(&mut intentions, level(attribute, Kind::Intentions, word)?, attribute)?;
            }
            other => return Err(attribute.error(format!("{other:?} is not evaluated here; a rule has policy = \"…\""))),
        }
    }
    let rule = |kind, level| Rule { kind, reach, name: entry.name.clone(), level };
    if policy.is_none() && intentions.is_none() {
        return Err(
            entry.error(format!("the rule for {:?} grants nothing and denies nothing; add policy = \"read\"", entry.name))
        );
    }
    rules.extend(policy.map(|level| rule(kind, level)));
    if kind == Kind::Service {
        // Whoever may read a service may read who calls it.
        let implied = policy.map(|policy| if policy == Level::Deny { Level::Deny } else { Level::Read });
        rules.extend(intentions.or(implied).map(|level| rule(Kind::Intentions, level)));
    }
    Ok(())
}

fn set_once(place: &mut Option<Level>, level: Level, entry: &Entry) -> Result<(), SyntaxError> {
    match place.replace(level) {
        None => Ok(()),
        Some(_) => Err(entry.error(format!("{:?} is given twice", entry.name))),
    }
}

fn level(entry: &Entry, kind: Kind, word: &str) -> Result<Level, SyntaxError> {
    match word {
        "deny" => Ok(Level::Deny),
        "read" => Ok(Level::Read),
        "write" => Ok(Level::Write),
        "list" if kind == Kind::Key => Ok(Level::List),
        _ => Err(entry.error(format!(
            "{:?} is no level; write \"read\", \"write\" or \"deny\"{}",
            word.chars().take(40).collect::<String>(),
            if kind == Kind::Key { ", or \"list\"" } else { "" }
        ))),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let error = |why: String| SyntaxError { line, why };
        match first {
            '\n' => {
                line += 1;
                rest = &rest[1..];
            }
            _ if first.is_whitespace() || first == '\u{feff}' => rest = &rest[first.len_utf8()..],
            '#' => rest = after_line(rest),
            '/' if rest.starts_with("//") => rest = after_line(rest),
            '/' if rest.starts_with("/*") => {
                let end = rest.find("*/").ok_or_else(|| error("a comment does not end; close it with */".into()))?;
                line += rest[..end].matches('\n').count();
                rest = &rest[end + 2..];
            }
            '{' | '}' | '[' | ']' | '=' | ':' | ',' => {
                tokens.push((line, Token::Mark(first)));
                rest = &rest[1..];
            }
            '"' => {
                let (text, after) = quoted(&rest[1..])
                    .ok_or_else(|| error("a text does not end on its line, or holds an unknown escape".into()))?;
                tokens.push((line, Token::Text(text)));
                rest = after;
            }
            _ if first.is_ascii_alphanumeric() || first == '_' => {
                let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))).unwrap_or(rest.len());
                tokens.push((line, Token::Word(rest[..end].to_owned())));
                rest = &rest[end..];
            }
            other => return Err(error(format!("{other:?} has no meaning here"))),
        }
    }
    Ok(tokens)
}

fn after_line(text: &str) -> &str {
    text.find('\n').map_or("", |end| &text[end..])
}

/// The text up to the closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\n' => return None,
            '\\' => match chars.next()?.1 {
                c @ ('"' | '\\' | '/') => value.push(c),
                'n' => value.push('\n'),
                't' => value.push('\t'),
                'r' => value.push('\r'),
                'u' => {
                    let digits: String = (0..4).map(|_| chars.next().map(|(_, c)| c)).collect::<Option<_>>()?;
                    value.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                }
                _ => return None,
            },
            c => value.push(c),
        }
    }
    None
}

struct Reader {
    tokens: Vec<(usize, Token)>,
    at: usize,
}

impl Reader {
    fn file(&mut self) -> Result<Vec<Entry>, SyntaxError> {
        let is_json = self.takes('{');
        let entries = self.entries(0)?;
        if is_json {
            self.expect('}')?;
        }
        match self.peek() {
            None => Ok(entries),
            Some(token) => Err(self.error(format!("{} does not belong here", shown(token)))),
        }
    }

    /// All entries up to a closing brace or the end.
    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, SyntaxError> {
        if depth > MAX_DEPTH {
            return Err(self.error("blocks are nested too deeply".into()));
        }
        let mut entries = Vec::new();
        loop {
            while self.takes(',') {}
            let line = self.line();
            let name = match self.peek() {
                Some(Token::Word(name) | Token::Text(name)) => name.clone(),
                None | Some(Token::Mark('}')) => return Ok(entries),
                Some(token) => return Err(self.error(format!("{} stands where a name is expected", shown(token)))),
            };
            self.at += 1;
            self.entry(line, name, depth, &mut entries)?;
        }
    }

    fn entry(&mut self, line: usize, name: String, depth: usize, entries: &mut Vec<Entry>) -> Result<(), SyntaxError> {
        if let Some(Token::Text(label)) = self.peek().cloned() {
            self.at += 1;
            let block = self.block(depth + 1)?;
            let labelled = Entry { line, name: label, value: Value::Block(block) };
            entries.push(Entry { line, name, value: Value::Block(vec![labelled]) });
            return Ok(());
        }
        let is_assigned = self.takes('=') || self.takes(':');
        match self.peek().cloned() {
            Some(Token::Mark('{')) => entries.push(Entry { line, name, value: Value::Block(self.block(depth + 1)?) }),
            Some(Token::Text(text) | Token::Word(text)) if is_assigned => {
                self.at += 1;
                entries.push(Entry { line, name, value: Value::Text(text) });
            }
            Some(Token::Mark('[')) if is_assigned => {
                self.at += 1;
                while !self.takes(']') {
                    entries.push(Entry { line, name: name.clone(), value: Value::Block(self.block(depth + 1)?) });
                    while self.takes(',') {}
                }
            }
            Some(token) => return Err(self.error(format!("{} stands where a value of {name:?} is expected", shown(&token)))),
            None => return Err(self.error(format!("the value of {name:?} is missing"))),
        }
        Ok(())
    }

    fn block(&mut self, depth: usize) -> Result<Vec<Entry>, SyntaxError> {
        self.expect('{')?;
        let entries = self.entries(depth)?;
        self.expect('}')?;
        Ok(entries)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn takes(&mut self, mark: char) -> bool {
        let is_there = self.peek() == Some(&Token::Mark(mark));
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, mark: char) -> Result<(), SyntaxError> {
        if self.takes(mark) {
            return Ok(());
        }
        let found = self.peek().map_or_else(|| "the end".to_owned(), shown);
        Err(self.error(format!("{found} stands where {mark:?} is expected")))
    }

    fn line(&self) -> usize {
        let last = || self.tokens.last().map_or(1, |(line, _)| *line);
        self.tokens.get(self.at).map_or_else(last, |(line, _)| *line)
    }

    fn error(&self, why: String) -> SyntaxError {
        SyntaxError { line: self.line(), why }
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Mark(mark) => format!("{mark:?}"),
        Token::Word(text) | Token::Text(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn hcl_and_json_say_the_same() {
        let hcl = r#"
            # who runs the shop
            key_prefix "app/" { policy = "write" }
            key "app/secret" { policy = "deny" } // not this one
            key_prefix "" { policy = "list" }
            service "web" {
              policy = "write"
              intentions = "write"
            }
            service_prefix "" { policy = "read" } /* all
            of them */ node_prefix "" { policy = "read" }
            operator = "read"
            acl = "write"
            keyring = "read"
        "#;
        let json = r#"{"key_prefix": {"app/": {"policy": "write"}, "": {"policy": "list"}}, "key": {"app/secret": {"policy": "deny"}},
            "service": [{"web": [{"policy": "write", "intentions": "write"}]}], "service_prefix": {"": {"policy": "read"}},
            "node_prefix": {"": {"policy": "read"}}, "operator": "read", "acl": "write"}"#;
        let (mut of_hcl, mut of_json) = (parse(hcl).unwrap(), parse(json).unwrap());
        of_hcl.sort();
        of_json.sort();
        assert_eq!(of_hcl, of_json);
        for rule in [
            Rule::prefix(Kind::Key, "app/", Level::Write),
            Rule::exact(Kind::Key, "app/secret", Level::Deny),
            Rule::exact(Kind::Intentions, "web", Level::Write),
            Rule::prefix(Kind::Intentions, "", Level::Read),
            Rule::exact(Kind::Operator, "", Level::Read),
        ] {
            assert!(of_hcl.contains(&rule), "{rule:?}");
        }
        assert_eq!(of_hcl.len(), 10);
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("{}").unwrap(), []);
    }

    #[test]
    fn a_deny_written_twice_is_not_lost() {
        let json = r#"{"key": {"a": {"policy": "deny"}}, "key": {"a": {"policy": "write"}}}"#;
        assert_eq!(parse(json).unwrap(), [Rule::exact(Kind::Key, "a", Level::Deny), Rule::exact(Kind::Key, "a", Level::Write)]);
        assert!(refused("key \"a\" { policy = \"deny\"\n policy = \"write\" }").contains("line 2: \"policy\" is given twice"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, why) in [
            ("\nkye \"a\" { policy = \"read\" }", "line 2: there are no rules of kind \"kye\""),
            ("key \"a\" { policy = \"raed\" }", "\"raed\" is no level"),
            ("service \"a\" { policy = \"list\" }", "\"list\" is no level"),
            ("operator \"a\" { policy = \"read\" }", "write operator = \"read\""),
            ("operator_prefix \"\" { policy = \"read\" }", "no rules of kind \"operator_prefix\""),
            ("key = \"read\"", "needs a name"),
            ("key \"a\" { }", "grants nothing"),
            ("key \"a\" { policy = \"read\"", "the end stands where '}' is expected"),
            ("key \"a\" { sentinel { code = \"x\" } }", "\"sentinel\" is not evaluated here"),
            ("key \"a\" { intentions = \"read\" }", "\"intentions\" is not evaluated here"),
            ("key \"a { policy", "a text does not end"),
            ("/* key", "a comment does not end"),
            ("key \"a\" { policy = \"read\" } }", "does not belong here"),
            ("; drop", "';' has no meaning here"),
            ("namespace \"x\" { policy = \"read\" }", "no rules of kind \"namespace\""),
        ] {
            let said = refused(text);
            assert!(said.starts_with("Invalid Policy rules: line ") && said.contains(why), "{text}: {said}");
        }
        assert!(refused(&"a{".repeat(20_000)).contains("too deeply"));
        assert!(refused(&" ".repeat(MAX_BYTES + 1)).contains("longer than 64 KiB"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z\"{}\\[\\]=:,#/*\\\\ \nué]{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn any_name_survives_its_quotes(name in "\\PC{0,20}") {
            let text = format!("key {} {{ policy = \"read\" }}", serde_json::to_string(&name).unwrap());
            prop_assert_eq!(parse(&text).unwrap(), [Rule::exact(Kind::Key, &name, Level::Read)]);
        }
    }
}
