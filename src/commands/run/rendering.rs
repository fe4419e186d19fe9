//! Keeps files and variables as the control plane says: pushed → rendered → written → what COMMAND is due.
//!
//! Nothing is asked twice and nothing is looked at in between: a round begins when something was pushed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use postern_proxy::configuration::{Asker, Pushed, Wanted};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::output_file::{Replaced, replace};
use super::render::{NotRendered, Rendered, Template};
use super::variables::{Variables, variables};
use crate::cli::proxy::RunArgs;
use crate::cli::template::Effect;
use crate::outcome::Failure;

/// Changes that come so close together are one.
const TOGETHER: Duration = Duration::from_millis(100);

/// What is to be rendered.
pub struct Plan {
    templates: Vec<(Arc<Template>, PathBuf, Effect)>,
    prefixes: Vec<String>,
}

/// What COMMAND is due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// It has to be started again.
    pub restart: bool,
    /// It gets these.
    pub signals: BTreeSet<Signal>,
    /// What it is started with from here on.
    pub variables: Variables,
}

/// The task that renders. It ends with this.
pub struct Rendering {
    task: JoinHandle<()>,
    due: mpsc::Receiver<Due>,
    waits_for: watch::Receiver<String>,
}

impl Plan {
    /// Reads the templates; `None` where nothing is to be rendered.
    ///
    /// # Errors
    /// The template that cannot be read, or the line in it.
    pub fn read(args: &RunArgs) -> Result<Option<Self>, Failure> {
        let mut outputs = BTreeSet::new();
        let mut templates = Vec::new();
        for template in &args.template {
            if !outputs.insert(&template.output) {
                return Err(Failure::new(format!("--template renders {} twice", template.output.display())));
            }
            let read = Template::read(&template.input).map_err(|why| Failure::new(format!("--template: {why}")))?;
            templates.push((Arc::new(read), template.output.clone(), template.effect));
        }
        let plan = Self { templates, prefixes: args.env_prefix.clone() };
        Ok((!plan.templates.is_empty() || !plan.prefixes.is_empty()).then_some(plan))
    }
}

impl Rendering {
    /// Begins to ask for what the templates need.
    pub fn start(plan: Plan, asker: Asker) -> Self {
        let (tell, due) = mpsc::channel(1);
        let (waits, waits_for) = watch::channel(String::from("nothing was rendered yet"));
        let renderer = Renderer { plan, asker, variables: None, problem: String::new(), waits };
        Self { task: tokio::spawn(renderer.run(tell)), due, waits_for }
    }

    /// What COMMAND is due next. The first one comes when everything was rendered once.
    pub async fn next(&mut self) -> Due {
        match self.due.recv().await {
            Some(due) => due,
            None => std::future::pending().await,
        }
    }

    /// Why the first one did not come yet.
    pub fn waits_for(&self) -> String {
        self.waits_for.borrow().clone()
    }
}

impl Drop for Rendering {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Renderer {
    plan: Plan,
    asker: Asker,
    /// What COMMAND has; `None` before everything was rendered once.
    variables: Option<Variables>,
    /// What was logged last.
    problem: String,
    waits: watch::Sender<String>,
}

/// What one round came to.
#[derive(Default)]
struct Round {
    asked: Wanted,
    is_unanswered: bool,
    problems: Vec<String>,
    due: Due,
}

impl Renderer {
    async fn run(mut self, tell: mpsc::Sender<Due>) {
        loop {
            if let Some(due) = self.round().await
                && tell.send(due).await.is_err()
            {
                return;
            }
            self.asker.changed().await;
            if self.variables.is_some() {
                tokio::time::sleep(TOGETHER).await;
            }
        }
    }

    /// Renders all of it with what is known. Gives what COMMAND is due, if anything.
    async fn round(&mut self) -> Option<Due> {
        let pushed = self.asker.pushed();
        let mut round = Round::default();
        for (template, output, effect) in &self.plan.templates {
            let Rendered { asked, text } = template.render(&pushed);
            round.asked.extend(&asked);
            match text {
                Ok(text) => round.write(output.clone(), text, *effect).await,
                Err(NotRendered::Unanswered) => round.is_unanswered = true,
                Err(NotRendered::Failed(why)) => round.problems.push(why),
            }
        }
        round.take_variables(&self.plan.prefixes, &pushed, self.variables.as_ref());
        self.ask(&mut round);
        self.tell_problems(&round, &pushed);
        self.due(round)
    }

    /// Asks for what is needed. While something of that is not known, what else will be asked for is not known either.
    fn ask(&self, round: &mut Round) {
        let mut wanted = std::mem::take(&mut round.asked);
        if round.is_unanswered || !round.problems.is_empty() {
            wanted.extend(&self.asker.wanted());
        }
        match wanted.check() {
            Ok(()) => self.asker.ask(wanted),
            Err(error) => round.problems.push(error.to_string()),
        }
    }

    /// Each problem is logged once, and what was rendered last stays.
    fn tell_problems(&mut self, round: &Round, pushed: &Pushed) {
        let problem = round.problems.join("; ");
        if problem != self.problem && !problem.is_empty() {
            match self.variables {
                Some(_) => tracing::warn!("{problem}; what was rendered before stays"),
                None => tracing::warn!("{problem}; the command is not started yet"),
            }
        }
        self.problem = problem;
        let waits_for = match (&pushed.problem, self.problem.as_str()) {
            (Some(problem), _) => problem.clone(),
            (None, "") => "the control plane did not answer yet".to_owned(),
            (None, problem) => problem.to_owned(),
        };
        self.waits.send_replace(waits_for);
    }

    fn due(&mut self, round: Round) -> Option<Due> {
        let is_first = self.variables.is_none();
        if is_first && (round.is_unanswered || !round.problems.is_empty()) {
            return None;
        }
        self.variables = Some(round.due.variables.clone());
        let is_due = is_first || round.due.restart || !round.due.signals.is_empty();
        is_due.then_some(round.due)
    }
}

impl Round {
    async fn write(&mut self, output: PathBuf, text: String, effect: Effect) {
        let shown = output.display().to_string();
        let written = tokio::task::spawn_blocking(move || replace(&output, text.as_bytes())).await;
        match written.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(Replaced::No) => {}
            Ok(Replaced::Yes) => {
                tracing::info!(file = shown, "rendered");
                match effect {
                    Effect::Restart => self.due.restart = true,
                    Effect::Signal(signal) => {
                        self.due.signals.insert(signal);
                    }
                    Effect::Nothing => {}
                }
            }
            Err(error) => self.problems.push(format!("cannot write {shown}: {error}")),
        }
    }

    fn take_variables(&mut self, prefixes: &[String], pushed: &Pushed, before: Option<&Variables>) {
        self.asked.prefixes.extend(prefixes.iter().cloned());
        let before = || before.cloned().unwrap_or_default();
        if !prefixes.iter().all(|prefix| pushed.answers.prefixes.contains(prefix)) {
            self.is_unanswered = true;
            self.due.variables = before();
            return;
        }
        self.due.variables = variables(prefixes, pushed).unwrap_or_else(|why| {
            self.problems.push(why);
            before()
        });
        self.due.restart |= self.due.variables != before();
    }
}
