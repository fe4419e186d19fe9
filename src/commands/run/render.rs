//! Rendering of templates: what the control plane pushed goes in, text comes out, and what was asked for is known after.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};
use parking_lot::Mutex;
use postern_names::ServiceName;
use postern_proxy::configuration::{Asked, Pushed, ServiceInstance, Wanted};

/// Bytes of a template.
const LONGEST: u64 = 1 << 20;

/// One template, read and compiled.
pub struct Template {
    path: PathBuf,
    source: String,
    environment: Environment<'static>,
    /// What the functions of the template see and ask for while it is rendered.
    pass: Arc<Mutex<Pass>>,
}

/// What rendering came to.
#[derive(Debug, PartialEq)]
pub struct Rendered {
    /// All that the template asked for.
    pub asked: Wanted,
    /// The text, or why there is none.
    pub text: Result<String, NotRendered>,
}

/// Why there is no text.
#[derive(Debug, PartialEq)]
pub enum NotRendered {
    /// Something was asked for that the control plane did not answer yet.
    Unanswered,
    /// The file, the line, the column, and what is wrong.
    Failed(String),
}

#[derive(Default)]
struct Pass {
    pushed: Arc<Pushed>,
    asked: Wanted,
    is_unanswered: bool,
}

const NAME: &str = "template";

impl Template {
    /// Reads and compiles a template.
    ///
    /// # Errors
    /// What cannot be read, or the file, line and column of what is wrong in it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let length = std::fs::metadata(path).map_err(|error| format!("cannot read the template {}: {error}", path.display()))?;
        if length.len() > LONGEST {
            return Err(format!("the template {} is longer than {LONGEST} bytes", path.display()));
        }
        let source =
            std::fs::read_to_string(path).map_err(|error| format!("cannot read the template {}: {error}", path.display()))?;
        Self::compile(path, source)
    }

    fn compile(path: &Path, source: String) -> Result<Self, String> {
        let pass = Arc::new(Mutex::new(Pass::default()));
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build().map_err(|error| error.to_string())?;
        environment.set_syntax(syntax);
        let of = |pass: &Arc<Mutex<Pass>>| Arc::clone(pass);
        let (keys, lists, services) = (of(&pass), of(&pass), of(&pass));
        environment.add_function("kv", move |key: String, default: Option<Value>| keys.lock().value(key, default));
        environment.add_function("kv_list", move |prefix: String| lists.lock().list(prefix));
        environment.add_function("service", move |name: String| services.lock().service(&name));
        environment.add_filter("from_json", from_json);
        environment.add_template_owned(NAME, source.clone()).map_err(|error| placed(path, &source, &error))?;
        Ok(Self { path: path.to_owned(), source, environment, pass })
    }

    /// Renders it with what was pushed.
    pub fn render(&self, pushed: &Arc<Pushed>) -> Rendered {
        *self.pass.lock() = Pass { pushed: Arc::clone(pushed), ..Pass::default() };
        let text = self.environment.get_template(NAME).and_then(|template| template.render(context! {}));
        let Pass { asked, is_unanswered, .. } = std::mem::take(&mut *self.pass.lock());
        let text = match text {
            // What was rendered with less than was asked for counts for nothing, nor does its failure.
            _ if is_unanswered => Err(NotRendered::Unanswered),
            Ok(text) => Ok(text),
            Err(error) => Err(NotRendered::Failed(placed(&self.path, &self.source, &error))),
        };
        Rendered { asked, text }
    }
}

impl Pass {
    fn value(&mut self, key: String, default: Option<Value>) -> Result<Value, Error> {
        self.asked.keys.insert(key.clone());
        if !self.pushed.answers.keys.contains(&key) {
            return Ok(self.unanswered(Value::from("")));
        }
        self.refuse(&Asked::Key(key.clone()))?;
        match (self.pushed.values.get(&key), default) {
            (Some(value), _) => text(&key, &value.bytes),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(failed(format!(
                "there is no key {key:?}: put it with `meshctl kv put {key} VALUE`, or give a default, as in kv({key:?}, \"\")"
            ))),
        }
    }

    fn list(&mut self, prefix: String) -> Result<Value, Error> {
        self.asked.prefixes.insert(prefix.clone());
        if !self.pushed.answers.prefixes.contains(&prefix) {
            return Ok(self.unanswered(Value::from(Vec::<Value>::new())));
        }
        self.refuse(&Asked::Prefix(prefix.clone()))?;
        let below = self.pushed.values.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let entry = |(key, value): (&String, &postern_proxy::configuration::KeyValue)| {
            let name = key.strip_prefix(&prefix).unwrap_or(key);
            Ok(context! { key, name, value => text(key, &value.bytes)? })
        };
        below.map(entry).collect::<Result<Vec<Value>, Error>>().map(Value::from)
    }

    fn service(&mut self, name: &str) -> Result<Value, Error> {
        let service: ServiceName = name.parse().map_err(|error| failed(format!("{error}")))?;
        self.asked.services.insert(service.clone());
        if !self.pushed.answers.services.contains(&service) {
            return Ok(self.unanswered(Value::from(Vec::<Value>::new())));
        }
        self.refuse(&Asked::Service(service.clone()))?;
        let instances = self.pushed.instances.get(&service).into_iter().flat_map(|instances| instances.values());
        Ok(Value::from(instances.map(instance).collect::<Vec<Value>>()))
    }

    /// Stands for what is not known yet.
    fn unanswered(&mut self, placeholder: Value) -> Value {
        self.is_unanswered = true;
        placeholder
    }

    fn refuse(&self, asked: &Asked) -> Result<(), Error> {
        let refused = &self.pushed.refused;
        match refused.get(&Asked::Everything).or_else(|| refused.get(asked)) {
            Some(why) => Err(failed(why.clone())),
            None => Ok(()),
        }
    }
}

fn text(key: &str, bytes: &[u8]) -> Result<Value, Error> {
    std::str::from_utf8(bytes).map(Value::from).map_err(|_| failed(format!("the value of {key:?} is no text")))
}

fn instance(instance: &ServiceInstance) -> Value {
    let ServiceInstance { id, address, port, tags, meta, has_sidecar } = instance;
    context! { id, address, port, tags, meta, has_sidecar }
}

/// JSON in a value, as what it says.
fn from_json(text: &str) -> Result<Value, Error> {
    let value: serde_json::Value =
        serde_json::from_str(text).map_err(|error| failed(format!("the value is no JSON: {error}")))?;
    Ok(Value::from(Serde(value)))
}

fn failed(why: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}

/// Where in the template, and what.
fn placed(path: &Path, source: &str, error: &Error) -> String {
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation | ErrorKind::SyntaxError, Some(detail)) => detail.to_owned(),
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    let line = error.line().map(|line| format!(":{line}")).unwrap_or_default();
    let column = error.range().and_then(|range| {
        let before = source.get(..range.start)?;
        Some(before.chars().rev().take_while(|char| *char != '\n').count() + 1)
    });
    let column = column.map(|column| format!(":{column}")).unwrap_or_default();
    format!("{}{line}{column}: {what}", path.display())
}

#[cfg(test)]
mod tests {
    use postern_proxy::configuration::KeyValue;

    use super::*;

    fn pushed(values: &[(&str, &str)]) -> Arc<Pushed> {
        let mut pushed = Pushed::default();
        for (key, value) in values {
            pushed.answers.keys.insert((*key).to_owned());
            pushed.values.insert((*key).to_owned(), KeyValue { bytes: value.to_string().into(), flags: 0 });
        }
        for key in ["absent", "no"] {
            pushed.answers.keys.insert(key.into());
        }
        pushed.refused.insert(Asked::Key("no".into()), "web may not read it".into());
        pushed.answers.prefixes.insert("app/".into());
        let db: ServiceName = "db".parse().unwrap();
        pushed.answers.services.insert(db.clone());
        let instance = |id: &str, port| {
            let meta = [("zone".to_owned(), "a".to_owned())].into();
            let tags = vec!["primary".to_owned()];
            (id.to_owned(), ServiceInstance { id: id.into(), address: "10.0.0.1".into(), port, tags, meta, has_sidecar: true })
        };
        pushed.instances.insert(db, [instance("db-1", 5432), instance("db-2", 5433)].into());
        Arc::new(pushed)
    }

    fn render(source: &str, values: &[(&str, &str)]) -> Rendered {
        Template::compile(Path::new("in.tmpl"), source.to_owned()).unwrap().render(&pushed(values))
    }

    #[track_caller]
    fn text_of(source: &str) -> String {
        let values = [("app/a", "1"), ("app/b", "x&y"), ("json", r#"{"port": 80, "hosts": ["a", "b"]}"#), ("other", "o")];
        render(source, &values).text.unwrap()
    }

    #[track_caller]
    fn failure_of(source: &str) -> String {
        match render(source, &[("app/a", "1")]).text {
            Err(NotRendered::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_lists_and_instances_are_rendered_as_they_are() {
        assert_eq!(text_of("a={{ kv('app/a') }}\n"), "a=1\n", "the last newline stays");
        assert_eq!(text_of("{{ kv('app/b') }}"), "x&y", "nothing is escaped");
        assert_eq!(text_of("{{ kv('absent', 'd') }}"), "d");
        assert_eq!(
            text_of("{% for e in kv_list('app/') %}{{ e.key }}|{{ e.name }}={{ e.value }};{% endfor %}"),
            "app/a|a=1;app/b|b=x&y;"
        );
        let servers = "{% for i in service('db') %}{{ i.id }} {{ i.address }}:{{ i.port }} {{ i.tags|join(',') }} {{ i.meta.zone }};{% endfor %}";
        assert_eq!(text_of(servers), "db-1 10.0.0.1:5432 primary a;db-2 10.0.0.1:5433 primary a;");
        assert_eq!(text_of("{% set j = kv('json')|from_json %}{{ j.port + 1 }}{{ j.hosts|join('-') }}"), "81a-b");
        assert_eq!(text_of("{{ kv('app/b')|tojson }}"), r#""x\u0026y""#);
    }

    #[test]
    fn what_is_asked_for_is_known_and_nothing_is_rendered_before_it_is_answered() {
        let rendered = render("{{ kv('new') }}{{ kv_list('p/') }}{{ service('web') }}{{ kv('app/a') }}", &[("app/a", "1")]);
        assert_eq!(rendered.text, Err(NotRendered::Unanswered));
        assert_eq!(rendered.asked.keys, ["app/a", "new"].map(String::from).into());
        assert_eq!(rendered.asked.prefixes, ["p/".to_owned()].into());
        assert_eq!(rendered.asked.services.len(), 1);
        // It cannot be a number yet.
        assert_eq!(render("{{ kv('new')|int + 1 }}", &[]).text, Err(NotRendered::Unanswered));
    }

    #[test]
    fn a_failure_names_file_line_and_column() {
        let missing = failure_of("x\n  {{ kv('absent') }}");
        assert!(missing.starts_with("in.tmpl:2:6: ") && missing.contains("meshctl kv put absent"), "{missing}");
        let refused = failure_of("{{ kv('no') }}");
        assert!(refused.ends_with(": web may not read it"), "{refused}");
        let undefined = failure_of("\n{{ nothing }}");
        assert!(undefined.starts_with("in.tmpl:2:4: undefined"), "{undefined}");
        assert!(failure_of("{{ service('NO') }}").contains("NO"));
        let syntax = Template::compile(Path::new("in.tmpl"), "a\nb {% for %}".into()).err().unwrap();
        assert!(syntax.starts_with("in.tmpl:2:"), "{syntax}");
    }

    #[test]
    fn too_much_asked_for_fails_whatever_it_is() {
        let mut facts = Pushed::clone(&pushed(&[("app/a", "1")]));
        facts.refused.insert(Asked::Everything, "too much".into());
        let template = Template::compile(Path::new("in.tmpl"), "{{ kv('app/a') }}".into()).unwrap();
        let NotRendered::Failed(why) = template.render(&Arc::new(facts)).text.unwrap_err() else { panic!() };
        assert!(why.ends_with(": too much"), "{why}");
    }
}
