//! `posthouse init`: a new site: configuration, keys, store, first administrator, and the DNS records to publish.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use posthouse_actors::admin::{AdminRequest, DnsRecordView};
use posthouse_actors::node::Node;
use posthouse_mail::Domain;
use rand::Rng as _;
use rand::distr::Alphanumeric;
use serde::Serialize;
use serde_json::{Value, json};

use super::output::Output;
use super::{domain, site};

#[derive(Args)]
pub struct InitArgs {
    /// The first local domain.
    #[arg(long, value_name = "D")]
    domain: String,
    /// The host name of this node, as its DNS records name it.
    #[arg(long, value_name = "H")]
    hostname: String,
    /// Where configuration, keys and store go.
    #[arg(long, value_name = "DIR", default_value = "posthouse")]
    dir: PathBuf,
    /// Make no domain and no administrator: a backup is to be restored.
    #[arg(long)]
    empty: bool,
}

/// What a new administrator must know.
#[derive(Serialize)]
struct NewSite {
    config: PathBuf,
    admin: String,
    password: String,
    dns: Vec<DnsRecordView>,
}

pub async fn run(arguments: InitArgs, output: Output) -> anyhow::Result<ExitCode> {
    let domain = Domain::parse(&arguments.domain).with_context(|| arguments.domain.clone())?;
    let hostname = Domain::parse(&arguments.hostname).with_context(|| arguments.hostname.clone())?;
    let config = arguments.dir.join("posthouse.toml");
    anyhow::ensure!(!config.exists(), "{} is there already; init makes new sites only", config.display());
    std::fs::create_dir_all(&arguments.dir).with_context(|| format!("{} cannot be made", arguments.dir.display()))?;
    let names = [hostname.to_string(), domain.to_string()];
    posthouse_net::certificate::ensure(&arguments.dir, &names).context("the first certificate")?;
    std::fs::write(&config, configuration(&hostname)).with_context(|| config.display().to_string())?;
    if arguments.empty {
        return output.result(&json!({ "config": config }), |_| {
            format!("configuration  {0}\n\nthen: posthouse restore TARGET --config {0}", config.display())
        });
    }
    let site = found(config, &domain).await?;
    output.result(&site, text)
}

fn configuration(hostname: &Domain) -> String {
    let set = [
        ("node.hostname", format!("\"{hostname}\"")),
        ("node.data_dir", "\"data\"".to_owned()),
        ("storage.key_file", "\"storage.keys\"".to_owned()),
        ("tls.certificate", format!("\"{}\"", posthouse_net::certificate::CERTIFICATE_FILE)),
        ("tls.private_key", format!("\"{}\"", posthouse_net::certificate::PRIVATE_KEY_FILE)),
    ];
    let head = "# Posthouse. Keys with a # before them are at their defaults.\n\
        # The certificate is signed by a CA of this site's own (ca.pem): replace it by one that the world trusts.\n\n";
    format!("{head}{}", posthouse_conf::commented(&set))
}

/// Makes the store with its first domain and administrator.
async fn found(config: PathBuf, domain: &Domain) -> anyhow::Result<NewSite> {
    let settings = site::load(&config)?;
    std::fs::create_dir_all(&settings.node.data_dir)?;
    let node = Node::start(settings).await?;
    let admin = node.admin();
    let run = async |request| admin.run(request, &|_, _, _| {}).await.map_err(anyhow::Error::msg);
    let address = format!("admin@{domain}");
    let password: String = rand::rng().sample_iter(Alphanumeric).take(20).map(char::from).collect();
    let founded = async {
        let _: Value = run(AdminRequest::DomainCreate { name: domain.to_string() }).await?;
        let create = AdminRequest::AccountCreate {
            address: address.clone(),
            password: password.clone(),
            quota: None,
            admin: true,
        };
        run(create).await?;
        let dns = run(AdminRequest::DomainDns { name: domain.to_string() }).await?;
        anyhow::Ok(serde_json::from_value::<Vec<DnsRecordView>>(dns)?)
    }
    .await;
    node.stop().await;
    Ok(NewSite { config, admin: address, password, dns: founded? })
}

fn text(site: &NewSite) -> String {
    format!(
        "configuration  {config}\nadministrator  {admin}\npassword       {password}\n\npublish these records:\n\n{zone}\nthen: posthouse serve --config {config}",
        config = site.config.display(),
        admin = site.admin,
        password = site.password,
        zone = domain::zone(&site.dns),
    )
}
