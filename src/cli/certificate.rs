//! `posthouse certificate`: the pair with which a node shows itself to the other nodes of its cluster.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::output::Output;

#[derive(Args)]
pub struct CertificateArgs {
    /// Host names or addresses by which other nodes reach this one.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// The folder of the cluster's own authority; made at the first use. Whoever has its key can make nodes.
    #[arg(long, value_name = "DIR", default_value = "posthouse-authority")]
    authority: PathBuf,
    /// Where the node's ca.pem, cert.pem and key.pem go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// What the node's configuration names.
#[derive(Serialize)]
struct Made {
    ca: PathBuf,
    certificate: PathBuf,
    private_key: PathBuf,
}

pub fn run(arguments: CertificateArgs, output: Output) -> anyhow::Result<ExitCode> {
    let CertificateArgs { names, authority, out } = arguments;
    let files = posthouse_net::certificate::issue_node(&authority, &out, &names).context("the node's certificate")?;
    let made = Made { ca: files.ca, certificate: files.certificate, private_key: files.private_key };
    output.result(&made, |made| {
        let Made { ca, certificate, private_key } = made;
        let (ca, certificate, private_key) = (ca.display(), certificate.display(), private_key.display());
        format!("ca = \"{ca}\"\ncertificate = \"{certificate}\"\nprivate_key = \"{private_key}\"")
    })
}
