//! A transcript file read into steps.

use std::fs;
use std::path::Path;

use crate::harness::program::Port;

/// One file.
pub struct Script {
    pub name: String,
    /// `@conf KEY=VALUE`: environment of the demo.
    pub settings: Vec<(String, String)>,
    pub steps: Vec<Step>,
}

/// One line of it.
pub struct Step {
    pub line: usize,
    /// The connection that it is about; empty when there is one.
    pub connection: String,
    pub action: Action,
}

pub enum Action {
    Connect(Port),
    StartTls,
    Close,
    Login(String),
    Deliver { to: String, subject: String },
    Account,
    Send { text: String, with_end: bool, with_escapes: bool },
    Expect(String),
    Await(String),
}

impl Script {
    pub fn load(path: &Path) -> Result<Self, String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
        if !text.starts_with("# ") {
            return Err(format!("{name}: the first line tells the rule: `# …`"));
        }
        Self::parse(&name, &text)
    }

    fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut script = Self { name: name.to_owned(), settings: Vec::new(), steps: Vec::new() };
        let mut names: Vec<String> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let place = || format!("{name}:{}: {line}", index + 1);
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(setting) = line.strip_prefix("@conf ") {
                let (key, value) = setting.split_once('=').ok_or_else(place)?;
                script.settings.push((key.to_owned(), value.to_owned()));
                continue;
            }
            let known =
                names.iter().find(|name| line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(' ')));
            let (mut connection, rest) = match known {
                Some(name) => (name.clone(), &line[name.len() + 1..]),
                None => (String::new(), line),
            };
            if let Some((_, name)) = rest.strip_prefix("@connect ").and_then(|target| target.split_once(" as ")) {
                connection = name.trim().to_owned();
                names.push(connection.clone());
            }
            script.steps.push(Step { line: index + 1, connection, action: action(rest).ok_or_else(place)? });
        }
        script.settings.sort();
        Ok(script)
    }
}

fn action(line: &str) -> Option<Action> {
    let send = |text: &str, with_end, with_escapes| Action::Send { text: text.to_owned(), with_end, with_escapes };
    // An empty line to send or expect may be written without the space that would end it.
    let after = |mark: &str| {
        line.strip_prefix(mark).and_then(|rest| if rest.is_empty() { Some("") } else { rest.strip_prefix(' ') })
    };
    if let Some(text) = after("C:") {
        return Some(send(text, true, false));
    }
    if let Some(text) = after("C-") {
        return Some(send(text, false, false));
    }
    if let Some(text) = after("C\\") {
        return Some(send(text, false, true));
    }
    if let Some(text) = after("S:") {
        return Some(Action::Expect(text.to_owned()));
    }
    if let Some(text) = after("S*") {
        return Some(Action::Await(text.to_owned()));
    }
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    match verb {
        "@connect" => port(rest.split_whitespace().next()?).map(Action::Connect),
        "@starttls" => Some(Action::StartTls),
        "@close" => Some(Action::Close),
        "@login" => Some(Action::Login(rest.trim().to_owned())),
        "@account" => Some(Action::Account),
        "@deliver" => {
            let (to, subject) = rest.trim().split_once(' ')?;
            Some(Action::Deliver { to: to.to_owned(), subject: subject.to_owned() })
        }
        _ => None,
    }
}

fn port(name: &str) -> Option<Port> {
    Some(match name {
        "smtp" => Port::Smtp,
        "submission" => Port::Submission,
        "submissions" => Port::Submissions,
        "imap" => Port::Imap,
        "imaps" => Port::Imaps,
        "pop3" => Port::Pop3,
        "pop3s" => Port::Pop3s,
        _ => return None,
    })
}
