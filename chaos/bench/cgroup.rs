//! CPU time of a process and all that it started, counted by the kernel: a group of `cpuacct` (v1) or of the unified tree (v2).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

/// One accounting group; removed when dropped, after its processes have ended.
pub struct CpuGroup {
    dir: PathBuf,
    unified: bool,
}

impl CpuGroup {
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let v1 = Path::new("/sys/fs/cgroup/cpuacct");
        let unified = !v1.is_dir();
        let root = if unified { Path::new("/sys/fs/cgroup") } else { v1 };
        let dir = root.join(format!("posthouse-bench-{}-{name}", std::process::id()));
        std::fs::create_dir(&dir).with_context(|| format!("{}: CPU accounting needs root", dir.display()))?;
        Ok(Self { dir, unified })
    }

    /// Starts a command inside the group; where its standard error goes, no command can be asked.
    pub fn spawn(&self, command: &mut Command, errors: Stdio) -> anyhow::Result<Child> {
        let mut shell = self.inside(command);
        shell.stdin(Stdio::null()).stderr(errors);
        shell.spawn().with_context(|| format!("{:?}", command.get_program()))
    }

    /// The command as it starts inside the group.
    pub fn inside(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("echo $$ > \"$0\"/cgroup.procs && exec \"$@\"").arg(&self.dir);
        shell.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        shell
    }

    /// CPU time used so far by everything in the group.
    pub fn used(&self) -> anyhow::Result<Duration> {
        if !self.unified {
            let nanos = std::fs::read_to_string(self.dir.join("cpuacct.usage"))?;
            return Ok(Duration::from_nanos(nanos.trim().parse()?));
        }
        let stat = std::fs::read_to_string(self.dir.join("cpu.stat"))?;
        let micros =
            stat.lines().find_map(|line| line.strip_prefix("usage_usec ")).context("cpu.stat has no usage_usec")?;
        Ok(Duration::from_micros(micros.parse()?))
    }
}

impl Drop for CpuGroup {
    fn drop(&mut self) {
        // Processes that are still there keep the group; it is empty after a moment, and harmless if it stays.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
