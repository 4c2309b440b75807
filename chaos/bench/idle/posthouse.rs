//! The built program as the server to be measured.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::io::AsyncWriteExt as _;

use super::client::Place;
use super::{IdleArgs, Subject};
use crate::server::{Plan, Server, free_port_offset};

const IMAPS: u16 = 2993;
const METRICS: u16 = 2090;

pub struct Posthouse {
    plan: Plan,
    pid: u32,
    accounts: usize,
    /// Ends it.
    _server: Server,
}

impl Posthouse {
    pub async fn start(arguments: &IdleArgs, folder: &Path) -> anyhow::Result<Self> {
        let plan = Plan {
            program: arguments.program.path()?,
            data: folder.to_owned(),
            port_offset: free_port_offset()?,
            environment: vec![
                ("POSTHOUSE_NODE__SLEEP_AFTER".to_owned(), format!("{}s", arguments.sleep_after)),
                ("POSTHOUSE_LIMITS__CONNECTIONS_MAX".to_owned(), "1000000".to_owned()),
            ],
        };
        let mut server = plan.start()?;
        tokio::task::block_in_place(|| server.wait_ready())?;
        let pid = plan.json(&["status"])?["pid"].as_u64().context("the server has no pid")?;
        let started = Self { plan, pid: u32::try_from(pid)?, accounts: arguments.accounts, _server: server };
        for account in 0..arguments.accounts {
            started.make_account(&started.place().user(account)).await?;
        }
        Ok(started)
    }

    async fn make_account(&self, address: &str) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::new(&self.plan.program);
        command.args(["account", "create", address, "--password-stdin", "--data"]).arg(&self.plan.data);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        child.stdin.take().context("a pipe")?.write_all(b"demo\n").await?;
        ensure!(child.wait().await?.success(), "{address} was not made");
        Ok(())
    }
}

impl Subject for Posthouse {
    fn place(&self) -> Place {
        Place { address: self.plan.address(IMAPS), domain: "demo.test", password: "demo" }
    }

    fn processes(&self) -> anyhow::Result<Vec<u32>> {
        Ok(vec![self.pid])
    }

    fn asleep(&self, _open: usize) -> anyhow::Result<usize> {
        let mut metrics = TcpStream::connect(self.plan.address(METRICS))?;
        metrics.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        metrics.read_to_string(&mut text)?;
        let line = text.lines().find_map(|line| line.strip_prefix("sessions_asleep{protocol=\"imaps\"} "));
        line.context("no such metric")?.parse().context("a number")
    }

    fn sleepers(&self, sessions: usize) -> usize {
        sessions + self.accounts
    }

    fn name(&self) -> &'static str {
        "posthouse"
    }
}
