//! Reads a configuration: file, then environment, then the rules that no single type can hold.

use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::{Table, Value};

use crate::section::Settings;

/// What is wrong, where, and what was probably meant.
#[derive(Debug, Error)]
pub enum ConfError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{place}: {reason}{}", hint(nearest))]
    Invalid { place: String, reason: String, nearest: Option<String> },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}

/// The prefix of environment variables that override keys: `POSTHOUSE_LIMITS__EXEMPT`.
const ENV_PREFIX: &str = "POSTHOUSE_";

/// Reads a file and applies the overrides found in `environment`.
pub fn load(path: &Path, environment: impl Iterator<Item = (String, String)>) -> Result<Settings, ConfError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfError::Read { path: path.to_owned(), source })?;
    let settings = parse(&text, &path.display().to_string())?;
    settings.overridden(environment)?.checked()
}

/// Reads a text; `place` names it in errors.
pub fn parse(text: &str, place: &str) -> Result<Settings, ConfError> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let place = line.map_or(place.to_owned(), |line| format!("{place}:{line}"));
        invalid(place, error.message())
    })
}

fn invalid(place: String, message: &str) -> ConfError {
    let nearest = nearest_key(message);
    // The list of every known key helps only where none of them is near.
    let short = message.split(", expected one of").next().filter(|_| nearest.is_some());
    ConfError::Invalid { place, reason: short.unwrap_or(message).to_owned(), nearest }
}

/// serde lists the known names in its message: ``unknown field `a`, expected one of `b`, `c` ``.
fn nearest_key(message: &str) -> Option<String> {
    let (unknown, known) = message.strip_prefix("unknown field `")?.split_once('`')?;
    known
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|key| (strsim::jaro_winkler(unknown, key), key))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, key)| key.to_owned())
}

impl Settings {
    /// Applies `POSTHOUSE_SECTION__KEY=value`, and `POSTHOUSE_SECTION__TABLE__KEY` for a table in a section; lists are
    /// separated by commas. Other variables are left alone.
    pub fn overridden(&self, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfError> {
        let mut table = Table::try_from(self).expect("settings are a table of plain values");
        let mut changed = false;
        for (name, text) in environment {
            let Some((section, key)) = name.strip_prefix(ENV_PREFIX).and_then(|rest| rest.rsplit_once("__")) else {
                continue;
            };
            let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
            let keys = section_of(&mut table, &section).map_err(|reason| invalid(name.clone(), &reason))?;
            // An unknown key goes in as text, so that the types below refuse it in their own words.
            let value = match keys.get(&key) {
                Some(old) => typed(old, &text).map_err(|reason| invalid(name.clone(), &reason))?,
                None => Value::String(text),
            };
            keys.insert(key, value);
            if let Err(error) = table.clone().try_into::<Self>() {
                return Err(invalid(name, error.message()));
            }
            changed = true;
        }
        if !changed {
            return Ok(self.clone());
        }
        table.try_into().map_err(|error: toml::de::Error| invalid("environment".to_owned(), error.message()))
    }
}

/// The keys of a section, or of a table inside it: `storage__foundationdb`.
fn section_of<'a>(settings: &'a mut Table, path: &str) -> Result<&'a mut Table, String> {
    path.split("__").try_fold(settings, |table, name| {
        let known = table.iter().filter(|(_, value)| value.is_table()).map(|(name, _)| format!("`{name}`"));
        let known = known.collect::<Vec<_>>().join(", ");
        let section = table.get_mut(name).and_then(Value::as_table_mut);
        section.ok_or_else(|| format!("unknown field `{name}`, expected one of {known}"))
    })
}

/// A value of the same type as the one it replaces.
fn typed(old: &Value, text: &str) -> Result<Value, String> {
    match old {
        Value::Integer(_) => text.parse().map(Value::Integer).map_err(|_| format!("`{text}` is not a whole number")),
        Value::Float(_) => text.parse().map(Value::Float).map_err(|_| format!("`{text}` is not a number")),
        Value::Boolean(_) => {
            text.parse().map(Value::Boolean).map_err(|_| format!("`{text}` is neither true nor false"))
        }
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_known_key() {
        let error = parse("[limits]\n\nexemt = []\n", "posthouse.toml").expect_err("an unknown key");
        let text = error.to_string();
        assert!(text.starts_with("posthouse.toml:3: unknown field `exemt`"), "{text}");
        assert!(text.ends_with("did you mean `exempt`?"), "{text}");
    }

    #[test]
    fn a_value_without_its_unit_is_refused_with_the_line() {
        let error = parse("[smtp]\nmessage_max = \"25\"\n", "c.toml").expect_err("no unit");
        assert!(error.to_string().starts_with("c.toml:2: invalid value"), "{error}");
    }

    #[test]
    fn a_message_that_no_store_keeps_is_no_limit() {
        for (key, text) in [("smtp.message_max", "[smtp]\nmessage_max"), ("imap.append_max", "[imap]\nappend_max")] {
            let checked = |size: &str| parse(&format!("{text} = \"{size}\"\n"), "c.toml").expect("sound").checked();
            checked("256MiB").expect("as much as a store keeps");
            let error = checked("257MiB").expect_err("more than a store keeps").to_string();
            assert!(error.starts_with(key) && error.contains("at most 256MiB"), "{error}");
        }
    }

    #[test]
    fn the_environment_overrides_by_type() {
        let base = Settings::default();
        let set = [
            ("POSTHOUSE_LIMITS__EXEMPT", ""),
            ("POSTHOUSE_RESOLVER__SERVERS", "127.0.0.1:5353, 127.0.0.2:53"),
            ("POSTHOUSE_QUEUE__REMOTE_PORT", "2626"),
            ("POSTHOUSE_STORAGE__FOUNDATIONDB__WATCHES_MAX", "7"),
            ("PATH", "/bin"),
        ];
        let settings = base.overridden(env(&set).into_iter()).expect("valid overrides");
        assert!(settings.limits.exempt.is_empty());
        assert_eq!(settings.resolver.servers.len(), 2);
        assert_eq!(settings.queue.remote_port, 2626);
        assert_eq!(settings.storage.foundationdb.watches_max, 7);
    }

    #[test]
    fn a_wrong_override_names_the_variable() {
        let base = Settings::default();
        let error = base.overridden(env(&[("POSTHOUSE_QUEUE__REMOTE_PRT", "1")]).into_iter()).expect_err("unknown");
        assert!(error.to_string().contains("POSTHOUSE_QUEUE__REMOTE_PRT"), "{error}");
        assert!(error.to_string().contains("`remote_port`"), "{error}");
        let error = base.overridden(env(&[("POSTHOUSE_QUEUE__REMOTE_PORT", "x")]).into_iter()).expect_err("no number");
        assert!(error.to_string().contains("not a whole number"), "{error}");
    }
}
