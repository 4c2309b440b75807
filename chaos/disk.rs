//! A file system of its own, in a file or in memory: something to cut the power of, to fill, or to count the writes of.
//!
//! Needs root and mount; one in a file also losetup and mkfs.ext4.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// Octets of the sectors that the kernel counts in.
const SECTOR: u64 = 512;

/// An image and the loop device on it; detached when dropped.
pub struct Disk {
    device: String,
    mount: PathBuf,
}

/// Where it is mounted; unmounted when dropped.
pub struct Mounted(pub PathBuf);

impl Disk {
    /// Makes an empty one. Its writes go to the image at once, not by way of the memory of the machine's own file system.
    pub fn make(lab: &Path, octets: u64) -> anyhow::Result<Self> {
        let (image, mount) = (lab.join("image"), lab.join("mount"));
        fs::create_dir(&mount)?;
        fs::File::create(&image)?.set_len(octets)?;
        tool("mkfs.ext4", &["-q", "-F", &image.to_string_lossy()])?;
        let device = tool("losetup", &["--find", "--show", "--direct-io=on", &image.to_string_lossy()])?;
        Ok(Self { device: device.trim().to_owned(), mount })
    }

    pub fn mount(&self) -> anyhow::Result<Mounted> {
        tool("mount", &[&self.device, &self.mount.to_string_lossy()])?;
        Ok(Mounted(self.mount.clone()))
    }

    /// Octets that were written to the device since it was made.
    pub fn written(&self) -> anyhow::Result<u64> {
        let name = self.device.trim_start_matches("/dev/");
        let counters = fs::read_to_string(format!("/sys/block/{name}/stat"))?;
        let sectors = counters.split_whitespace().nth(6).context("the kernel counts sectors written")?;
        Ok(sectors.parse::<u64>()? * SECTOR)
    }
}

/// Mounts a file system in memory of so many octets.
pub fn mount_memory(lab: &Path, octets: u64) -> anyhow::Result<Mounted> {
    let mount = lab.join("mount");
    fs::create_dir(&mount)?;
    tool("mount", &["-t", "tmpfs", "-o", &format!("size={octets}"), "tmpfs", &mount.to_string_lossy()])?;
    Ok(Mounted(mount))
}

/// A file that takes room away from others.
pub struct Ballast {
    file: fs::File,
    size: u64,
}

impl Ballast {
    pub fn new(mount: &Path) -> anyhow::Result<Self> {
        Ok(Self { file: fs::File::create(mount.join("ballast"))?, size: 0 })
    }

    /// Takes all that is left, then gives so many octets back.
    pub fn leave(&mut self, octets: u64) -> anyhow::Result<()> {
        let zeros = vec![0; 64 << 10];
        loop {
            match self.file.write_at(&zeros, self.size) {
                Ok(0) => break,
                Ok(written) => self.size += written as u64,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.give_back(octets)
    }

    /// Gives so many octets back.
    pub fn give_back(&mut self, octets: u64) -> anyhow::Result<()> {
        ensure!(self.size > octets, "the file system is too small for what it holds by now");
        self.size -= octets;
        Ok(self.file.set_len(self.size)?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = tool("losetup", &["--detach", &self.device]) {
            eprintln!("{error:#}");
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = tool("umount", &[&self.0.to_string_lossy()]) {
            eprintln!("{error:#}");
        }
    }
}

/// Runs a tool that must succeed and returns what it printed.
pub fn tool(name: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(name).args(arguments).output().with_context(|| format!("running {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
