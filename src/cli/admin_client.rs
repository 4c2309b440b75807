//! Sends a command to the running node over its admin socket; where none runs, works on the store itself.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use posthouse_actors::admin::{AdminLine, AdminRequest};
use posthouse_actors::node::Node;
use posthouse_conf::Settings;
use posthouse_net::local_socket::{self, AdminStream};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::output::Output;
use super::{SiteArgs, site};

/// Between two looks whether another process has taken the place of the one that ended.
const PAUSE: Duration = Duration::from_millis(50);
/// What a node may take to end beyond `node.drain_limit`.
const CLOSING_MAX: Duration = Duration::from_secs(60);

/// Runs one request and returns its result.
pub async fn ask<T: DeserializeOwned>(site: &SiteArgs, request: AdminRequest, output: Output) -> anyhow::Result<T> {
    let settings = site::settings(site)?;
    let value = match local_socket::connect(&settings.node.data_dir).await {
        Ok(mut stream) => over_socket(&mut stream, &request, output).await?,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            on_stopped_node(settings, request, output).await?
        }
        Err(error) => return Err(error).context("the admin socket cannot be reached"),
    };
    serde_json::from_value(value).context("the node answered in a form that this version does not know")
}

/// Runs a request that ends the node, and returns when it has ended.
pub async fn ask_to_the_end(site: &SiteArgs, request: AdminRequest, output: Output) -> anyhow::Result<Value> {
    let settings = site::settings(site)?;
    let dir = &settings.node.data_dir;
    let mut stream = local_socket::connect(dir).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => nobody(&settings),
        _ => anyhow::Error::new(error).context("the admin socket cannot be reached"),
    })?;
    let answer = over_socket(&mut stream, &request, output).await?;
    let ended = async {
        // The connection ends with the process. In the middle of an upgrade another one may have taken its place.
        let mut stream = Ok(stream);
        while let Ok(open) = &mut stream {
            let _ = tokio::io::copy(open, &mut tokio::io::sink()).await;
            tokio::time::sleep(PAUSE).await;
            stream = local_socket::connect(dir).await;
        }
    };
    let limit = settings.node.drain_limit.get() + CLOSING_MAX;
    let in_time = tokio::time::timeout(limit, ended).await;
    in_time.with_context(|| format!("the node is told to end, and has not ended within {limit:?}"))?;
    Ok(answer)
}

async fn over_socket(stream: &mut AdminStream, request: &AdminRequest, output: Output) -> anyhow::Result<Value> {
    let (read, mut write) = stream.split();
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

fn nobody(settings: &Settings) -> anyhow::Error {
    anyhow::anyhow!("no node is running on {}", settings.node.data_dir.display())
}

/// Opens the store without listeners, for as long as the command takes.
async fn on_stopped_node(settings: Arc<Settings>, request: AdminRequest, output: Output) -> anyhow::Result<Value> {
    use AdminRequest::{Drain, Status, Stop, Upgrade};
    if matches!(request, Status | Stop | Drain { .. } | Upgrade { .. }) {
        return Err(nobody(&settings));
    }
    anyhow::ensure!(settings.node.data_dir.is_dir(), "there is no store at {}", settings.node.data_dir.display());
    let node = Node::start_for_a_command(settings).await?;
    let answer = node.admin().run(request, &|done, total, what| output.progress(done, total, what)).await;
    node.stop().await;
    answer.map_err(|reason| anyhow::anyhow!(reason))
}
