//! A FoundationDB cluster of its own on loopback: started for tests and chaos runs, stopped with them, never anybody's own.
//!
//! FoundationDB is not part of this tree. Its server and its library are taken from the folder `FDB_BIN` and the file
//! `FDB_CLIENT_LIB`, else from where FoundationDB's packages put them. The tests of the engine use this file too.

use std::io::{Error, ErrorKind, Result};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a cluster may take until it has taken its configuration.
const START_MAX: Duration = Duration::from_secs(120);

/// Servers, one process each; dropped, they are killed and their data is gone.
pub struct Cluster {
    servers: Vec<Server>,
    dir: TempDir,
}

struct Server {
    address: SocketAddr,
    child: Option<Child>,
}

/// FoundationDB's client library.
pub fn client_library() -> Result<PathBuf> {
    let places = ["/usr/lib/libfdb_c.so", "/usr/lib64/libfdb_c.so", "/usr/local/lib/libfdb_c.so"];
    find("FDB_CLIENT_LIB", std::env::var_os("FDB_CLIENT_LIB").map(PathBuf::from), &places)
}

fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::var_os("FDB_BIN").map(|folder| Path::new(&folder).join(name));
    find(
        "FDB_BIN",
        own,
        &[&format!("/usr/sbin/{name}"), &format!("/usr/bin/{name}"), &format!("/usr/local/bin/{name}")],
    )
}

/// What the server calls itself.
pub fn version() -> Result<String> {
    let output = Command::new(program("fdbserver")?).arg("--version").stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn find(variable: &str, own: Option<PathBuf>, places: &[&str]) -> Result<PathBuf> {
    let candidates = own.map_or_else(|| places.iter().map(PathBuf::from).collect(), |path| vec![path]);
    let missing = || {
        let text =
            format!("FoundationDB is not installed here and {variable} does not name it; looked for {candidates:?}");
        Error::new(ErrorKind::NotFound, text)
    };
    candidates.iter().find(|path| path.exists()).cloned().ok_or_else(missing)
}

/// Addresses that nobody has at the moment, below the ports that the system gives to clients: a killed server must find its
/// own free again. All are held at once, so that no two are the same.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>> {
    let drawn = (0..1000).map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, rand::random_range(20_000..32_000))));
    let held: Vec<_> = drawn.filter_map(|address| TcpListener::bind(address).ok()).take(count).collect();
    held.iter().map(TcpListener::local_addr).collect()
}

impl Cluster {
    /// Starts so many servers that each hold a coordinator, and waits until they serve. Three keep every row on two of them,
    /// so that any one may be lost.
    pub fn start(count: usize) -> Result<Self> {
        let addresses = free_addresses(count)?;
        let dir = tempfile::Builder::new().prefix("fdb-").tempdir()?;
        let coordinators = addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        std::fs::write(dir.path().join("fdb.cluster"), format!("test:test@{coordinators}\n"))?;
        let servers = addresses.into_iter().map(|address| Server { address, child: None }).collect();
        let mut cluster = Self { servers, dir };
        for number in 0..count {
            cluster.start_server(number)?;
        }
        cluster.configure(if count < 3 { "single" } else { "double" })?;
        Ok(cluster)
    }

    pub fn cluster_file(&self) -> PathBuf {
        self.dir.path().join("fdb.cluster")
    }

    /// Starts a server, anew after it was killed.
    pub fn start_server(&mut self, number: usize) -> Result<()> {
        let address = self.servers[number].address;
        let place = |what: &str| self.dir.path().join(format!("{what}-{number}"));
        for folder in [place("data"), place("log")] {
            std::fs::create_dir_all(folder)?;
        }
        let mut command = Command::new(program("fdbserver")?);
        command.arg("--cluster-file").arg(self.cluster_file()).arg("--public-address").arg(address.to_string());
        command.arg("--datadir").arg(place("data")).arg("--logdir").arg(place("log"));
        // Each counts as a machine of its own, else nothing could be kept twice.
        command.args([format!("--locality-machineid=m{number}"), format!("--locality-zoneid=z{number}")]);
        command.args(["--memory", "4GiB", "--cache-memory", "256MiB"]);
        // It ends with us, also when we are killed.
        command.arg("--parentpid").arg(std::process::id().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.servers[number].child = Some(command.spawn()?);
        Ok(())
    }

    /// Ends a server as a power cut would: it gets no chance to finish anything.
    pub fn kill_server(&mut self, number: usize) -> Result<()> {
        if let Some(mut child) = self.servers[number].child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn configure(&self, redundancy: &str) -> Result<()> {
        let until = Instant::now() + START_MAX;
        loop {
            let said = self.ask(&format!("configure new {redundancy} ssd"))?;
            // A first try whose answer was lost has made the database.
            if said.contains("Database created") || said.contains("Database already exists") {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(Error::new(ErrorKind::TimedOut, format!("the cluster was not configured: {said}")));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What FoundationDB's command line says to a command.
    pub fn ask(&self, command: &str) -> Result<String> {
        let mut program = Command::new(program("fdbcli")?);
        program.arg("-C").arg(self.cluster_file()).args(["--timeout", "10", "--exec", command]);
        let output = program.stdin(Stdio::null()).output()?;
        Ok([output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for number in 0..self.servers.len() {
            // Gone already is gone too.
            let _ = self.kill_server(number);
        }
    }
}
