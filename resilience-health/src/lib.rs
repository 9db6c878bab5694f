#![doc = include_str!("../README.md")]
//!
//! # How the crate is built
//! Health, shutdown and recovery each are a state machine that is told the time, inside a thin shell that waits, spawns
//! and calls. The machines are tested by stepping a manual clock; the shells are a few dozen lines.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod aggregate;
mod background;
mod builtin;
mod check;
mod engine;
mod error;
mod graph;
mod hysteresis;
mod monitor;
mod record;
pub mod recovery;
mod ring;
#[cfg(feature = "serde")]
mod ser;
pub mod shutdown;
mod snapshot;
mod spec;
mod status;
mod wait;

pub use background::Background;
pub use builtin::{BreakerCheck, Heartbeat, OnOpen, TcpConnect};
pub use check::{
    Check, CheckContext, CheckResult, IntoCheckResult, Local, LocalCheck, MAX_MESSAGE_BYTES, MAX_PARTS, SubCheck, local,
};
pub use error::{BuildError, LookupError, StartError};
pub use monitor::{HealthMonitor, MonitorBuilder, Tick};
pub use snapshot::{Cause, CheckView, History, Sample, Snapshot, Summary, Transition, Verdict};
pub use spec::CheckSpec;
pub use status::{Criticality, Kind, Scope, Status};
