//! A site of one's own: `init`, `check`, `serve`, and configurations that are wrong.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_posthouse");

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().expect("the program starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A folder and the configuration in it that `init` wrote.
fn site() -> (TempDir, PathBuf, Value) {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("site");
    let arguments =
        ["init", "--domain", "example.test", "--hostname", "mail.example.test", "--dir", text(&dir), "--json"];
    let output = run(&arguments);
    assert!(output.status.success(), "{output:?}");
    let told = serde_json::from_slice(&output.stdout).expect("JSON");
    (folder, dir.join("posthouse.toml"), told)
}

#[test]
fn init_tells_what_to_publish_and_never_overwrites() {
    let (_folder, config, told) = site();
    assert_eq!(told["admin"], "admin@example.test");
    let dns = told["dns"].to_string();
    for part in ["v=spf1", "v=DKIM1", "v=DMARC1", "mail.example.test"] {
        assert!(dns.contains(part), "no {part} in {dns}");
    }
    let dir = config.parent().expect("a folder");
    let again = run(&["init", "--domain", "other.test", "--hostname", "mail.other.test", "--dir", text(dir)]);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    // The written configuration shows every key, and says what the defaults are.
    let written = std::fs::read_to_string(&config).expect("a configuration");
    assert!(written.contains("hostname = \"mail.example.test\"") && written.contains("\n#message_max = "), "{written}");
}

#[test]
fn a_wrong_key_is_told_with_its_line_and_the_nearest_one() {
    let (folder, config, _) = site();
    let wrong = folder.path().join("wrong.toml");
    std::fs::write(&wrong, "[smtp]\nmesage_max = \"1MiB\"\n").expect("a file");
    for command in ["check", "serve"] {
        let output = run(&[command, "--config", text(&wrong)]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("wrong.toml:2") && errors.contains("`message_max`"), "{errors}");
    }
    assert_eq!(run(&["serve"]).status.code(), Some(2), "usage");
    let output = run(&["check", "--config", text(&config), "--json"]);
    let findings: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let ok =
        |what: &str| findings.as_array().is_some_and(|all| all.iter().any(|f| f["what"] == what && f["ok"] == true));
    assert!(ok("configuration") && ok("certificate"), "{findings}");
}

#[test]
fn version_is_told_to_people_and_programs() {
    let output = run(&["version"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains(env!("CARGO_PKG_VERSION")), "{output:?}");
    assert!(serde_json::from_slice::<Value>(&run(&["version", "--json"]).stdout).is_ok());
}
