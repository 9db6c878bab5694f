//! A package registry that misbehaves on command: a real HTTP server on loopback with a cargo sparse index and package files.
//! Everything it serves follows from its seed, so that a client can check every byte. It never touches the disk,
//! and it is no registry for real use: it keeps all packages in memory and accepts anyone's request.

mod catalog;
mod server;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

pub use catalog::{Catalog, PublishedRelease};

/// How the registry misbehaves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It behaves.
    #[default]
    None,
    /// The port is closed: connections are refused, open ones are cut. Always affects the whole registry.
    Refuse,
    /// The connection is reset instead of an answer.
    Reset,
    /// The request is taken and never answered.
    Stall,
    /// Half of the body is sent, then nothing.
    StallBody,
    /// 500 Internal Server Error.
    ServerError,
    /// 429 Too Many Requests with this many seconds of `Retry-After`.
    TooManyRequests {
        /// Whole seconds.
        retry_after: u32,
    },
    /// The connection ends after half of the promised body.
    Truncate,
    /// One byte of the body differs; headers and length look right.
    Corrupt,
    /// The body comes one byte at a time.
    Drip {
        /// The pause before each byte.
        pause: Duration,
    },
    /// 302 to the same path at this address (scheme, host and port).
    Redirect {
        /// For example `http://127.0.0.2:80`.
        to: String,
    },
    /// A body of this many bytes, its length not announced.
    Oversize {
        /// Bytes sent if the client does not stop reading.
        bytes: u64,
    },
}

impl Fault {
    /// The fault's name in [`Stats::by_fault`].
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Refuse => "refuse",
            Self::Reset => "reset",
            Self::Stall => "stall",
            Self::StallBody => "stall_body",
            Self::ServerError => "server_error",
            Self::TooManyRequests { .. } => "too_many_requests",
            Self::Truncate => "truncate",
            Self::Corrupt => "corrupt",
            Self::Drip { .. } => "drip",
            Self::Redirect { .. } => "redirect",
            Self::Oversize { .. } => "oversize",
        }
    }

    /// One of each kind, with moderate parameters: what a drill goes through.
    pub fn all() -> Vec<Self> {
        vec![
            Self::Refuse,
            Self::Reset,
            Self::Stall,
            Self::StallBody,
            Self::ServerError,
            Self::TooManyRequests { retry_after: 1 },
            Self::Truncate,
            Self::Corrupt,
            Self::Drip { pause: Duration::from_millis(100) },
            Self::Redirect { to: "http://127.0.0.2:9".into() },
            Self::Oversize { bytes: 1 << 30 },
        ]
    }
}

/// Which requests a fault affects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every request.
    #[default]
    All,
    /// The index only (`config.json` and metadata).
    Index,
    /// Package files only.
    Packages,
}

/// What the registry has seen since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections accepted (refused ones cannot be counted).
    pub connections: u64,
    /// Requests read.
    pub requests: u64,
    /// Of these, answered with 304 Not Modified.
    pub not_modified: u64,
    /// Requests by path; at most 4096 different paths are told apart, the rest count under `…`.
    pub by_path: BTreeMap<String, u64>,
    /// Requests by the fault that met them ([`Fault::as_str`]).
    pub by_fault: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// How often `path` was asked for.
    pub fn path(&self, path: &str) -> u64 {
        self.by_path.get(path).copied().unwrap_or(0)
    }
}

/// A running misbehaving registry. Dropping it stops the server and ends its thread.
///
/// # Examples
/// ```
/// use parsercraft_guard::testkit::registry::{Fault, FaultyRegistry};
///
/// let registry = FaultyRegistry::start(7)?;
/// let release = registry.catalog().releases()[0].clone();
/// assert!(registry.index_url().starts_with("http://127.0.0.1:"));
/// registry.set_fault(Fault::Refuse)?;
/// assert!(std::net::TcpStream::connect(registry.addr()).is_err());
/// registry.set_fault(Fault::None)?;
/// assert!(std::net::TcpStream::connect(registry.addr()).is_ok());
/// registry.shutdown();
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct FaultyRegistry {
    addr: SocketAddr,
    shared: Arc<Shared>,
    commands: tokio::sync::mpsc::UnboundedSender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// How long a command may take; only a port taken by somebody else while it was closed can take that long.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);

impl FaultyRegistry {
    /// Starts a registry on a free loopback port, on a thread of its own. The same seed gives the same packages.
    ///
    /// # Errors
    /// When no port can be bound or no thread started.
    pub fn start(seed: u64) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            base_url: format!("http://{addr}"),
            state: Mutex::new(State {
                catalog: Catalog::generate(seed),
                cache_control: "max-age=0".into(),
                ..State::default()
            }),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (commands, receiver) = tokio::sync::mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("faulty-registry".into()).spawn({
            let shared = Arc::clone(&shared);
            move || runtime.block_on(server::run(listener, addr, shared, receiver))
        })?;
        Ok(Self { addr, shared, commands, thread: Some(thread) })
    }

    /// The loopback address it listens on, the same for its whole life.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://127.0.0.1:<port>`.
    pub fn base_url(&self) -> &str {
        &self.shared.base_url
    }

    /// The address of its sparse index, with a slash at the end.
    pub fn index_url(&self) -> String {
        format!("{}/index/", self.shared.base_url)
    }

    /// What it serves.
    pub fn catalog(&self) -> Catalog {
        self.shared.lock().catalog.clone()
    }

    /// Adds a release, or replaces the one of the same version.
    pub fn publish(&self, release: PublishedRelease) {
        self.shared.lock().catalog.publish(release);
    }

    /// Sets the `Cache-Control` of answers from now on, for example `max-age=600`; `max-age=0` at first.
    pub fn set_cache_control(&self, directives: &str) {
        self.shared.lock().cache_control = directives.into();
    }

    /// Misbehaves like this for every request from now on; in force when this returns.
    ///
    /// # Errors
    /// When a refused port could not be opened again because somebody else has taken it.
    pub fn set_fault(&self, fault: Fault) -> io::Result<()> {
        self.set_fault_for(Scope::All, fault)
    }

    /// Misbehaves like this for some of the requests, and behaves for the others.
    ///
    /// # Errors
    /// As [`set_fault`](Self::set_fault).
    pub fn set_fault_for(&self, scope: Scope, fault: Fault) -> io::Result<()> {
        self.set_schedule(scope, vec![(fault, u32::MAX)])
    }

    /// Goes through the faults, each for so many affected requests, then behaves. A `Refuse` in a schedule acts as
    /// `Reset` unless it is the only entry: a closed port sees no requests to count.
    ///
    /// # Errors
    /// As [`set_fault`](Self::set_fault).
    pub fn set_schedule(&self, scope: Scope, schedule: Vec<(Fault, u32)>) -> io::Result<()> {
        let refuse = matches!(schedule.as_slice(), [(Fault::Refuse, _)]);
        {
            let mut state = self.shared.lock();
            state.scope = scope;
            state.schedule = schedule.into();
        }
        self.command(|done| Command::Listen { open: !refuse, done })?
    }

    /// A schedule drawn from `seed`: `steps` faults that a client can get over, each for 1 to 3 requests, behaving in between.
    pub fn random_schedule(seed: u64, steps: usize) -> Vec<(Fault, u32)> {
        let mut random = fastrand::Rng::with_seed(seed);
        let faults = [Fault::Reset, Fault::ServerError, Fault::Truncate, Fault::TooManyRequests { retry_after: 0 }];
        (0..steps)
            .flat_map(|_| {
                let fault = faults[random.usize(..faults.len())].clone();
                [(fault, random.u32(1..=3)), (Fault::None, random.u32(1..=5))]
            })
            .collect()
    }

    /// What it has seen so far.
    pub fn stats(&self) -> Stats {
        self.shared.lock().stats.clone()
    }

    /// Stops accepting, cuts every connection and ends the thread.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Either fails only when the thread is gone already, which is what is wanted.
            let _ = self.commands.send(Command::Stop);
            let _ = thread.join();
        }
    }

    fn command<T>(&self, command: impl FnOnce(mpsc::Sender<T>) -> Command) -> io::Result<T> {
        let (done, answer) = mpsc::channel();
        self.commands.send(command(done)).map_err(|_| io::Error::other("the registry's thread has ended"))?;
        answer.recv_timeout(COMMAND_LIMIT).map_err(|_| io::Error::other("the registry's thread does not answer"))
    }
}

impl Drop for FaultyRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}

#[derive(Debug)]
enum Command {
    /// Open or close the port; told when done.
    Listen {
        open: bool,
        done: mpsc::Sender<io::Result<()>>,
    },
    Stop,
}

#[derive(Debug)]
struct Shared {
    base_url: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    catalog: Catalog,
    scope: Scope,
    /// Faults with the number of requests each has left.
    schedule: std::collections::VecDeque<(Fault, u32)>,
    cache_control: String,
    stats: Stats,
}

/// Paths told apart in the statistics.
const PATHS: usize = 4096;

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Nothing panics while holding the lock; if it did, counters are still counters.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a request and says what is to happen to it.
    fn next_fault(&mut self, path: &str) -> Fault {
        let affected = match self.scope {
            Scope::All => true,
            Scope::Index => path.starts_with("/index/"),
            Scope::Packages => path.starts_with("/dl/"),
        };
        let fault = if affected { self.take_from_schedule() } else { Fault::None };
        self.stats.requests += 1;
        let known = self.stats.by_path.contains_key(path) || self.stats.by_path.len() < PATHS;
        *self.stats.by_path.entry(if known { path.into() } else { "…".into() }).or_default() += 1;
        *self.stats.by_fault.entry(fault.as_str()).or_default() += 1;
        fault
    }

    fn take_from_schedule(&mut self) -> Fault {
        while let Some((fault, left)) = self.schedule.front_mut() {
            match *left {
                0 => _ = self.schedule.pop_front(),
                u32::MAX => return fault.clone(),
                _ => {
                    *left -= 1;
                    return fault.clone();
                }
            }
        }
        Fault::None
    }
}
