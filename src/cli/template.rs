//! `--template` and `--env-prefix` of `meshctl run`.

use std::path::PathBuf;
use std::str::FromStr;

use nix::sys::signal::Signal;

/// What happens to COMMAND when what was rendered for it is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is stopped and started again.
    Restart,
    /// It gets this signal.
    Signal(Signal),
    /// Nothing: it looks for itself.
    Nothing,
}

/// `--template IN:OUT[:EFFECT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateArg {
    /// The template.
    pub input: PathBuf,
    /// What is rendered from it.
    pub output: PathBuf,
    /// What follows when that changes.
    pub effect: Effect,
}

impl FromStr for TemplateArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (input, output, effect) = match parts.as_slice() {
            [input, output] => (input, output, Effect::Restart),
            [input, output, effect] => (input, output, effect.parse()?),
            _ => return Err(format!("{text:?} is not IN:OUT[:SIGNAL]; a path with a colon cannot be given")),
        };
        if input.is_empty() || output.is_empty() || input == output {
            return Err(format!("{text:?} needs two files: IN, the template, and OUT, what is rendered from it"));
        }
        Ok(Self { input: input.into(), output: output.into(), effect })
    }
}

impl FromStr for Effect {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "restart" => return Ok(Self::Restart),
            "none" => return Ok(Self::Nothing),
            _ => {}
        }
        let name = text.to_ascii_uppercase();
        let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
        match name.parse() {
            Ok(Signal::SIGKILL | Signal::SIGSTOP) | Err(_) => {
                Err(format!("{text:?} is no signal that COMMAND could hear; write HUP, USR1, USR2, …, restart or none"))
            }
            Ok(signal) => Ok(Self::Signal(signal)),
        }
    }
}

/// `--env-prefix PREFIX`.
pub fn env_prefix(text: &str) -> Result<String, String> {
    match text.strip_suffix('/') {
        Some(name) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not a prefix of keys that ends in /, such as app/config/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_has_an_effect() {
        let effect = |text: &str| text.parse::<TemplateArg>().map(|template| template.effect);
        assert_eq!(effect("a.tmpl:a"), Ok(Effect::Restart));
        assert_eq!(effect("a.tmpl:a:restart"), Ok(Effect::Restart));
        assert_eq!(effect("a.tmpl:a:none"), Ok(Effect::Nothing));
        for text in ["a.tmpl:a:HUP", "a.tmpl:a:SIGHUP", "a.tmpl:a:hup"] {
            assert_eq!(effect(text), Ok(Effect::Signal(Signal::SIGHUP)), "{text}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in ["", "a", "a:", ":a", "a:a", "a:b:c:d", "a:b:KILL", "a:b:STOP", "a:b:reload", "a:b:"] {
            assert!(text.parse::<TemplateArg>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_of_variables_ends_in_a_slash() {
        assert_eq!(env_prefix("app/config/"), Ok("app/config/".into()));
        for text in ["", "/", "app"] {
            assert!(env_prefix(text).is_err(), "{text}");
        }
    }
}
