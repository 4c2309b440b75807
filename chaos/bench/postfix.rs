//! The peer: a Postfix that hands to a Dovecot over LMTP, in a folder of its own, on loopback addresses of their own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::cgroup::CpuGroup;

/// Where the peer takes mail.
pub const ADDRESS: &str = "127.0.0.77:2025";
/// The one account.
pub const RECIPIENT: &str = "u1@mail.test";

/// A running peer; stopped when dropped.
pub struct Postfix {
    lab: PathBuf,
    pub group: CpuGroup,
}

impl Postfix {
    pub fn start(lab: &Path) -> anyhow::Result<Self> {
        for tool in ["postfix", "dovecot", "smtp-source", "openssl"] {
            let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output()?.status.success();
            ensure!(
                found,
                "{tool} is not installed: the peer needs the packages postfix, dovecot-imapd, dovecot-lmtpd, openssl"
            );
        }
        // Dovecot's unprivileged user must be able to walk down to its mail.
        fs::set_permissions(lab, fs::Permissions::from_mode(0o755))?;
        lay_dovecot(lab)?;
        lay_postfix(lab)?;
        let group = CpuGroup::new("postfix")?;
        let peer = Self { lab: lab.to_owned(), group };
        let (mut dovecot, mut postfix) = (Command::new("dovecot"), Command::new("postfix"));
        dovecot.arg("-c").arg(lab.join("dovecot.conf"));
        peer.group.spawn(&mut dovecot, Stdio::inherit())?.wait()?;
        postfix.arg("-c").arg(lab.join("pf/etc")).arg("start");
        let started = peer.group.spawn(&mut postfix, Stdio::inherit())?.wait()?;
        ensure!(started.success(), "postfix did not start; see {}", lab.join("postfix.log").display());
        wait_for_port(ADDRESS)?;
        Ok(peer)
    }

    /// Messages in the account's Maildir.
    pub fn delivered(&self) -> usize {
        let count =
            |dir: &str| fs::read_dir(self.lab.join("mail").join(RECIPIENT).join(dir)).map_or(0, Iterator::count);
        count("new") + count("cur")
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let _ = Command::new("postfix").arg("-c").arg(self.lab.join("pf/etc")).arg("stop").output();
        let _ = Command::new("doveadm").arg("-c").arg(self.lab.join("dovecot.conf")).arg("stop").output();
    }
}

/// Waits until something accepts connections.
pub fn wait_for_port(address: &str) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(address).is_err() {
        ensure!(Instant::now() < until, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{:?}", command.get_program()))?;
    ensure!(output.status.success(), "{:?}: {}", command.get_program(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The numeric ids of a user.
pub(super) fn ids(user: &str) -> anyhow::Result<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd")?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user));
    let fields: Vec<&str> = line.with_context(|| format!("there is no user {user}"))?.split(':').collect();
    Ok((fields[2].parse()?, fields[3].parse()?))
}

/// A certificate that nobody vouches for.
pub(super) fn lay_certificate(lab: &Path) -> anyhow::Result<()> {
    let subject = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mail.test"];
    let (key, certificate) = (lab.join("key.pem"), lab.join("cert.pem"));
    run(Command::new("openssl").args(subject).arg("-keyout").arg(key).arg("-out").arg(certificate))
}

fn lay_dovecot(lab: &Path) -> anyhow::Result<()> {
    let (uid, gid) = ids("dovecot")?;
    for dir in ["run", "mail", "home"] {
        fs::create_dir_all(lab.join(dir))?;
        chown(lab.join(dir), Some(uid), Some(gid))?;
    }
    lay_certificate(lab)?;
    fs::write(lab.join("users"), format!("{RECIPIENT}:{{PLAIN}}pw1\n"))?;
    let lab = lab.display();
    let conf = format!(
        "base_dir = {lab}/run\ninstance_name = posthouse-bench\nlisten = 127.0.0.77\nprotocols = lmtp\nlog_path = {lab}/dovecot.log\n\
         ssl = yes\nssl_cert = <{lab}/cert.pem\nssl_key = <{lab}/key.pem\nmail_location = maildir:{lab}/mail/%u\nfirst_valid_uid = 1\n\
         default_client_limit = 5000\ndefault_process_limit = 500\n\
         namespace inbox {{\n  inbox = yes\n  separator = /\n}}\n\
         passdb {{\n  driver = passwd-file\n  args = scheme=PLAIN username_format=%u {lab}/users\n}}\n\
         userdb {{\n  driver = static\n  args = uid={uid} gid={gid} home={lab}/home/%u\n}}\n\
         service lmtp {{\n  process_min_avail = 2\n  inet_listener lmtp {{\n    address = 127.0.0.77\n    port = 2124\n  }}\n}}\n"
    );
    fs::write(format!("{lab}/dovecot.conf"), conf)?;
    Ok(())
}

/// The stock services of master.cf: name, type, private, command and arguments.
const SERVICES: &[&str] = &[
    "pickup unix n - n 60 1 pickup",
    "cleanup unix n - n - 0 cleanup",
    "qmgr unix n - n 300 1 qmgr",
    "tlsmgr unix - - n 1000? 1 tlsmgr",
    "rewrite unix - - n - - trivial-rewrite",
    "bounce unix - - n - 0 bounce",
    "defer unix - - n - 0 bounce",
    "trace unix - - n - 0 bounce",
    "verify unix - - n - 1 verify",
    "flush unix n - n 1000? 0 flush",
    "proxymap unix - - n - - proxymap",
    "proxywrite unix - - n - 1 proxymap",
    "smtp unix - - n - - smtp",
    "relay unix - - n - - smtp",
    "showq unix n - n - - showq",
    "error unix - - n - - error",
    "retry unix - - n - - error",
    "discard unix - - n - - discard",
    "local unix - n n - - local",
    "virtual unix - n n - - virtual",
    "lmtp unix - - n - - lmtp",
    "anvil unix - - n - 1 anvil",
    "scache unix - - n - 1 scache",
    "postlog unix-dgram n - n - 1 postlogd",
];

fn lay_postfix(lab: &Path) -> anyhow::Result<()> {
    let (uid, _) = ids("postfix")?;
    let postdrop = fs::read_to_string("/etc/group")?;
    let postdrop = postdrop.lines().find(|line| line.starts_with("postdrop:")).context("there is no group postdrop")?;
    let gid: u32 = postdrop.split(':').nth(2).context("a group without a number")?.parse()?;
    let (spool, data, etc) = (lab.join("pf/spool"), lab.join("pf/data"), lab.join("pf/etc"));
    for dir in [&spool, &data, &etc] {
        fs::create_dir_all(dir)?;
    }
    chown(&data, Some(uid), None)?;
    for name in
        ["active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace"]
    {
        fs::create_dir_all(spool.join(name))?;
        fs::set_permissions(spool.join(name), fs::Permissions::from_mode(0o700))?;
        chown(spool.join(name), Some(uid), None)?;
    }
    fs::create_dir_all(spool.join("pid"))?;
    for (name, mode) in [("maildrop", 0o730), ("public", 0o710)] {
        fs::create_dir_all(spool.join(name))?;
        fs::set_permissions(spool.join(name), fs::Permissions::from_mode(mode))?;
        chown(spool.join(name), Some(uid), Some(gid))?;
    }
    let l = lab.display();
    let main = format!(
        "compatibility_level = 3.6\nqueue_directory = {l}/pf/spool\ndata_directory = {l}/pf/data\nmyhostname = mail.test\nmydestination =\n\
         inet_interfaces = loopback-only\ninet_protocols = ipv4\nmynetworks = 127.0.0.0/8\nvirtual_mailbox_domains = mail.test\n\
         virtual_transport = lmtp:inet:127.0.0.77:2124\nalias_maps =\nalias_database =\nlocal_transport = error:local delivery off\n\
         smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination\nsmtpd_tls_cert_file = {l}/cert.pem\n\
         smtpd_tls_key_file = {l}/key.pem\nsmtpd_tls_security_level = may\nsmtpd_peername_lookup = no\nsmtp_dns_support_level = disabled\n\
         maillog_file = {l}/postfix.log\nmaillog_file_prefixes = {l}\nmessage_size_limit = 52428800\n\
         lmtp_destination_concurrency_limit = 20\nlmtp_destination_recipient_limit = 1\nsmtpd_client_connection_count_limit = 0\nin_flow_delay = 0\n"
    );
    fs::write(etc.join("main.cf"), main)?;
    let mut master = format!("{ADDRESS} inet n - n - - smtpd\n");
    SERVICES.iter().for_each(|service| master.push_str(&format!("{service}\n")));
    fs::write(etc.join("master.cf"), master)?;
    Ok(())
}
