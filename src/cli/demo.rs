//! `posthouse demo`: a complete working server on 127.0.0.1 in one command.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use posthouse_actors::admin::{AccountView, AdminRequest, DomainView};
use posthouse_actors::node::Node;
use posthouse_conf::Settings;
use serde_json::Value;

use super::output::Output;
use super::{serve, site};

/// The domain, and the host name, of every demo.
const DOMAIN: &str = "demo.test";
/// The password of every account of a demo.
const PASSWORD: &str = "demo";
/// Each listener's key in `[listen]` and its port before the offset.
const PORTS: [(&str, u16); 8] = [
    ("smtp", 2525),
    ("submission", 2587),
    ("submissions", 2465),
    ("imap", 2143),
    ("imaps", 2993),
    ("pop3", 2110),
    ("pop3s", 2995),
    ("metrics", 2090),
];

#[derive(Args)]
pub struct DemoArgs {
    /// Where the demo keeps its mail, keys and certificates.
    #[arg(long, value_name = "DIR", default_value = site::DEMO_DIR)]
    data: PathBuf,
    /// Added to every port.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=62000))]
    port_offset: u16,
}

pub async fn run(arguments: DemoArgs, output: Output) -> anyhow::Result<ExitCode> {
    let settings = prepare(&arguments)?;
    serve::start_logging(&settings);
    let prepare = async |node: &Node| {
        seed(node, output).await.context("the demo's accounts could not be made")?;
        output.note(&advice(&arguments));
        Ok(())
    };
    serve::live(settings, output, prepare).await
}

/// The folder with its certificates and configuration; what is there already is kept.
fn prepare(arguments: &DemoArgs) -> anyhow::Result<Arc<Settings>> {
    let dir = &arguments.data;
    std::fs::create_dir_all(dir).with_context(|| format!("{} cannot be made", dir.display()))?;
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), DOMAIN.to_owned()];
    posthouse_net::certificate::ensure(dir, &names).context("the demo's certificate")?;
    let file = dir.join(site::DEMO_CONFIG);
    let mut text =
        String::from("# Written by `posthouse demo` at every start, so that other commands find this node.\n");
    text.push_str("# Change keys through the environment: POSTHOUSE_SECTION__KEY=value posthouse demo\n\n");
    text.push_str(&posthouse_conf::commented(&keys(arguments.port_offset)));
    std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    site::load(&file)
}

/// What a demo sets apart from the defaults.
fn keys(offset: u16) -> Vec<(&'static str, String)> {
    let listen = |port: u16| format!("[\"{}\"]", SocketAddr::from(([127, 0, 0, 1], port + offset)));
    let mut keys: Vec<(&'static str, String)> = vec![
        ("node.hostname", format!("\"{DOMAIN}\"")),
        ("node.data_dir", "\".\"".to_owned()),
        ("storage.key_file", "\"storage.keys\"".to_owned()),
        ("tls.certificate", format!("\"{}\"", posthouse_net::certificate::CERTIFICATE_FILE)),
        ("tls.private_key", format!("\"{}\"", posthouse_net::certificate::PRIVATE_KEY_FILE)),
        ("limits.exempt", "[\"127.0.0.0/8\", \"::1\"]".to_owned()),
        // A demo works without a network: whatever DNS has not said by then is taken as not known.
        ("resolver.timeout", "\"1s\"".to_owned()),
        ("resolver.attempts", "1".to_owned()),
        ("filter.stage_timeout", "\"2s\"".to_owned()),
    ];
    keys.extend(PORTS.map(|(name, port)| {
        let key = match name {
            "smtp" => "listen.smtp",
            "submission" => "listen.submission",
            "submissions" => "listen.submissions",
            "imap" => "listen.imap",
            "imaps" => "listen.imaps",
            "pop3" => "listen.pop3",
            "pop3s" => "listen.pop3s",
            _ => "listen.metrics",
        };
        (key, listen(port))
    }));
    keys
}

/// The domain and its accounts, unless they are there.
async fn seed(node: &Node, output: Output) -> anyhow::Result<()> {
    let admin = node.admin();
    let run = async |request| admin.run(request, &|_, _, _| {}).await.map_err(anyhow::Error::msg);
    let domains: Vec<DomainView> = serde_json::from_value(run(AdminRequest::DomainList).await?)?;
    if !domains.iter().any(|domain| domain.name == DOMAIN) {
        output.note("making the demo's domain, keys and accounts");
        let _: Value = run(AdminRequest::DomainCreate { name: DOMAIN.to_owned() }).await?;
    }
    let accounts: Vec<AccountView> =
        serde_json::from_value(run(AdminRequest::AccountList { domain: Some(DOMAIN.to_owned()) }).await?)?;
    for (name, is_admin) in [("alice", false), ("bob", false), ("admin", true)] {
        let address = format!("{name}@{DOMAIN}");
        if !accounts.iter().any(|account| account.address == address) {
            let password = PASSWORD.to_owned();
            run(AdminRequest::AccountCreate { address, password, quota: None, admin: is_admin }).await?;
        }
    }
    Ok(())
}

/// What a person can try.
fn advice(arguments: &DemoArgs) -> String {
    let port = |name: &str| {
        let base = PORTS.iter().find(|(key, _)| *key == name).map_or(0, |(_, port)| *port);
        base + arguments.port_offset
    };
    let data = if arguments.data == Path::new(site::DEMO_DIR) {
        String::new()
    } else {
        format!(" --data {}", arguments.data.display())
    };
    format!(
        "posthouse {version} demo in {dir}
accounts  alice@{DOMAIN}, bob@{DOMAIN}, admin@{DOMAIN}; password {PASSWORD}
receive   smtp 127.0.0.1:{smtp}
submit    127.0.0.1:{submission} (STARTTLS), {submissions} (TLS)
read      imap {imap} / imaps {imaps}, pop3 {pop3} / pop3s {pop3s}
metrics   http://127.0.0.1:{metrics}/metrics
CA        {ca}
try       swaks --server 127.0.0.1:{smtp} --to alice@{DOMAIN} --from you@example.org
          curl -s imap://127.0.0.1:{imap}/INBOX -u alice@{DOMAIN}:{PASSWORD} -X 'FETCH 1:* ENVELOPE'
          posthouse status{data}",
        version = env!("CARGO_PKG_VERSION"),
        dir = arguments.data.display(),
        ca = arguments.data.join(posthouse_net::certificate::CA_FILE).display(),
        smtp = port("smtp"),
        submission = port("submission"),
        submissions = port("submissions"),
        imap = port("imap"),
        imaps = port("imaps"),
        pop3 = port("pop3"),
        pop3s = port("pop3s"),
        metrics = port("metrics"),
    )
}
