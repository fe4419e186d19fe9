//! The one place that decides what a holder of policies may do.
//!
//! Of all rules that match a name the most specific one decides: one for exactly this name, else the one with the longest
//! prefix. Of several for the same name or prefix a deny decides, else the one that grants most. What no rule matches is
//! denied.

use std::collections::{BTreeMap, HashMap};

use super::policy::{Kind, Level, Reach, Rule};
use super::resource::{Access, Resource};

/// What all policies of one holder grant together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants(HashMap<Kind, OfKind>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct OfKind {
    exact: BTreeMap<Vec<u8>, Level>,
    prefixes: BTreeMap<Vec<u8>, Level>,
}

impl Grants {
    /// Of these rules, in whatever order.
    pub fn of(rules: impl IntoIterator<Item = Rule>) -> Self {
        let mut grants = Self::default();
        for rule in rules {
            let of_kind = grants.0.entry(rule.kind).or_default();
            let levels = match rule.reach {
                Reach::Exact => &mut of_kind.exact,
                Reach::Prefix => &mut of_kind.prefixes,
            };
            let level = levels.entry(rule.name.into_bytes()).or_insert(rule.level);
            *level = if *level == Level::Deny || rule.level == Level::Deny { Level::Deny } else { (*level).max(rule.level) };
        }
        grants
    }

    /// Whether it may touch this resource so.
    pub fn may(&self, access: Access, resource: Resource<'_>) -> bool {
        let name = resource.name();
        let kind = match resource {
            Resource::Operator => return self.of_name(Kind::Operator, b"", access),
            Resource::Acl => return self.of_name(Kind::Acl, b"", access),
            Resource::KeyPrefix(prefix) if access == Access::List => return self.of_some(Kind::Key, prefix, access),
            Resource::KeyPrefix(prefix) => return self.of_all(Kind::Key, prefix, access),
            Resource::AllServices => return self.of_all(Kind::Service, b"", access),
            Resource::AllIntentions => return self.of_all(Kind::Intentions, b"", access),
            // What is said of every destination is read by whoever may read of one, and changed by whoever may change all.
            Resource::Intentions("*") if access == Access::Write => return self.of_all(Kind::Intentions, b"", access),
            Resource::Intentions("*") => return self.of_some(Kind::Intentions, b"", access),
            Resource::Key(_) => return self.of_name(Kind::Key, name, access),
            Resource::Service(_) => Kind::Service,
            Resource::Node(_) => Kind::Node,
            Resource::Session(_) => Kind::Session,
            Resource::Intentions(_) => Kind::Intentions,
            Resource::Event(_) => Kind::Event,
            Resource::Query(_) => Kind::Query,
            Resource::Agent(_) => Kind::Agent,
        };
        if name.is_empty() { self.of_some(kind, b"", access) } else { self.of_name(kind, name, access) }
    }

    fn of_name(&self, kind: Kind, name: &[u8], access: Access) -> bool {
        self.0.get(&kind).is_some_and(|rules| grants(rules.level(name), access))
    }

    /// Whether every name with this prefix, known or not, may be touched so.
    fn of_all(&self, kind: Kind, prefix: &[u8], access: Access) -> bool {
        let Some(rules) = self.0.get(&kind) else { return false };
        grants(rules.of_prefixes(prefix), access) && rules.below(prefix).all(|level| grants(Some(level), access))
    }

    /// Whether there can be a name with this prefix that may be touched so.
    fn of_some(&self, kind: Kind, prefix: &[u8], access: Access) -> bool {
        let Some(rules) = self.0.get(&kind) else { return false };
        grants(rules.of_prefixes(prefix), access) || rules.below(prefix).any(|level| grants(Some(level), access))
    }
}

impl OfKind {
    fn level(&self, name: &[u8]) -> Option<Level> {
        self.exact.get(name).copied().or_else(|| self.of_prefixes(name))
    }

    /// The level of the longest prefix of this name.
    fn of_prefixes(&self, name: &[u8]) -> Option<Level> {
        (0..=name.len()).rev().find_map(|length| self.prefixes.get(name.get(..length)?).copied())
    }

    /// The levels of all rules for something that begins with `prefix`.
    fn below(&self, prefix: &[u8]) -> impl Iterator<Item = Level> {
        let of = |levels: &BTreeMap<Vec<u8>, Level>| {
            let from = levels.range(prefix.to_vec()..);
            from.take_while(|(name, _)| name.starts_with(prefix)).map(|(_, level)| *level).collect::<Vec<_>>()
        };
        of(&self.exact).into_iter().chain(of(&self.prefixes))
    }
}

fn grants(level: Option<Level>, access: Access) -> bool {
    let needed = match access {
        Access::Read | Access::List => Level::Read,
        Access::Write => Level::Write,
    };
    level.is_some_and(|level| level >= needed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::acl::policy::of_management;

    /// The rule in the words of the documentation, with nothing made ready before.
    fn naive(rules: &[Rule], kind: Kind, name: &str, access: Access) -> bool {
        let of_kind = rules.iter().filter(|rule| rule.kind == kind);
        let exact: Vec<Level> =
            of_kind.clone().filter(|rule| rule.reach == Reach::Exact && rule.name == name).map(|rule| rule.level).collect();
        let prefixes: Vec<&Rule> = of_kind.filter(|rule| rule.reach == Reach::Prefix && name.starts_with(&rule.name)).collect();
        let longest = prefixes.iter().map(|rule| rule.name.len()).max();
        let of_longest: Vec<Level> =
            prefixes.iter().filter(|rule| Some(rule.name.len()) == longest).map(|rule| rule.level).collect();
        let deciding = if exact.is_empty() { of_longest } else { exact };
        if deciding.contains(&Level::Deny) {
            return false;
        }
        match access {
            Access::Read | Access::List => !deciding.is_empty(),
            Access::Write => deciding.contains(&Level::Write),
        }
    }

    /// All names of up to five letters, longer than any prefix of a rule. No rule has a `c`: it stands for whatever rules do
    /// not name.
    fn names() -> Vec<String> {
        let mut names = vec![String::new()];
        for length in 0..5 {
            let longer: Vec<String> = names
                .iter()
                .filter(|name| name.len() == length)
                .flat_map(|name| ["a", "b", "c"].map(|letter| format!("{name}{letter}")))
                .collect();
            names.extend(longer);
        }
        names
    }

    prop_compose! {
        fn any_rule()(kind in 0_usize..3, is_prefix: bool, name in "[ab]{0,3}", level in 0_usize..4) -> Rule {
            let kind = [Kind::Key, Kind::Service, Kind::Intentions][kind];
            let level = [Level::Deny, Level::Read, Level::List, Level::Write][level];
            Rule { kind, reach: if is_prefix { Reach::Prefix } else { Reach::Exact }, name, level }
        }
    }

    proptest! {
        #[test]
        fn every_name_is_decided_as_the_rule_says(rules in prop::collection::vec(any_rule(), 0..10)) {
            let grants = Grants::of(rules.clone());
            for access in [Access::Read, Access::List, Access::Write] {
                for name in names() {
                    let (key, service) = (Resource::Key(name.as_bytes()), Resource::Service(&name));
                    prop_assert_eq!(grants.may(access, key), naive(&rules, Kind::Key, &name, access), "key {} {}", name, access);
                    if !name.is_empty() {
                        prop_assert_eq!(grants.may(access, service), naive(&rules, Kind::Service, &name, access));
                        prop_assert_eq!(grants.may(access, Resource::Intentions(&name)), naive(&rules, Kind::Intentions, &name, access));
                    }
                }
            }
        }

        #[test]
        fn a_prefix_is_decided_as_all_or_some_of_its_names(rules in prop::collection::vec(any_rule(), 0..10), prefix in "[ab]{0,3}") {
            let grants = Grants::of(rules.clone());
            let below: Vec<String> = names().into_iter().filter(|name| name.starts_with(&prefix)).collect();
            for access in [Access::Read, Access::Write] {
                let all = below.iter().all(|name| naive(&rules, Kind::Key, name, access));
                prop_assert_eq!(grants.may(access, Resource::KeyPrefix(prefix.as_bytes())), all, "{} {}", prefix, access);
            }
            let some = below.iter().any(|name| naive(&rules, Kind::Key, name, Access::Read));
            prop_assert_eq!(grants.may(Access::List, Resource::KeyPrefix(prefix.as_bytes())), some, "{}", prefix);
            let all = names().iter().all(|name| naive(&rules, Kind::Service, name, Access::Write));
            prop_assert_eq!(grants.may(Access::Write, Resource::AllServices), all);
            let any = names().iter().any(|name| naive(&rules, Kind::Service, name, Access::Write));
            prop_assert_eq!(grants.may(Access::Write, Resource::Service("")), any);
        }

        #[test]
        fn the_order_of_rules_does_not_matter(mut rules in prop::collection::vec(any_rule(), 0..10)) {
            let grants = Grants::of(rules.clone());
            rules.reverse();
            prop_assert_eq!(Grants::of(rules), grants);
        }
    }

    #[test]
    fn the_most_specific_rule_decides_and_of_equals_the_deny() {
        let grants = Grants::of([
            Rule::prefix(Kind::Key, "", Level::Read),
            Rule::prefix(Kind::Key, "app/", Level::Write),
            Rule::prefix(Kind::Key, "app/secret", Level::Deny),
            Rule::exact(Kind::Key, "app/secret/shared", Level::Read),
            Rule::prefix(Kind::Key, "twice", Level::Write),
            Rule::prefix(Kind::Key, "twice", Level::Deny),
        ]);
        for (key, read, write) in [
            ("other", true, false),
            ("app/a", true, true),
            ("app/secrets", false, false),
            ("app/secret/shared", true, false),
            ("app/secret/shared2", false, false),
            ("twice", false, false),
        ] {
            let may = |access| grants.may(access, Resource::Key(key.as_bytes()));
            assert_eq!((may(Access::Read), may(Access::Write)), (read, write), "{key}");
        }
        assert!(!grants.may(Access::Write, Resource::KeyPrefix(b"app/")), "one of them may not be written");
        assert!(grants.may(Access::Write, Resource::KeyPrefix(b"app/x")));
        assert!(!grants.may(Access::Read, Resource::Operator));
    }

    #[test]
    fn what_is_said_of_every_destination_takes_all_of_them() {
        let some = Grants::of([Rule::exact(Kind::Intentions, "web", Level::Write)]);
        assert!(some.may(Access::Read, Resource::Intentions("*")));
        assert!(!some.may(Access::Write, Resource::Intentions("*")) && !some.may(Access::Write, Resource::AllIntentions));
        let all = Grants::of(of_management());
        for resource in
            [Resource::Intentions("*"), Resource::AllIntentions, Resource::AllServices, Resource::Operator, Resource::Acl]
        {
            assert!(all.may(Access::Write, resource), "{resource:?}");
        }
    }
}
