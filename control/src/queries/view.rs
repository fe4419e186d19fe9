//! All prepared queries at one revision.

use std::collections::BTreeMap;

use crate::records::QueryRecord;

/// The queries by id, each with the revision that last changed it.
#[derive(Debug, Default)]
pub struct QueriesView {
    by_id: BTreeMap<String, (QueryRecord, u64)>,
    /// Lower-case names, those of templates included.
    by_name: BTreeMap<String, String>,
    index: u64,
}

impl QueriesView {
    /// A query.
    pub fn get(&self, id: &str) -> Option<&(QueryRecord, u64)> {
        self.by_id.get(id)
    }

    /// The query of exactly this name, in any case.
    pub fn named(&self, name: &str) -> Option<&(QueryRecord, u64)> {
        self.by_name.get(&name.to_lowercase()).and_then(|id| self.by_id.get(id))
    }

    /// What answers for an id or a name: a query, else the template with the longest name that this one begins with.
    pub fn answering(&self, id_or_name: &str) -> Option<&(QueryRecord, u64)> {
        let exact = self.get(id_or_name).or_else(|| self.named(id_or_name).filter(|_| !id_or_name.is_empty()));
        exact.or_else(|| {
            let lower = id_or_name.to_lowercase();
            let ends = lower.char_indices().map(|(at, _)| at).chain([lower.len()]);
            let mut prefixes: Vec<&str> = ends.filter_map(|end| lower.get(..end)).collect();
            prefixes.reverse();
            let templates = prefixes.into_iter().filter_map(|prefix| self.by_name.get(prefix));
            templates.filter_map(|id| self.by_id.get(id)).find(|(query, _)| query.template.is_some())
        })
    }

    /// All of them, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &(QueryRecord, u64)> {
        self.by_id.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The revision of the last change of any query; above 0.
    pub fn index(&self) -> u64 {
        self.index.max(1)
    }

    /// Those that were deleted before are not known.
    pub(crate) fn loaded_at(&mut self, revision: u64) {
        self.index = revision;
    }

    /// Takes a change in.
    pub(crate) fn put(&mut self, id: &str, record: Option<QueryRecord>, revision: u64) {
        self.index = self.index.max(revision);
        if let Some((before, _)) = self.by_id.remove(id) {
            self.by_name.remove(&before.name.to_lowercase());
        }
        let Some(record) = record else { return };
        // A template may have no name: then it answers for all. A query without one is found by its id.
        if !record.name.is_empty() || record.template.is_some() {
            self.by_name.insert(record.name.to_lowercase(), id.to_owned());
        }
        self.by_id.insert(id.to_owned(), (record, revision));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::QueryTemplate;

    #[test]
    fn the_longest_template_answers_where_no_query_has_the_name() {
        let mut view = QueriesView::default();
        let put = |view: &mut QueriesView, id: &str, name: &str, is_template: bool| {
            let template = is_template.then(QueryTemplate::default);
            let record = QueryRecord { id: id.into(), name: name.into(), template, ..QueryRecord::default() };
            view.put(id, Some(record), 1);
        };
        put(&mut view, "1", "geo-db", false);
        put(&mut view, "2", "geo-", true);
        put(&mut view, "3", "Geo-d", true);
        put(&mut view, "4", "", false);
        let of = |view: &QueriesView, name: &str| view.answering(name).map(|(query, _)| query.id.clone());
        for (name, id) in [
            ("geo-db", Some("1")),
            ("GEO-DB", Some("1")),
            ("geo-dx", Some("3")),
            ("geo-web", Some("2")),
            ("geo-", Some("2")),
            ("geo", None),
            ("4", Some("4")),
            ("", None),
        ] {
            assert_eq!(of(&view, name).as_deref(), id, "{name}");
        }
        put(&mut view, "5", "", true);
        assert_eq!(of(&view, "ü").as_deref(), Some("5"));
        view.put("2", None, 2);
        assert_eq!(of(&view, "geo-web").as_deref(), Some("5"));
    }
}
