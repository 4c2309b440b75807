//! moto's S3 with the bucket `mail`, for tests of what lies in an object store; ends with the test that started it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use super::client::Client;

/// A running server.
pub struct Moto {
    child: Child,
    pub endpoint: String,
}

impl Moto {
    pub fn start() -> Self {
        let mut command = Command::new("moto_server");
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("moto_server: {error}; .ci/run installs it"));
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        let running = lines.find_map(|line| Some(line.split_once("Running on ")?.1.trim().to_owned()));
        let endpoint = running.expect("it says where it listens");
        // It writes a line for each request.
        std::thread::spawn(move || lines.for_each(drop));
        let moto = Self { child, endpoint };
        moto.make_bucket();
        moto
    }

    fn make_bucket(&self) {
        let port = self.endpoint.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("a port");
        let mut http = Client::connect(port);
        http.send_raw(b"PUT /mail HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let status = http.line();
        assert!(status.contains(" 200 "), "{status}");
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
