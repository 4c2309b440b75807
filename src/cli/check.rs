//! `posthouse check`: the configuration and what it needs from outside, or with `--store` the store itself.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use posthouse_actors::admin::{AdminRequest, CheckView, FindingView, RepairView};
use posthouse_conf::Settings;
use posthouse_mail::Domain;
use posthouse_net::resolver::{Answer, Resolver};
use posthouse_storage::gate::Formats;
use serde::Serialize;

use super::output::Output;
use super::{SiteArgs, admin_client, site};

#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    site: SiteArgs,
    /// Walk the store and prove its invariants; works on a running node too.
    #[arg(long)]
    store: bool,
    /// With --store: prove the rows only and leave the bodies unread.
    #[arg(long, requires = "store")]
    quick: bool,
    /// With --store, on a stopped node: mend what other rows tell, and say what was done.
    #[arg(long, requires = "store", conflicts_with = "quick")]
    repair: bool,
}

/// One thing that was looked at.
#[derive(Serialize)]
struct Finding {
    what: &'static str,
    ok: bool,
    detail: String,
}

pub async fn run(arguments: CheckArgs, output: Output) -> anyhow::Result<ExitCode> {
    if arguments.repair {
        return repair_store(&arguments, output).await;
    }
    if arguments.store {
        return check_store(&arguments, output).await;
    }
    let settings = site::settings(&arguments.site)?;
    let running = posthouse_net::local_socket::connect(&settings.node.data_dir).await.is_ok();
    let mut findings =
        vec![Finding { what: "configuration", ok: true, detail: "every key is known and valid".to_owned() }];
    findings.push(formats(&settings));
    findings.push(certificate(&settings));
    findings.extend(ports(&settings, running));
    findings.push(hostname(&settings).await);
    findings.push(folder(&settings, running));
    let whole = findings.iter().all(|finding| finding.ok);
    output.result(&findings, |findings| {
        let line = |f: &Finding| format!("{:<5} {:<14} {}", if f.ok { "ok" } else { "FAIL" }, f.what, f.detail);
        findings.iter().map(line).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn check_store(arguments: &CheckArgs, output: Output) -> anyhow::Result<ExitCode> {
    let request = AdminRequest::CheckStore { bodies: !arguments.quick };
    let check: CheckView = admin_client::ask(&arguments.site, request, output).await?;
    let whole = check.whole;
    output.result(&check, |check| {
        let mut lines: Vec<String> = check.findings.iter().map(finding).collect();
        let CheckView { accounts, emails, bodies, spooled, queued, laid_aside, .. } = check;
        if *laid_aside > 0 {
            lines.push(format!("{laid_aside} rows that a repair could not read are laid aside"));
        }
        let walked = format!(
            "{accounts} accounts, {emails} messages, {bodies} bodies, {spooled} in the spool, {queued} in the queue"
        );
        lines.push(match (check.whole, check.truncated) {
            (true, _) => format!("the store is whole: {walked}"),
            (false, more) => {
                let count = check.findings.len();
                format!("the store is damaged: {count} findings{}; {walked}", if more { " and more" } else { "" })
            }
        });
        lines.join("\n")
    })?;
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn finding(finding: &FindingView) -> String {
    let FindingView { rule, place, detail, remedy } = finding;
    format!("{rule}: {place}: {detail}; {remedy}")
}

async fn repair_store(arguments: &CheckArgs, output: Output) -> anyhow::Result<ExitCode> {
    let repair: RepairView = admin_client::ask(&arguments.site, AdminRequest::RepairStore, output).await?;
    output.result(&repair, |repair| {
        let mended = repair.mended.iter().map(|mended| format!("mended: {}: {}", mended.place, mended.what));
        let left = repair.findings.iter().map(|left| format!("left: {}", finding(left)));
        let end = match (repair.whole, repair.mended.len()) {
            (true, 0) => "the store is whole: there was nothing to mend".to_owned(),
            (true, count) => format!("the store is whole again: {count} things mended"),
            (false, count) => format!("{count} things mended, {} left", repair.findings.len()),
        };
        mended.chain(left).chain([end]).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if repair.whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn formats(settings: &Settings) -> Finding {
    let what = "formats";
    match Formats::up_to(settings.cluster.format_max) {
        Ok(formats) => Finding { what, ok: true, detail: format!("reads {} to {}", formats.min, formats.max) },
        Err(error) => Finding { what, ok: false, detail: error.to_string() },
    }
}

fn certificate(settings: &Settings) -> Finding {
    let what = "certificate";
    if settings.tls.certificate.as_os_str().is_empty() {
        let detail = "none: ports with TLS stay closed; set tls.certificate and tls.private_key".to_owned();
        return Finding { what, ok: false, detail };
    }
    match posthouse_net::tls::Acceptor::load(&settings.tls) {
        Ok(_) => Finding { what, ok: true, detail: settings.tls.certificate.display().to_string() },
        Err(error) => Finding { what, ok: false, detail: error.to_string() },
    }
}

fn ports(settings: &Settings, running: bool) -> Vec<Finding> {
    let listen = &settings.listen;
    let all = [
        &listen.smtp,
        &listen.submission,
        &listen.submissions,
        &listen.imap,
        &listen.imaps,
        &listen.pop3,
        &listen.pop3s,
        &listen.metrics,
        &settings.storage.serve.listen,
    ];
    let addresses = all.into_iter().flatten();
    if running {
        let detail = format!("{} addresses, held by the running node", addresses.count());
        return vec![Finding { what: "ports", ok: true, detail }];
    }
    let looked = |address: &std::net::SocketAddr| match posthouse_net::listener::probe(*address) {
        Ok(()) => Finding { what: "port", ok: true, detail: address.to_string() },
        Err(error) => Finding { what: "port", ok: false, detail: error.to_string() },
    };
    addresses.map(looked).collect()
}

async fn hostname(settings: &Arc<Settings>) -> Finding {
    let what = "hostname";
    let name = &settings.node.hostname;
    let looked = match (Domain::parse(name), Resolver::new(&settings.resolver)) {
        (Ok(domain), Ok(resolver)) => resolver.addresses(&domain).await.map_err(|error| error.to_string()),
        (_, Err(error)) => Err(error.to_string()),
        (Err(error), _) => Err(error.to_string()),
    };
    match looked {
        Ok(Answer::Found(addresses)) => {
            Finding { what, ok: true, detail: format!("{name} has {} addresses", addresses.len()) }
        }
        Ok(_) => Finding { what, ok: false, detail: format!("{name} has no A or AAAA record; publish one") },
        Err(reason) => Finding { what, ok: false, detail: format!("{name}: {reason}; publish its A or AAAA record") },
    }
}

fn folder(settings: &Settings, running: bool) -> Finding {
    let what = "store";
    let dir = &settings.node.data_dir;
    if running {
        return Finding { what, ok: true, detail: format!("{}, in use by the running node", dir.display()) };
    }
    match std::fs::metadata(dir) {
        Ok(meta) if meta.is_dir() && !meta.permissions().readonly() => {
            Finding { what, ok: true, detail: dir.display().to_string() }
        }
        Ok(_) => Finding { what, ok: false, detail: format!("{} cannot be written to", dir.display()) },
        Err(error) => Finding { what, ok: false, detail: format!("{}: {error}", dir.display()) },
    }
}
