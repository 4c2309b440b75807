//! Thunderbird in a real window on a virtual screen: it logs in and downloads the Inbox.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Site;
use crate::harness::mail_client::deliver;
use crate::harness::program::Port;
use crate::harness::tool;

/// A desktop program needs long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// A child that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a virtual screen on a number that it chooses itself.
fn screen() -> (Running, String) {
    let mut child = Command::new("Xvfb")
        .args(["-displayfd", "1", "-screen", "0", "1280x900x24", "-nolisten", "tcp"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("Xvfb; .ci/run installs it");
    let mut number = String::new();
    let output = child.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut number).expect("the number of the screen");
    (Running(child), format!(":{}", number.trim()))
}

fn profile(site: &Site) -> String {
    let folder = site.folder().join("profile");
    std::fs::create_dir(&folder).expect("a folder");
    let text = |name: &str, value: &str| format!("user_pref(\"{name}\", \"{value}\");\n");
    let plain = |name: &str, value: &str| format!("user_pref(\"{name}\", {value});\n");
    let preferences = [
        text("mail.accountmanager.accounts", "account1"),
        text("mail.accountmanager.defaultaccount", "account1"),
        text("mail.account.account1.server", "server1"),
        text("mail.account.account1.identities", "id1"),
        text("mail.identity.id1.fullName", "Alice"),
        text("mail.identity.id1.useremail", "alice@demo.test"),
        text("mail.identity.id1.smtpServer", "smtp1"),
        text("mail.server.server1.type", "imap"),
        text("mail.server.server1.hostname", "127.0.0.1"),
        plain("mail.server.server1.port", &site.port(Port::Imap)),
        text("mail.server.server1.userName", "alice@demo.test"),
        text("mail.server.server1.name", "alice@demo.test"),
        plain("mail.server.server1.socketType", "0"),
        plain("mail.server.server1.authMethod", "3"),
        plain("mail.server.server1.login_at_startup", "true"),
        plain("mail.server.server1.check_new_mail", "true"),
        plain("mail.server.server1.offline_download", "true"),
        plain("mail.server.server1.autosync_offline_stores", "true"),
        text("mail.smtpservers", "smtp1"),
        text("mail.smtp.defaultserver", "smtp1"),
        text("mail.smtpserver.smtp1.hostname", "127.0.0.1"),
        plain("mail.smtpserver.smtp1.port", &site.port(Port::Submission)),
        plain("mail.provider.suppress_dialog_on_startup", "true"),
        plain("mail.rights.version", "1"),
        plain("mail.spotlight.firstRunDone", "true"),
        plain("mail.shell.checkDefaultClient", "false"),
        plain("mailnews.start_page.enabled", "false"),
        plain("app.donation.eoy.version.viewed", "999"),
        plain("datareporting.policy.dataSubmissionEnabled", "false"),
        plain("app.update.enabled", "false"),
    ];
    std::fs::write(folder.join("user.js"), preferences.concat()).expect("a writable folder");
    folder.to_string_lossy().into_owned()
}

/// Whether any file below the folder that Thunderbird keeps mail in holds the text.
fn downloaded(folder: &Path, text: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            downloaded(&path, text)
        } else {
            std::fs::read(&path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
        }
    })
}

#[test]
#[ignore = "needs thunderbird, Xvfb and xdotool: .ci/run installs them"]
fn thunderbird_logs_in_and_downloads_the_inbox() {
    let site = Site::start();
    deliver(&site.demo, "alice@demo.test", "for-thunderbird");
    let (_screen, display) = screen();
    let profile = profile(&site);
    let _thunderbird = Running(
        Command::new("thunderbird")
            .args(["--profile", &profile, "--no-remote"])
            .env("DISPLAY", &display)
            .env("HOME", site.folder())
            .env("MOZ_CRASHREPORTER_DISABLE", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("thunderbird; .ci/run installs it"),
    );
    let mail = Path::new(&profile).join("ImapMail");
    let end = std::time::Instant::now() + PATIENCE;
    while !downloaded(&mail, "Text of for-thunderbird.") {
        assert!(std::time::Instant::now() < end, "no download; the demo said:\n{}", site.demo.log());
        answer_password_prompt(site.folder(), &display);
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// Types the password into the window that asks for it, if there is one.
fn answer_password_prompt(folder: &Path, display: &str) {
    let command = format!(
        "export DISPLAY={display}; window=$(xdotool search --onlyvisible --name 'Enter your password' | head -n 1); \
         [ -n \"$window\" ] && xdotool windowfocus \"$window\" type --delay 50 demo && xdotool key Return"
    );
    // No window yet is no failure: the loop asks again.
    tool::run(folder, Duration::from_secs(20), "sh", &["-c", &command]);
}
