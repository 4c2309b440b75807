//! `posthouse domain create|list|show|set|delete|dns|rotate-keys|remove-key`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use posthouse_actors::admin::{AdminRequest, DnsRecordView, DomainChange, DomainView};
use serde_json::Value;

use super::output::{self, Output};
use super::{SiteArgs, admin_client};

#[derive(Args)]
pub struct DomainArgs {
    #[command(flatten)]
    site: SiteArgs,
    #[command(subcommand)]
    verb: DomainVerb,
}

#[derive(Subcommand)]
enum DomainVerb {
    /// Take mail for a domain; its DKIM keys are made at once.
    Create { name: String },
    /// List local domains.
    List,
    /// Show a domain.
    Show { name: String },
    /// Change a domain; an empty value removes a setting.
    Set {
        name: String,
        /// The address that gets mail for unknown local parts.
        #[arg(long)]
        catch_all: Option<String>,
    },
    /// Stop taking mail for a domain; it must have no accounts left.
    Delete { name: String },
    /// Print the DNS records to publish: MX, SPF, DKIM, DMARC.
    Dns { name: String },
    /// Make further DKIM keys; they sign after `dkim.activation_delay`, so publish their records (`domain dns`) before.
    RotateKeys { name: String },
    /// Remove a DKIM key, once mail signed with it has arrived everywhere.
    RemoveKey { name: String, selector: String },
}

pub async fn run(arguments: DomainArgs, output: Output) -> anyhow::Result<ExitCode> {
    let site = &arguments.site;
    let request = match arguments.verb {
        DomainVerb::List => {
            let domains: Vec<DomainView> = admin_client::ask(site, AdminRequest::DomainList, output).await?;
            return output.result(&domains, |domains| list(domains));
        }
        DomainVerb::Delete { name } => {
            let shown = name.clone();
            let done: Value = admin_client::ask(site, AdminRequest::DomainDelete { name }, output).await?;
            return output.result(&done, |_| format!("deleted {shown}"));
        }
        DomainVerb::Dns { name } => {
            let records: Vec<DnsRecordView> = admin_client::ask(site, AdminRequest::DomainDns { name }, output).await?;
            return output.result(&records, |records| zone(records));
        }
        DomainVerb::RotateKeys { name } => AdminRequest::DomainRotateKeys { name },
        DomainVerb::RemoveKey { name, selector } => AdminRequest::DomainRemoveKey { name, selector },
        DomainVerb::Create { name } => AdminRequest::DomainCreate { name },
        DomainVerb::Show { name } => AdminRequest::DomainShow { name },
        DomainVerb::Set { name, catch_all } => AdminRequest::DomainSet { name, change: DomainChange { catch_all } },
    };
    let domain: DomainView = admin_client::ask(site, request, output).await?;
    output.result(&domain, |domain| list(std::slice::from_ref(domain)))
}

fn list(domains: &[DomainView]) -> String {
    let row = |domain: &DomainView| {
        let keys: Vec<String> = domain.dkim.iter().map(|key| format!("{} ({})", key.selector, key.algorithm)).collect();
        let shown = |setting: &Option<String>| setting.clone().unwrap_or_else(|| "-".to_owned());
        vec![domain.name.clone(), keys.join(", "), shown(&domain.catch_all)]
    };
    let rows: Vec<Vec<String>> = domains.iter().map(row).collect();
    output::table(&["domain", "DKIM keys", "catch-all"], &rows)
}

/// Lines of a zone file. A TXT value is cut into strings of at most 255 octets (RFC 1035 §3.3.14).
pub fn zone(records: &[DnsRecordView]) -> String {
    let line = |record: &DnsRecordView| {
        let value = match record.kind.as_str() {
            "TXT" => strings(&record.value),
            _ => record.value.clone(),
        };
        format!("{}. IN {} {value}\n", record.name, record.kind)
    };
    records.iter().map(line).collect()
}

fn strings(value: &str) -> String {
    let pieces: Vec<String> = value
        .as_bytes()
        .chunks(255)
        .map(|piece| format!("\"{}\"", String::from_utf8_lossy(piece).replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    pieces.join(" ")
}
