//! The peer: a Dovecot in a folder of its own. Its login processes serve many connections each, as its manual advises for large
//! sites; a session is a process, unless imap-hibernate has it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::client::Place;
use super::{IdleArgs, Subject};
use crate::bench::postfix::{ids, lay_certificate, wait_for_port};

const ADDRESS: &str = "127.0.0.77:2993";
const START_MAX: Duration = Duration::from_secs(20);

pub struct Dovecot {
    lab: PathBuf,
    master: u32,
    hibernates: bool,
}

impl Dovecot {
    pub fn start(arguments: &IdleArgs, lab: &Path, hibernates: bool) -> anyhow::Result<Self> {
        let (uid, gid) = ids("dovecot")?;
        for folder in ["run", "mail"] {
            fs::create_dir_all(lab.join(folder))?;
        }
        for folder in [lab.to_owned(), lab.join("mail")] {
            chown(folder, Some(uid), Some(gid))?;
        }
        lay_certificate(lab)?;
        let place = place()?;
        let users =
            (0..arguments.accounts).map(|account| format!("{}:{{PLAIN}}{}\n", place.user(account), place.password));
        fs::write(lab.join("users"), users.collect::<String>())?;
        fs::write(lab.join("dovecot.conf"), configuration(lab, (uid, gid), arguments, hibernates))?;
        let started = Command::new("dovecot").arg("-c").arg(lab.join("dovecot.conf")).status();
        ensure!(started.context("dovecot (package dovecot-imapd)")?.success(), "dovecot did not start");
        let mut dovecot = Self { lab: lab.to_owned(), master: 0, hibernates };
        wait_for_port(ADDRESS)?;
        dovecot.master = dovecot.wait_for_master()?;
        Ok(dovecot)
    }

    /// The master's process id, which may be written later than its ports are open.
    fn wait_for_master(&self) -> anyhow::Result<u32> {
        let until = Instant::now() + START_MAX;
        loop {
            let text = fs::read_to_string(self.lab.join("run/master.pid")).unwrap_or_default();
            if let Ok(master) = text.trim().parse() {
                return Ok(master);
            }
            ensure!(Instant::now() < until, "dovecot wrote no master.pid");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn place() -> anyhow::Result<Place> {
    let address: SocketAddr = ADDRESS.parse()?;
    Ok(Place { address, domain: "mail.test", password: "pw1" })
}

fn configuration(lab: &Path, (uid, gid): (u32, u32), arguments: &IdleArgs, hibernates: bool) -> String {
    let (lab, most) = (lab.display(), arguments.dovecot_sessions + arguments.accounts + 100);
    // It counts clients of all its processes together here and there.
    let twice = most * 2;
    let timeout = if hibernates { arguments.sleep_after.min(5) } else { 0 };
    format!(
        "base_dir = {lab}/run\ninstance_name = posthouse-idle\nlisten = 127.0.0.77\nprotocols = imap\nlog_path = {lab}/dovecot.log\n\
         ssl = required\nssl_cert = <{lab}/cert.pem\nssl_key = <{lab}/key.pem\nmail_location = maildir:{lab}/mail/%u\nfirst_valid_uid = 1\n\
         default_client_limit = {twice}\ndefault_process_limit = {twice}\nmail_max_userip_connections = {most}\n\
         imap_hibernate_timeout = {timeout}s\n\
         namespace inbox {{\n  inbox = yes\n}}\n\
         passdb {{\n  driver = passwd-file\n  args = scheme=PLAIN username_format=%u {lab}/users\n}}\n\
         userdb {{\n  driver = static\n  args = uid={uid} gid={gid} home={lab}/mail/%u\n}}\n\
         service imap-login {{\n  service_count = 0\n  process_min_avail = 2\n  process_limit = 2\n  client_limit = {most}\n\
           inet_listener imap {{\n    port = 0\n  }}\n  inet_listener imaps {{\n    port = 2993\n    ssl = yes\n  }}\n}}\n\
         service imap {{\n  process_limit = {most}\n  extra_groups = $default_internal_group\n\
           unix_listener imap-master {{\n    user = $default_internal_user\n  }}\n}}\n\
         service imap-hibernate {{\n  unix_listener imap-hibernate {{\n    mode = 0660\n    group = $default_internal_group\n  }}\n}}\n"
    )
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let _ = Command::new("doveadm").arg("-c").arg(self.lab.join("dovecot.conf")).arg("stop").output();
    }
}

/// The processes whose parent is this one, with their names.
fn children(parent: u32) -> anyhow::Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("PPid:").and_then(|of| of.parse().ok()) == Some(parent) {
            found.push((pid, field("Name:").unwrap_or_default().to_owned()));
        }
    }
    Ok(found)
}

impl Subject for Dovecot {
    fn place(&self) -> Place {
        place().expect("the address is a constant")
    }

    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let children = children(self.master)?.into_iter().map(|(pid, _)| pid);
        Ok(children.chain([self.master]).collect())
    }

    /// Those that have no process of their own any more.
    fn asleep(&self, open: usize) -> anyhow::Result<usize> {
        Ok(open.saturating_sub(children(self.master)?.iter().filter(|(_, name)| name == "imap").count()))
    }

    fn sleepers(&self, sessions: usize) -> usize {
        if self.hibernates { sessions / 2 } else { 0 }
    }

    fn name(&self) -> &'static str {
        if self.hibernates { "dovecot, hibernating" } else { "dovecot" }
    }
}
