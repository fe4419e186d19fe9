//! `--env-prefix`: keys as variables of the environment.

use std::collections::BTreeMap;

use postern_proxy::configuration::{Asked, Pushed};

/// Names and values.
pub type Variables = BTreeMap<String, String>;

/// The variables that the keys below these prefixes make: `app/config/db_url` becomes `DB_URL` for `app/config/`. Of two
/// prefixes the later one holds. All of it must have been answered.
///
/// # Errors
/// The key that makes no variable, why, and the cure.
pub fn variables(prefixes: &[String], pushed: &Pushed) -> Result<Variables, String> {
    let mut all = Variables::new();
    for prefix in prefixes {
        let refused = pushed.refused.get(&Asked::Everything).or_else(|| pushed.refused.get(&Asked::Prefix(prefix.clone())));
        if let Some(why) = refused {
            return Err(format!("--env-prefix {prefix}: {why}"));
        }
        all.extend(below(prefix, pushed).map_err(|why| format!("--env-prefix {prefix}: {why}"))?);
    }
    Ok(all)
}

fn below(prefix: &str, pushed: &Pushed) -> Result<Variables, String> {
    let mut variables = Variables::new();
    let mut keys: BTreeMap<String, &str> = BTreeMap::new();
    for (key, value) in pushed.values.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix)) {
        let rest = key.strip_prefix(prefix).unwrap_or(key);
        // The key of the folder itself, which some tools make.
        if rest.is_empty() {
            continue;
        }
        let name = name(rest).map_err(|why| format!("the key {key:?} {why}"))?;
        let text = std::str::from_utf8(&value.bytes).ok().filter(|text| !text.contains('\0'));
        let text = text.ok_or_else(|| format!("the value of {key:?} is no text, so it cannot be a variable"))?;
        if let Some(other) = keys.insert(name.clone(), key) {
            return Err(format!("the keys {other:?} and {key:?} are both {name}: rename one"));
        }
        variables.insert(name, text.to_owned());
    }
    Ok(variables)
}

fn name(rest: &str) -> Result<String, String> {
    let is_valid = rest.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_valid {
        return Err(format!("makes no variable of {rest:?}: name it with letters, digits and _, or move it"));
    }
    let name = rest.to_ascii_uppercase();
    if name.starts_with("POSTERN_") {
        return Err(format!("would be {name}, and POSTERN_… are this program's own: rename it"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use postern_proxy::configuration::KeyValue;

    use super::*;

    fn pushed(values: &[(&str, &[u8])]) -> Pushed {
        let value = |bytes: &[u8]| KeyValue { bytes: bytes.to_vec().into(), flags: 0 };
        Pushed { values: values.iter().map(|(key, bytes)| ((*key).to_owned(), value(bytes))).collect(), ..Pushed::default() }
    }

    fn of(prefixes: &[&str], values: &[(&str, &[u8])]) -> Result<Variables, String> {
        let prefixes: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
        variables(&prefixes, &pushed(values))
    }

    #[test]
    fn a_key_is_named_by_what_follows_the_prefix() {
        let values: &[(&str, &[u8])] =
            &[("app/db_url", b"x"), ("app/", b""), ("app/_a1", b"y"), ("apple", b"no"), ("late/DB_URL", b"z")];
        let found = of(&["app/", "late/"], values).unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, [("DB_URL", "z"), ("_A1", "y")], "the later prefix holds");
    }

    #[test]
    fn what_makes_no_variable_is_refused_with_its_key() {
        let cases: [(&str, &[u8]); 7] = [
            ("app/db-url", b"x"),
            ("app/db/url", b"x"),
            ("app/1a", b"x"),
            ("app/ä", b"x"),
            ("app/postern_token", b"x"),
            ("app/a", b"\xff"),
            ("app/a", b"a\0b"),
        ];
        for (key, value) in cases {
            let why = of(&["app/"], &[(key, value)]).unwrap_err();
            assert!(why.contains(&format!("{key:?}")) && why.contains("--env-prefix app/"), "{why}");
        }
        let why = of(&["app/"], &[("app/A", b"1"), ("app/a", b"2")]).unwrap_err();
        assert!(why.contains("\"app/A\"") && why.contains("\"app/a\""), "{why}");
    }

    #[test]
    fn a_refusal_is_handed_on() {
        let mut facts = pushed(&[]);
        facts.refused.insert(Asked::Prefix("app/".into()), "web may not".into());
        assert!(variables(&["app/".into()], &facts).unwrap_err().contains("web may not"));
    }
}
