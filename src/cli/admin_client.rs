//! Sends a command to the running node over its admin socket; where none runs, works on the store itself.

use std::io::ErrorKind;
use std::sync::Arc;

use anyhow::Context as _;
use posthouse_actors::admin::{AdminLine, AdminRequest};
use posthouse_actors::node::Node;
use posthouse_conf::Settings;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::output::Output;
use super::{SiteArgs, site};

/// Runs one request and returns its result.
pub async fn ask<T: DeserializeOwned>(site: &SiteArgs, request: AdminRequest, output: Output) -> anyhow::Result<T> {
    let settings = site::settings(site)?;
    let value = match posthouse_net::local_socket::connect(&settings.node.data_dir).await {
        Ok(stream) => over_socket(stream, &request, output).await?,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            on_stopped_node(settings, request, output).await?
        }
        Err(error) => return Err(error).context("the admin socket cannot be reached"),
    };
    serde_json::from_value(value).context("the node answered in a form that this version does not know")
}

async fn over_socket(
    stream: posthouse_net::local_socket::AdminStream,
    request: &AdminRequest,
    output: Output,
) -> anyhow::Result<serde_json::Value> {
    let (read, mut write) = stream.into_split();
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    write.write_all(&line).await.context("the node closed the admin socket")?;
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        match serde_json::from_str(&line)? {
            AdminLine::Progress { done, total, what } => output.progress(done, total, &what),
            AdminLine::Done(value) => return Ok(value),
            AdminLine::Failed(reason) => anyhow::bail!(reason),
        }
    }
    anyhow::bail!("the node closed the admin socket before it answered")
}

/// Opens the store without listeners, for as long as the command takes.
async fn on_stopped_node(
    settings: Arc<Settings>,
    request: AdminRequest,
    output: Output,
) -> anyhow::Result<serde_json::Value> {
    use AdminRequest::{Drain, Status, Stop, Upgrade};
    if matches!(request, Status | Stop | Drain { .. } | Upgrade { .. }) {
        anyhow::bail!("no node is running on {}", settings.node.data_dir.display());
    }
    anyhow::ensure!(settings.node.data_dir.is_dir(), "there is no store at {}", settings.node.data_dir.display());
    let node = Node::start_for_a_command(settings).await?;
    let answer = node.admin().run(request, &|done, total, what| output.progress(done, total, what)).await;
    node.stop().await;
    answer.map_err(|reason| anyhow::anyhow!(reason))
}
