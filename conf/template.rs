//! A configuration file for people: every key with its comment, those left at their defaults commented out.

/// The file that shows every key with its default.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// `default.toml` with some keys set. `set` names keys as `section.key`, a key of a table in
/// a section as `section.table.key`; values are TOML.
pub fn commented(set: &[(&str, String)]) -> String {
    let mut out = String::with_capacity(DEFAULT_TOML.len());
    let mut section = "";
    for line in DEFAULT_TOML.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        }
        match line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            Some((key, _)) => match set.iter().find(|(name, _)| name.rsplit_once('.') == Some((section, key))) {
                Some((_, value)) => out.push_str(&format!("{key} = {value}")),
                None => out.push_str(&format!("#{line}")),
            },
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Settings, parse};

    #[test]
    fn the_default_file_equals_the_types() {
        assert_eq!(parse(DEFAULT_TOML, "default.toml").expect("valid"), Settings::default());
    }

    #[test]
    fn only_keys_that_are_set_are_live() {
        let text =
            commented(&[("queue.remote_port", "2626".to_owned()), ("storage.foundationdb.prefix", "\"a\"".to_owned())]);
        let mut expect = Settings::default();
        expect.queue.remote_port = 2626;
        expect.storage.foundationdb.prefix = "a".to_owned();
        assert_eq!(parse(&text, "template").expect("valid"), expect);
        assert!(text.contains("#schedule = "));
    }
}
