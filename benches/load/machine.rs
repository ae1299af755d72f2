//! Processes under test: started on a processor of their own where that can be had, measured through `/proc`, ended with the
//! value that holds them.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

/// How long a program may take until it listens.
const PATIENCE: Duration = Duration::from_secs(20);

/// The processor of what is measured, and that of all else: load, upstream and store.
pub const MEASURED: usize = 0;
pub const AROUND: usize = 1;

/// A program that runs.
pub struct Process(Child);

/// What a program has used so far.
#[derive(Clone, Copy, Default)]
pub struct Usage {
    /// Time on a processor, user's and system's, of all its threads, in nanoseconds.
    pub cpu: u64,
    /// Resident memory in bytes.
    pub resident: u64,
}

impl Process {
    /// Starts `command` on one processor, and waits until it listens on `port`.
    pub async fn start(command: &[impl AsRef<str>], processor: usize, port: u16) -> Self {
        let command: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
        let (program, arguments) = command.split_first().expect("a program");
        let (mut started, command) = (pinned(program, processor), command.join(" "));
        let started = started.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Self(started.spawn().expect("a program that can be started"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let listening = async {
            while TcpStream::connect(address).await.is_err() {
                assert!(matches!(process.0.try_wait(), Ok(None)), "{command} ended, and should listen on {port}");
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, listening).await.unwrap_or_else(|_| panic!("{command} does not listen on {port}"));
        process
    }

    /// What it has used.
    pub fn usage(&self) -> Usage {
        let process = format!("/proc/{}", self.0.id());
        let threads = fs::read_dir(format!("{process}/task")).into_iter().flatten().flatten();
        let cpu = threads.filter_map(|thread| {
            fs::read_to_string(thread.path().join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok()
        });
        let status = fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        Usage { cpu: cpu.sum(), resident: resident.unwrap_or(0) * 1024 }
    }

    /// Asks it to end, and waits until it has, so that it writes what it has gathered.
    pub fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(asked.is_ok_and(|status| status.success()), "it can be asked to end");
        // It ends by itself: connections that idle, which is what the load leaves, end at once.
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Whatever the error, it is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command that runs on one processor where there are two, and `taskset` is there to say so.
pub fn pinned(program: &str, processor: usize) -> Command {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let several = processors > 1 || std::env::var_os(super::PINNED).is_some();
    if !several || !is_installed("taskset") {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", &processor.to_string(), program]);
    command
}

/// How many files this process, and those it starts, may have open.
pub fn descriptors() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let open = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    open.and_then(|number| number.parse().ok()).unwrap_or(1024)
}

/// Whether a program is in `PATH`.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain(["/usr/sbin".into()]).any(|folder| folder.join(program).is_file())
}

/// A port that nobody listens on, below those that the kernel gives to whoever connects: those may be taken by the time.
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(10_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
