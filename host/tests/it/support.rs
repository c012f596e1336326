//! A running host, servers to relay to, and waiting.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Far beyond what anything takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives something.
pub(crate) fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A running `cocoon-host`; killed when dropped.
pub(crate) struct Host {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
}

impl Host {
    pub(crate) fn start<S: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(command)
    }

    /// A relay on any free port, with metrics.
    pub(crate) fn relay(upstreams: &[SocketAddr], more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cocoon-host"));
        command.args(["relay", "--listen", &format!("{}:0", own_loopback()), "--metrics", "127.0.0.1:0"]);
        for upstream in upstreams {
            command.args(["--upstream", &upstream.to_string()]);
        }
        command.args(more);
        Self::spawn(command)
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cocoon-host starts");
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.lock().unwrap().clone()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Where it serves clients, once it does.
    pub(crate) fn ready(&mut self) -> SocketAddr {
        until("`ready` on stdout", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}, {}", self.stderr());
            self.stdout().lines().next()?.strip_prefix("ready ")?.parse().ok()
        })
    }

    pub(crate) fn metrics_address(&self) -> SocketAddr {
        until("the metrics address on stderr", || {
            let stderr = self.stderr();
            let url = stderr.lines().find_map(|l| l.strip_prefix("metrics at http://"))?;
            url.strip_suffix("/metrics")?.parse().ok()
        })
    }

    /// The whole metrics page.
    pub(crate) fn metrics(&self) -> String {
        http(self.metrics_address(), "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    }

    /// The value of one sample, named as on the page.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let page = self.metrics();
        let value = page.lines().find_map(|l| l.strip_prefix(&format!("cocoon_host_{name} ")));
        value.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    pub(crate) fn await_metric(&self, name: &str, wanted: impl Fn(u64) -> bool) {
        until(name, || wanted(self.metric(name)).then_some(()));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// The exit status, once it has ended by itself.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        until("the host to end", || self.child.try_wait().unwrap())
    }

    /// The exit code and all of stderr, once it has ended by itself. `last` must come, and nothing that matters comes after it.
    pub(crate) fn ended_saying(&mut self, last: &str) -> i32 {
        let code = self.ended().code().expect("an exit code");
        until(last, || self.stderr().contains(last).then_some(()));
        code
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn collect(from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let into = Arc::clone(&text);
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    });
    text
}

/// Writes a shell script that can be executed; `$me` is its path.
pub(crate) fn script(at: &Path, text: &str) {
    // By another program, because a file that this one has open for writing while another thread forks cannot be executed.
    let mut writer = Command::new("/bin/sh")
        .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
        .arg(at)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("#!/bin/sh\nme=\"$0\"\n{text}\n");
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

/// A client of the relay, which gives up rather than hang.
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    patient(TcpStream::connect(to).expect("the relay accepts"))
}

pub(crate) fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether nobody listens there: not even the kernel on behalf of somebody who does not accept.
pub(crate) fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, PATIENCE).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}

/// Whether a message makes it to an echo server and back.
pub(crate) fn echoes(stream: &mut TcpStream) -> bool {
    let message = *b"are you there?";
    let mut answer = [0; 14];
    stream.write_all(&message).is_ok() && stream.read_exact(&mut answer).is_ok() && answer == message
}

/// Reads to the end, which may be a reset.
pub(crate) fn wait_for_end(stream: &mut TcpStream) {
    let start = Instant::now();
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
    assert!(start.elapsed() < PATIENCE, "the connection stayed open");
}

/// A listener for one test to accept on.
pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An address where nobody listens, and where no other test can come to listen.
pub(crate) fn dead_address() -> SocketAddr {
    SocketAddr::new(own_loopback().into(), 8443)
}

/// A loopback address that only the caller uses, so that its ports are not taken again by a test that runs beside it.
pub(crate) fn own_loopback() -> Ipv4Addr {
    static USED: AtomicU16 = AtomicU16::new(1);
    let [high, low] = USED.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, 77, high, low)
}

/// A server that sends back what it gets, for as long as the test program runs.
pub(crate) fn echo_server() -> SocketAddr {
    let (listener, address) = listener();
    serve_echo(listener);
    address
}

pub(crate) fn serve_echo(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let (mut reader, mut writer) = (&stream, &stream);
                let _ended = std::io::copy(&mut reader, &mut writer);
                let _ended = stream.shutdown(Shutdown::Write);
            });
        }
    });
}

/// Sends a request as it stands and gives the whole response.
pub(crate) fn http(to: SocketAddr, request: &str) -> String {
    let mut stream = connect(to);
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    response
}

/// Bytes without a pattern (xorshift64*).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}
