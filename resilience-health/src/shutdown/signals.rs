//! SIGTERM and SIGINT (Ctrl-C) become requests, on a thread of their own: the first begins the shutdown, the second
//! goes to closing with little time, the third exits with 128 + the signal's number.

use std::fmt;
use std::io;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Handle;

use crate::shutdown::{Shutdown, SignalStep};

/// Signals are received while this exists; when it is dropped they are no longer handed to the shutdown.
///
/// ```no_run
/// use resilience_health::shutdown::{Shutdown, Signals};
///
/// let shutdown = Shutdown::builder().build()?;
/// let _signals = Signals::install(&shutdown)?;
/// let report = shutdown.run(); // until kill or Ctrl-C
/// eprint!("{report}");
/// std::process::exit(report.exit_code().into());
/// # #[allow(unreachable_code)]
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "signals are received while this exists"]
pub struct Signals {
    handle: Handle,
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signals")
    }
}

impl Signals {
    /// Hands SIGTERM and SIGINT to `shutdown` from now on.
    ///
    /// # Errors
    /// When the system refuses the registration or the thread.
    pub fn install(shutdown: &Shutdown) -> io::Result<Self> {
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
        let handle = signals.handle();
        let shutdown = shutdown.clone();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                if let SignalStep::ExitNow(code) = shutdown.signal(signal) {
                    std::process::exit(code);
                }
            }
        })?;
        Ok(Self { handle })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}
